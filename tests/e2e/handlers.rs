//! What a handler may do, and what its faults cost.

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::*;

async fn refused(server: &Server, path: &str) -> (u16, String) {
    match Client::connect_with(&server.address, path, &[]).await {
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{path} was let in"),
    }
}

#[tokio::test]
async fn a_handler_can_refuse_and_choose_at_the_handshake() {
    let server = Setup::testbed().start().await;
    assert_eq!(refused(&server, "/refused").await, (418, "no coffee here".to_owned()));
    let offered = [("sec-websocket-protocol", "first, second")];
    let mut client = Client::connect_with(&server.address, "/chosen", &offered).await.unwrap();
    assert_eq!(client.response.headers()["sec-websocket-protocol"], "second");
    assert_eq!(client.response.headers()["set-cookie"], "seat=7");
    assert_eq!(client.receive().await, "you chose the second");
}

#[tokio::test]
async fn a_panic_costs_the_connection_it_happened_on() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    let mut victim = server.client().await;
    victim.send("panic").await;
    let closed = victim.closed().await;
    assert!(matches!(closed, Closed::Frame(1011, _)), "{closed:?}");
    assert_eq!(refused(&server, "/panic").await.0, 500);
    assert!(http(&server, "GET /panic").await.starts_with("HTTP/1.1 500 "));
    assert_eq!(bystander.who().await, who);
    let noted = || server.events().iter().any(|line| line.contains("handler_panic 1011 Server"));
    until("the cause", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn events_of_one_connection_never_overlap_and_others_go_on() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let mut slow = server.client().await;
    let mut other = server.client().await;
    slow.send("sleep 400").await;
    slow.send("echo after").await;
    for number in 0..20 {
        assert_eq!(other.ask(format!("echo {number}")).await, format!("echo {number}"));
    }
    assert_eq!(slow.receive().await, "sleep slept");
    assert_eq!(slow.receive().await, "echo after");
}

#[tokio::test]
async fn blocking_jobs_and_timers_answer_on_the_reactor() {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    assert_eq!(client.ask("task 21").await, "task Ok(42)");
    assert_eq!(client.ask("task-panic").await, "task-panic Err(Panicked)");
    assert_eq!(client.ask("after 10").await, "after set");
    assert_eq!(client.receive().await, "the timer ran");
}

#[tokio::test]
async fn a_thread_of_a_handler_reaches_clients_by_its_handle() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let mut client = server.client().await;
    client.send("thread").await;
    for number in 0..3 {
        assert_eq!(client.receive().await, format!("pushed by a thread: {number}"));
    }
    assert_eq!(client.receive().await, "confirmed");
    assert_eq!(client.receive().await, "thread queued true");
}

async fn http(server: &Server, request: &str) -> String {
    let mut raw = Raw::connect(&server.address).await;
    raw.send(format!("{request} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")).await;
    String::from_utf8_lossy(&raw.rest().await).into_owned()
}

#[tokio::test]
async fn plain_http_is_served_on_the_same_port() {
    let server = Setup::testbed().start().await;
    assert!(http(&server, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(http(&server, "GET /client").await.ends_with("\r\n\r\n127.0.0.1"));
    assert!(http(&server, "GET /ws").await.starts_with("HTTP/1.1 426 "));
    assert!(http(&server, "GET /nowhere").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_connection_is_kept_alive_for_more_requests() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::connect(&server.address).await;
    for _ in 0..3 {
        raw.stream.write_all(b"GET /client HTTP/1.1\r\nHost: server\r\n\r\n").await.unwrap();
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(raw.bytes(9).await, b"127.0.0.1");
    }
    raw.send("POST /body HTTP/1.1\r\nHost: server\r\nContent-Length: 5\r\n\r\nhello").await;
    raw.head().await;
    assert_eq!(raw.bytes(7).await, b"5 bytes");
    raw.send(handshake("server", "")).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn the_stock_chat_serves_its_page_and_echo_echoes() {
    let chat = Setup::stock().start().await;
    let page = http(&chat, "GET /").await;
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<!doctype html"), "{page}");
    let echo = Setup::stock().set("handler", r#""echo""#).start().await;
    assert_eq!(echo.client().await.ask("hello").await, "hello");
}

#[tokio::test]
async fn everyone_in_the_chat_hears_everyone_on_every_worker() {
    let server = Setup::stock().set("worker_num", 3).start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::connect(&server.address, "/ws").await);
    }
    let slots: std::collections::HashSet<_> =
        server.connections().await.iter().map(|c| c["worker"].to_string()).collect();
    assert!(!slots.is_empty());
    server.wsd(["broadcast", "from the shell"]).await.ok();
    for client in &mut clients {
        while client.receive().await != "from the shell" {}
    }
}

#[tokio::test]
async fn what_a_handler_is_told_of_the_request_is_true() {
    let server = Setup::testbed().start().await;
    let mut client = Client::connect(&server.address, "/?a=b").await;
    let fd = client.who().await.fd;
    let info = client.ask(format!("info {fd}")).await;
    let info: Value = serde_json::from_str(info.split_once(' ').unwrap().1).unwrap();
    assert_eq!(info["client"], "127.0.0.1");
    assert!(info["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{info}");
}
