//! Each request that was begun is answered, and the answer is read; who asked nothing is told
//! nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::harness::*;

const GET: &str = "GET /body HTTP/1.1\r\nHost: server\r\n\r\n";

async fn says(raw: &mut Raw) -> String {
    String::from_utf8_lossy(&raw.rest().await).into_owned()
}

/// A connection that was served a request, and is kept.
async fn kept(server: &Server) -> Raw {
    let mut raw = Raw::connect(&server.address).await;
    raw.send(GET).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    raw.bytes("0 bytes".len()).await;
    raw
}

/// Until what was sent before is with the one worker.
async fn settled(server: &Server) {
    server.client().await.who().await;
}

#[tokio::test]
async fn a_stop_says_nothing_to_who_has_asked_nothing() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let mut silent = Raw::connect(&server.address).await;
    let mut idle = kept(&server).await;
    let mut blank = Raw::connect(&server.address).await;
    blank.send("\r\n").await;
    let mut begun = Raw::connect(&server.address).await;
    begun.send("GET / HTTP/1.1\r\nHo").await;
    let mut begun_again = kept(&server).await;
    begun_again.send("GET / HTTP/1.1\r\nHo").await;
    settled(&server).await;
    server.wsd(["stop"]).await.ok();
    for raw in [&mut silent, &mut idle, &mut blank] {
        assert_eq!(says(raw).await, "");
    }
    for raw in [&mut begun, &mut begun_again] {
        let answer = says(raw).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn who_sends_nothing_in_time_is_told_nothing() {
    let server = Setup::testbed().set("handshake_timeout", 1).start().await;
    let mut silent = Raw::connect(&server.address).await;
    let mut begun = Raw::connect(&server.address).await;
    begun.send("G").await;
    assert_eq!(says(&mut silent).await, "");
    assert!(says(&mut begun).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_client_that_still_sends_reads_why_it_is_refused() {
    let server = Setup::testbed().start().await;
    let length = 30_000_000;
    for (head, status) in [
        (format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"), 413),
        (
            "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1c9c380\r\n"
                .to_owned(),
            413,
        ),
        (
            "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
                .to_owned(),
            400,
        ),
        (format!("POST /<b> HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"), 400),
    ] {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(&head).await;
        // All of it goes out before anything is read.
        let body = vec![b'x'; length];
        soon("the body", raw.stream.write_all(&body)).await.expect("who lingers reads on");
        raw.finish().await;
        let answer = says(&mut raw).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
}

#[tokio::test]
async fn a_body_may_take_long_as_long_as_it_comes() {
    let server = Setup::testbed().set("body_timeout", 1).set("body_rate_min", 1).start().await;
    let head = "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";
    let mut steady = Raw::connect(&server.address).await;
    steady.send(head).await;
    for _ in 0..10 {
        // In all twice the time that may pass in silence.
        tokio::time::sleep(Duration::from_millis(200)).await;
        steady.send("x").await;
    }
    assert!(says(&mut steady).await.starts_with("HTTP/1.1 200 "));
    let mut silent = Raw::connect(&server.address).await;
    silent.send(head).await;
    assert!(says(&mut silent).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_has_a_least_rate() {
    let server = Setup::testbed().set("body_timeout", 1).set("body_rate_min", r#""1GiB""#);
    let server = server.start().await;
    let mut raw = Raw::connect(&server.address).await;
    raw.send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    let trickle = async {
        loop {
            raw.stream.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if raw.stream.try_read(&mut [0; 12]).is_ok_and(|read| read > 0) {
                return std::io::Result::Ok(());
            }
        }
    };
    soon("an answer", trickle).await.expect("the answer comes before the end");
}

#[tokio::test]
async fn the_host_of_an_absolute_target_stands_for_host() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::connect(&server.address).await;
    let target = "http://other.example:81/host?a=b";
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")).await;
    let answer = says(&mut raw).await;
    assert!(answer.ends_with("\r\n\r\nother.example:81"), "{answer}");
    for (origin, status) in [("http://other.example:81", 101), ("http://server", 403)] {
        let mut raw = Raw::connect(&server.address).await;
        let handshake = handshake("server", &format!("Origin: {origin}\r\n"));
        raw.send(handshake.replace("GET /", &format!("GET {target}"))).await;
        let answer = raw.head().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn raw_bytes_of_a_target_reach_handlers_percent_encoded() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::connect(&server.address).await;
    let request = b"GET /target/\xc3\xa9?q=\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    raw.send(request).await;
    let answer = says(&mut raw).await;
    assert!(answer.ends_with("\r\n\r\n/target/%C3%A9?q=%FF"), "{answer}");
}

#[tokio::test]
async fn the_health_of_a_server_stands_where_it_is_asked_for() {
    for (path, here, elsewhere) in
        [(None, "/healthz", "/up"), (Some("/up"), "/up", "/healthz"), (Some(""), "", "/healthz")]
    {
        let mut setup = Setup::testbed();
        if let Some(path) = path {
            setup = setup.set("health_path", format!("{path:?}"));
        }
        let server = setup.start().await;
        for (path, status) in [(here, "200"), (elsewhere, "404")] {
            if path.is_empty() {
                continue;
            }
            let mut raw = Raw::connect(&server.address).await;
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
            let answer = says(&mut raw).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_window_is_named_only_to_who_asked_for_it() {
    let server = Setup::testbed().set("websocket_compression", true);
    let server = server.set("compression_window_bits", 12).start().await;
    for (offer, agreed) in [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=10", "server_max_window_bits=10"),
    ] {
        let headers = [("sec-websocket-extensions", offer)];
        let client = Client::connect_with(&server.address, "/", &headers).await.expect("open");
        let said = client.response.headers()["sec-websocket-extensions"].to_str().expect("text");
        assert!(said.contains(agreed), "{said}");
        assert_eq!(
            said.contains("server_max_window_bits"),
            offer.contains("server_max"),
            "{said}"
        );
    }
}
