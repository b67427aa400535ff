//! Who is present on several nodes: one event for each stay of a user, whatever dies, and no event
//! for whoever stays.

use nix::sys::signal::Signal;

use super::{is_alone, node, sees};
use crate::harness::*;

const ROOM: &str = "presence-a";

async fn start(engine: &Engine, count: u8) -> Vec<Server> {
    let mut servers = Vec::new();
    for number in 0..count {
        let setup = node(engine, number).set("rooms_presence", r#"["presence-"]"#);
        servers.push(setup.start().await);
    }
    for server in &servers {
        sees(server, count).await;
    }
    servers
}

/// Binds a client of a node to a user and puts it into the room; the list that it begins with.
async fn enter(server: &Server, uid: &str) -> (Client, String) {
    let mut client = server.client().await;
    assert_eq!(client.ask(format!("bind me {uid}")).await, "bind queued");
    client.send(format!("join-confirmed me {ROOM}")).await;
    loop {
        let heard = client.receive().await;
        if let Some(list) = heard.strip_prefix("join-confirmed ") {
            return (client, list.to_owned());
        }
        assert_eq!(heard, format!("added {uid}"), "nobody is told who was there before");
    }
}

/// The events that a client has heard until a word of its own.
async fn events(client: &mut Client) -> Vec<String> {
    client.send("echo now").await;
    let mut heard = Vec::new();
    loop {
        match client.receive().await {
            now if now == "echo now" => return heard,
            event => heard.push(event),
        }
    }
}

/// Waits until a client is told this, and fails where it is told anything else.
async fn hears(client: &mut Client, event: &str) {
    assert_eq!(client.receive().await, event);
    assert!(events(client).await.is_empty(), "{event} and nothing else");
}

/// Waits until everybody of a list is present for a client, with these counts.
async fn counts(client: &mut Client, wanted: &[(&str, u32)]) {
    until("the list", async || {
        let list = client.ask(format!("presence {ROOM}")).await;
        let has = |(uid, count): &(&str, u32)| {
            list.contains(&format!(r#""uid":"{uid}","count":{count},"#))
        };
        let all = wanted.iter().all(has) && list.matches("uid").count() == wanted.len();
        all.then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_stay_of_a_user_on_any_node_is_one_event_on_every_other() {
    let engine = Engine::start().await;
    let nodes = start(&engine, 3).await;
    let (mut ann, first) = enter(&nodes[0], "ann").await;
    assert!(first.contains("ann"), "{first}");
    events(&mut ann).await;
    let (mut bob, list) = enter(&nodes[1], "bob").await;
    assert!(list.contains("ann") && list.contains("bob"), "{list}");
    hears(&mut ann, "added bob").await;
    events(&mut bob).await;
    // Another connection of a user is no event, also of another node.
    let (mut second, list) = enter(&nodes[2], "ann").await;
    assert!(list.contains("ann") && list.contains("bob"), "{list}");
    counts(&mut ann, &[("ann", 2), ("bob", 1)]).await;
    counts(&mut bob, &[("ann", 2), ("bob", 1)]).await;
    events(&mut second).await;
    ann.ask(format!("leave me {ROOM}")).await;
    counts(&mut bob, &[("ann", 1), ("bob", 1)]).await;
    assert_eq!(second.close(1000, "").await, Closed::Frame(1000, String::new()));
    hears(&mut bob, "removed ann").await;
    // Who is not there may ask as well.
    let mut stranger = nodes[2].client().await;
    counts(&mut stranger, &[("bob", 1)]).await;
}

#[tokio::test]
async fn outages_of_the_engine_and_new_managers_and_couriers_are_no_event_for_who_stays() {
    let mut engine = Engine::start().await;
    let nodes = start(&engine, 2).await;
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (mut bob, _) = enter(&nodes[1], "bob").await;
    let (mut cid, _) = enter(&nodes[1], "cid").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1), ("cid", 1)]).await;
    for client in [&mut ann, &mut bob, &mut cid] {
        events(client).await;
    }
    engine.kill();
    until("the engine to be away", async || {
        let status = nodes[0].status().await;
        (!status["cluster"]["away_since"].is_null()).then_some(())
    })
    .await;
    // Who leaves meanwhile is told when the engine is back, and nobody else.
    cid.ask(format!("leave me {ROOM}")).await;
    hears(&mut bob, "removed cid").await;
    engine.start_again().await;
    for server in &nodes {
        sees(server, 2).await;
    }
    hears(&mut ann, "removed cid").await;
    let manager = nodes[0].manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (nodes[0].manager().await != manager).then_some(())).await;
    sees(&nodes[0], 2).await;
    kill(nodes[0].courier(), Signal::SIGKILL);
    until("another courier", async || {
        (nodes[0].log().matches("joined the cluster").count() == 3).then_some(())
    })
    .await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    counts(&mut bob, &[("ann", 1), ("bob", 1)]).await;
    assert!(events(&mut ann).await.is_empty() && events(&mut bob).await.is_empty());
}

#[tokio::test]
async fn who_was_on_a_node_that_dies_is_gone_everywhere_once() {
    let engine = Engine::start().await;
    let nodes = start(&engine, 3).await;
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (mut bob, _) = enter(&nodes[1], "bob").await;
    let (_cid, _) = enter(&nodes[2], "cid").await;
    for client in [&mut ann, &mut bob] {
        counts(client, &[("ann", 1), ("bob", 1), ("cid", 1)]).await;
        events(client).await;
    }
    for process in nodes[2].processes() {
        // Some end by themselves as the others die.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    hears(&mut ann, "removed cid").await;
    hears(&mut bob, "removed cid").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
}

/// Waits until so many of two nodes are subscribed to the room.
async fn subscribed(engine: &Engine, count: u32) {
    until("the subscriptions", async || {
        let said = engine.ask(&format!("PUBSUB NUMSUB wsd:wsd:t:#{ROOM}"))?;
        said.contains(&format!(":{count}\r\n+OK")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_left_while_nobody_could_be_told_is_no_ghost_when_the_manager_that_knew_is_dead() {
    let mut engine = Engine::start().await;
    let nodes = start(&engine, 2).await;
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (bob, _) = enter(&nodes[1], "bob").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    events(&mut ann).await;
    engine.kill();
    for server in &nodes {
        is_alone(server).await;
    }
    assert_eq!(bob.close(1000, "").await, Closed::Frame(1000, String::new()));
    // The manager knows, and cannot tell the other node; the next one has never heard of bob.
    until("the room to be gone", async || {
        (nodes[1].status().await["cluster"]["topics"] == 0).then_some(())
    })
    .await;
    let manager = nodes[1].manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (nodes[1].manager().await != manager).then_some(())).await;
    engine.start_again().await;
    for server in &nodes {
        sees(server, 2).await;
    }
    hears(&mut ann, "removed bob").await;
    counts(&mut ann, &[("ann", 1)]).await;
}

#[tokio::test]
async fn who_left_while_a_node_heard_nothing_is_no_ghost_there() {
    let engine = Engine::start().await;
    let nodes = start(&engine, 2).await;
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (bob, _) = enter(&nodes[1], "bob").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    events(&mut ann).await;
    let courier = nodes[0].courier();
    kill(courier, Signal::SIGSTOP);
    assert_eq!(bob.close(1000, "").await, Closed::Frame(1000, String::new()));
    subscribed(&engine, 1).await;
    kill(courier, Signal::SIGKILL);
    hears(&mut ann, "removed bob").await;
    counts(&mut ann, &[("ann", 1)]).await;
}

#[tokio::test]
async fn a_new_manager_takes_nobody_for_gone_whose_node_is_cut_off_just_then() {
    let engine = Engine::start().await;
    let mut nodes = Vec::new();
    for number in 0..2 {
        let setup = node(&engine, number).set("cluster.lease_ttl", "\"30s\"");
        nodes.push(setup.set("rooms_presence", r#"["presence-"]"#).start().await);
    }
    for server in &nodes {
        sees(server, 2).await;
    }
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (_bob, _) = enter(&nodes[1], "bob").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    events(&mut ann).await;
    // The master that would start another courier stands still.
    let (master, courier) = (nodes[1].master().await, nodes[1].courier());
    kill(master, Signal::SIGSTOP);
    kill(courier, Signal::SIGKILL);
    subscribed(&engine, 1).await;
    let manager = nodes[0].manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (nodes[0].manager().await != manager).then_some(())).await;
    sees(&nodes[0], 2).await;
    let list = ann.ask(format!("presence {ROOM}")).await;
    assert!(list.contains("ann"), "{list}");
    kill(master, Signal::SIGCONT);
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    assert!(events(&mut ann).await.is_empty());
}
