//! What a cluster says is true: of users behind a freeze, of tallies and lists while a part of the
//! cluster is away, and of connections on all nodes.

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::presence::{ROOM, counts, enter, events, hears, start};
use super::{is_alone, node, nodes, sees};
use crate::harness::*;

/// Sends a signal to every process of a server that lives.
fn signal_all(server: &Server, what: Signal) {
    for process in server.processes() {
        // Some may have ended meanwhile.
        let _ = signal::kill(Pid::from_raw(process.pid), what);
    }
}

#[tokio::test]
async fn who_is_on_a_node_that_was_frozen_beyond_its_lease_is_there_again_for_all() {
    let engine = Engine::start().await;
    let nodes = start(&engine, 2).await;
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (mut bob, _) = enter(&nodes[1], "bob").await;
    for client in [&mut ann, &mut bob] {
        counts(client, &[("ann", 1), ("bob", 1)]).await;
        events(client).await;
    }
    signal_all(&nodes[1], Signal::SIGSTOP);
    hears(&mut ann, "removed bob").await;
    signal_all(&nodes[1], Signal::SIGCONT);
    hears(&mut ann, "added bob").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    counts(&mut bob, &[("ann", 1), ("bob", 1)]).await;
    assert!(events(&mut bob).await.is_empty(), "ann was there all the time");
}

/// What a publish by the command line says, and its status.
async fn published(server: &Server, room: &str) -> (Option<i32>, Value) {
    let ran = server.wsd(["publish", room, "x", "--json"]).await;
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_default())
}

#[tokio::test]
async fn behind_an_outage_no_list_and_no_tally_is_whole_before_all_nodes_are_back() {
    let mut engine = Engine::start().await;
    let mut nodes = Vec::new();
    for number in 0..2 {
        let setup = node(&engine, number).set("cluster.lease_ttl", "\"60s\"");
        nodes.push(setup.start().await);
    }
    for server in &nodes {
        sees(server, 2).await;
    }
    let mut there = nodes[1].client().await;
    assert_eq!(there.ask("join-confirmed me lobby").await, "join-confirmed []");
    let courier = nodes[1].courier();
    kill(courier, Signal::SIGSTOP);
    engine.kill();
    is_alone(&nodes[0]).await;
    engine.start_again().await;
    until("the engine", async || {
        nodes[0].status().await["cluster"]["away_since"].is_null().then_some(())
    })
    .await;
    let (code, told) = published(&nodes[0], "lobby").await;
    assert_eq!((code, &told["engine"]), (Some(6), &Value::from("ok")), "{told}");
    assert!(told["nodes"]["asked"].is_null(), "{told}");
    let members = nodes[0].wsd(["members", "lobby"]).await;
    assert!(members.code == Some(6), "{members:?}");
    assert!(members.stderr.contains("nobody knows of other nodes"), "{members:?}");
    // The master may have replaced the courier meanwhile.
    let _ = signal::kill(Pid::from_raw(courier), Signal::SIGCONT);
    for server in &nodes {
        sees(server, 2).await;
    }
    let (code, told) = published(&nodes[0], "lobby").await;
    assert_eq!((code, &told["queued"]), (Some(0), &Value::from(1)), "{told}");
    assert_eq!(there.receive().await, "x");
}

/// Waits until a list of presence says this of the other nodes, and whether it is whole.
async fn lists(client: &mut Client, wanted: &str) {
    until(wanted, async || {
        let told = client.ask(format!("presence-nodes {ROOM}")).await;
        (told == format!("presence-nodes {wanted}")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_a_node_is_silent_no_list_of_presence_is_whole() {
    let engine = Engine::start().await;
    let mut nodes = Vec::new();
    for number in 0..3 {
        let setup = node(&engine, number).set("cluster.lease_ttl", "\"60s\"");
        nodes.push(setup.set("rooms_presence", r#"["presence-"]"#).start().await);
    }
    for server in &nodes {
        sees(server, 3).await;
    }
    let (mut ann, _) = enter(&nodes[0], "ann").await;
    let (_bob, _) = enter(&nodes[1], "bob").await;
    counts(&mut ann, &[("ann", 1), ("bob", 1)]).await;
    events(&mut ann).await;
    // Of a room that nobody of the node is in, the others are asked.
    let mut stranger = nodes[2].client().await;
    lists(&mut ann, r#"{"asked":1,"answered":1} true"#).await;
    lists(&mut stranger, r#"{"asked":2,"answered":2} true"#).await;
    // The master that would start another courier stands still.
    let (master, courier) = (nodes[1].master().await, nodes[1].courier());
    kill(master, Signal::SIGSTOP);
    kill(courier, Signal::SIGKILL);
    for client in [&mut ann, &mut stranger] {
        lists(client, r#"{"asked":null,"answered":1} false"#).await;
    }
    kill(master, Signal::SIGCONT);
    lists(&mut ann, r#"{"asked":1,"answered":1} true"#).await;
    lists(&mut stranger, r#"{"asked":2,"answered":2} true"#).await;
}

#[tokio::test]
async fn while_the_engine_is_away_every_command_and_the_api_say_that_it_is() {
    let mut engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let mut here = nodes[0].client().await;
    assert_eq!(here.ask("join-confirmed me lobby").await, "join-confirmed []");
    let sent = nodes[0].wsd(["broadcast", "all"]).await.ok();
    assert!(sent.contains("and to the other nodes"), "{sent}");
    assert_eq!(here.receive().await, "all");
    engine.kill();
    for server in &nodes {
        is_alone(server).await;
    }
    let sent = nodes[0].wsd(["broadcast", "all"]).await.ok();
    assert!(sent.contains("of this node alone: the engine is away"), "{sent}");
    assert_eq!(here.receive().await, "all");
    let (code, told) = published(&nodes[0], "lobby").await;
    assert_eq!((code, &told["queued"]), (Some(6), &Value::from(1)), "{told}");
    assert_eq!(here.receive().await, "x");
    for list in
        [&["members", "lobby"][..], &["rooms"], &["nodes"], &["connections", "--room", "lobby"]]
    {
        let ran = nodes[0].wsd(list).await;
        let is_told = ran.stderr.contains("the engine is away") && !ran.stdout.is_empty();
        assert!(ran.code == Some(6) && is_told, "{list:?}: {ran:?}");
        let ran = nodes[0].wsd(list.iter().chain(&["--json"])).await;
        assert!(ran.code == Some(6) && ran.stdout.ends_with("]\n"), "{list:?}: {ran:?}");
    }
    for list in [&["members", "lobby", "--here"][..], &["rooms", "--here"]] {
        assert_eq!(nodes[0].wsd(list).await.code, Some(0), "{list:?}");
    }
    // A client of node 1, if there is one.
    let abroad: &str = &((1_u64 << 47) + 1).to_string();
    for words in [&["push", abroad, "x"][..], &["info", abroad], &["close", abroad]] {
        let ran = nodes[0].wsd(words).await;
        assert!(ran.code == Some(6) && ran.stderr.contains("the engine is away"), "{ran:?}");
    }
    let api = Api::of(&nodes[0]).await;
    let reply = api.ask("POST", "/v1/broadcast", "all").await;
    assert_eq!(reply.json()["verdict"], "local_only");
    assert_eq!(here.receive().await, "all");
    for (method, path) in [
        ("POST", "/v1/uids/nobody"),
        ("DELETE", "/v1/uids/nobody"),
        ("POST", "/v1/publish?room=no"),
    ] {
        let reply = api.ask(method, path, "x").await;
        assert_eq!((reply.status, reply.code()), (503, "unavailable".to_owned()), "{path}");
    }
    let reply = api.get("/v1/rooms/lobby/members").await;
    assert!(reply.body.contains("the engine is away"), "{}", reply.body);
}

#[tokio::test]
async fn while_the_engine_is_away_the_api_says_that_nothing_reached_another_node() {
    let mut engine = Engine::start().await;
    let server = node(&engine, 0).start().await;
    sees(&server, 1).await;
    engine.kill();
    is_alone(&server).await;
    let api = Api::of(&server).await;
    // A client of node 1, if there is one.
    let path = format!("/v1/connections/{}", (1_u64 << 47) + 1);
    let replies = [
        api.get(&path).await,
        api.ask("POST", &path, "x").await,
        api.ask("DELETE", &path, "").await,
    ];
    for reply in replies {
        let said = &reply.body;
        assert_eq!((reply.status, &*reply.code()), (503, "unavailable"), "{said}");
        assert!(said.contains("the engine is away"), "{said}");
    }
    let gone = api.get("/v1/connections/1").await;
    assert_eq!(gone.status, 410, "of its own clients the node knows: {}", gone.body);
}

#[tokio::test]
async fn the_connections_of_a_room_are_those_of_all_nodes() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let mut fds = Vec::new();
    let mut clients = Vec::new();
    for server in &nodes {
        let mut client = server.client().await;
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
        fds.push(client.who().await.fd);
        clients.push(client);
    }
    let listed = async |more: &[&str]| -> Vec<u64> {
        let words = ["connections", "--room", "lobby", "--json"].iter().chain(more);
        let list: Value = serde_json::from_str(&nodes[0].wsd(words).await.ok()).unwrap();
        let list = list.as_array().unwrap().iter();
        list.map(|connection| connection["fd"].as_u64().unwrap()).collect()
    };
    assert_eq!(listed(&[]).await, fds);
    assert_eq!(listed(&["--here"]).await, fds[..1]);
}

/// What a node says of the state of each node, in the order of their numbers.
async fn states(server: &Server) -> Vec<String> {
    let ran = server.wsd(["nodes", "--json"]).await;
    let list: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|node| node["state"].as_str().map(str::to_owned)).collect()
}

async fn says_of_all(server: &Server, what: &[&str]) {
    until("the states of the nodes", async || (states(server).await == what).then_some(())).await;
}

#[tokio::test]
async fn while_a_courier_is_replaced_no_tally_and_no_list_is_whole_and_the_others_still_answer() {
    let engine = Engine::start().await;
    let mut nodes = Vec::new();
    for number in 0..3 {
        let setup = node(&engine, number).set("cluster.lease_ttl", "\"60s\"");
        nodes.push(setup.start().await);
    }
    for server in &nodes {
        sees(server, 3).await;
    }
    let (mut silent, mut other) = (nodes[1].client().await, nodes[2].client().await);
    for client in [&mut silent, &mut other] {
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
    }
    // Nobody starts another courier while the master is stopped.
    let master = nodes[1].master().await;
    kill(master, Signal::SIGSTOP);
    kill(nodes[1].courier(), Signal::SIGKILL);
    until("the engine to have lost the courier", async || {
        engine.ask("PUBSUB NUMSUB wsd:wsd:w:1")?.contains(":0\r\n").then_some(())
    })
    .await;
    let (code, told) = published(&nodes[0], "lobby").await;
    assert_eq!((code, &told["queued"]), (Some(6), &Value::from(1)), "{told}");
    assert_eq!(told["nodes"], serde_json::json!({"asked": null, "answered": 1}), "{told}");
    assert_eq!(other.receive().await, "x");
    // Also of a room that nobody is known to be in.
    let (code, told) = published(&nodes[0], "empty").await;
    assert!(code == Some(6) && told["nodes"]["asked"].is_null(), "{told}");
    for list in [&["members", "lobby"][..], &["rooms"], &["connections", "--room", "lobby"]] {
        let ran = nodes[0].wsd(list).await;
        assert_eq!(ran.code, Some(6), "{list:?}: {ran:?}");
    }
    let mut asker = nodes[0].client().await;
    let tally = asker.ask("tally lobby y").await;
    assert!(tally.starts_with("tally queued for 1") && tally.ends_with("false"), "{tally}");
    assert_eq!(other.receive().await, "y");
    says_of_all(&nodes[0], &["serves", "silent", "serves"]).await;
    kill(master, Signal::SIGCONT);
    for server in &nodes {
        sees(server, 3).await;
    }
    assert_eq!(asker.ask("tally lobby z").await, "tally queued for 2 true");
    for client in [&mut silent, &mut other] {
        assert_eq!(client.receive().await, "z");
    }
    says_of_all(&nodes[0], &["serves", "serves", "serves"]).await;
}

#[tokio::test]
async fn every_node_is_told_which_of_them_drains_and_one_alone_knows_of_itself() {
    let mut engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let _client = nodes[1].client().await;
    for server in &nodes {
        says_of_all(server, &["serves", "serves"]).await;
    }
    nodes[1].wsd(["drain"]).await.ok();
    for server in &nodes {
        says_of_all(server, &["serves", "drains"]).await;
    }
    let before = nodes[1].courier();
    kill(before, Signal::SIGKILL);
    until("another courier", async || {
        let processes = nodes[1].processes();
        let is_there = processes.iter().any(|it| it.name == "wsd: courier" && it.pid != before);
        is_there.then_some(())
    })
    .await;
    for server in &nodes {
        sees(server, 2).await;
        says_of_all(server, &["serves", "drains"]).await;
    }
    nodes[1].wsd(["drain", "--undo"]).await.ok();
    for server in &nodes {
        says_of_all(server, &["serves", "serves"]).await;
    }
    let page = nodes[0].wsd(["nodes"]).await.ok();
    assert!(page.contains("state") && page.contains("serves") && page.contains("here"), "{page}");
    engine.kill();
    is_alone(&nodes[0]).await;
    says_of_all(&nodes[0], &["serves", "unknown"]).await;
}
