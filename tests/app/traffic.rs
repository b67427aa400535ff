//! What happens to application processes while many clients talk: a deploy, and kills.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::daemon::app;
use crate::harness::*;
use crate::support::path;

/// Messages that each client has on their way.
const AHEAD: u64 = 4;

/// A server whose application answers with its version, of which there is a file, and the words.
fn versioned(code: &Path) -> Setup {
    app(&["php", &path("tests/app/fixtures/deploy.php")])
        .env("CODE", &code.display().to_string())
        .set("worker_num", 2)
        .set("app.processes", 2)
}

fn write_code(file: &Path, version: &str) {
    std::fs::write(file, format!("<?php const VERSION = '{version}';")).unwrap();
}

#[tokio::test]
async fn a_deploy_under_traffic_drops_nobody_and_loses_nothing() {
    const CLIENTS: usize = 1000;
    let code = tempfile::NamedTempFile::new().unwrap();
    write_code(code.path(), "old");
    let server = versioned(code.path()).start().await;
    let begun = Arc::new(Barrier::new(CLIENTS + 1));
    let mut talks: Vec<JoinHandle<u64>> = Vec::new();
    for _ in 0..CLIENTS {
        let (mut client, begun) = (server.client().await, begun.clone());
        talks.push(tokio::spawn(async move {
            for number in 0..AHEAD {
                client.send(number.to_string()).await;
            }
            let (mut next, mut new) = (0, 0);
            while new < 20 {
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
                if next == 5 {
                    begun.wait().await;
                }
            }
            next
        }));
    }
    soon("everybody to talk", begun.wait()).await;
    write_code(code.path(), "new");
    let verdict = server.wsd(["reload"]).await.ok();
    assert!(verdict.contains("generation 2 serves"), "{verdict}");
    let mut answers = 0;
    for talk in talks {
        answers += soon("the new code", talk).await.expect("a client that lost nothing");
    }
    eprintln!("{CLIENTS} clients had {answers} answers in order over a reload");
}

/// Talks until told to end; gives how many answers came, and how many of these came twice.
async fn talk(mut client: Client, over: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> (u64, u64) {
    for number in 0..AHEAD {
        client.send(number.to_string()).await;
    }
    let (mut next, mut sent, mut twice) = (0, AHEAD, 0);
    while next < sent {
        let answer = client.receive().await;
        let number: u64 = answer.split_once(' ').unwrap().1.parse().unwrap();
        if number + 1 == next {
            // The event that a process died on was answered already, and sent to the next one.
            twice += 1;
            continue;
        }
        assert_eq!(number, next, "in order, and none lost");
        next += 1;
        count.fetch_add(1, Ordering::Relaxed);
        if !over.load(Ordering::Relaxed) {
            client.send(sent.to_string()).await;
            sent += 1;
        }
    }
    (next, twice)
}

#[tokio::test]
async fn kills_of_processes_under_load_drop_nobody_and_lose_nothing() {
    const CLIENTS: usize = 200;
    const KILLS: usize = 12;
    let code = tempfile::NamedTempFile::new().unwrap();
    write_code(code.path(), "one");
    let server = versioned(code.path()).start().await;
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut talks = Vec::new();
    for _ in 0..CLIENTS {
        talks.push(tokio::spawn(talk(server.client().await, over.clone(), count.clone())));
    }
    for kills in 0..KILLS {
        let ready = 4 + kills;
        let pid = until("four processes that serve", async || {
            let log = server.log();
            let lines = log.lines().filter(|line| line.contains("ready") && line.contains("app "));
            let mut all = server.processes();
            all.retain(|process| process.name == "php" && is_alive(process.pid));
            (all.len() == 4 && lines.count() == ready).then(|| all[kills % 4].pid)
        })
        .await;
        let before = count.load(Ordering::Relaxed);
        kill(pid, Signal::SIGKILL);
        let since = Instant::now();
        until("more answers", async || {
            let more = count.load(Ordering::Relaxed) >= before + 4 * CLIENTS;
            (more && since.elapsed() > Duration::from_millis(200)).then_some(())
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    let (mut answers, mut twice) = (0, 0);
    for talk in talks {
        let (heard, again) = soon("the last answers", talk).await.expect("a client that stayed");
        answers += heard;
        twice += again;
    }
    // One event for each kill: that which the process was at.
    assert!(twice <= KILLS as u64, "{twice} of {answers} answers came twice");
    assert_eq!(server.log().matches("its events go to another").count(), KILLS);
    server.has_connections(0).await;
    eprintln!("{CLIENTS} clients had {answers} answers over {KILLS} kills, {twice} of them twice");
}
