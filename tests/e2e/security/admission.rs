//! Who is let in: shares of an address, rates, networks, and who gives way when there is no room.

use crate::harness::*;

const PROXIES: &str = r#"["127.0.0.1"]"#;

/// A handshake as a proxy passes it on.
fn of_client(client: &str) -> String {
    handshake("server", &format!("X-Forwarded-For: {client}\r\n"))
}

/// The status of the answer, with the connection if it stays open.
async fn status(server: &Server, request: impl AsRef<[u8]>) -> (u16, Raw) {
    status_of(Raw::connect(&server.address).await, request).await
}

async fn status_of(mut raw: Raw, request: impl AsRef<[u8]>) -> (u16, Raw) {
    raw.send(request).await;
    let head = raw.head().await;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), raw)
}

async fn counter(server: &Server, counter: &str) -> u64 {
    server.status().await["counters"][counter].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn behind_a_proxy_the_share_is_the_clients_that_it_names() {
    let setup = Setup::stock().set("worker_num", 1).set("trusted_proxies", PROXIES);
    let server = setup.set("connections_per_ip", 2).start().await;
    let mut open = Vec::new();
    // Two addresses of one /64 are one client.
    for (client, wanted) in [
        ("192.0.2.1", 101),
        ("192.0.2.1", 101),
        ("192.0.2.1", 503),
        ("192.0.2.2", 101),
        ("2001:db8::1", 101),
        ("2001:db8::2", 101),
        ("2001:db8::3", 503),
        ("2001:db8:0:1::3", 101),
    ] {
        let (status, raw) = status(&server, of_client(client)).await;
        assert_eq!(status, wanted, "{client}");
        if status == 101 {
            open.push(raw);
        }
    }
    assert_eq!(counter(&server, "refused_address").await, 2);
    drop(open);
    server.has_connections(0).await;
    assert_eq!(status(&server, of_client("192.0.2.1")).await.0, 101);
}

#[tokio::test]
async fn a_share_outlives_a_reload() {
    let setup = Setup::testbed().set("worker_num", 1).set("connections_per_ip", 2);
    let server = setup.start().await;
    let clients = [server.client().await, server.client().await];
    server.wsd(["reload"]).await.ok();
    let get = "GET /client HTTP/1.1\r\nHost: server\r\n\r\n";
    assert_eq!(status(&server, get).await.0, 503);
    drop(clients);
    server.has_connections(0).await;
    until("a place", async || (status(&server, get).await.0 == 200).then_some(())).await;
}

#[tokio::test]
async fn an_address_comes_only_so_often_and_another_one_still_comes() {
    let setup = Setup::stock().set("worker_num", 1).set("handshakes_per_second", 1);
    let server = setup.set("handshakes_burst", 3).start().await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(status(&server, handshake("server", "")).await.0);
    }
    assert_eq!(answers[..3], [101, 101, 101]);
    assert!(answers[3..].contains(&429), "{answers:?}");
    let elsewhere = Raw::from("127.0.0.2", &server.address).await;
    assert_eq!(status_of(elsewhere, handshake("server", "")).await.0, 101);
    assert!(counter(&server, "refused_rate").await > 0);
}

#[tokio::test]
async fn who_is_denied_gets_nothing_by_any_way() {
    let setup = Setup::stock().set("denied", r#"["127.0.0.2", "192.0.2.0/24"]"#);
    let server = setup.set("trusted_proxies", PROXIES).start().await;
    let denied = Raw::from("127.0.0.2", &server.address).await;
    assert_eq!(status_of(denied, handshake("server", "")).await.0, 403);
    assert_eq!(status(&server, of_client("192.0.2.7")).await.0, 403);
    let get = "GET / HTTP/1.1\r\nHost: server\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    assert_eq!(status(&server, get).await.0, 403);
    assert_eq!(status(&server, of_client("198.51.100.7")).await.0, 101);
    assert_eq!(counter(&server, "refused_denied").await, 3);
}

#[tokio::test]
async fn who_is_denied_gets_nothing_of_the_api_either() {
    let setup = Setup::stock().set("denied", r#"["127.0.0.2"]"#);
    let token = format!("x read sha256:{}", "0".repeat(64));
    let setup = setup.set("api.listen", r#"["127.0.0.1:0"]"#);
    let server = setup.set("api.tokens", format!("[{token:?}]")).start().await;
    let address = server.status().await["api"][0].as_str().unwrap().to_owned();
    for path in ["/live", "/metrics"] {
        let get = format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
        let denied = Raw::from("127.0.0.2", &address).await;
        assert_eq!(status_of(denied, &get).await.0, 403, "{path}");
    }
    let live = Raw::from("127.0.0.3", &address).await;
    let get = "GET /live HTTP/1.1\r\nHost: server\r\n\r\n";
    assert_eq!(status_of(live, get).await.0, 200);
}

#[tokio::test]
async fn when_full_the_oldest_unfinished_handshake_ends_and_the_newest_comes_in() {
    for key in ["handshakes_max", "max_connection"] {
        let setup = Setup::stock().set("worker_num", 1).set("handshakes_per_ip", 4);
        let server = setup.set(key, 4).start().await;
        let mut half = Vec::new();
        for count in 1..=4 {
            let mut raw = Raw::connect(&server.address).await;
            raw.send("GET / HTTP/1.1\r\n").await;
            half.push(raw);
            until("a handshake", async || {
                (counter(&server, "handshakes").await == count).then_some(())
            })
            .await;
        }
        let elsewhere = Raw::from("127.0.0.2", &server.address).await;
        assert_eq!(status_of(elsewhere, handshake("server", "")).await.0, 101, "{key}");
        assert!(half[0].head().await.starts_with("HTTP/1.1 503 "), "{key}");
        half[3].send("Host: server\r\n\r\n").await;
        assert!(half[3].head().await.starts_with("HTTP/1.1 200 "), "{key}: the newest lives");
        assert_eq!(counter(&server, "refused_handshakes").await, 1);
    }
}

#[tokio::test]
async fn who_has_asked_nothing_is_told_nothing_and_who_asks_is_told_why() {
    let server = Setup::stock().set("worker_num", 1).set("max_connection", 1).start().await;
    let _client = server.client().await;
    let mut silent = Raw::connect(&server.address).await;
    let mut late = Raw::connect(&server.address).await;
    until("both refusals", async || (counter(&server, "refused_full").await == 2).then_some(()))
        .await;
    late.send("GET / HTTP/1.1\r\n").await;
    assert!(late.head().await.starts_with("HTTP/1.1 503 "));
    assert_eq!(silent.rest().await, b"");
    let setup = Setup::stock().set("denied", r#"["127.0.0.2/32"]"#).set("handshakes_max", 1);
    let server = setup.set("handshakes_per_ip", 1).set("worker_num", 1).start().await;
    let mut denied = Raw::from("127.0.0.2", &server.address).await;
    assert_eq!(denied.rest().await, b"");
    // The oldest unfinished handshake, which gives way.
    let mut oldest = Raw::connect(&server.address).await;
    until("a handshake", async || (counter(&server, "handshakes").await == 1).then_some(())).await;
    let elsewhere = Raw::from("127.0.0.3", &server.address).await;
    assert_eq!(status_of(elsewhere, handshake("server", "")).await.0, 101);
    assert_eq!(oldest.rest().await, b"");
    assert_eq!(counter(&server, "refused_handshakes").await, 1);
}

#[tokio::test]
async fn a_full_house_leaves_descriptors_for_a_reload() {
    let setup = Setup::testbed().set("worker_num", 1).descriptors(128);
    let server = setup.set("handshake_timeout", r#""60s""#).start().await;
    let worker = server.serving(0, None).await.pid;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(handshake("server", "")).await;
        crowd.push(raw);
    }
    until("refusals", async || (counter(&server, "refused").await > 100).then_some(())).await;
    assert!(open_descriptors(worker).len() < 110, "{}", open_descriptors(worker).len());
    server.wsd(["reload"]).await.ok();
    let next = server.serving(0, Some(worker)).await;
    assert_ne!(next.pid, worker);
}

#[tokio::test]
async fn a_stranger_is_not_told_which_key_to_change_and_the_log_is() {
    let setup = Setup::stock().set("worker_num", 1).set("connections_per_ip", 1);
    let server = setup.set("trusted_proxies", r#"["127.0.0.2"]"#).start().await;
    let _client = server.client().await;
    let mut raw = Raw::connect(&server.address).await;
    raw.send("GET / HTTP/1.1\r\n\r\n").await;
    let near = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(near.contains("connections_per_ip"), "{near}");
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::from("127.0.0.2", &server.address).await;
        raw.send(of_client("192.0.2.1")).await;
        told.push(raw);
    }
    told[0].head().await;
    let far = String::from_utf8_lossy(&told[1].rest().await).into_owned();
    assert!(far.starts_with("HTTP/1.1 503 ") && !far.contains("_per_ip"), "{far}");
    until("the log to tell", async || {
        (server.log().matches("connections_per_ip is reached").count() == 2).then_some(())
    })
    .await;
}
