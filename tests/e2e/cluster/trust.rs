//! The engine's password and rights, and what `wsd check` says of an engine.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use super::{node, nodes, sees};
use crate::harness::*;
use crate::security::rights::application;

const PASSWORD: &str = "hush-hush-hush";

/// The rights that the page of several hosts says are enough.
fn documented_rights() -> String {
    let page = std::fs::read_to_string(repository().join("docs/cluster.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER wsd ")).expect("the line");
    line.replace("PASSWORD", PASSWORD).replace("NAME", "wsd")
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_the_password_is_shown_nowhere() {
    let engine = Engine::start().await;
    let told = engine.ask(&documented_rights()).unwrap();
    assert!(told.starts_with("+OK"), "{told}");
    engine.ask("ACL SETUSER default off").unwrap();
    let mut servers = Vec::new();
    for number in 0..2 {
        let address = engine.address().replace("sock\"", "sock?user=wsd\"");
        let setup = node(&engine, number).set("cluster.engine", address);
        let file = setup.path().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        let file = format!("{:?}", file.display().to_string());
        servers.push(setup.set("cluster.password_file", file).start().await);
    }
    for server in &servers {
        sees(server, 2).await;
    }
    let (mut here, mut there) = (servers[0].client().await, servers[1].client().await);
    there.ask("join-confirmed me lobby").await;
    there.ask("leave me lobby").await;
    there.ask("join-confirmed me lobby").await;
    assert_eq!(here.ask("tally lobby hello").await, "tally queued for 1 true");
    let checked = servers[0].wsd(["check", "--connect", "--json"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let mut shown = servers[0].log() + &checked.stdout + &checked.stderr;
    for command in [["status", "--json"], ["nodes", "--json"]] {
        shown += &servers[0].wsd(command).await.ok();
    }
    for process in servers[0].processes() {
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        shown += &String::from_utf8_lossy(&line);
    }
    assert!(!shown.contains(PASSWORD));
    assert_eq!(servers[1].wsd(["stop"]).await.code, Some(0));
    sees(&servers[0], 1).await;
}

#[tokio::test]
async fn the_password_may_come_from_the_environment() {
    let engine = Engine::start_with(&["--requirepass", PASSWORD]).await;
    let setup = node(&engine, 1).env("WSD_CLUSTER_PASSWORD", PASSWORD);
    let server = setup.start().await;
    sees(&server, 1).await;
    let server = node(&engine, 2).env("WSD_CLUSTER_PASSWORD", "not-it").start_nothing();
    let ran = command(server.starter().args(["check", "--connect"])).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("cluster.engine") && !ran.stderr.contains("not-it"), "{ran:?}");
}

/// The processes of a server that can read the password: by their environment, their arguments, or
/// a core file that they may leave.
fn readers(server: &Server) -> Vec<String> {
    let read = |pid: i32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let may_leave_a_core = |pid: i32| {
        let limits = read(pid, "limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        core.is_some_and(|line| line.split_whitespace().nth(4) != Some("0"))
    };
    let all = server.processes().into_iter();
    let readers = all.filter(|process| {
        let (name, pid) = (process.name.as_str(), process.pid);
        // The courier has the password, and nothing of its memory is to be seen.
        let leaks = name == "wsd: courier" && may_leave_a_core(pid);
        leaks || ["environ", "cmdline"].iter().any(|file| read(pid, file).contains(PASSWORD))
    });
    readers.map(|process| process.name).collect()
}

#[tokio::test]
async fn nobody_but_the_master_sees_the_password_of_the_environment_after_any_change() {
    let engine = Engine::start_with(&["--requirepass", PASSWORD]).await;
    let setup = application().set("cluster.engine", engine.address()).set("cluster.node", 1);
    let server = setup.env("WSD_CLUSTER_PASSWORD", PASSWORD).start().await;
    for change in ["reload", "upgrade"] {
        sees(&server, 1).await;
        until("the applications", async || {
            server.processes().iter().any(|process| process.name == "php").then_some(())
        })
        .await;
        // It was started with the variable, and starts the courier anew by that.
        assert_eq!(readers(&server), ["wsd: master"]);
        assert_eq!(server.wsd([change]).await.code, Some(0), "{change}");
    }
    sees(&server, 1).await;
    assert_eq!(readers(&server), ["wsd: master"]);
}

#[tokio::test]
async fn an_upgrade_without_the_password_changes_nothing_and_a_courier_without_it_is_told() {
    let engine = Engine::start_with(&["--requirepass", PASSWORD]).await;
    let setup = node(&engine, 0);
    let file = setup.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let quoted = format!("{:?}", file.display().to_string());
    let server = setup.set("cluster.password_file", quoted).start().await;
    sees(&server, 1).await;
    let courier = server.courier();
    std::fs::remove_file(&file).unwrap();
    let ran = server.wsd(["upgrade"]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("cluster.password_file"), "{ran:?}");
    assert_eq!(server.courier(), courier);
    kill(courier, Signal::SIGKILL);
    until("the status to say why", async || {
        let status = server.status().await;
        let trouble = status["troubles"][0].as_str()?.to_owned();
        let is_why = trouble.contains("the courier does not start: cluster.password_file");
        (is_why && status["courier"]["pid"].is_null()).then_some(())
    })
    .await;
    std::fs::write(&file, PASSWORD).unwrap();
    sees(&server, 1).await;
    until("no trouble", async || server.status().await["troubles"][0].is_null().then_some(()))
        .await;
}

#[tokio::test]
async fn a_check_says_what_answers_and_what_is_doubtful_or_why_not() {
    let mut engine = Engine::start_with(&[
        "--client-output-buffer-limit",
        "pubsub 1mb 1mb 10",
        "--maxmemory",
        "1gb",
        "--maxmemory-policy",
        "allkeys-lru",
    ])
    .await;
    let server = node(&engine, 4).start().await;
    let said = server.wsd(["check", "--connect"]).await.ok();
    for word in [
        "Redis ",
        "nodes of the cluster wsd that are there: 1",
        "client-output-buffer-limit pubsub",
        "maxmemory-policy is allkeys-lru",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    engine.kill();
    let ran = server.wsd(["check", "--connect"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("cluster.engine: unix:"), "{ran:?}");
    assert_eq!(server.wsd(["check"]).await.code, Some(0), "nothing is connected to");
}

#[tokio::test]
async fn a_check_doubts_a_user_without_a_password() {
    let engine = Engine::start().await;
    let address = format!("\"unix:{}?user=ann\"", engine.socket().display());
    let server = node(&engine, 4).set("cluster.engine", address).start_nothing();
    let said = server.wsd(["check", "--connect"]).await.ok();
    assert!(said.contains("the user ann and there is no password"), "{said}");
}

#[tokio::test]
async fn a_check_tells_of_an_engine_that_answers_and_keeps_nothing() {
    for (setting, value, word) in [
        ("--replicaof", "127.0.0.1 1", "name its master"),
        ("--maxmemory", "1", "raise its maxmemory"),
        ("--requirepass", "hush", "cluster.password_file"),
    ] {
        let engine = Engine::start_with(&[setting, value]).await;
        let server = node(&engine, 4).start_nothing();
        let ran = server.wsd(["check", "--connect"]).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
    }
}

#[tokio::test]
async fn a_check_finds_each_right_that_a_node_needs_and_its_user_lacks() {
    let engine = Engine::start().await;
    let server = node(&engine, 4).start_nothing();
    let rights = "getrange set del hget hset eval publish subscribe unsubscribe pubsub info";
    for right in rights.split(' ') {
        let set = engine.ask(&format!("ACL SETUSER default +@all -{right}"));
        assert!(set.unwrap().starts_with("+OK"), "{right}");
        let ran = server.wsd(["check", "--connect"]).await;
        assert_eq!(ran.code, Some(1), "{right}: {ran:?}");
        assert!(ran.stderr.contains("lacks a right: docs/cluster.md"), "{right}: {ran:?}");
    }
    engine.ask("ACL SETUSER default +@all");
    server.wsd(["check", "--connect"]).await.ok();
    let left = engine.ask("KEYS *").unwrap();
    assert!(left.starts_with("*0"), "nothing is left of what was tried: {left}");
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_refused_by_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("old.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer) {
                let answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
                if stream.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    let setup = Setup::stock().set("cluster.engine", format!("\"unix:{}\"", socket.display()));
    let server = setup.set("cluster.node", 1).start_nothing();
    let ran = server.wsd(["check", "--connect"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("wsd needs a Redis 6 or later"), "{ran:?}");
}

#[tokio::test]
async fn a_node_that_speaks_another_envelope_is_named_and_refused() {
    let engine = Engine::start().await;
    let record = r#"{'node':9,'host':'elsewhere','version':'9.9.9','envelope':2}"#;
    let record = record.replace('\'', "\\\"");
    let kept = engine.ask(&format!("SET wsd:wsd:lease:9 \"0000000000000001{record}\"")).unwrap();
    assert!(kept.starts_with("+OK"), "{kept}");
    let (server, ran) = node(&engine, 1).try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for word in ["node 9", "elsewhere", "wsd 9.9.9", "version 2", "version 1", "upgrade one"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    server.is_gone().await;
}

#[tokio::test]
async fn what_is_no_envelope_is_counted_and_dropped() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let other_version = r"wsd\x02\x05\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00";
    for bytes in ["nonsense", "", "wsd", other_version] {
        let told = engine.ask(&format!("PUBLISH wsd:wsd:a \"{bytes}\"")).unwrap();
        assert!(told.starts_with(":2"), "{told}");
    }
    for server in &nodes {
        until("the counter", async || {
            (server.status().await["cluster"]["garbled"] == 4).then_some(())
        })
        .await;
    }
    let other = there.who().await.fd;
    assert_eq!(here.ask(format!("confirmed {other} on")).await, "confirmed queued");
    assert_eq!(there.receive().await, "on");
}

#[tokio::test]
async fn what_is_written_to_the_engine_without_end_is_not_read_without_end() {
    let engine = Engine::start().await;
    let server = node(&engine, 0).start().await;
    sees(&server, 1).await;
    let peak = |courier: i32| memory(courier, "status", "VmHWM");
    let (first, before) = (server.courier(), peak(server.courier()));
    let counts = async |least: u64| {
        until("the leases to be counted", async || {
            let garbled = server.status().await["cluster"]["garbled"].as_u64();
            garbled.filter(|garbled| *garbled >= least)
        })
        .await
    };
    engine.ask("LPUSH wsd:wsd:lease:8 x").unwrap();
    let counted = counts(1).await;
    engine.ask("SETRANGE wsd:wsd:lease:9 150000000 x").unwrap();
    // Each look counts each of the two: behind three counts, a whole look has read the long one.
    counts(counted + 3).await;
    sees(&server, 1).await;
    assert!(peak(first) - before < 50 << 20, "{before} and then {}", peak(first));
    let long = "return redis.call('HSET', KEYS[1], ARGV[1], string.rep('9', 60000000))";
    for field in ["7", "beyond"] {
        engine.ask(&format!("EVAL \"{long}\" 1 wsd:wsd:serials:0 {field}")).unwrap();
    }
    kill(first, Signal::SIGKILL);
    until("another courier", async || {
        let joined = server.log().matches("joined the cluster").count();
        (joined == 2).then_some(())
    })
    .await;
    let second = server.courier();
    assert!(peak(second) - before < 50 << 20, "{before} and then {}", peak(second));
}
