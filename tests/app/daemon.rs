//! Application processes under the whole server: what their faults cost.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;
use crate::support::path;

/// A server whose application is this command.
pub fn app(command: &[&str]) -> Setup {
    let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    Setup::stock()
        .set("worker_num", 1)
        .set("handler", "\"app\"")
        .set("app.command", format!("[{}]", words.join(", ")))
}

pub fn native() -> Setup {
    app(&["php", &path("tests/app/fixtures/native.php")])
}

/// Waits for a line of the log that has all of these.
async fn logged(server: &Server, parts: &[&str]) {
    until(&format!("{parts:?} in the log"), async || {
        let log = server.log();
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_fault_of_a_handler_has_its_line_in_the_log_and_costs_nobody_else() {
    let server = native().set("app.event_timeout", "\"1s\"").start().await;
    let mut bystander = server.client().await;
    bystander.receive().await;
    let faults = [
        ("throw", 1011, "the handler failed", vec!["WARN", "Uncaught RuntimeException: as told"]),
        ("memory", 1011, "the handler failed", vec!["INFO", "ends", "a fatal error"]),
        (
            "die",
            1008,
            "the application failed on this client twice",
            vec!["ERROR", "given up: its process died"],
        ),
        ("hang", 1011, "the application failed", vec!["WARN", "killed", "event_timeout"]),
    ];
    for (word, code, reason, line) in faults {
        let mut client = server.client().await;
        client.receive().await;
        client.send(word).await;
        assert_eq!(client.closed().await, Closed::Frame(code, reason.to_owned()), "{word}");
        logged(&server, &line).await;
        assert_eq!(bystander.ask("echo still here").await, "still here", "after {word}");
    }
    let mut client = server.client().await;
    client.receive().await;
    assert_eq!(client.ask("noise").await, "made noise");
    logged(&server, &["INFO", "garbage"]).await;
    assert_eq!(client.ask("bad").await, "after");
    logged(&server, &["WARN", "not UTF-8"]).await;
    assert_eq!(bystander.ask("echo still here").await, "still here");
    logged(&server, &["WARN", "gone; its events go to another"]).await;
}

#[tokio::test]
async fn a_process_that_never_reads_is_replaced_and_the_log_says_why() {
    let deaf = path("tests/app/fixtures/deaf.py");
    let server = app(&["python3", &deaf]).set("app.event_timeout", "\"1s\"").start().await;
    let mut client = server.client().await;
    let mut idle = server.client().await;
    client.send("hello").await;
    assert_eq!(client.closed().await, Closed::Frame(1011, "the application failed".to_owned()));
    logged(&server, &["WARN", "killed", "it finished no event within event_timeout"]).await;
    // Who asked nothing of it loses nothing.
    drop(client);
    server.has_connections(1).await;
    logged(&server, &["INFO", "ready", "app 0.2"]).await;
    assert!(idle.send_message(Message::Ping("".into())).await.is_ok());
    assert_eq!(idle.next_frame().await.unwrap().unwrap(), Message::Pong("".into()));
}

#[tokio::test]
async fn a_handler_that_sleeps_delays_only_the_clients_of_its_process() {
    let server = native().set("app.processes", 2).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        client.receive().await;
        let pid = client.ask("pid").await;
        clients.push((pid, client));
    }
    let busy = clients[0].0.clone();
    let (mut same, mut others): (Vec<_>, Vec<_>) =
        clients.into_iter().map(Some).partition(|client| client.as_ref().unwrap().0 == busy);
    assert_eq!((same.len(), others.len()), (2, 2), "each process has two");
    let (mut sleeper, mut neighbour) = (same.remove(0).unwrap().1, same.remove(0).unwrap().1);
    let mut other = others.remove(0).unwrap().1;
    let begun = Instant::now();
    sleeper.send("sleep 5").await;
    neighbour.send("echo behind it").await;
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        assert_eq!(other.ask("echo beside it").await, "beside it");
        slowest = slowest.max(asked.elapsed());
        count += 1;
    }
    assert!(slowest < Duration::from_secs(1), "{count} answers, the slowest after {slowest:?}");
    assert_eq!(neighbour.receive().await, "behind it");
    assert!(begun.elapsed() >= Duration::from_secs(5), "one event after the other");
    assert_eq!(sleeper.receive().await, "slept");
}

#[tokio::test]
async fn a_process_that_leaks_is_replaced_and_nobody_notices() {
    let server = native().set("app.memory_limit", "\"96M\"").start().await;
    let (mut leaker, mut other) = (server.client().await, server.client().await);
    leaker.receive().await;
    other.receive().await;
    let first = other.ask("pid").await;
    assert_eq!(leaker.ask("leak 128").await, "leaked");
    logged(&server, &["INFO", "to be replaced", "over memory_limit"]).await;
    let second = until("another process", async || {
        let pid = other.ask("pid").await;
        (pid != first).then_some(pid)
    })
    .await;
    assert_eq!(leaker.ask("pid").await, second);
    assert_eq!(leaker.ask("seen").await, "attached:/:: attached:/::");
    assert!(!server.log().contains("killed"), "it left by itself");
}
