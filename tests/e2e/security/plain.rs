//! Plain HTTP is within the limits: a client gets no more of the server by not upgrading.

use crate::harness::*;

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: server\r\n\r\n";

/// A plain connection that was answered once and stays open.
async fn kept_alive(server: &Server) -> Raw {
    let mut raw = Raw::connect(&server.address).await;
    ask(&mut raw).await;
    raw
}

/// Asks for `/healthz` and takes the whole answer, which a full server gives as well; the answer
/// here is its head.
async fn ask(raw: &mut Raw) -> String {
    raw.send(GET).await;
    let head = raw.head().await;
    let is_full = head.starts_with("HTTP/1.1 503 ");
    assert!(is_full || head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = raw.bytes(length.expect("a length").trim().parse().expect("a number")).await;
    let expected = if is_full { "over capacity" } else { "ok\n" };
    assert!(String::from_utf8_lossy(&body).contains(expected), "{head}");
    head
}

async fn answer(mut raw: Raw, request: impl AsRef<[u8]>) -> String {
    raw.send(request).await;
    String::from_utf8_lossy(&raw.rest().await).into_owned()
}

async fn counts(server: &Server, counter: &str, count: u64) {
    until(&format!("{counter} to be {count}"), async || {
        (server.status().await["counters"][counter] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn plain_connections_count_and_the_one_that_waits_longest_gives_way() {
    let server = Setup::stock().set("worker_num", 1).set("max_connection", 4).start().await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(kept_alive(&server).await);
    }
    counts(&server, "plain", 4).await;
    let _client = server.client().await;
    assert_eq!(idle[0].rest().await, b"", "the oldest gave way without a word");
    ask(&mut idle[1]).await;
    counts(&server, "plain", 3).await;
}

#[tokio::test]
async fn websockets_alone_do_not_give_way_to_plain_requests() {
    let server = Setup::stock().set("worker_num", 1).set("max_connection", 2).start().await;
    let _clients = [server.client().await, server.client().await];
    server.has_connections(2).await;
    let refused = answer(Raw::connect(&server.address).await, GET).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    counts(&server, "refused_full", 1).await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_of_every_kind() {
    let setup = Setup::stock().set("worker_num", 1).set("connections_per_ip", 3);
    let server = setup.start().await;
    let _clients = [server.client().await, server.client().await];
    let plain = kept_alive(&server).await;
    let refused = answer(Raw::connect(&server.address).await, GET).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("connections_per_ip"), "{refused}");
    let mut elsewhere = Raw::from("127.0.0.2", &server.address).await;
    elsewhere.upgrade("server", "").await;
    drop(plain);
    until("room for a client", async || {
        Client::connect_with(&server.address, "/", &[]).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_read() {
    let echo = Setup::stock().set("handler", r#""echo""#);
    for (setup, status) in [(Setup::stock(), 405), (echo, 426)] {
        let server = setup.start().await;
        let post = "POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 1000000\r\n\r\nhalf";
        let said = answer(Raw::connect(&server.address).await, post).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.to_ascii_lowercase().contains("connection: close"), "{said}");
    }
}

#[tokio::test]
async fn the_bodies_of_all_clients_together_are_limited() {
    let setup = Setup::testbed().set("worker_num", 1).set("client_memory", r#""1MiB""#);
    let server = setup.start().await;
    let post = |bytes: usize| {
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ";
        [format!("{head}{bytes}\r\n\r\n").into_bytes(), vec![b'x'; bytes]].concat()
    };
    // All of it but the last byte.
    let mut begun = Vec::new();
    until("a refusal", async || {
        let mut raw = Raw::connect(&server.address).await;
        let request = post(300_000);
        raw.send(&request[..request.len() - 1]).await;
        begun.push(raw);
        (server.status().await["counters"]["refused"] != 0).then_some(())
    })
    .await;
    drop(begun);
    let said = until("room for a body", async || {
        let said = answer(Raw::connect(&server.address).await, post(300_000)).await;
        said.starts_with("HTTP/1.1 200 ").then_some(said)
    })
    .await;
    assert!(said.ends_with("300000 bytes"), "{said}");
}

#[tokio::test]
async fn only_so_many_connections_are_kept_alive_and_for_so_many_requests() {
    let setup = Setup::stock().set("worker_num", 1).set("http_keepalive_max", 2);
    let server = setup.set("http_keepalive_requests", 3).start().await;
    let mut first = kept_alive(&server).await;
    let mut second = kept_alive(&server).await;
    let _third = kept_alive(&server).await;
    assert_eq!(first.rest().await, b"", "the oldest is closed without a word");
    assert!(!ask(&mut second).await.to_ascii_lowercase().contains("connection: close"));
    assert!(ask(&mut second).await.to_ascii_lowercase().contains("connection: close"));
    assert_eq!(second.rest().await, b"");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_kept_for_long() {
    let setup = Setup::stock().set("worker_num", 1).set("http_send_timeout", r#""300ms""#);
    let server = setup.start().await;
    let mut raw = Raw::from("127.0.0.2", &server.address).await;
    let page = "GET / HTTP/1.1\r\nHost: server\r\n\r\n";
    // As many as the kernel holds, and more.
    let sent = raw.send(page.repeat(1000));
    let cut = counts(&server, "plain", 1);
    tokio::join!(sent, cut);
    counts(&server, "plain", 0).await;
}
