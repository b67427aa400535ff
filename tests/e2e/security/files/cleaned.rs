//! What is cleaned away, cannot be written or has no room does not end the service, and is made
//! good as soon as that is possible.

use std::fs;

use nix::sys::signal::Signal;

use super::*;

/// Waits until a command reaches the server again.
async fn answers(server: &Server) {
    until("an answer to a command", async || {
        (server.wsd(["status"]).await.code == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_runtime_directory_that_was_cleaned_away_is_made_anew() {
    let mut server = Setup::testbed().start().await;
    let master = server.master().await;
    let mut client = server.client().await;
    let before = fs::read_to_string(server.runtime().join("serials")).unwrap();
    for round in 0..3 {
        fs::remove_dir_all(server.runtime()).unwrap();
        answers(&server).await;
        assert_eq!(server.master().await, master);
        // A second server finds the first.
        let again = command(server.starter().args(["start", "-d"])).await;
        assert_eq!(again.code, Some(1), "{again:?}");
        assert!(again.stderr.contains("already running"), "{again:?}");
        assert_eq!(client.ask(format!("echo {round}")).await, format!("echo {round}"));
        server.wsd(["reload"]).await.ok();
        let worker = server.serving(0, None).await.pid;
        kill(worker, Signal::SIGKILL);
        server.serving(0, Some(worker)).await;
        for name in ["wsd.pid", "wsd.sock", "wsd.lock", "serials"] {
            assert!(server.runtime().join(name).exists(), "{name}");
        }
        client = server.client().await;
    }
    // Numbers go on where they were.
    let next = |text: &str, slot: &str| {
        text.lines().find_map(|line| line.strip_prefix(slot)?.trim().parse::<u64>().ok())
    };
    let after = fs::read_to_string(server.runtime().join("serials")).unwrap();
    assert!(next(&after, "0 ").unwrap() > next(&before, "0 ").unwrap(), "{before} {after}");
    assert!(server.log().contains("the runtime directory"), "{}", server.log());
    server.wsd(["stop"]).await.ok();
    server.is_gone().await;
    assert_eq!(server.start_again().await.code, Some(0));
}

#[tokio::test]
async fn each_file_of_the_runtime_directory_that_is_cleaned_away_comes_back() {
    let server = Setup::stock().start().await;
    let master = server.master().await;
    for name in ["wsd.sock", "wsd.lock"] {
        fs::remove_file(server.runtime().join(name)).unwrap();
        until(name, async || server.runtime().join(name).exists().then_some(())).await;
        answers(&server).await;
        let again = command(server.starter().args(["start", "-d"])).await;
        assert!(again.stderr.contains("already running"), "{again:?}");
        assert_eq!(server.master().await, master);
    }
    server.wsd(["stop"]).await.ok();
    server.is_gone().await;
}

#[tokio::test]
async fn the_directory_of_another_server_at_the_same_place_is_left_to_that_one() {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    let mut other = Setup::testbed();
    other = other.set("runtime_dir", quoted(&server.runtime()));
    fs::remove_dir_all(server.runtime()).unwrap();
    // Whoever comes first has the directory; the other one says so.
    let (other, ran) = other.try_start().await;
    if ran.code == Some(0) {
        until("the trouble in the log", async || {
            server.log().contains("already running").then_some(())
        })
        .await;
        assert_eq!(client.ask("echo still here").await, "echo still here");
        let stop = other.wsd(["stop"]).await;
        stop.ok();
        other.is_gone().await;
    } else {
        assert!(ran.stderr.contains("already running"), "{ran:?}");
    }
    answers(&server).await;
    assert_eq!(client.ask("echo still here").await, "echo still here");
}

#[tokio::test]
async fn a_full_disk_is_told_in_status_and_log_and_service_goes_on() {
    if !two_users("a_full_disk_is_told_in_status_and_log (it mounts a disk)") {
        return;
    }
    let area = Area::new();
    let disk = logs::Disk::mount(area.path("disk"), "size=1m");
    let run = disk.path().join("run");
    let server = Setup::testbed().set("runtime_dir", quoted(&run)).start().await;
    let mut client = server.client_on(1).await;
    disk.fill();
    let worker = server.serving(0, None).await.pid;
    kill(worker, Signal::SIGKILL);
    until("the trouble in status", async || {
        let troubles = server.status().await["troubles"].to_string();
        troubles.contains("No space left").then_some(())
    })
    .await;
    let shown = server.wsd(["status"]).await.ok();
    assert!(shown.contains("trouble") && shown.contains("No space left"), "{shown}");
    assert!(server.log().contains("No space left"), "{}", server.log());
    assert_eq!(client.ask("echo still here").await, "echo still here");
    server.client().await;
    let refused = server.wsd(["reload"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    disk.empty();
    server.serving(0, Some(worker)).await;
    server.wsd(["reload"]).await.ok();
    until("no trouble in status", async || {
        (server.status().await["troubles"].as_array().map(Vec::len) == Some(0)).then_some(())
    })
    .await;
    drop(server);
}
