//! What a Swoole script is told of its server's life, and what it asks of its workers.

use std::path::Path;

use crate::harness::{Client, until};
use crate::sites::Script;
use crate::support::path;

async fn start(notes: &Path, most: &str) -> Script {
    let script = path("tests/app/fixtures/scripts/life.php");
    let env = [("NOTES", notes.to_str().unwrap()), ("MOST", most)];
    Script::start_with(&[&script], &env).await
}

/// Asks, whatever the manager's timer says meanwhile.
async fn ask(client: &mut Client, what: &str) -> String {
    client.send(what).await;
    loop {
        match client.receive().await {
            said if said == "from the manager" => {}
            answer => return answer,
        }
    }
}

/// Two clients of two processes, and the worker id of the second's.
async fn on_two_workers(script: &Script) -> (Client, Client, String) {
    let mut one = Client::connect(&script.address, "/").await;
    let home = ask(&mut one, "who").await;
    let (two, other) = until("a client of another process", async || {
        let mut two = Client::connect(&script.address, "/").await;
        let other = ask(&mut two, "who").await;
        (other != home).then_some((two, other))
    })
    .await;
    (one, two, other)
}

#[tokio::test]
async fn each_event_of_a_servers_life_is_told_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("notes");
    let script = start(&notes, "0").await;
    let mut client = Client::connect(&script.address, "/").await;
    // A timer of onManagerStart reaches the clients.
    while client.receive().await != "from the manager" {}
    let pid = ask(&mut client, "pid").await;
    assert_eq!(ask(&mut client, "reload").await, "true");
    let read = || std::fs::read_to_string(&notes).unwrap_or_default();
    until("the reload", async || read().contains("afterReload").then_some(())).await;
    assert_ne!(ask(&mut client, "pid").await, pid);
    client.send("stop").await;
    script.ended().await;
    let told = ["managerStart", "beforeReload", "afterReload", "beforeShutdown", "managerStop"];
    assert_eq!(read().lines().collect::<Vec<_>>(), [&told[..], &["shutdown"]].concat());
}

#[tokio::test]
async fn a_worker_says_whether_another_is_busy() {
    const BUSY: &str = "1";
    const IDLE: &str = "2";
    let directory = tempfile::tempdir().unwrap();
    let script = start(&directory.path().join("notes"), "0").await;
    let (mut one, mut two, other) = on_two_workers(&script).await;
    let status = format!("status {other}");
    until("an idle worker", async || (ask(&mut one, &status).await == IDLE).then_some(())).await;
    two.send("hold").await;
    while two.receive().await != "\"holding\"" {}
    assert_eq!(ask(&mut one, &status).await, BUSY);
    let home = ask(&mut one, "who").await;
    assert_eq!(ask(&mut one, &format!("status {home}")).await, BUSY, "it handles this");
    assert_eq!(ask(&mut one, "status 99").await, "false");
    assert_eq!(ask(&mut one, "go").await, "1");
    while two.receive().await != "\"held\"" {}
    until("an idle worker", async || (ask(&mut one, &status).await == IDLE).then_some(())).await;
    // One task process for the whole server, and its number comes behind those of the workers.
    assert_eq!(ask(&mut one, "stats").await, r#"{"worker_num":2,"task_worker_num":1}"#);
    for client in [&mut one, &mut two] {
        assert_eq!(ask(client, "task").await, "2");
    }
    script.stop().await;
}

#[tokio::test]
async fn heartbeat_names_who_is_silent_and_closes_them() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(&directory.path().join("notes"), "0").await;
    let mut silent = Client::connect(&script.address, "/").await;
    let fd = ask(&mut silent, "fd").await;
    let mut client = Client::connect(&script.address, "/").await;
    until("a silent client", async || {
        (ask(&mut client, "idle").await == format!("[{fd}]")).then_some(())
    })
    .await;
    assert_eq!(ask(&mut client, "sweep").await, format!("[{fd}]"));
    silent.closed().await;
    assert_eq!(ask(&mut client, "idle").await, "[]");
    script.stop().await;
}

#[tokio::test]
async fn no_message_waits_while_max_request_replaces_processes_without_grace() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(&directory.path().join("notes"), "5").await;
    let mut client = Client::connect(&script.address, "/").await;
    let first = ask(&mut client, "pid").await;
    until("a process of after max_request", async || {
        (ask(&mut client, "pid").await != first).then_some(())
    })
    .await;
    script.stop().await;
}
