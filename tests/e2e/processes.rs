//! The tree of processes: how it looks, and how it starts and ends.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::harness::*;

#[tokio::test]
async fn every_process_is_named_for_what_it_does() {
    let server = Setup::stock().set("worker_num", 3).start().await;
    let mut names: Vec<String> = server.processes().into_iter().map(|p| p.name).collect();
    names.sort();
    let wanted =
        ["wsd: manager", "wsd: master", "wsd: worker 0", "wsd: worker 1", "wsd: worker 2"];
    assert_eq!(names, wanted);
    let pids: Vec<String> = server.processes().iter().map(|p| p.pid.to_string()).collect();
    let list = pids.join(",");
    let ps = command(Command::new("ps").args(["-o", "comm=,args=", "-p", &list])).await.ok();
    for line in ps.lines() {
        assert!(line.starts_with("wsd "), "{ps}");
    }
    let pgrep = command(Command::new("pgrep").args(["-x", "wsd"])).await.ok();
    assert!(pids.iter().all(|pid| pgrep.lines().any(|line| line == pid)), "{pgrep}");
}

#[tokio::test]
async fn the_master_has_one_thread() {
    let server = Setup::stock().start().await;
    let _client = server.client().await;
    let master = server.master().await;
    assert_eq!(std::fs::read_dir(format!("/proc/{master}/task")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_manager_and_a_worker_that_log_nothing_have_one_thread() {
    let server = Setup::stock().start().await;
    let mut client = server.client().await;
    for process in server.processes() {
        let threads = format!("/proc/{}/task", process.pid);
        let one = || std::fs::read_dir(&threads).unwrap().count() == 1;
        until("the writer of the log to leave", || async { one().then_some(()) }).await;
    }
    client.send("still served").await;
}

/// That `start -d` returns to a reader of its output at all shows that no process kept the pipe.
#[tokio::test]
async fn a_daemon_keeps_nothing_of_where_it_was_started() {
    let server = Setup::stock().start().await;
    for process in server.processes() {
        let standard = open_descriptors(process.pid).into_iter().filter(|(number, _)| *number < 3);
        for (number, target) in standard {
            let harmless = target == Path::new("/dev/null") || target.ends_with("wsd.log");
            assert!(harmless, "{process:?}: {number} is {target:?}");
        }
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap();
        assert_eq!(cwd, Path::new("/"), "{process:?}");
        let tty = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        let tty = tty.rsplit_once(") ").unwrap().1.split(' ').nth(4).unwrap().to_owned();
        assert_eq!(tty, "0", "{process:?} has a terminal");
    }
}

#[tokio::test]
async fn no_process_inherits_what_its_starter_left_open() {
    let setup = Setup::stock();
    let path = setup.path().join("left open");
    std::fs::write(&path, "").unwrap();
    let (mut server, ran) = setup.try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    server.wsd(["stop"]).await.ok();
    let mut shell = Command::new("bash");
    let start = server.starter();
    let start = start.as_std();
    shell.args(["-c", r#"exec 7<"$0"; exec "$@" start -d"#]).arg(&path).arg(start.get_program());
    shell.args(start.get_args());
    shell.envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command(&mut shell).await.ok();
    let processes = server.processes();
    assert!(processes.len() >= 4, "{processes:?}");
    for process in processes {
        let kept = open_descriptors(process.pid).into_iter().any(|(_, target)| target == path);
        assert!(!kept, "{process:?}");
    }
    // Known by its address only after a start of its own.
    server.address = server.status().await["listen"][0].as_str().unwrap().to_owned();
    let _client = server.client().await;
}

#[tokio::test]
async fn replacing_processes_leaks_no_descriptor_and_leaves_no_zombie() {
    let server = Setup::stock().start().await;
    let master = server.master().await;
    let count = || open_descriptors(master).len();
    let settle = async |worker: Option<i32>, manager: Option<i32>| {
        server.serving(0, worker).await;
        until("a manager", || async {
            let status = server.status().await;
            (status["manager_pid"].as_i64() != manager.map(i64::from)).then_some(())
        })
        .await;
    };
    settle(None, None).await;
    let before = count();
    for _ in 0..3 {
        let (worker, manager) = (server.serving(0, None).await.pid, server.manager().await);
        kill(worker, Signal::SIGKILL);
        settle(Some(worker), None).await;
        kill(manager, Signal::SIGKILL);
        settle(Some(worker), Some(manager)).await;
    }
    until("the descriptors of the dead to close", || async { (count() <= before).then_some(()) })
        .await;
    let children = format!("/proc/{master}/task/{master}/children");
    let children = std::fs::read_to_string(children).unwrap();
    for child in children.split_whitespace() {
        assert_ne!(stat_letter(child.parse().unwrap()), Some('Z'), "{child}");
    }
}

#[tokio::test]
async fn a_second_start_fails_and_harms_nobody() {
    let mut server = Setup::testbed().start().await;
    let mut client = server.client().await;
    let who = client.who().await;
    let second = command(server.starter().args(["start", "-d"])).await;
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains(&server.master().await.to_string()), "{second:?}");
    assert_eq!(client.who().await, who);
    // And where only the port is the same.
    let address = server.address.clone();
    let other = Setup::stock().set("listen", format!("[{address:?}]"));
    let (other, ran) = other.try_start().await;
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains(&address), "{ran:?}");
    other.is_gone().await;
    server.wsd(["stop"]).await.ok();
    server.is_gone().await;
    assert_eq!(server.start_again().await.code, Some(0));
}

#[tokio::test]
async fn of_many_starts_at_once_exactly_one_lives() {
    let (server, first) = Setup::stock().try_start().await;
    assert_eq!(first.code, Some(0), "{first:?}");
    server.wsd(["stop"]).await.ok();
    let starts = (0..50).map(|_| {
        let mut start = server.starter();
        async move { command(start.args(["start", "-d"])).await }
    });
    let ran = join_all(starts).await;
    let lived = ran.iter().filter(|ran| ran.code == Some(0)).count();
    assert_eq!(lived, 1, "{ran:?}");
    // Who lost says so before it leaves.
    until("one master", async || {
        let masters = server.processes().into_iter().filter(|p| p.name == "wsd: master");
        (masters.count() == 1).then_some(())
    })
    .await;
    server.status().await;
}

#[tokio::test]
async fn whatever_stands_in_the_pid_file_nobody_else_is_signalled() {
    let mut innocent = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let pid = innocent.id().unwrap();
    let mut server = Setup::stock().start().await;
    server.wsd(["stop"]).await.ok();
    let pid_file = server.runtime().join("wsd.pid");
    let elsewhere = server.path().join("precious");
    std::fs::write(&elsewhere, format!("{pid}\n")).unwrap();
    for content in [format!("{pid}\n"), "garbage".to_owned(), String::new(), "-1".to_owned()] {
        std::fs::write(&pid_file, &content).unwrap();
        for words in [vec!["stop"], vec!["reload"], vec!["status"]] {
            let ran = server.wsd(&words).await;
            assert_ne!(ran.code, Some(0), "{words:?} with {content:?}: {ran:?}");
        }
        assert_eq!(server.start_again().await.code, Some(0), "{content:?}");
        // What somebody writes there while it runs changes nothing either.
        std::fs::write(&pid_file, &content).unwrap();
        server.wsd(["stop"]).await.ok();
        server.is_gone().await;
    }
    symlink(&elsewhere, &pid_file).unwrap();
    assert_eq!(server.start_again().await.code, Some(0));
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), format!("{pid}\n"));
    server.wsd(["stop"]).await.ok();
    assert!(elsewhere.exists());
    assert!(innocent.try_wait().unwrap().is_none(), "the innocent process was ended");
}

#[tokio::test]
async fn a_worker_that_cannot_start_fails_the_start() {
    let (server, ran) = Setup::testbed().env("TESTBED_FAIL", "start").try_start().await;
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("worker"), "{ran:?}");
    server.is_gone().await;
}

#[tokio::test]
async fn stop_returns_when_all_are_gone_and_says_goodbye() {
    let server = Setup::stock().start().await;
    let mut client = server.client().await;
    let closed = async {
        let closed = client.closed().await;
        drop(client);
        closed
    };
    let (ran, closed) = tokio::join!(server.wsd(["stop"]), closed);
    ran.ok();
    assert_eq!(server.processes().len(), 0);
    assert!(matches!(closed, Closed::Frame(1001, _)), "{closed:?}");
    for name in ["wsd.pid", "wsd.sock"] {
        assert!(!server.runtime().join(name).exists(), "{name} is left");
    }
    let again = server.wsd(["stop"]).await;
    assert_ne!(again.code, Some(0), "{again:?}");
}

#[tokio::test]
async fn a_stop_waits_for_a_handler_that_runs() {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    client.send("sleep 300").await;
    let (ran, answer) = tokio::join!(server.wsd(["stop"]), async {
        let answer = client.receive().await;
        (answer, client.closed().await)
    });
    ran.ok();
    assert_eq!(answer.0, "sleep slept");
    assert!(matches!(answer.1, Closed::Frame(1001, _)), "{answer:?}");
}

#[tokio::test]
async fn a_stop_is_as_patient_as_the_server_that_runs() {
    let mut server = Setup::testbed().set("max_wait_time", r#""60s""#).start().await;
    assert_eq!(server.status().await["max_wait_ms"], 60_000);
    server.configure("max_wait_time", "0");
    let mut client = server.client().await;
    // Longer than what the command waits beyond its own.
    client.send("sleep 12000").await;
    let (ran, answer) = tokio::join!(server.wsd(["stop"]), async {
        let answer = client.receive().await;
        (answer, client.closed().await)
    });
    assert!(!ran.stderr.contains("killing it"), "{ran:?}");
    ran.ok();
    assert_eq!(answer.0, "sleep slept");
}

#[tokio::test]
async fn a_handler_that_never_ends_is_killed_on_its_deadline() {
    let server = Setup::testbed().set("max_wait_time", r#""1s""#).start().await;
    let mut client = server.client().await;
    client.send("spin").await;
    server.wsd(["stop"]).await.ok();
    server.is_gone().await;
}

#[tokio::test]
async fn only_its_user_can_command_it() {
    let server = Setup::stock().start().await;
    let sockets = std::fs::read_dir(server.runtime()).unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.ends_with(".sock").then(|| entry.metadata().unwrap())
    });
    let sockets: Vec<_> = sockets.collect();
    assert!(!sockets.is_empty());
    for metadata in sockets {
        assert_eq!(metadata.permissions().mode() & 0o007, 0, "a stranger may connect");
        assert_eq!(metadata.uid(), nix::unistd::getuid().as_raw());
    }
}

#[tokio::test]
async fn restart_brings_a_new_tree_on_the_same_configuration() {
    let server = Setup::stock().start().await;
    let before = server.master().await;
    // The environment is that of whoever restarts it, so the mark has to come along.
    command(server.starter().args(["restart", "-d"])).await.ok();
    let after = server.master().await;
    assert_ne!(before, after);
    assert!(!is_alive(before));
}
