//! Tables of heads and the exact answer to each.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What becomes of the bytes: `Err(status)`, or what they ask for and how long the head is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    NeedMore,
    Plain(usize),
    Upgrade(usize),
    Refused(Refusal),
}

/// Reads in pieces of the given sizes, the last one repeated, as a socket might give them.
fn judge_in_pieces(bytes: &[u8], mut pieces: impl Iterator<Item = usize>) -> Verdict {
    let mut reader = Reader::new();
    let mut end = 0;
    loop {
        end = (end + pieces.next().unwrap_or(bytes.len()).max(1)).min(bytes.len());
        match reader.advance(&bytes[..end], &Limits::default()) {
            Err(refusal) => return Verdict::Refused(refusal),
            Ok(Some(raw)) => return judge_head(&raw),
            Ok(None) if end == bytes.len() => return Verdict::NeedMore,
            Ok(None) => {}
        }
    }
}

fn judge_head(raw: &RawHead<'_>) -> Verdict {
    let head = match parse(raw) {
        Ok(head) => head,
        Err(refusal) => return Verdict::Refused(refusal),
    };
    match classify(&head) {
        Ok(Kind::Plain) => Verdict::Plain(raw.len()),
        Ok(Kind::Upgrade(upgrade)) => {
            response::accept(upgrade.key, &response::Acceptance::default()).unwrap();
            Verdict::Upgrade(raw.len())
        }
        Err(refusal) => Verdict::Refused(refusal),
    }
}

fn judge(bytes: &[u8]) -> Verdict {
    judge_in_pieces(bytes, std::iter::empty())
}

fn status(bytes: &[u8]) -> u16 {
    match judge(bytes) {
        Verdict::Refused(refusal) => refusal.status,
        Verdict::NeedMore => 0,
        Verdict::Plain(_) => 200,
        Verdict::Upgrade(_) => 101,
    }
}

/// A good handshake.
fn good() -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A good handshake in which one piece of text is another.
fn with(old: &str, new: &[u8]) -> Vec<u8> {
    let good = good();
    let at = good.find(old).unwrap_or_else(|| panic!("{old:?} is not in a good handshake"));
    [&good.as_bytes()[..at], new, &good.as_bytes()[at + old.len()..]].concat()
}

const HOST: &str = "Host: a:8000\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY_LINE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const LINE: &str = "GET /ws HTTP/1.1\r\n";

/// What is put in place of what in a good handshake, and the answer.
const MALFORMED: &[(&str, &[u8], u16)] = &[
    // The request line.
    ("GET ", b"get ", 405),
    ("GET ", b"POST ", 405),
    ("GET ", b"PUT ", 405),
    ("GET ", b"HEAD ", 405),
    ("GET ", b"OPTIONS ", 405),
    ("GET ", b"PRI ", 405),
    ("GET ", b"CONNECT ", 501),
    ("GET /ws", b"CONNECT a:8000", 501),
    ("GET ", b"", 400),
    ("GET ", b" GET ", 400),
    ("GET ", b"\tGET ", 400),
    ("GET ", b"GET  ", 400),
    ("GET ", b"GET\t", 400),
    ("GET ", b"G\xc3\x89T ", 400),
    ("GET ", b"G(T ", 400),
    ("GET ", b"\"GET\" ", 400),
    ("GET ", b"\r\n GET ", 400),
    ("GET ", b"\nGET ", 400),
    ("GET ", b"\0GET ", 400),
    ("/ws ", b"ws ", 400),
    ("/ws ", b"", 400),
    ("/ws ", b"* ", 400),
    ("/ws ", b"ftp://a:8000/ws ", 400),
    ("/ws ", b"http://user@a:8000/ws ", 400),
    ("/ws ", b"http:///ws ", 400),
    ("/ws ", b"/<b> ", 400),
    ("/ws ", b"/?q=<b> ", 400),
    ("/ws ", b"/?q=\"b\" ", 400),
    ("/ws ", b"/` ", 400),
    ("/ws ", b"a:8000 ", 400),
    ("/ws ", b"?x ", 400),
    ("/ws ", b"/ws#x ", 400),
    ("/ws ", b"/ws x ", 400),
    ("/ws ", b"/ws  ", 400),
    ("/ws ", b"/ws\t", 400),
    ("/ws ", b"/w\x7f ", 400),
    ("/ws ", b"/w\0 ", 400),
    (" HTTP/1.1", b"", 400),
    (" HTTP/1.1", b" ", 400),
    ("HTTP/1.1", b"HTTP/1.0", 400),
    ("HTTP/1.1", b"HTTP/0.9", 505),
    ("HTTP/1.1", b"HTTP/1.2", 505),
    ("HTTP/1.1", b"HTTP/2.0", 505),
    ("HTTP/1.1", b"HTTP/3.0", 505),
    ("HTTP/1.1", b"HTTP/2", 400),
    ("HTTP/1.1", b"HTTP/1.10", 400),
    ("HTTP/1.1", b"HTTP/1,1", 400),
    ("HTTP/1.1", b"HTTP/11", 400),
    ("HTTP/1.1", b"http/1.1", 400),
    ("HTTP/1.1", b"ICY/1.1", 400),
    ("HTTP/1.1", b"HTTP/1.1 ", 400),
    ("HTTP/1.1", b"HTTP/+1.1", 400),
    (LINE, b"", 400),
    (LINE, b"GET /ws HTTP/1.1\n", 400),
    (LINE, b"GET /ws HTTP/1.1\r", 400),
    (LINE, b"GET /ws HTTP/1.1\r\r\n", 400),
    (LINE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (LINE, b"\x16\x03\x01\x02\x00\x01\x00", 400),
    // Lines.
    (HOST, b"Host: a:8000\n", 400),
    (HOST, b"Host: a:8000\r", 400),
    (HOST, b"Host: a:8000\r\r\n", 400),
    (HOST, b"Host: a:8000\n\r\n", 400),
    (HOST, b"Host: a:8000\r\n X: folded\r\n", 400),
    (HOST, b"Host: a:8000\r\n\tX: folded\r\n", 400),
    (HOST, b"Host: a:8000\r\n \r\n", 400),
    (HOST, b" Host: a:8000\r\n", 400),
    (HOST, b"Host : a:8000\r\n", 400),
    (HOST, b"Host\t: a:8000\r\n", 400),
    (HOST, b"Host: a:8000\r\nNoColon\r\n", 400),
    (HOST, b"Host: a:8000\r\n: no name\r\n", 400),
    (HOST, b"Host: a:8000\r\nX Y: 1\r\n", 400),
    (HOST, b"Host: a:8000\r\nX\xc3\xa9: 1\r\n", 400),
    (HOST, b"Host: a:8000\r\nX\xff: 1\r\n", 400),
    (HOST, b"Host: a:8000\r\nX(: 1\r\n", 400),
    (HOST, b"Host: a:8000\r\nX\x00: 1\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: \x00\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: \x01\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: \x0b\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: \x1b[2J\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: \x7f\r\n", 400),
    (HOST, b"Host: a:8000\r\nX: a\rb\r\n", 400),
    // Host.
    (HOST, b"", 400),
    (HOST, b"Host:\r\n", 400),
    (HOST, b"Host: \r\n", 400),
    (HOST, b"Host: a:8000\r\nHost: a:8000\r\n", 400),
    (HOST, b"Host: a:8000\r\nhOST: b\r\n", 400),
    (HOST, b"Host: a, b\r\n", 400),
    (HOST, b"Host: a b\r\n", 400),
    (HOST, b"Host: a/b\r\n", 400),
    (HOST, b"Host: u@a\r\n", 400),
    (HOST, b"Host: http://a\r\n", 400),
    (HOST, b"Host: a:\r\n", 400),
    (HOST, b"Host: a:b\r\n", 400),
    (HOST, b"Host: a:99999\r\n", 400),
    (HOST, b"Host: a:80:80\r\n", 400),
    (HOST, b"Host: ::1\r\n", 400),
    (HOST, b"Host: [::1\r\n", 400),
    (HOST, b"Host: \xff\r\n", 400),
    // Upgrade and Connection.
    (UPGRADE, b"", 426),
    (UPGRADE, b"Upgrade: h2c\r\n", 426),
    (UPGRADE, b"Upgrade:\r\n", 426),
    (UPGRADE, b"Upgrade: websockets\r\n", 400),
    (UPGRADE, b"Upgrade: xwebsocket\r\n", 400),
    (UPGRADE, b"Upgrade: websocket/13\r\n", 400),
    (UPGRADE, b"Upgrade: \"websocket\"\r\n", 400),
    (UPGRADE, b"Upgrade: websocket;q=1\r\n", 400),
    (UPGRADE, b"Upgrade: h2c websocket\r\n", 400),
    (UPGRADE, b"Upgrade: websocket, (x)\r\n", 400),
    (CONNECTION, b"", 400),
    (CONNECTION, b"Connection: close\r\n", 400),
    (CONNECTION, b"Connection: keep-alive\r\n", 400),
    (CONNECTION, b"Connection: upgraded\r\n", 400),
    (CONNECTION, b"Connection: keep-alive Upgrade\r\n", 400),
    (CONNECTION, b"Connection: \"Upgrade\"\r\n", 400),
    (CONNECTION, b"Connection: Upgrade; x\r\n", 400),
    (CONNECTION, b"Connection:\r\n", 400),
    // The key.
    (KEY_LINE, b"", 400),
    (KEY_LINE, b"Sec-WebSocket-Key:\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: x\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZS1ub25jZ_==\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZS Bub25jZQ==\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: \"dGhlIHNhbXBsZSBub25jZQ\"\r\n", 400),
    (KEY_LINE, b"Sec-WebSocket-Key: \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff==\r\n", 400),
    ("\r\n\r\n", b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400),
    ("\r\n\r\n", b"\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400),
    // The version.
    (VERSION, b"", 400),
    (VERSION, b"Sec-WebSocket-Version:\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 8\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 14\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 13, 8\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 013\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: thirteen\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n", 400),
    // A body.
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: -1\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: +0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0x0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0, 0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: \r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 99999999999999999999\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\nContent-Length: 0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\nContent-Length: 5\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: identity\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: xchunked\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding:\r\n", 400),
    (VERSION, b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
    (VERSION, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    // The rest.
    (VERSION, b"Sec-WebSocket-Version: 13\r\nOrigin: http://a\r\nOrigin: http://b\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, a\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a b\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: \"a\"\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: \xc3\xa9\r\n", 400),
];

#[test]
fn a_malformed_handshake_is_refused_with_its_status() {
    assert!(MALFORMED.len() >= 100);
    for (old, new, expected) in MALFORMED {
        let bytes = with(old, new);
        assert_eq!(status(&bytes), *expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_oversized_head_is_refused_with_its_status() {
    let long = |count: usize| "a".repeat(count);
    assert_eq!(status(&with("/ws ", format!("/{} ", long(8191)).as_bytes())), 414);
    assert_eq!(status(&with("/ws ", format!("/{} ", long(8000)).as_bytes())), 101);
    assert_eq!(status(&with(VERSION, format!("X: {}\r\n", long(8190)).as_bytes())), 431);
    let two = format!("X: {}\r\nX: {}\r\n{VERSION}", long(8188), long(8188));
    assert_eq!(status(&with(VERSION, two.as_bytes())), 431);
    let fields = |count: usize| [&b"X: 1\r\n".repeat(count), VERSION.as_bytes()].concat();
    assert_eq!(status(&with(VERSION, &fields(123))), 101);
    for count in [124, 125, 200, 5000] {
        assert_eq!(status(&with(VERSION, &fields(count))), 431, "{count} fields");
    }
}

/// What may stand in place of what in a good handshake.
const GOOD: &[(&str, &[u8])] = &[
    ("/ws", b"/"),
    ("/ws", b"/ws?room=1&x=%20"),
    ("/ws", b"//ws"),
    ("/ws", b"/a/../b"),
    ("/ws", b"/?q={a|b}^~`'\\"),
    ("/ws", b"/w\xc3\xa9?\xff"),
    ("/ws", b"http://a:8000/ws"),
    ("/ws", b"HTTPS://other?room=1"),
    ("/ws", b"ws://[::1]/ws"),
    ("GET ", b"\r\nGET "),
    ("GET ", b"\r\n\r\nGET "),
    ("/ws", b"/?http://other/"),
    (HOST, b"host:a\r\n"),
    (HOST, b"HOST: \t a:8000 \t\r\n"),
    (HOST, b"Host: 127.0.0.1:8000\r\n"),
    (HOST, b"Host: [::1]:8000\r\n"),
    (HOST, b"Host: example.com.\r\n"),
    (HOST, b"Host: my_host\r\n"),
    (HOST, b"Host: a\r\nX:\r\n"),
    (HOST, b"Host: a\r\nX: \xc3\xa9\xff\r\n"),
    (HOST, b"Host: a\r\nX: a\tb\r\n"),
    (HOST, b"Host: a\r\nCookie: a=1\r\nCookie: b=2\r\n"),
    (HOST, b"Host: a\r\nX!#$%&'*+-.^_`|~9: 1\r\n"),
    (UPGRADE, b"Upgrade: WebSocket\r\n"),
    (UPGRADE, b"upgrade:WEBSOCKET\r\n"),
    (UPGRADE, b"Upgrade: h2c, websocket\r\n"),
    (UPGRADE, b"Upgrade: h2c/1, websocket, \r\n"),
    (UPGRADE, b"Upgrade: h2c\r\nUpgrade: websocket\r\n"),
    (CONNECTION, b"Connection: upgrade\r\n"),
    (CONNECTION, b"Connection: keep-alive, Upgrade\r\n"),
    (CONNECTION, b"Connection: ,Upgrade ,,\tkeep-alive\r\n"),
    (CONNECTION, b"Connection: keep-alive\r\nConnection: UPGRADE\r\n"),
    (KEY_LINE, b"Sec-WebSocket-Key:   AAAAAAAAAAAAAAAAAAAAAA==  \r\n"),
    (KEY_LINE, b"sec-websocket-key: +/+/+/+/+/+/+/+/+/+/+w==\r\n"),
    (KEY_LINE, b"Sec-WebSocket-Key: zzzzzzzzzzzzzzzzzzzzzz==\r\n"),
    (VERSION, b"Sec-WebSocket-Version:13\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, A,, b\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nOrigin: http://a:8000\r\n"),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTE: trailers\r\n"),
    ("\r\n\r\n", b"\r\n\r\n\x81\x80\0\0\0\0"),
    ("\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\n\n"),
];

#[test]
fn a_good_handshake_is_accepted() {
    assert!(GOOD.len() >= 30);
    assert_eq!(judge(good().as_bytes()), Verdict::Upgrade(good().len()));
    for (old, new) in GOOD {
        let bytes = with(old, new);
        assert_eq!(status(&bytes), 101, "{}", bytes.escape_ascii());
    }
}

#[test]
fn plain_http_is_left_to_hyper() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ] {
        assert_eq!(status(head.as_bytes()), 200, "{head}");
    }
}

#[test]
fn a_malformed_plain_request_is_refused_too() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("garbage\r\n\r\n", 400),
    ] {
        assert_eq!(status(head.as_bytes()), expected, "{head}");
    }
}

#[test]
fn a_proxy_that_drops_the_upgrade_is_explained() {
    let Verdict::Refused(refusal) = judge(&with(UPGRADE, b"")) else { panic!("not refused") };
    assert!(refusal.body().contains("proxy_set_header Upgrade $http_upgrade"));
}

#[test]
fn every_refusal_closes_and_none_repeats_what_the_client_sent() {
    for (old, new, _) in MALFORMED {
        let Verdict::Refused(refusal) = judge(&with(old, new)) else { panic!("not refused") };
        let answer = String::from_utf8(refusal.to_bytes(SystemTime::UNIX_EPOCH)).unwrap();
        assert!(answer.contains("\r\nConnection: close"), "{answer}");
        assert!(answer.is_ascii() && !answer.contains('\0'), "{answer}");
    }
}

#[test]
fn what_a_head_says_is_read_as_it_is() {
    let bytes = with(
        VERSION,
        b"Sec-WebSocket-Version: 13\r\nsec-websocket-protocol: a ,b\r\n\
        X-A:  1 \r\nSec-WebSocket-Protocol: c\r\nx-a: 2\r\n",
    );
    let mut reader = Reader::new();
    let raw = reader.advance(&bytes, &Limits::default()).unwrap().unwrap();
    let head = parse(&raw).unwrap();
    let line = (head.method, &*head.target, head.minor, head.body);
    assert_eq!(line, ("GET", "/ws", 1, Body::Empty));
    assert_eq!(head.all("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    let Ok(Kind::Upgrade(upgrade)) = classify(&head) else { panic!("not an upgrade") };
    assert_eq!((upgrade.key, upgrade.protocols), (KEY, vec!["a", "b", "c"]));
}

/// Bytes that look like a head often enough to get far.
fn headlike() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<Vec<u8>> = [
        LINE,
        HOST,
        UPGRADE,
        CONNECTION,
        KEY_LINE,
        VERSION,
        "\r\n",
        "\r",
        "\n",
        " ",
        ":",
        "\0",
        "GET ",
        "HTTP/1.1",
        "/",
        "X: y\r\n",
        "Content-Length: 3\r\n",
        "chunked",
        "websocket",
        "é",
    ]
    .iter()
    .map(|piece| piece.as_bytes().to_vec())
    .chain(MALFORMED.iter().map(|(_, new, _)| new.to_vec()))
    .collect();
    let piece = prop_oneof![
        8 => prop::sample::select(pieces),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let soup = prop::collection::vec(piece.clone(), 0..20).prop_map(|pieces| pieces.concat());
    // A good handshake with one cut replaced.
    let mutated = (0..good().len(), 0..40usize, piece).prop_map(|(at, length, piece)| {
        let good = good().into_bytes();
        let end = (at + length).min(good.len());
        [&good[..at], &piece, &good[end..]].concat()
    });
    prop_oneof![soup, mutated, prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_have_a_verdict_and_it_does_not_depend_on_the_cuts(
        bytes in headlike(),
        pieces in prop::collection::vec(1usize..30, 0..40),
    ) {
        let whole = judge(&bytes);
        prop_assert_eq!(&judge_in_pieces(&bytes, std::iter::repeat(1)), &whole);
        prop_assert_eq!(&judge_in_pieces(&bytes, pieces.into_iter()), &whole);
    }

    #[test]
    fn what_is_accepted_is_written_anew_so_that_hyper_accepts_it(bytes in headlike()) {
        if let Verdict::Plain(_) | Verdict::Upgrade(_) = judge(&bytes) {
            let mut reader = Reader::new();
            let raw = reader.advance(&bytes, &Limits::default()).unwrap().unwrap();
            let anew = parse(&raw).unwrap().to_bytes();
            let mut fields = [httparse::EMPTY_HEADER; 129];
            let mut request = httparse::Request::new(&mut fields);
            let parsed = request.parse(&anew);
            prop_assert_eq!(parsed, Ok(httparse::Status::Complete(anew.len())));
            prop_assert!(http::Uri::try_from(request.path.unwrap()).is_ok());
            prop_assert!(http::Method::from_bytes(request.method.unwrap().as_bytes()).is_ok());
        }
    }
}
