//! Nodes that come, go, die, or are one too many.

use std::pin::pin;

use nix::sys::signal::Signal;

use super::{node, nodes, sees};
use crate::harness::*;

#[tokio::test]
async fn a_second_node_of_one_number_refuses_to_start_and_names_the_first() {
    let engine = Engine::start().await;
    let first = node(&engine, 7).start().await;
    let (second, ran) = node(&engine, 7).try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let host = nix::sys::utsname::uname().unwrap().nodename().to_string_lossy().into_owned();
    for word in ["node 7", &host, "cluster.node"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    second.is_gone().await;
    let mut client = first.client().await;
    assert_eq!(client.ask("echo still here").await, "echo still here");
}

#[tokio::test]
async fn a_node_that_stops_gives_its_number_back_at_once_and_is_gone_for_the_others() {
    let engine = Engine::start().await;
    let mut nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let other = there.who().await.fd;
    assert_eq!(nodes[1].wsd(["stop"]).await.code, Some(0));
    sees(&nodes[0], 1).await;
    until("the node to be known dead", async || {
        (here.ask(format!("confirmed {other} x")).await == "confirmed gone").then_some(())
    })
    .await;
    assert_eq!(nodes[1].start_again().await.code, Some(0));
    sees(&nodes[0], 2).await;
    let mut there = nodes[1].client().await;
    let other = there.who().await.fd;
    assert_eq!(here.ask(format!("confirmed {other} again")).await, "confirmed queued");
    assert_eq!(there.receive().await, "again");
}

#[tokio::test]
async fn a_node_that_dies_with_everything_is_gone_once_its_lease_has_ended() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let mut here = nodes[0].client().await;
    let other = nodes[1].client().await.who().await.fd;
    for process in nodes[1].processes() {
        // Some end by themselves as the others die.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    sees(&nodes[0], 1).await;
    until("the node to be known dead", async || {
        (here.ask(format!("confirmed {other} x")).await == "confirmed gone").then_some(())
    })
    .await;
    assert_eq!(here.ask("tally lobby x").await, "tally queued for 0 true");
}

#[tokio::test]
async fn a_master_that_dies_takes_the_courier_along_which_says_good_bye() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    kill(nodes[1].master().await, Signal::SIGKILL);
    nodes[1].is_gone().await;
    sees(&nodes[0], 1).await;
    assert!(nodes[0].log().contains("has left the cluster"), "its lease need not end by itself");
}

#[tokio::test]
async fn a_node_starts_alone_without_the_engine_if_it_knows_its_numbers_and_else_not_at_all() {
    let mut engine = Engine::start().await;
    // Numbers only grow within a slot, so there is one.
    let mut server = node(&engine, 3).set("worker_num", 1).start().await;
    let before = server.client().await.who().await.fd;
    assert_eq!(server.wsd(["stop"]).await.code, Some(0));
    engine.kill();
    let ran = server.start_again().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(server.log().contains("the node starts alone"));
    assert!(ran.stderr.contains("the node starts alone"), "whoever starts it is told: {ran:?}");
    let after = server.client().await.who().await.fd;
    assert!(after > before && after >> 47 == 3);
    engine.start_again().await;
    sees(&server, 1).await;
    engine.kill();
    assert_eq!(server.wsd(["stop"]).await.code, Some(0));
    std::fs::remove_file(server.runtime().join("serials")).unwrap();
    let mut start = server.starter();
    let mut start = start.arg("start").kill_on_drop(true).spawn().expect("start it");
    // It waits, and serves nobody, until the engine is there.
    until("the courier", async || server.log().contains("courier started").then_some(())).await;
    let waits = until("the status", async || {
        let trouble = server.status().await["troubles"][0].as_str().map(str::to_owned);
        trouble.filter(|trouble| trouble.contains("the engine is away"))
    })
    .await;
    assert!(server.workers().await.is_empty(), "{waits}");
    engine.start_again().await;
    sees(&server, 1).await;
    server.serving(0, None).await;
    assert_eq!(server.wsd(["stop"]).await.code, Some(0));
    soon("the start to end", start.wait()).await.expect("its status");
}

#[tokio::test]
async fn the_engine_knows_which_numbers_a_node_has_given_where_its_file_is_lost() {
    let engine = Engine::start().await;
    let mut server = node(&engine, 3).set("worker_num", 1).start().await;
    let before = server.client().await.who().await.fd;
    let serial = |fd: u64| fd & ((1 << 39) - 1);
    let kept = || {
        let answer = engine.ask("HGET wsd:wsd:serials:3 0").unwrap();
        answer.lines().nth(1).and_then(|line| line.parse::<u64>().ok())
    };
    let kept = until("the engine to know", async || kept()).await;
    assert!(kept > serial(before));
    // Far beyond what clock and file say.
    engine.ask(&format!("HSET wsd:wsd:serials:3 0 {}", kept * 4)).unwrap();
    assert_eq!(server.wsd(["stop"]).await.code, Some(0));
    std::fs::remove_file(server.runtime().join("serials")).unwrap();
    assert_eq!(server.start_again().await.code, Some(0));
    let after = server.client().await.who().await.fd;
    assert!(serial(after) >= kept * 4, "{kept} {}", serial(after));
}

#[tokio::test]
async fn the_engine_knows_the_numbers_of_a_node_that_ends_as_soon_as_it_serves() {
    let engine = Engine::start().await;
    let server = node(&engine, 3).set("worker_num", 1).start().await;
    assert_eq!(server.wsd(["stop"]).await.code, Some(0));
    let file = std::fs::read_to_string(server.runtime().join("serials")).unwrap();
    let granted = file.lines().find_map(|line| line.strip_prefix("0 ")?.parse::<u64>().ok());
    let kept = engine.ask("HGET wsd:wsd:serials:3 0").unwrap();
    let kept = kept.lines().nth(1).and_then(|line| line.parse::<u64>().ok());
    assert!(granted.is_some() && kept >= granted, "{kept:?}, and the file says {granted:?}");
}

#[tokio::test]
async fn an_upgrade_and_a_reload_keep_number_clients_and_rooms() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let other = there.who().await.fd;
    there.ask("join-confirmed me lobby").await;
    for change in ["reload", "upgrade"] {
        assert_eq!(nodes[1].wsd([change]).await.code, Some(0), "{change}");
        sees(&nodes[1], 2).await;
        sees(&nodes[0], 2).await;
        assert_eq!(here.ask(format!("confirmed {other} {change}")).await, "confirmed queued");
        assert_eq!(there.receive().await, change);
        assert_eq!(here.ask("tally lobby all").await, "tally queued for 1 true");
        assert_eq!(there.receive().await, "all");
    }
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_was_asked_before_it_leaves() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let mut here = nodes[0].client().await;
    let mut there = nodes[1].client().await;
    there.ask("join-confirmed me lobby").await;
    let (mut stopped, mut tallies) = (pin!(nodes[1].wsd(["stop"])), Vec::new());
    // One question after the other, until the node has left.
    let ran = loop {
        tokio::select! {
            biased;
            ran = &mut stopped => break ran,
            tally = here.ask("tally lobby x") => tallies.push(tally),
        }
    };
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let is_whole = |tally: &String| tally.ends_with(" true");
    assert!(tallies.len() > 1 && tallies.iter().all(is_whole), "{tallies:?}");
}
