//! How fast a client may send, and what all clients together may have the server hold.

use crate::harness::*;

async fn counter(server: &Server, counter: &str) -> u64 {
    server.status().await["counters"][counter].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn who_sends_too_fast_is_read_slower_and_loses_nothing() {
    let setup = Setup::testbed().set("messages_per_second", 20).set("messages_burst", 2);
    let server = setup.start().await;
    let mut fast = Raw::upgraded(&server.address).await;
    let all: Vec<u8> =
        (0..9).flat_map(|n| frame(FIN | TEXT, format!("echo {n}").as_bytes())).collect();
    fast.send(all).await;
    for n in 0..9 {
        let answer = [&[0x81, 6][..], format!("echo {n}").as_bytes()].concat();
        assert_eq!(fast.bytes(8).await, answer);
    }
    assert!(counter(&server, "too_fast").await >= 3);
    assert_eq!(server.client().await.ask("echo other").await, "echo other");
}

#[tokio::test]
async fn or_is_closed_for_its_messages_its_pings_or_its_bytes() {
    let flood = |payload: &[u8], first: u8| frame(first, payload).repeat(50);
    for (key, burst, bytes) in [
        ("messages_per_second", "messages_burst", flood(b"quiet", FIN | TEXT)),
        ("messages_per_second", "messages_burst", flood(b"", PING)),
        ("bytes_per_second", "bytes_burst", flood(b"quiet", FIN | TEXT)),
    ] {
        let setup = Setup::testbed().set(key, 5).set(burst, 10);
        let server = setup.set("rate_policy", r#""close""#).start().await;
        let mut raw = Raw::upgraded(&server.address).await;
        raw.send(bytes).await;
        assert_eq!(raw.close_code().await, Some(1008), "{key}");
    }
}

#[tokio::test]
async fn in_the_chat_one_who_writes_a_lot_closes_nobody() {
    let server = Setup::stock().set("worker_num", 1).start().await;
    let _idle = Raw::narrow(&server.address).await;
    let mut other = server.client().await;
    let mut loud = Raw::upgraded(&server.address).await;
    // As JSON each character takes six.
    let text = format!(r#"{{"type":"say","text":"a{}b"}}"#, r"\u0001".repeat(1000));
    loud.send(frame(FIN | TEXT, text.as_bytes()).repeat(100)).await;
    let said = until("what was said", async || {
        let message = other.next().await.expect("still here");
        message.into_text().ok().filter(|text| text.contains(r#""said""#))
    })
    .await;
    assert!(said.len() > 1000);
    until("a limit to be met", async || (counter(&server, "too_fast").await > 0).then_some(()))
        .await;
    assert_eq!(counter(&server, "closed").await, 0);
}

#[tokio::test]
async fn half_messages_of_all_clients_together_are_limited() {
    let setup = Setup::testbed().set("worker_num", 1).set("client_memory", r#""2MiB""#);
    let server = setup.start().await;
    let mut honest = server.client().await;
    let half = &frame(FIN | TEXT, &b"x".repeat(1_500_000))[..1_000_000];
    let mut crowd = Vec::new();
    let closed = until("somebody to be closed", async || {
        let mut raw = Raw::upgraded(&server.address).await;
        raw.send(half).await;
        crowd.push(raw);
        (counter(&server, "closed").await > 0).then_some(())
    });
    closed.await;
    let mut codes = Vec::new();
    for raw in crowd.iter_mut().rev().take(2) {
        // The one that was let live is sent away by its last byte, and says so.
        raw.send(b"x".repeat(600_000)).await;
        raw.send(frame(8, &[])).await;
        codes.push(raw.close_code().await);
    }
    assert!(codes.contains(&Some(1013)), "{codes:?}");
    assert_eq!(honest.ask("echo here").await, "echo here");
    drop(crowd);
    server.has_connections(1).await;
    let long = "x".repeat(1_000_000);
    assert_eq!(honest.ask(format!("echo {long}")).await.len(), 1_000_005);
}

#[tokio::test]
async fn who_does_not_read_goes_when_the_memory_is_used_up() {
    let setup = Setup::testbed().set("worker_num", 1).set("client_memory", r#""4MiB""#);
    let setup = setup.set("buffer_output_size", r#""512MiB""#);
    let server = setup.set("package_max_length", r#""2MiB""#).start().await;
    let mut honest = server.client().await;
    let mut deaf = Raw::narrow(&server.address).await;
    let fd = until("its number", async || {
        let all = server.connections().await;
        let me = honest.who().await.fd;
        all.iter().filter_map(|it| it["fd"].as_u64()).find(|&fd| fd != me)
    })
    .await;
    until("it to be closed", async || {
        honest.ask(format!("big {fd} 1000000")).await;
        (counter(&server, "push_full").await > 0).then_some(())
    })
    .await;
    assert_eq!(deaf.close_code().await, Some(1013));
    assert_eq!(honest.ask("echo here").await, "echo here");
}
