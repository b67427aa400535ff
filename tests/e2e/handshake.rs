//! Heads as no library would send them: each gets its clear answer and the end of its
//! connection, and the server is unharmed.

use crate::harness::*;

const LINE: &str = "GET / HTTP/1.1\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const HOST: &str = "Host: server\r\n";

/// What is put in place of what in a good handshake, and the status of the answer.
#[rustfmt::skip]
const MALFORMED: &[(&str, &[u8], u16)] = &[
    ("GET ", b"POST ", 405),
    ("GET ", b"PUT ", 405),
    ("GET ", b"DELETE ", 405),
    ("GET ", b"OPTIONS ", 405),
    ("GET ", b"get ", 405),
    ("GET /", b"CONNECT server:80", 501),
    ("GET ", b"G@T ", 400),
    ("GET ", b"G\0T ", 400),
    ("GET ", b"", 400),
    ("GET ", b" GET ", 400),
    ("GET /", b"GET  /", 400),
    ("GET /", b"GET\t/", 400),
    ("GET /", b"GET ", 400),
    ("GET /", b"GET *", 400),
    ("GET /", b"GET /#part", 400),
    ("GET /", b"GET /\x7f", 400),
    ("GET /", b"GET /<b>", 400),
    ("GET /", b"GET /?q=\"", 400),
    ("GET /", b"GET /a b", 400),
    ("GET /", b"GET ftp://server/", 400),
    ("GET /", b"GET http:///", 400),
    ("HTTP/1.1", b"HTTP/1.0", 400),
    ("HTTP/1.1", b"HTTP/0.9", 505),
    ("HTTP/1.1", b"HTTP/1.2", 505),
    ("HTTP/1.1", b"HTTP/2.0", 505),
    ("HTTP/1.1", b"HTTP/3", 400),
    ("HTTP/1.1", b"HTTP/1.1 ", 400),
    ("HTTP/1.1", b"http/1.1", 400),
    ("HTTP/1.1", b"HTTPS/1.1", 400),
    (" HTTP/1.1", b"", 400),
    (LINE, b"GET / HTTP/1.1\n", 400),
    (LINE, b"GET / HTTP/1.1\r\r\n", 400),
    (HOST, b"", 400),
    (HOST, b"Host:\r\n", 400),
    (HOST, b"Host: server\n", 400),
    (HOST, b"Host: server\r\nHost: server\r\n", 400),
    (HOST, b"Host: server\r\nHost: other\r\n", 400),
    (HOST, b"Host: user@server\r\n", 400),
    (HOST, b"Host: ser ver\r\n", 400),
    (HOST, b"Host: server:80:81\r\n", 400),
    (HOST, b"Host: server:port\r\n", 400),
    (HOST, b"Host: server/path\r\n", 400),
    (HOST, b"Host : server\r\n", 400),
    (HOST, b" Host: server\r\n", 400),
    (HOST, b"Host: server\r\n folded: line\r\n", 400),
    (HOST, b"Host: server\r\n\tfolded\r\n", 400),
    (HOST, b"Host: server\r\nno colon\r\n", 400),
    (HOST, b"Host: server\r\n: no name\r\n", 400),
    (HOST, b"Host: server\r\nb@d: name\r\n", 400),
    (HOST, b"Host: server\r\nbad: \0\r\n", 400),
    (HOST, b"Host: server\r\nbad: \x01\r\n", 400),
    (HOST, b"Host: server\r\nbad: a\rb\r\n", 400),
    (UPGRADE, b"", 426),
    (UPGRADE, b"Upgrade: websocke\r\n", 426),
    (UPGRADE, b"Upgrade: h2c\r\n", 426),
    (UPGRADE, b"Upgrade:\r\n", 426),
    (UPGRADE, b"Upgrade: websocket2\r\n", 400),
    (UPGRADE, b"Upgrade: web socket\r\n", 426),
    (UPGRADE, b"Upgrade: \"websocket\"\r\n", 400),
    (CONNECTION, b"", 400),
    (CONNECTION, b"Connection: close\r\n", 400),
    (CONNECTION, b"Connection: keep-alive\r\n", 400),
    (CONNECTION, b"Connection: Upgraded\r\n", 400),
    (CONNECTION, b"Connection: Upgrade;q=1\r\n", 400),
    (KEY, b"", 400),
    (KEY, b"Sec-WebSocket-Key:\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQo=\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25-ZQ==\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBs ZSBub25jZQ==\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x\r\n", 400),
    (KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
    (VERSION, b"", 400),
    (VERSION, b"Sec-WebSocket-Version:\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 8\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 14\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 013\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 13.0\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 13, 8\r\n", 426),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 1\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: -1\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0x0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\nContent-Length: 0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: gzip\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n\
                Content-Length: 0\r\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\n", 400),
    (VERSION, b"Sec-WebSocket-Version: 13\r\nOrigin: http://server\r\n\
                Origin: http://server\r\n", 400),
];

fn with(old: &str, new: &[u8]) -> Vec<u8> {
    let good = handshake("server", "");
    let at = good.find(old).unwrap_or_else(|| panic!("{old:?} is not in a good handshake"));
    [&good.as_bytes()[..at], new, &good.as_bytes()[at + old.len()..]].concat()
}

fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn every_malformed_handshake_gets_its_status_and_is_closed() {
    assert!(MALFORMED.len() >= 80);
    let server = Setup::testbed().start().await;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    let mut faults = Vec::new();
    for (old, new, wanted) in MALFORMED {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(with(old, new)).await;
        let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
        let new = new.escape_ascii();
        if status(&answer) != *wanted {
            faults.push(format!("{old:?} as {new}: {wanted} was to come, not {answer:?}"));
        } else if !answer.to_ascii_lowercase().contains("connection: close") {
            faults.push(format!("{old:?} as {new}: no `Connection: close` in {answer:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(bystander.who().await, who);
    assert!(server.events().iter().filter(|line| line.starts_with("open")).count() == 1);
}

#[tokio::test]
async fn a_second_request_behind_a_refused_upgrade_is_not_served() {
    let server = Setup::testbed().start().await;
    let healthz = b"GET /healthz HTTP/1.1\r\nHost: server\r\n\r\n";
    for refused in [with(KEY, b""), with(VERSION, b""), with("GET ", b"POST ")] {
        let mut raw = Raw::connect(&server.address).await;
        raw.send([&refused[..], healthz].concat()).await;
        let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    let refused = handshake("server", "").replace("GET / ", "GET /refused ");
    let mut raw = Raw::connect(&server.address).await;
    raw.send([refused.as_bytes(), healthz].concat()).await;
    let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert_eq!(status(&answer), 418);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn an_unspoken_version_is_told_the_spoken_one() {
    let server = Setup::stock().start().await;
    let mut raw = Raw::connect(&server.address).await;
    raw.send(with(VERSION, b"Sec-WebSocket-Version: 8\r\n")).await;
    let answer = String::from_utf8_lossy(&raw.rest().await).to_ascii_lowercase();
    assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte_with_frames_behind_it() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::connect(&server.address).await;
    raw.stream.set_nodelay(true).unwrap();
    let text = b"\x81\x86\0\0\0\0echo x";
    for byte in [handshake("server", "").as_bytes(), text].concat() {
        raw.send([byte]).await;
    }
    let head = raw.head().await;
    assert_eq!(status(&head), 101, "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert_eq!(raw.bytes(8).await, b"\x81\x06echo x");
}

#[tokio::test]
async fn the_spellings_that_are_allowed_are_allowed() {
    let server = Setup::stock().start().await;
    for (old, new) in [
        (UPGRADE, "upgrade: WebSocket\r\n"),
        (UPGRADE, "UPGRADE:websocket\r\n"),
        (UPGRADE, "Upgrade: \t websocket \t\r\n"),
        (UPGRADE, "Upgrade: h2c, websocket\r\n"),
        (CONNECTION, "Connection: keep-alive, Upgrade\r\n"),
        (CONNECTION, "Connection: keep-alive\r\nConnection: UPGRADE\r\n"),
        (HOST, "Host: [::1]:8000\r\n"),
        (LINE, "GET /?a=b&c=%20 HTTP/1.1\r\n"),
        (VERSION, "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n"),
    ] {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(with(old, new.as_bytes())).await;
        let head = raw.head().await;
        assert_eq!(status(&head), 101, "{new:?}: {head}");
    }
}
