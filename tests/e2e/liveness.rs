//! Silent clients: who is closed, who is pinged, who stays.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;

#[tokio::test]
async fn an_idle_client_is_closed_with_a_close_frame() {
    let server = Setup::testbed()
        .set("heartbeat_idle_time", r#""1s""#)
        .set("heartbeat_check_interval", r#""1s""#)
        .set("ping_interval", 0)
        .start()
        .await;
    let mut client = server.client().await;
    let closed = client.closed().await;
    assert!(matches!(closed, Closed::Frame(1001, _)), "{closed:?}");
    let noted = || server.events().iter().any(|line| line.contains("idle_timeout"));
    until("the cause", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn a_client_that_answers_pings_is_not_idle() {
    let server = Setup::testbed()
        .set("heartbeat_idle_time", r#""2s""#)
        .set("heartbeat_check_interval", r#""1s""#)
        .set("ping_interval", r#""300ms""#)
        .start()
        .await;
    let mut client = server.client().await;
    // Twice the idle time in pings and more; tungstenite answers each while it is read.
    for _ in 0..15 {
        let frame = client.next_frame().await.expect("open").expect("open");
        assert!(matches!(frame, Message::Ping(_)), "{frame:?}");
    }
    client.who().await;
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
