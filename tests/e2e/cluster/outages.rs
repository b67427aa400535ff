//! The engine is killed, stopped, or comes back with nothing in it; a courier or a manager is
//! killed: no client notices but by what is told, and everything heals.

use nix::sys::signal::Signal;

use super::{is_alone, node, nodes, sees};
use crate::harness::*;

/// That a publish on one node reaches a client of the other, whose join is known.
async fn reaches(from: &mut Client, to: &mut Client, room: &str, text: &str) {
    assert_eq!(from.ask(format!("tally {room} {text}")).await, "tally queued for 1 true");
    assert_eq!(to.receive().await, text);
}

#[tokio::test]
async fn an_engine_that_is_killed_costs_no_client_and_comes_back_empty_to_all_that_was() {
    let mut engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let other = there.who().await.fd;
    there.ask("join-confirmed me lobby").await;
    reaches(&mut here, &mut there, "lobby", "before").await;
    engine.kill();
    for server in &nodes {
        is_alone(server).await;
    }
    assert_eq!(here.ask("publish lobby x").await, "publish local_only");
    assert_eq!(here.ask(format!("push {other} x")).await, "push unknown");
    assert_eq!(here.ask(format!("confirmed {other} x")).await, "confirmed unknown");
    let tally = here.ask("tally lobby x").await;
    assert!(tally.contains("the engine is away") && tally.ends_with("false"), "{tally}");
    // Rooms of this node go on, and who joins meanwhile is a member.
    assert_eq!(here.ask("join-confirmed me here").await, "join-confirmed []");
    assert_eq!(here.ask("publish here own").await, "own");
    assert_eq!(here.receive().await, "publish local_only");
    engine.start_again().await;
    for server in &nodes {
        sees(server, 2).await;
    }
    reaches(&mut here, &mut there, "lobby", "after").await;
    reaches(&mut there, &mut here, "here", "joined meanwhile").await;
    assert!(nodes[0].status().await["cluster"]["gaps"].as_u64() > Some(0));
}

#[tokio::test]
async fn an_engine_that_hangs_is_away_and_is_back_when_it_goes_on() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    there.ask("join-confirmed me lobby").await;
    engine.signal(Signal::SIGSTOP);
    for server in &nodes {
        is_alone(server).await;
    }
    assert_eq!(here.ask("echo here").await, "echo here");
    engine.signal(Signal::SIGCONT);
    for server in &nodes {
        sees(server, 2).await;
    }
    reaches(&mut here, &mut there, "lobby", "after").await;
}

/// A figure of a server's metrics.
async fn figure(server: &Server, name: &str) -> f64 {
    let text = Api::of(server).await.get("/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
}

#[tokio::test]
async fn a_gap_is_told_by_status_nodes_and_metrics_and_outlives_courier_and_manager() {
    let mut engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let gaps = async |server: &Server| server.status().await["cluster"]["gaps"].as_u64().unwrap();
    for server in &nodes {
        assert_eq!(gaps(server).await, 0);
    }
    engine.kill();
    for server in &nodes {
        is_alone(server).await;
    }
    until("the metrics", async || {
        (figure(&nodes[0], "wsd_cluster_away").await == 1.0).then_some(())
    })
    .await;
    engine.start_again().await;
    for server in &nodes {
        sees(server, 2).await;
        until("the gap", async || (gaps(server).await == 1).then_some(())).await;
    }
    kill(nodes[0].courier(), Signal::SIGKILL);
    until("the second gap", async || (gaps(&nodes[0]).await == 2).then_some(())).await;
    let restarts = "wsd_restarts_total{process=\"courier\"}";
    until("the restart", async || (figure(&nodes[0], restarts).await == 1.0).then_some(())).await;
    let courier = until("the courier in the status", async || {
        let courier = nodes[0].status().await["courier"].clone();
        (courier["restarts"] == 1 && !courier["pid"].is_null()).then_some(courier)
    })
    .await;
    assert_eq!(courier["pid"], nodes[0].courier());
    assert!(courier["memory_bytes"].as_u64() > Some(1 << 20), "{courier}");
    let page = nodes[0].wsd(["status"]).await.ok();
    assert!(page.contains("courier") && page.contains("started again once"), "{page}");
    let manager = nodes[0].manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (nodes[0].manager().await != manager).then_some(())).await;
    until("the third gap", async || (gaps(&nodes[0]).await == 3).then_some(())).await;
    sees(&nodes[0], 2).await;
    until("the metrics", async || {
        let gaps = figure(&nodes[0], "wsd_cluster_gaps_total").await;
        let others = figure(&nodes[0], "wsd_cluster_nodes").await;
        (gaps == 3.0 && others == 2.0).then_some(())
    })
    .await;
    until("the other node to list it", async || {
        let list = nodes[1].wsd(["nodes", "--json"]).await.ok();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let of = |node: usize| list.as_array().map(|list| list[node]["gaps"].clone());
        (of(0)? == 3 && of(1)? == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_dies_silently_is_found_and_healed() {
    let engine = Engine::start().await;
    let proxy = DeafProxy::start(engine.socket());
    let setup = node(&engine, 0).set("cluster.engine", proxy.address());
    let nodes = [setup.start().await, node(&engine, 1).start().await];
    for server in &nodes {
        sees(server, 2).await;
    }
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    here.ask("join-confirmed me lobby").await;
    reaches(&mut there, &mut here, "lobby", "before").await;
    proxy.set_deaf(true);
    // Every command is answered, and the engine counts the subscriptions as ever. The node is away
    // for so short a time that a look at its status may miss that.
    until("the probe to be missed", async || {
        nodes[0].log().contains("what is published does not come back").then_some(())
    })
    .await;
    proxy.set_deaf(false);
    for server in &nodes {
        sees(server, 2).await;
    }
    reaches(&mut there, &mut here, "lobby", "after").await;
    assert!(nodes[0].status().await["cluster"]["gaps"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_killed_courier_and_a_killed_manager_cost_no_client_and_know_all_again() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    there.ask("join-confirmed me lobby").await;
    let couriers = |server: &Server| {
        let processes = server.processes().into_iter();
        processes.filter(|it| it.name == "wsd: courier").map(|it| it.pid).collect::<Vec<_>>()
    };
    let before = couriers(&nodes[1]);
    kill(before[0], Signal::SIGKILL);
    until("another courier", async || {
        let now = couriers(&nodes[1]);
        (now.len() == 1 && now != before).then_some(())
    })
    .await;
    sees(&nodes[1], 2).await;
    reaches(&mut here, &mut there, "lobby", "after the courier").await;
    let manager = nodes[1].manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (nodes[1].manager().await != manager).then_some(())).await;
    sees(&nodes[1], 2).await;
    reaches(&mut here, &mut there, "lobby", "after the manager").await;
    // Who leaves is still known to leave.
    there.ask("leave me lobby").await;
    until("nobody to be there", async || {
        (here.ask("tally lobby x").await == "tally queued for 0 true").then_some(())
    })
    .await;
}
