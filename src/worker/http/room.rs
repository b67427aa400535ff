//! Room for bodies: what comes and what waits to be sent is within `client_memory`.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Service, refuse};
use crate::api::HttpResponse;
use crate::worker::admission::Wait;
use crate::worker::head::{Reason, Refusal};

/// Reads a body. It is refused where there is no room for it; without a refusal it broke off.
pub(super) async fn collect<V: Service>(
    service: &V,
    body: Incoming,
    most: usize,
) -> Result<Bytes, Option<Refusal>> {
    service.waits_for(Some(Wait::Body));
    let full = || {
        let refusal = Refusal::overloaded("the server is full", 5).because(Reason::Memory);
        Some(refusal.advice("client_memory or max_connection is reached."))
    };
    let body = tokio::select! {
        whole = fill(service, body, most) => whole.map_err(|no_room| no_room.then(full).flatten()),
        () = service.hurried() => Err(full()),
    };
    service.waits_for(None);
    body
}

/// Reads a body, and takes room for no more than came. The error is whether there was no room.
async fn fill<V: Service>(service: &V, mut body: Incoming, most: usize) -> Result<Bytes, bool> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| false)?.into_data() else { continue };
        let len = whole.len() + data.len();
        if len > whole.capacity() {
            let capacity = len.max((2 * whole.capacity()).min(most));
            if !service.hold(capacity - whole.capacity()) {
                return Err(true);
            }
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

/// An answer for which there is room until the client has taken it. One that others have as well
/// takes none.
pub(super) fn held<V: Service>(service: &V, response: HttpResponse) -> HttpResponse {
    service.let_go();
    let own = response.body().whole().filter(|body| body.is_unique());
    if own.is_none_or(|body| service.hold(body.len())) {
        return response;
    }
    let refusal = Refusal::overloaded("the server is full", 5).because(Reason::Memory);
    refuse(service, &refusal.advice("client_memory is reached."))
}
