//! Silent clients: who is closed, who is pinged, who stays.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;

/// A server that closes who has sent nothing for a second, and pings meanwhile.
fn sweeping() -> Setup {
    Setup::testbed().set("heartbeat_idle_time", 1).set("ping_interval", r#""200ms""#)
}

/// Waits until clients that came now were closed as idle, with whoever was idle before them.
async fn the_idle_are_closed(server: &Server) {
    for _ in 0..2 {
        let mut client = server.client().await;
        let closed = client.closed().await;
        assert!(matches!(closed, Closed::Frame(1001, _)), "{closed:?}");
    }
}

#[tokio::test]
async fn a_client_that_only_answers_our_pings_is_idle() {
    let server = sweeping().start().await;
    // As a browser does, tungstenite answers each ping while it is read.
    the_idle_are_closed(&server).await;
    let noted = || server.events().iter().any(|line| line.contains("idle_timeout"));
    until("the cause", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn without_an_idle_time_nobody_is_idle() {
    let server = Setup::testbed().set("ping_interval", r#""200ms""#).start().await;
    let mut client = server.client().await;
    for _ in 0..10 {
        let frame = client.next_frame().await.expect("open").expect("open");
        assert!(matches!(frame, Message::Ping(_)), "{frame:?}");
    }
    client.who().await;
}

#[tokio::test]
async fn whoever_sends_anything_of_its_own_is_not_idle() {
    let server = sweeping().start().await;
    let mut clients = Vec::new();
    for message in [Message::text("quiet"), Message::Ping("p".into()), Message::Pong("p".into())] {
        clients.push((server.client().await, message));
    }
    let sending = async {
        loop {
            for (client, message) in &mut clients {
                client.send_message(message.clone()).await.expect("open");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = the_idle_are_closed(&server) => {}
        () = sending => {}
    }
    for (client, _) in &mut clients {
        client.who().await;
    }
}

#[tokio::test]
async fn the_answer_to_a_ping_of_the_application_counts() {
    let server = sweeping().start().await;
    let (mut pinger, mut pinged) = (server.client_on(0).await, server.client_on(1).await);
    let fd = pinged.who().await.fd;
    let pinging = async {
        loop {
            assert_eq!(pinger.ask(format!("ping {fd} are you there")).await, "ping relayed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answering = async {
        let mut pings = 0;
        loop {
            match pinged.next_frame().await.expect("open").expect("open") {
                Message::Ping(payload) if payload == "are you there" => pings += 1,
                Message::Ping(_) => {}
                other => panic!("{other:?} after {pings} pings"),
            }
        }
    };
    tokio::select! {
        () = the_idle_are_closed(&server) => {}
        () = pinging => {}
        () = answering => {}
    }
    pinged.who().await;
}

#[tokio::test]
async fn a_ping_that_is_no_control_frame_is_too_big() {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    let fd = client.who().await.fd;
    for (bytes, verdict) in [(125, "queued"), (126, "too_big")] {
        let said = client.ask(format!("ping {fd} {}", "p".repeat(bytes))).await;
        assert_eq!(said, format!("ping {verdict}"));
    }
}

#[tokio::test]
async fn a_protected_client_is_left_alone_over_reloads() {
    let server = sweeping().start().await;
    let (mut client, mut other) = (server.client_on(0).await, server.client_on(1).await);
    let (was, protector) = (client.who().await, other.who().await);
    assert_eq!(other.ask(format!("protect {} on", was.fd)).await, "protect relayed");
    assert_eq!(other.ask(format!("protect {} on", protector.fd)).await, "protect queued");
    the_idle_are_closed(&server).await;
    server.wsd(["reload"]).await.ok();
    the_idle_are_closed(&server).await;
    assert_eq!(client.who().await.fd, was.fd);
    // The other one has sent nothing since, and is idle once it is not protected any more.
    let fd = protector.fd;
    assert_eq!(client.ask(format!("protect {fd} off")).await, "protect relayed");
    assert!(matches!(other.closed().await, Closed::Frame(1001, _)));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_let_go() {
    let server = Setup::testbed()
        .set("ping_interval", r#""200ms""#)
        .set("pong_timeout", r#""200ms""#)
        .start()
        .await;
    let mut raw = Raw::upgraded(&server.address).await;
    raw.rest().await;
    let noted = || server.events().iter().any(|line| line.contains("pong_timeout 1006"));
    until("the cause", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn a_ping_of_the_client_is_answered_with_the_same_bytes() {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    client.send_message(Message::Ping("are you there".into())).await.unwrap();
    let frame = client.next_frame().await.unwrap().unwrap();
    assert_eq!(frame, Message::Pong("are you there".into()));
}

#[tokio::test]
async fn a_connection_can_have_a_greatest_age() {
    let server = Setup::testbed().set("max_connection_age", r#""1s""#).start().await;
    let mut client = server.client().await;
    let closed = client.closed().await;
    assert!(matches!(closed, Closed::Frame(1012, _)), "{closed:?}");
}
