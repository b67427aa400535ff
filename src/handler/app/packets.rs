//! Requests as packets, and the ends of clients.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{ANSWER, Kind, Packet, put_string, take_string};
use super::request_body::RequestBody;
use crate::api::rooms::Belongings;
use crate::api::{HttpRequest, Request};
use crate::close::{Close, Initiator};

/// Bit of READY's `fd`: the process wants PRESENCE.
pub const WANTS_PRESENCE: u64 = 1;
/// Bit of READY's `fd`: the process wants to hear of plain HTTP connections.
pub const WANTS_PLAIN: u64 = 2;
/// Bit of READY's `fd`: the process wants to hear at the end of a client what the client had.
pub const WANTS_HAD: u64 = 4;
/// Bit of READY's `fd`: the process answers requests together where it is told that it may.
pub const GATHERS: u64 = 8;
/// Flag of REQUEST: the first of its connection.
pub const FIRST: u8 = 2;
/// Flag of CLOSE: of a connection that was plain HTTP.
pub const PLAIN: u8 = 4;
/// Flag of CLOSE: with what the client had.
const HAD: u8 = 8;
/// Rooms that are named of what a client had, as INFO names them.
const ROOMS_MAX: usize = 128;

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

/// The payload of REQUEST, as [`RequestBody`] has it: written at once, since every page has one.
pub fn http_body(http: &HttpRequest) -> Bytes {
    let request = &http.request;
    let mut out = BytesMut::with_capacity(HEAD_BYTES + request.body().len());
    put_string(&mut out, request.method().as_str().as_bytes());
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    put_string(&mut out, target.as_bytes());
    put_string(&mut out, b"");
    put_socket_address(&mut out, http.peer);
    put_address(&mut out, http.client);
    put_socket_address(&mut out, http.local);
    put_string(&mut out, version(request.version()));
    out.put_u32_le(u32::try_from(request.headers().len()).unwrap_or(u32::MAX));
    for (name, value) in request.headers() {
        put_string(&mut out, name.as_str().as_bytes());
        put_string(&mut out, value.as_bytes());
    }
    match &http.held {
        Some(held) => out.put_u64_le(held.length()),
        None => out.put_slice(request.body()),
    }
    out.freeze()
}

/// What most requests take without their bodies.
const HEAD_BYTES: usize = 1 << 10;

fn version(version: http::Version) -> &'static [u8] {
    match version {
        http::Version::HTTP_10 => b"HTTP/1.0",
        _ => b"HTTP/1.1",
    }
}

/// Appends an address and its port as a string, an empty one for none.
fn put_socket_address(out: &mut BytesMut, address: Option<SocketAddr>) {
    put_counted(out, |out| match address {
        Some(SocketAddr::V4(address)) => {
            put_octets(out, address.ip().octets());
            out.put_u8(b':');
            put_number(out, address.port());
        }
        // Memory grows as it is needed.
        Some(address @ SocketAddr::V6(_)) => write!(out, "{address}").unwrap_or_default(),
        None => {}
    });
}

/// Appends an address as a string, an empty one for none.
fn put_address(out: &mut BytesMut, address: Option<IpAddr>) {
    put_counted(out, |out| match address {
        Some(IpAddr::V4(address)) => put_octets(out, address.octets()),
        Some(address @ IpAddr::V6(_)) => write!(out, "{address}").unwrap_or_default(),
        None => {}
    });
}

/// An IPv4 address. The standard library's formatter takes as long for the three addresses of a
/// request as all the rest of its packet does.
fn put_octets(out: &mut BytesMut, octets: [u8; 4]) {
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            out.put_u8(b'.');
        }
        put_number(out, octet.into());
    }
}

fn put_number(out: &mut BytesMut, number: u16) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a string that `put` writes.
fn put_counted(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32_le(0);
    put(out);
    let length = u32::try_from(out.len() - at - size_of::<u32>()).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + size_of::<u32>()) {
        place.copy_from_slice(&length.to_le_bytes());
    }
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

/// CLOSE of a client, with what the client had, where that is told.
pub fn close_packet(fd: u64, close: &Close, had: Option<&Belongings>) -> Packet {
    let by = match close.by() {
        Initiator::Nobody => 0,
        Initiator::Client => 1,
        Initiator::Server => 2,
    };
    let had = had.filter(|had| **had != Belongings::default());
    let mut body = BytesMut::new();
    put_string(&mut body, close.cause.as_str().as_bytes());
    if let Some(Belongings { uid, rooms, session }) = had {
        let rooms = &rooms[..rooms.len().min(ROOMS_MAX)];
        let had = serde_json::json!({ "uid": uid, "rooms": rooms, "session": session });
        put_string(&mut body, had.to_string().as_bytes());
    }
    body.put_slice(close.reason.as_bytes());
    let flags = by | if had.is_some() { HAD } else { 0 };
    Packet { flags, code: close.code, fd, body: body.freeze(), ..Packet::new(Kind::Close) }
}

/// Takes what the client had out of a CLOSE: the process that is to hear of the end has not asked
/// for that.
pub fn without_had(packet: &mut Packet) {
    if packet.kind != Kind::Close || packet.flags & HAD == 0 {
        return;
    }
    let mut told = packet.body.clone();
    let (Some(cause), Some(_)) = (take_string(&mut told), take_string(&mut told)) else { return };
    let mut body = BytesMut::new();
    put_string(&mut body, &cause);
    body.put_slice(&told);
    (packet.flags, packet.body) = (packet.flags & !HAD, body.freeze());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::Cause;

    #[test]
    fn the_end_of_a_client_tells_what_the_client_had_if_that_was_something() {
        let close = Close { code: 1000, reason: "bye".to_owned(), cause: Cause::ClientClosed };
        for had in [None, Some(&Belongings::default())] {
            let mut packet = close_packet(7, &close, had);
            assert_eq!((packet.flags, packet.code, packet.fd), (1, 1000, 7));
            assert_eq!(take_string(&mut packet.body).unwrap(), Cause::ClientClosed.as_str());
            assert_eq!(packet.body, "bye");
        }
        let had = Belongings {
            rooms: (0..200).map(|room| room.to_string()).collect(),
            uid: Some("ann".to_owned()),
            session: Some("{}".to_owned()),
        };
        let mut packet = close_packet(7, &close, Some(&had));
        assert_eq!(packet.flags, 1 | HAD);
        let mut without = packet.clone();
        without_had(&mut without);
        let nothing = close_packet(7, &close, None);
        assert_eq!((without.flags, without.body), (nothing.flags, nothing.body));
        take_string(&mut packet.body).unwrap();
        let told = take_string(&mut packet.body).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!((&told["uid"], &told["session"]), (&"ann".into(), &"{}".into()));
        assert_eq!(told["rooms"].as_array().map(Vec::len), Some(ROOMS_MAX));
        assert_eq!(packet.body, "bye");
    }

    #[test]
    fn a_request_is_written_as_the_protocol_has_it() {
        let request = http::Request::builder()
            .method("POST")
            .uri("/a?b=c")
            .version(http::Version::HTTP_10)
            .header("host", "a.example")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(Bytes::from_static(b"body"))
            .unwrap();
        let http = HttpRequest {
            peer: Some("[2001:db8::1]:80".parse().unwrap()),
            client: Some("192.0.2.1".parse().unwrap()),
            local: Some("203.0.113.255:65535".parse().unwrap()),
            ..HttpRequest::new(request)
        };
        let field = |name: &'static str, value: &'static str| (name.into(), value.into());
        let ought = RequestBody {
            method: "POST".into(),
            target: "/a?b=c".into(),
            peer: "[2001:db8::1]:80".into(),
            client: "192.0.2.1".into(),
            local: "203.0.113.255:65535".into(),
            version: "HTTP/1.0".into(),
            fields: vec![field("host", "a.example"), field("x-twice", "1"), field("x-twice", "2")],
            rest: "body".into(),
            ..RequestBody::default()
        };
        assert_eq!(RequestBody::decode(http_body(&http), Kind::Request).unwrap(), ought);
    }
}
