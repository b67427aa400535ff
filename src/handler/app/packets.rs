//! Requests as packets.

use bytes::Bytes;

use super::codec::{ANSWER, Kind, Packet};
use super::request_body::RequestBody;
use crate::api::{HttpRequest, Request};

/// Bit of READY's `fd`: the process wants PRESENCE.
pub const WANTS_PRESENCE: u64 = 1;
/// Bit of READY's `fd`: the process wants to hear of plain HTTP connections.
pub const WANTS_PLAIN: u64 = 2;
/// Flag of REQUEST: the first of its connection.
pub const FIRST: u8 = 2;
/// Flag of CLOSE: of a connection that was plain HTTP.
pub const PLAIN: u8 = 4;

/// The payload of OPEN and ATTACH; with `only`, no other header fields.
pub fn request_body(request: &Request, only: Option<&[String]>) -> Bytes {
    let wanted = |name: &str| only.is_none_or(|names| names.iter().any(|kept| kept == name));
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let fields = request
        .headers
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (text(name), Bytes::copy_from_slice(value)));
    RequestBody {
        method: Bytes::from_static(b"GET"),
        target: text(&request.target),
        subprotocol: text(request.subprotocol.as_deref().unwrap_or_default()),
        peer: text(&request.peer.map(|peer| peer.to_string()).unwrap_or_default()),
        client: text(&request.client.map(|client| client.to_string()).unwrap_or_default()),
        local: text(&request.local.map(|local| local.to_string()).unwrap_or_default()),
        version: Bytes::from_static(b"HTTP/1.1"),
        fields: fields.collect(),
        rest: Bytes::new(),
    }
    .encode()
}

/// The payload of REQUEST.
pub fn http_body(http: &HttpRequest) -> Bytes {
    let request = &http.request;
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (text(name.as_str()), Bytes::copy_from_slice(value.as_bytes()))
    };
    RequestBody {
        method: text(request.method().as_str()),
        target: text(target),
        subprotocol: Bytes::new(),
        peer: text(&http.peer.map(|peer| peer.to_string()).unwrap_or_default()),
        client: text(&http.client.map(|client| client.to_string()).unwrap_or_default()),
        local: text(&http.local.map(|local| local.to_string()).unwrap_or_default()),
        version: text(&format!("{:?}", request.version())),
        fields: request.headers().iter().map(field).collect(),
        rest: match &http.held {
            Some(held) => Bytes::copy_from_slice(&held.length().to_le_bytes()),
            None => request.body().clone(),
        },
    }
    .encode()
}

/// An OPEN that waits for ACCEPT or REFUSE.
pub fn handshake_packet(request: &Request) -> Packet {
    Packet {
        flags: ANSWER,
        fd: request.fd.as_u64(),
        body: request_body(request, None),
        ..Packet::new(Kind::Open)
    }
}
