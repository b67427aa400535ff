//! Application processes under the whole server: what their faults cost, and a deploy.

use std::path::Path;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;
use crate::support::path;

/// A server whose application is this command.
fn app(command: &[&str]) -> Setup {
    let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    Setup::stock()
        .set("worker_num", 1)
        .set("handler", "\"app\"")
        .set("app.command", format!("[{}]", words.join(", ")))
}

fn native() -> Setup {
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
        ("exit", 1011, "the application failed", vec!["ERROR", "given up: its process died"]),
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

#[tokio::test]
async fn a_deploy_under_traffic_drops_nobody_and_loses_nothing() {
    const CLIENTS: usize = 40;
    const AHEAD: u64 = 4;
    let code = tempfile::NamedTempFile::new().unwrap();
    let deploy = |version: &str| write_code(code.path(), version);
    deploy("old");
    let server = app(&["php", &path("tests/app/fixtures/deploy.php")])
        .env("CODE", &code.path().display().to_string())
        .set("worker_num", 2)
        .set("app.processes", 2)
        .start()
        .await;
    let mut talks = Vec::new();
    let begun = std::sync::Arc::new(tokio::sync::Barrier::new(CLIENTS + 1));
    for _ in 0..CLIENTS {
        let (mut client, begun) = (server.client().await, begun.clone());
        talks.push(tokio::spawn(async move {
            for number in 0..AHEAD {
                client.send(number.to_string()).await;
            }
            let (mut next, mut new) = (0, 0);
            while new < 100 {
                let answer = client.receive().await;
                let (version, number) = answer.split_once(' ').unwrap();
                assert_eq!(number, next.to_string(), "in order, and none twice");
                new = if version == "new" {
                    new + 1
                } else {
                    assert_eq!(new, 0, "no way back");
                    0
                };
                client.send((next + AHEAD).to_string()).await;
                next += 1;
                if next == 100 {
                    begun.wait().await;
                }
            }
        }));
    }
    begun.wait().await;
    deploy("new");
    let verdict = server.wsd(["reload"]).await.ok();
    assert!(verdict.contains("generation 2 serves"), "{verdict}");
    for talk in talks {
        soon("the new code", talk).await.unwrap();
    }
}

fn write_code(file: &Path, version: &str) {
    std::fs::write(file, format!("<?php const VERSION = '{version}';")).unwrap();
}
