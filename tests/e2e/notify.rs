//! What the service manager is told (sd_notify(3)), over a real socket.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::sys::signal::{SIGHUP, SIGTERM};

use crate::harness::*;

fn has(datagram: &[String], assignment: &str) -> bool {
    datagram.iter().any(|known| known == assignment)
}

#[tokio::test]
async fn systemd_hears_of_start_reload_and_stop() {
    let setup = Setup::stock();
    let socket = NotifySocket::bind(setup.path());
    // The configuration is written and the address known from a start in the background.
    let server = setup.start().await;
    server.wsd(["stop"]).await.ok();
    let mut start = server.starter();
    start.env("NOTIFY_SOCKET", socket.path()).env("WATCHDOG_USEC", "1000000");
    let mut foreground =
        start.arg("start").stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let master = foreground.id().unwrap() as i32;

    let (_, before) = socket.wait_for("READY=1").await;
    assert!(!before.iter().flatten().any(|line| line.starts_with("RELOADING")), "{before:?}");
    assert_eq!(server.master().await, master, "the foreground process is the master");
    let workers = server.workers().await;
    assert!(workers.iter().all(|worker| worker.state == "serving"), "{workers:?}");
    socket.wait_for("STATUS=").await;
    for _ in 0..3 {
        socket.wait_for("WATCHDOG=1").await;
    }

    kill(master, SIGHUP);
    let (reloading, _) = socket.wait_for("RELOADING=1").await;
    let clock = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(clock.is_some_and(|usec| usec.parse::<u64>().is_ok()), "{reloading:?}");
    let (ready, _) = socket.wait_for("READY=1").await;
    assert!(!has(&ready, "RELOADING=1"), "{ready:?}");

    kill(master, SIGTERM);
    socket.wait_for("STOPPING=1").await;
    let status = soon("the master to end", foreground.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    server.is_gone().await;
}

/// Standard error is the log, as under `wsd start 2>&1 | head -1`.
#[tokio::test]
async fn a_server_whose_standard_error_nobody_reads_serves_all_the_same() {
    let setup = Setup::stock();
    let socket = NotifySocket::bind(setup.path());
    let server = setup.start().await;
    server.wsd(["stop"]).await.ok();
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let mut start = server.starter();
    start.env("NOTIFY_SOCKET", socket.path()).stderr(Stdio::from(OwnedFd::from(writer)));
    let mut foreground =
        start.args(["start", "--set", "log_file="]).kill_on_drop(true).spawn().unwrap();
    let master = foreground.id().unwrap() as i32;

    socket.wait_for("READY=1").await;
    assert_eq!(server.master().await, master);
    kill(master, SIGTERM);
    let status = soon("the master to end", foreground.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    server.is_gone().await;
}

/// A watchdog that is fed by a master that only runs itself would see nothing.
#[tokio::test]
async fn the_watchdog_starves_while_the_manager_is_stuck() {
    let setup = Setup::stock().set("worker_timeout", r#""60s""#);
    let socket = NotifySocket::bind(setup.path());
    let server = setup.start().await;
    server.wsd(["stop"]).await.ok();
    let mut start = server.starter();
    start.env("NOTIFY_SOCKET", socket.path()).env("WATCHDOG_USEC", "1000000");
    let _foreground = start.arg("start").stderr(Stdio::null()).spawn().unwrap();
    socket.wait_for("WATCHDOG=1").await;
    let manager = server.manager().await;
    kill(manager, nix::sys::signal::SIGSTOP);
    // What was fed before it was noticed may still come; then silence longer than a watchdog.
    let silence = std::time::Duration::from_secs(3);
    let silent = async { while tokio::time::timeout(silence, socket.next()).await.is_ok() {} };
    soon("the watchdog to starve", silent).await;
    kill(manager, nix::sys::signal::SIGCONT);
    socket.wait_for("WATCHDOG=1").await;
}
