//! The head of a request: however it is cut the verdict is the same; what we accept, httparse and
//! tungstenite read alike; and every refusal is an answer that closes.
//!
//! Input: the size of the cuts, flags, the bytes of a client.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use httparse::Status;
use libfuzzer_sys::fuzz_target;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::http;
use wsd::config::Origins;
use wsd::fd::{Fd, Slot};
use wsd::fuzzing::{
    Came, Head, KeptRequest, Kind, Limits, Reader, Refusal, check_origin, classify,
    client_address, parse, request, response,
};

/// Where half of the inputs meet them.
const NARROW: Limits = Limits { head_bytes_max: 512, line_bytes_max: 128, fields_max: 12 };
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));

fuzz_target!(|input: &[u8]| {
    let [cut, flags, bytes @ ..] = input else { return };
    let limits = if flags & 1 == 0 { Limits::default() } else { NARROW };
    let end = end_of_head(bytes, usize::MAX, &limits);
    assert_eq!(end, end_of_head(bytes, usize::from(*cut).max(1), &limits));
    if let Some(kept) = KeptRequest::from_bytes(bytes) {
        keeps(&kept);
    }
    match end {
        Err(refusal) => is_an_answer(&refusal),
        Ok(None) => assert!(bytes.len() <= limits.head_bytes_max),
        Ok(Some(len)) => {
            assert!(len <= limits.head_bytes_max);
            whole(&bytes[..len], &limits);
        }
    }
});

fn end_of_head(bytes: &[u8], cut: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
    let (mut reader, mut end) = (Reader::new(), 0usize);
    loop {
        end = end.saturating_add(cut).min(bytes.len());
        match reader.advance(&bytes[..end], limits)? {
            None if end < bytes.len() => {}
            raw => return Ok(raw.map(|raw| raw.len())),
        }
    }
}

/// A head that has its end.
fn whole(bytes: &[u8], limits: &Limits) {
    let raw = Reader::new().advance(bytes, limits).unwrap().unwrap();
    let head = match parse(&raw) {
        Ok(head) => head,
        Err(refusal) => return is_an_answer(&refusal),
    };
    httparse_agrees(bytes, &head);
    nothing_decides_twice(&head);
    keeps(&KeptRequest::new(&the_request(&head), &names(&head)));
    let forwarded = head.all("x-forwarded-for");
    let found = client_address(Some(PEER), &[], forwarded, head.all("x-real-ip"));
    assert_eq!(found, Some(PEER), "a stranger is believed");
    same_host(&head);
    let theirs = tungstenite(&head);
    match classify(&head) {
        Err(refusal) => is_an_answer(&refusal),
        Ok(Kind::Plain) => assert!(theirs.is_none(), "a tunnel to them and plain HTTP to us"),
        Ok(Kind::Upgrade(upgrade)) => {
            assert_eq!((head.method, head.minor), ("GET", 1));
            let ours = response::accept(upgrade.key, &response::Acceptance::default()).unwrap();
            let ours = field_of_answer(&ours, 101, "sec-websocket-accept");
            match theirs {
                Some(theirs) => assert_eq!(ours, theirs),
                None => assert!(!is_plainly_written(&head), "we accept what they do not"),
            }
        }
    }
}

fn httparse_agrees(bytes: &[u8], head: &Head<'_>) {
    // A byte above 127 in a target is encoded here, as by nginx, and refused there.
    let line = bytes.trim_ascii_start().split(|&byte| byte == b'\n').next();
    if !line.is_some_and(<[u8]>::is_ascii) {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(bytes), Ok(Status::Complete(bytes.len())));
    assert_eq!(request.method, Some(head.method));
    assert_eq!(request.version, Some(head.minor));
    let path = request.path.unwrap();
    // Of the absolute form the path is the target here, and the rest is Host.
    if path.is_ascii() && path.starts_with(['/', '*']) {
        assert_eq!(path, head.target);
        let theirs = request.headers.iter().map(|field| (field.name, field.value));
        assert!(theirs.eq(head.fields()));
    }
}

fn nothing_decides_twice(head: &Head<'_>) {
    for name in ["host", "content-length", "transfer-encoding", "origin", "sec-websocket-key"] {
        assert!(head.all(name).count() <= 1, "{name}");
    }
    assert!(head.minor == 0 || head.get("host").is_some());
}

/// A page that is let in as of the same host has that host in its Origin.
fn same_host(head: &Head<'_>) {
    let (origin, host) = (head.get("origin"), head.host);
    let Some(text) = origin else { return };
    let came = Came { host, ..Came::default() };
    if let Err(refusal) = check_origin(&Origins::default(), origin, came) {
        return is_an_answer(&refusal);
    }
    let origin = String::from_utf8(text.to_ascii_lowercase()).unwrap();
    let host = String::from_utf8(head.get("host").unwrap().to_ascii_lowercase()).unwrap();
    let (scheme, rest) = origin.split_once("://").unwrap();
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => panic!("{origin} is no page"),
    };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_owned();
    assert_eq!(bare(rest), bare(&host));
}

/// The key that tungstenite would answer, if it would.
fn tungstenite(head: &Head<'_>) -> Option<String> {
    let version = if head.minor == 0 { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    let mut request = http::Request::builder().method(head.method).version(version);
    for (name, value) in head.fields() {
        request = request.header(name, value);
    }
    let response = create_response(&request.body(()).ok()?).ok()?;
    Some(response.headers()["sec-websocket-accept"].to_str().unwrap().to_owned())
}

/// tungstenite knows no list in Upgrade, no tab and no second line in Connection, and no key with
/// bits beyond its 16 bytes.
fn is_plainly_written(head: &Head<'_>) -> bool {
    let one = |name| head.all(name).count() == 1;
    let connection = head.get("connection").unwrap_or_default();
    let key = head.get("sec-websocket-key").unwrap_or_default();
    one("upgrade")
        && one("connection")
        && head.get("upgrade").unwrap().eq_ignore_ascii_case(b"websocket")
        && connection.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        && key.get(21).is_some_and(|last| b"AQgw".contains(last))
}

/// What an open connection keeps comes back from its bytes.
fn keeps(kept: &KeptRequest) {
    let fd = Fd::new(0, Slot(1), 1).unwrap();
    let request = kept.request(fd);
    let names: Vec<_> = request.headers.iter().map(|(name, _)| name.to_owned()).collect();
    let again = KeptRequest::new(&request, &names);
    assert_eq!(again.request(fd), request);
    assert_eq!(KeptRequest::from_bytes(again.as_bytes()), Some(again));
}

fn the_request(head: &Head<'_>) -> wsd::api::Request {
    let peer = SocketAddr::new(PEER, 1);
    let request = request(head, Fd::new(0, Slot(1), 1).unwrap(), None, Some(peer), Some(PEER));
    assert_eq!(request.target, head.target);
    request
}

fn names(head: &Head<'_>) -> Vec<String> {
    head.fields().map(|(name, _)| name.to_owned()).collect()
}

/// A refusal is an answer with its whole body and nothing behind it, and closes.
fn is_an_answer(refusal: &Refusal) {
    let bytes = refusal.to_bytes(SystemTime::UNIX_EPOCH);
    let connection = field_of_answer(&bytes, refusal.status, "connection");
    assert!(connection.starts_with("close"), "{connection}");
    let length = field_of_answer(&bytes, refusal.status, "content-length");
    assert_eq!(length, refusal.body().len().to_string());
    assert!(bytes.ends_with(refusal.body().as_bytes()));
    assert!(refusal.body().chars().all(|char| char == '\n' || !char.is_control()));
}

fn field_of_answer(bytes: &[u8], status: u16, name: &str) -> String {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut fields);
    assert!(answer.parse(bytes).unwrap().is_complete());
    assert_eq!(answer.code, Some(status));
    let mut named = answer.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let value = std::str::from_utf8(named.next().unwrap().value).unwrap().to_owned();
    assert!(named.next().is_none(), "{name} twice");
    value
}
