//! Plain HTTP on the WebSocket port, through hyper.
//!
//! Connections are kept alive, as nginx's `upstream` wants. Each head passes the same checks as
//! the first, for hyper reads through a [`Gate`] that lets one checked request through at a
//! time. A later request that is an upgrade comes back out, for the worker to answer.
//!
//! - [`gate`]: what hyper reads; [`chunks`]: the frame of a chunked body on its way there.
//! - [`room`]: how much of bodies is in memory; [`spool`]: long ones in a file.
//! - [`answers`]: those of the server itself; [`body`]: a handler's, as hyper asks for it.
//! - [`stall`]: a client that takes nothing is not waited for.

mod answers;
mod body;
mod chunks;
mod gate;
mod room;
mod spool;
mod stall;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use self::answers::to_response;
use self::answers::{SPEAKS_WEBSOCKET, checked, health_response, options, text, upgrade_required};
use self::body::Outgoing;
use self::gate::{Exit, Gate, Outcome};
use self::room::{Collected, collect, held, hold_head, rest};
pub use self::spool::{Disk, Spool};
use self::stall::Stall;
use crate::api::{HttpRequest, HttpResponse};
use crate::config::Net;
use crate::worker::clients::admission::Wait;
use crate::worker::clients::ending::{LONGEST, SILENCE};
use crate::worker::door::refuse::{is_stranger, may_be_strangers};
use crate::worker::head::{self, Refusal, client_address};

/// How much a plain HTTP connection may send, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of each head.
    pub head: head::Limits,
    /// Of each body in bytes; more is a 413.
    pub body_bytes_max: usize,
    /// From the first byte of a head to its last; more is a 408.
    pub head_timeout: Duration,
    /// Between two bytes of a body; more is a 408.
    pub body_timeout: Duration,
    /// Bytes a second of a body, after `body_timeout` for its beginning; fewer are a 408.
    pub body_rate_min: u64,
    /// Between requests; then the connection is closed without a word. Longer than the
    /// `keepalive_timeout` of nginx's upstream (60 s), lest it reuse what we are closing.
    pub idle_timeout: Duration,
    /// For the client to take some of an answer that waits; then the connection is cut.
    pub send_timeout: Duration,
}

/// What answers plain requests: the handler, as the worker wraps it.
pub trait Service {
    /// The handler's `on_request`; `None` means that it is not the handler's.
    fn answer(&self, request: HttpRequest) -> impl Future<Output = Option<HttpResponse>>;

    /// Whether a plain request for `path` deserves 426 instead of 404.
    fn is_websocket_path(&self, path: &str) -> bool;

    /// Whether the server can serve, or why not; `None` where `path` is not the one for this.
    fn health(&self, path: &str) -> Option<Result<(), String>>;

    /// A request is refused before the handler saw it, or its answer is.
    fn refused(&self, refusal: &Refusal);

    /// A refusal as this service tells one.
    fn dress(&self, refusal: Refusal) -> Refusal {
        refusal
    }

    /// Whether this request of this client may be answered.
    fn check(&self, request: &http::request::Parts, client: Option<IpAddr>)
    -> Result<(), Refusal>;

    /// Whether the handler is to have the body of this request.
    fn wants_body(&self, request: &http::request::Parts) -> bool;

    /// Where a body goes that is too long for memory; `None`: the handler wants it in memory.
    fn spool(&self) -> Option<Spool> {
        None
    }

    /// The connection waits for its client from now on, or, with `None`, no more.
    fn waits_for(&self, wait: Option<Wait>);

    /// When a body is to be waited for no more, since somebody else needs the place.
    fn hurried(&self) -> impl Future<Output = ()>;

    /// Whether the answer to this request, which has just come, is to close the connection.
    fn is_last(&self) -> bool;

    /// The last answer is told, and nothing more is answered, however long the end takes.
    fn ends(&self) {}

    /// Has a body of which nothing comes make room for another; false where there is none.
    fn makes_room(&self) -> bool {
        false
    }

    /// Takes room for bytes of a body; false where there is none.
    fn hold(&self, bytes: usize) -> bool;

    /// Gives all of that room back.
    fn let_go(&self);

    /// Whose X-Forwarded-For is believed.
    fn trusted_proxies(&self) -> &[Net];
}

/// How a plain HTTP connection ended.
#[derive(Debug)]
pub enum End<S> {
    /// By either side, with nothing to say about it.
    Closed,
    /// A later head was refused; the answer is sent and the connection closed.
    Refused(Refusal),
    /// A later head is an upgrade: a fresh start, with the bytes since that head began.
    Upgrade(S, Vec<u8>),
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The process leaves, or somebody closes the connection: the running request is done first.
    Leaves,
    /// Somebody else needs its place.
    Yields,
}

/// Serves plain HTTP until the connection ends or `stop` says why it is to end.
///
/// `received` is what was read of the stream so far, from the first byte of a head; `peer` is
/// `None` on a `unix:` listener.
pub async fn serve<S, V>(
    stream: S,
    received: Vec<u8>,
    peer: Option<SocketAddr>,
    service: &V,
    limits: &Limits,
    stop: impl Future<Output = Stop>,
) -> End<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service,
{
    let (exit, rests) = (Exit::default(), || rest(service));
    let stream = Stall::new(stream, limits.send_timeout);
    let io = TokioIo::new(Gate::new(stream, received, limits, exit.clone(), &rests));
    let (most, closes) = (limits.body_bytes_max, Cell::new(false));
    let respond = |request| async {
        let response = Box::pin(respond(service, peer, &exit, most, request)).await;
        closes.set(response.headers().get(header::CONNECTION).is_some_and(|it| it == "close"));
        Ok::<_, Infallible>(response)
    };
    let responder = service_fn(respond);
    // A refused later head ends what hyper reads while it may still be writing the answer
    // before, hence half_close. The gate keeps the deadlines that hyper's timer would.
    let mut http = http1::Builder::new();
    http.half_close(true).header_read_timeout(None).max_headers(limits.head.fields_max);
    http.max_buf_size(limits.head.head_bytes_max.max(8192));
    let mut connection = http.serve_connection(io, responder);

    let (mut stop, mut why) = (pin!(stop), None);
    let ended = poll_fn(|cx| {
        if why.is_none()
            && let Poll::Ready(stop) = stop.as_mut().poll(cx)
        {
            why = Some(stop);
            Pin::new(&mut connection).graceful_shutdown();
        }
        // Not without its shutdown, or it would end before the last answer is written.
        let polled = Pin::new(&mut connection).poll(cx).map(|result| result.is_ok());
        if why == Some(Stop::Yields) { Poll::Ready(polled == Poll::Ready(true)) } else { polled }
    })
    .await;
    let (stream, received, begun) = connection.into_parts().io.into_inner().into_parts();
    let mut stream = stream.into_inner();
    let mut way = exit.take();
    if let Some(why) = why
        && begun
        && way.is_none()
    {
        way = Some(Outcome::Refused(why.refusal().answering(&received)));
    }
    if why == Some(Stop::Yields) {
        return yields(stream, way.filter(|_| ended), peer, service);
    }
    // What comes behind an answer that closes the connection, the rest of its request for one, is
    // not answered.
    match way.filter(|_| !closes.get()) {
        Some(Outcome::Upgrade) if ended => return End::Upgrade(stream, received),
        Some(Outcome::Refused(refusal)) if ended => {
            let refusal = service.dress(refusal.hide_from_strangers(is_stranger(peer)));
            // The client may be gone; there is nobody else to tell.
            let _ = stream.write_all(&refusal.to_bytes(SystemTime::now())).await;
            part(service, stream).await;
            return End::Refused(refusal);
        }
        _ => {}
    }
    part(service, stream).await;
    End::Closed
}

impl Stop {
    /// The answer to a request that has begun.
    fn refusal(self) -> Refusal {
        match self {
            Stop::Leaves => Refusal::stopping(),
            Stop::Yields => Refusal::needed(),
        }
    }
}

/// Ends at once: who needs the place waits for nobody, also not for the answer to be read.
fn yields<S: AsyncWrite + Unpin, V: Service>(
    mut stream: S,
    way: Option<Outcome>,
    peer: Option<SocketAddr>,
    service: &V,
) -> End<S> {
    let refusal = match way {
        Some(Outcome::Refused(refusal)) => refusal,
        // It has just come, and there is no place for what would become of it.
        Some(Outcome::Upgrade) => Stop::Yields.refusal(),
        Some(Outcome::Idle) | None => return End::Closed,
    };
    let refusal = service.dress(refusal.hide_from_strangers(is_stranger(peer)));
    let bytes = refusal.to_bytes(SystemTime::now());
    let mut now = TaskContext::from_waker(Waker::noop());
    // What the socket does not take now, nobody reads.
    let _ = Pin::new(&mut stream).poll_write(&mut now, &bytes);
    End::Refused(refusal)
}

/// Closes behind the last answer. Nobody finds the connection meanwhile.
async fn part<S: AsyncRead + AsyncWrite + Unpin, V: Service>(service: &V, stream: S) {
    service.ends();
    close(stream).await;
}

/// Closes so that the last answer arrives (RFC 9112 section 9.6): a socket closed with unread
/// bytes in it sends a reset, which may overtake the answer. What still comes is thrown away
/// unparsed, until the client has said nothing for a while.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 8192];
    let listen =
        async { while let Ok(Ok(1..)) = timeout(SILENCE, stream.read(&mut rest)).await {} };
    // However it ends, the stream is dropped.
    let _ = timeout(LONGEST, listen).await;
}

async fn respond<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    exit: &Exit,
    most: usize,
    request: http::Request<Incoming>,
) -> http::Response<Outgoing> {
    service.waits_for(None);
    // What the answer before held is written, or is as good as written.
    service.let_go();
    let mut last = service.is_last();
    let (mut parts, body) = request.into_parts();
    let client = client(service, peer, &parts.headers);
    let hidden = may_be_strangers(peer, &parts.headers);
    let is_checked = health_of(service, &parts).is_some();
    if !is_checked && let Err(refusal) = service.check(&parts, client) {
        return refuse(service, refusal, hidden).map(Outgoing::new);
    }
    if !is_checked && let Err(refusal) = hold_head(service, &parts).await {
        return refuse(service, refusal, hidden).map(Outgoing::new);
    }
    drop_underscores(&mut parts.headers);
    let body = if body.is_end_stream() {
        Ok(Collected::Whole(Bytes::new()))
    } else if service.wants_body(&parts) {
        collect(service, body, most, &parts).await
    } else {
        last = true;
        Ok(Collected::Whole(Bytes::new()))
    };
    let mut response = match body {
        Ok(body) => held(service, answer(service, peer, client, parts, body).await, hidden),
        Err(Some(refusal)) => refuse(service, refusal, hidden),
        Err(None) => broken_off(service, exit, hidden),
    };
    if last {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    // A body in parts is at work, not waiting.
    if response.body().whole().is_some() {
        service.waits_for(Some(Wait::Request));
    }
    response.map(Outgoing::new)
}

/// An application may get fields as variables, in which `-` and `_` are one: who may not set
/// X-Real-IP could set X_Real_IP.
fn drop_underscores(headers: &mut HeaderMap) {
    let with = headers.keys().filter(|name| name.as_str().contains('_'));
    for name in with.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Refuses a request, after which the connection ends. With `hidden` its client reads no name of
/// a key.
fn refuse<V: Service>(service: &V, refusal: Refusal, hidden: bool) -> HttpResponse {
    service.refused(&refusal);
    to_response(&service.dress(refusal.hide_from_strangers(hidden)))
}

/// The answer to a body that has broken off: the gate says why, unless the client is gone.
fn broken_off<V: Service>(service: &V, exit: &Exit, hidden: bool) -> HttpResponse {
    let refusal = match exit.take() {
        Some(Outcome::Refused(refusal)) => refusal,
        _ => Refusal::cut(),
    };
    refuse(service, refusal, hidden)
}

/// The server's own health, if that is what the request asks for.
fn health_of<V: Service>(
    service: &V,
    request: &http::request::Parts,
) -> Option<Result<(), String>> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    if reads { service.health(request.uri.path()) } else { None }
}

/// The built-ins around the handler.
async fn answer<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    parts: http::request::Parts,
    body: Collected,
) -> HttpResponse {
    if let Some(health) = health_of(service, &parts) {
        return health_response(health);
    }
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let reads = matches!(method, Method::GET | Method::HEAD);
    let (body, held) = match body {
        Collected::Whole(body) => (body, None),
        Collected::Held(held) => (Bytes::new(), Some(held)),
    };
    let request = http::Request::from_parts(parts, body);
    let request = HttpRequest { request, held, peer, client, fd: None, local: None };
    let is_head = method == Method::HEAD;
    match service.answer(request).await {
        Some(response) => checked(response, is_head),
        None if method == Method::OPTIONS => options(),
        // Load balancers ask for this by default whether a server is there.
        None if reads && path == "/" => text(StatusCode::OK, SPEAKS_WEBSOCKET),
        None if service.is_websocket_path(&path) => upgrade_required(),
        None => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// Each request of a proxy's connection may be another client's.
fn client<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    client_address(
        peer.map(|peer| peer.ip()),
        service.trusted_proxies(),
        headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes),
        headers.get_all("x-real-ip").iter().map(HeaderValue::as_bytes),
    )
}
