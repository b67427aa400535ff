//! Every limit, reached.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::*;

async fn answer(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(&server.address).await;
    raw.send(request).await;
    String::from_utf8_lossy(&raw.rest().await).into_owned()
}

#[tokio::test]
async fn heads_that_are_too_long_are_told_so() {
    let server = Setup::stock()
        .set("head_line_max", 1024)
        .set("head_bytes_max", 4096)
        .set("head_fields_max", 20)
        .start()
        .await;
    let long = "x".repeat(2000);
    let target = format!("GET /{long} HTTP/1.1\r\nHost: server\r\n\r\n");
    assert!(answer(&server, target).await.starts_with("HTTP/1.1 414 "));
    let line = handshake("server", &format!("X-Long: {long}\r\n"));
    assert!(answer(&server, line).await.starts_with("HTTP/1.1 431 "));
    let fields = handshake("server", &"X: y\r\n".repeat(30));
    assert!(answer(&server, fields).await.starts_with("HTTP/1.1 431 "));
    let head = handshake("server", &format!("X: {}\r\n", "y".repeat(900)).repeat(5));
    assert!(answer(&server, head).await.starts_with("HTTP/1.1 431 "));
    let _client = server.client().await;
}

#[tokio::test]
async fn half_a_handshake_is_not_waited_for() {
    let server = Setup::stock().set("handshake_timeout", r#""300ms""#).start().await;
    let good = handshake("server", "");
    for length in [1, 20, good.len() - 1] {
        let answer = answer(&server, &good[..length]).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{length} bytes: {answer:?}");
    }
    // One that says nothing at all is owed nothing.
    let said = answer(&server, "").await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said:?}");
    let _client = server.client().await;
}

#[tokio::test]
async fn a_handler_that_does_not_decide_is_not_waited_for() {
    let server = Setup::testbed().set("handshake_timeout", r#""300ms""#).start().await;
    let request = handshake("server", "").replace("GET / ", "GET /never ");
    let answer = answer(&server, request).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
}

#[tokio::test]
async fn over_max_connection_a_client_is_told_to_come_back() {
    let server = Setup::testbed().set("max_connection", 3).start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(server.client().await);
    }
    server.has_connections(3).await;
    let refused = answer(&server, handshake("server", "")).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: "), "{refused}");
    clients.pop().unwrap().close(1000, "").await;
    server.has_connections(2).await;
    let _client = server.client().await;
}

#[tokio::test]
async fn out_of_descriptors_a_worker_neither_spins_nor_dies() {
    let server = Setup::testbed().set("worker_num", 1).descriptors(64).start().await;
    let worker = server.serving(0, None).await.pid;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    let mut crowd = Vec::new();
    for _ in 0..500 {
        if let Ok(stream) = soon("a connection", TcpStream::connect(&server.address)).await {
            crowd.push(stream);
        }
    }
    assert!(open_descriptors(worker).len() <= 64);
    is_at_rest(worker).await;
    assert_eq!(bystander.who().await, who);
    drop(crowd);
    assert_eq!(let_in(&server).await.who().await.pid, worker);
    assert_eq!(bystander.who().await, who);
}

/// That a process does not spin.
async fn is_at_rest(pid: i32) {
    let before = processor_time(pid);
    // A length to measure over, not something to wait for: a spin would fill it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = processor_time(pid) - before;
    assert!(used < Duration::from_millis(500), "{used:?} of a second");
}

/// A client, as soon as there is room for one.
async fn let_in(server: &Server) -> Client {
    until("room for a client", async || Client::connect_with(&server.address, "/", &[]).await.ok())
        .await
}

/// A program with the user of a process, who may change its limits. Root may only with
/// CAP_SYS_RESOURCE, which a container mostly lacks.
fn as_user_of(pid: i32, program: &str) -> Command {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let first = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().next().expect("a number").to_owned()
    };
    let (uid, gid) = (first("Uid:"), first("Gid:"));
    if uid == nix::unistd::getuid().to_string() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
    command.args(["--clear-groups", program]);
    command
}

/// Lowers, or raises again, how many descriptors a process that runs may have.
async fn limit_descriptors(pid: i32, limit: usize) {
    let mut prlimit = as_user_of(pid, "prlimit");
    command(prlimit.arg("--pid").arg(pid.to_string()).arg(format!("--nofile={limit}:")))
        .await
        .ok();
}

#[tokio::test]
async fn without_a_descriptor_to_accept_with_a_client_is_told() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let worker = server.serving(0, None).await.pid;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    // max_connection knows nothing of this, so only accept itself can find out.
    let highest = open_descriptors(worker).into_iter().map(|(number, _)| number).max();
    limit_descriptors(worker, highest.unwrap() as usize + 3).await;
    let mut crowd = Vec::new();
    let refused = until("a refusal", async || {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(handshake("server", "")).await;
        let head = raw.head().await;
        if head.starts_with("HTTP/1.1 101 ") {
            crowd.push(raw);
            return None;
        }
        Some(head + &String::from_utf8_lossy(&raw.rest().await))
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.ends_with("the server has no descriptor left\n"), "{refused}");
    assert!(!crowd.is_empty());
    assert_eq!(bystander.who().await, who);
    drop(crowd);
    assert_eq!(let_in(&server).await.who().await.pid, worker);
}

#[tokio::test]
async fn where_not_even_that_can_be_told_clients_wait_and_the_worker_rests() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let worker = server.serving(0, None).await.pid;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    // Below what it has open: no descriptor it closes gives it another.
    limit_descriptors(worker, 3).await;
    let mut crowd = Vec::new();
    for _ in 0..50 {
        let mut raw = Raw::connect(&server.address).await;
        raw.send(handshake("server", "")).await;
        crowd.push(raw);
    }
    let rests = "no descriptor is left; accepting pauses again and again";
    until("the log to say so", async || server.log().contains(rests).then_some(())).await;
    is_at_rest(worker).await;
    assert_eq!(bystander.who().await, who);
    limit_descriptors(worker, 1024).await;
    for raw in &mut crowd {
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    assert_eq!(server.log().matches(rests).count(), 1);
}

#[tokio::test]
async fn pending_handshakes_of_one_address_are_limited() {
    let server = Setup::stock().set("worker_num", 1).set("handshakes_per_ip", 4).start().await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(&server.address).await;
        raw.send("GET / HTTP/1.1\r\n").await;
        waiting.push(raw);
    }
    let refused = answer(&server, handshake("server", "")).await;
    assert!(!refused.starts_with("HTTP/1.1 101 "), "{refused}");
    drop(waiting);
    let_in(&server).await;
}
