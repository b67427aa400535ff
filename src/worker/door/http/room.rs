//! Room for bodies: what comes and what waits to be sent is within `client_memory`, and what is
//! too long for that within `upload_tmp_max`.

use bytes::Bytes;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::spool::{NoRoom, Spool};
use super::{Service, refuse};
use crate::api::{HeldBody, HttpResponse};
use crate::worker::clients::admission::Wait;
use crate::worker::head::{Reason, Refusal};

/// A body that was read.
pub(super) enum Collected {
    /// It is in memory.
    Whole(Bytes),
    /// It is in a file.
    Held(HeldBody),
}

/// Why a body is not read to its end.
enum Stop {
    BrokeOff,
    NoRoom,
}

impl From<NoRoom> for Stop {
    fn from(_: NoRoom) -> Stop {
        Stop::NoRoom
    }
}

/// Reads a body. It is refused where there is no room for it; without a refusal it broke off.
pub(super) async fn collect<V: Service>(
    service: &V,
    body: Incoming,
    most: usize,
    head: &Parts,
) -> Result<Collected, Option<Refusal>> {
    service.waits_for(Some(Wait::Body));
    let body = tokio::select! {
        read = fill(service, body, most, head) => read.map_err(|stop| match stop {
            Stop::NoRoom => Some(full()),
            Stop::BrokeOff => None,
        }),
        () = service.hurried() => Err(Some(full())),
    };
    service.waits_for(None);
    if body.is_err() {
        service.let_go();
    }
    body
}

/// What a body that is read takes besides its bytes: the buffers of its connection.
const CONNECTION_BYTES: usize = 48 << 10;

/// A body of which less came than this has made no progress: one byte now and then would keep the
/// room of others for ever.
const PROGRESS_BYTES: usize = 4 << 10;

/// Takes room. Where there is none, bodies of which nothing comes make some.
async fn take<V: Service>(service: &V, bytes: usize) -> Result<(), Stop> {
    while !service.hold(bytes) {
        if !service.makes_room() {
            return Err(Stop::NoRoom);
        }
        // Who makes room gives it back on its own turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Reads a body, and takes room for no more than came.
async fn fill<V: Service>(
    service: &V,
    mut body: Incoming,
    most: usize,
    head: &Parts,
) -> Result<Collected, Stop> {
    let mut spool = service.spool();
    let most = spool.as_ref().map_or(most, |spool| most.min(spool.memory_max()));
    let (mut whole, mut came) = (Vec::new(), 0);
    take(service, CONNECTION_BYTES).await?;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Stop::BrokeOff)?.into_data() else { continue };
        came += data.len();
        if came >= PROGRESS_BYTES {
            // From here on it waits anew, behind bodies of which less comes.
            service.waits_for(Some(Wait::Body));
            came = 0;
        }
        if let Some(spool) = spool.as_mut().filter(|it| whole.len() + data.len() > it.memory_max())
        {
            whole = spool.write(whole).await?;
        }
        let len = whole.len() + data.len();
        if len > whole.capacity() {
            let capacity = len.max((2 * whole.capacity()).min(most));
            take(service, capacity - whole.capacity()).await?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    let Some(mut spool) = spool.filter(Spool::has_begun) else {
        return Ok(Collected::Whole(whole.into()));
    };
    spool.write(whole).await?;
    service.let_go();
    // The body is in a file now, and its head is still here.
    hold_head(service, head).await.map_err(|_| Stop::NoRoom)?;
    spool.finish().map(Collected::Held).ok_or(Stop::NoRoom)
}

fn full() -> Refusal {
    let refusal = Refusal::overloaded("the server is full", 5).because(Reason::Memory);
    refusal.advice("client_memory, upload_tmp_max or max_connection is reached.")
}

/// A head or an answer of so few bytes takes no room: whoever asks for the server's health is told.
const SMALL_BYTES: usize = 4 << 10;

/// Takes room for a request's head until the answer is there: a handler may think for long. The
/// head is there twice, as the handler's request and as the event that an application is sent.
pub(super) async fn hold_head<V: Service>(service: &V, head: &Parts) -> Result<(), Refusal> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let bytes = 2 * (target + fields.sum::<usize>());
    if bytes <= SMALL_BYTES {
        return Ok(());
    }
    take(service, bytes).await.map_err(|_| full())
}

/// Of a body that comes in parts, such as a file, so much is here while its client does not read:
/// the part that hyper has, the one behind it, and the one that was read ahead.
const PARTS_BYTES: u64 = 3 * (64 << 10);

/// An answer for which there is room until the client has taken it. One that others have as well
/// takes none, and neither does one that comes in parts and says no length.
pub(super) fn held<V: Service>(service: &V, response: HttpResponse, hidden: bool) -> HttpResponse {
    service.let_go();
    let body = response.body();
    let bytes = match body.whole() {
        Some(own) if own.is_unique() => own.len(),
        Some(_) => 0,
        None => body.left().map_or(0, |left| left.min(PARTS_BYTES) as usize),
    };
    if bytes <= SMALL_BYTES || service.hold(bytes) {
        return response;
    }
    let refusal = Refusal::overloaded("the server is full", 5).because(Reason::Memory);
    refuse(service, refusal.advice("client_memory is reached."), hidden)
}

/// All of an answer is written, and nothing of the next request is here. What was held is given
/// back now, since the next request may be long in coming.
pub(super) fn rest<V: Service>(service: &V) {
    service.let_go();
    service.waits_for(Some(Wait::Request));
}
