//! What `docs/signals.md` says, done.

use nix::sys::signal::{SIGINT, SIGQUIT, SIGTERM, Signal};

use crate::harness::*;

async fn ended_by(signal: Signal) -> (Server, Closed) {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    kill(server.master().await, signal);
    let closed = client.closed().await;
    drop(client);
    server.is_gone().await;
    (server, closed)
}

#[tokio::test]
async fn term_and_int_say_goodbye() {
    for signal in [SIGTERM, SIGINT] {
        let (_server, closed) = ended_by(signal).await;
        assert!(matches!(closed, Closed::Frame(1001, _)), "{signal}: {closed:?}");
    }
}

#[tokio::test]
async fn quit_tells_nobody() {
    let (_server, closed) = ended_by(SIGQUIT).await;
    assert_eq!(closed, Closed::Abruptly);
}

#[tokio::test]
async fn a_second_term_does_not_wait_for_handlers() {
    let server = Setup::testbed().set("max_wait_time", r#""600s""#).start().await;
    let mut client = server.client().await;
    client.send("sleep 600000").await;
    let master = server.master().await;
    kill(master, SIGTERM);
    until("the stop to begin", || async { server.log().contains("stopping").then_some(()) }).await;
    kill(master, SIGTERM);
    server.is_gone().await;
}

#[tokio::test]
async fn rtmin_reopens_the_log_in_every_process() {
    let server = Setup::testbed().start().await;
    let log = server.runtime().join("wsd.log");
    let old = server.runtime().join("wsd.log.1");
    std::fs::rename(&log, &old).unwrap();
    // nix has no name for real-time signals.
    let master = server.master().await;
    let rtmin = format!("-{}", libc::SIGRTMIN());
    let args = [rtmin, master.to_string()];
    command(tokio::process::Command::new("kill").args(args)).await.ok();
    until("nobody to write to the old one", || async {
        let mut open = server.processes().into_iter().flat_map(|p| open_descriptors(p.pid));
        (log.exists() && !open.any(|(_, target)| target == old)).then_some(())
    })
    .await;
    let mut client = server.client().await;
    client.send("panic").await;
    client.closed().await;
    until("a new line", || async { server.log().contains("told to panic").then_some(()) }).await;
}
