//! Several nodes on one machine, with a real engine: what reaches whom, and what is told where
//! something of it is away.
//!
//! - here: nodes and an engine that stay as they are.
//! - [`outages`]: the engine is killed, stopped, or has lost everything; a courier is killed.
//! - [`members`]: nodes that come, go, die, or are one too many.
//! - [`presence`]: who is present, wherever the connection is.
//! - [`failover`]: Sentinels bring another engine to the place of the first.
//! - [`balanced`]: behind a balancer.
//! - [`rolling`]: behind a balancer, while each node in turn is changed and stopped.
//! - [`truth`]: what is told while something is away, and of all nodes.
//! - [`trust`]: passwords, rights, and what a check says.

mod balanced;
mod failover;
mod members;
mod outages;
mod presence;
mod rolling;
mod trust;
mod truth;

use crate::harness::*;

/// A node of the cluster that an engine carries.
pub fn node(engine: &Engine, number: u8) -> Setup {
    Setup::testbed()
        .with_api()
        .set("cluster.engine", engine.address())
        .set("cluster.node", number)
        .set("cluster.lease_ttl", "\"2s\"")
}

/// So many nodes, each of which sees all, from number 0.
pub async fn nodes(engine: &Engine, count: u8) -> Vec<Server> {
    let mut servers = Vec::new();
    for number in 0..count {
        servers.push(node(engine, number).start().await);
    }
    for server in &servers {
        sees(server, count).await;
    }
    servers
}

/// Waits until a node sees so many, itself among them.
pub async fn sees(server: &Server, count: u8) {
    until("the nodes to see each other", async || {
        let cluster = &server.status().await["cluster"];
        let heard = cluster["away_since"].is_null() && cluster["unheard"] == 0;
        (cluster["nodes"] == count && heard).then_some(())
    })
    .await;
}

/// Waits until a node knows that the engine is away.
pub async fn is_alone(server: &Server) {
    until("the engine to be away", async || {
        let status = server.status().await;
        (!status["cluster"]["away_since"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_push_by_number_reaches_a_client_of_another_node_and_its_owner_says_so() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let (me, other) = (here.who().await.fd, there.who().await.fd);
    assert_eq!((me >> 47, other >> 47), (0, 1), "the number says which node it is of");
    assert_eq!(here.ask(format!("push {other} hello")).await, "push relayed");
    assert_eq!(there.receive().await, "hello");
    assert_eq!(here.ask(format!("confirmed {other} sure")).await, "confirmed queued");
    assert_eq!(there.receive().await, "sure");
    assert_eq!(there.ask(format!("confirmed {me} back")).await, "confirmed queued");
    assert_eq!(here.receive().await, "back");
    // A body that travels beside its packet, and one that no client may be sent.
    assert_eq!(here.ask(format!("big {other} 500000")).await, "big queued");
    assert!(there.next().await.unwrap().len() == 500_000);
    assert_eq!(here.ask(format!("big {other} 50000000")).await, "big too_big");
    // What an operator asks of one node is done on the other.
    assert_eq!(nodes[0].wsd(["push", &other.to_string(), "by hand"]).await.code, Some(0));
    assert_eq!(there.receive().await, "by hand");
}

#[tokio::test]
async fn questions_and_changes_by_number_are_the_owners_to_answer() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    let other = there.who().await.fd;
    assert_eq!(here.ask(format!("exists {other}")).await, "exists true");
    assert_eq!(here.ask(format!("exists {}", other + 1)).await, "exists false");
    let info = here.ask(format!("info {other}")).await;
    assert!(info.contains(&format!("\"fd\":{other}")), "{info}");
    assert_eq!(here.ask(format!("join-confirmed {other} room")).await, "join-confirmed []");
    assert_eq!(here.ask(format!("bind {other} ann")).await, "bind relayed");
    assert_eq!(here.ask(format!("confirmed {other} after the bind")).await, "confirmed queued");
    assert_eq!(there.receive().await, "after the bind");
    assert_eq!(there.ask("rooms me").await, "rooms room");
    assert_eq!(there.ask("uid me").await, "uid ann");
    let ran = nodes[0].wsd(["info", &other.to_string()]).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("ann"), "{ran:?}");
    assert!(ran.stdout.contains("of node 1\n"), "a worker of which node: {ran:?}");
    // The handler of another node closes as a handler does.
    assert_eq!(here.ask(format!("close {other} 4000 bye")).await, "close relayed");
    assert_eq!(there.closed().await, Closed::Frame(4000, "bye".to_owned()));
    until("the close to be noted", async || {
        let noted = nodes[1].events().iter().any(|line| line.contains("handler_closed"));
        noted.then_some(())
    })
    .await;
    assert_eq!(here.ask(format!("confirmed {other} gone")).await, "confirmed gone");
}

#[tokio::test]
async fn what_is_sent_to_a_node_that_never_was_is_gone_and_local_numbers_stay_as_they_are() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 1).await;
    let mut client = nodes[0].client().await;
    let nobody = (40_u64 << 47) | 1;
    // Once the node has been whole for a lease, it knows that there is no such node.
    until("the verdict", async || {
        (client.ask(format!("confirmed {nobody} x")).await == "confirmed gone").then_some(())
    })
    .await;
    let alone = Setup::testbed().start().await;
    let mut client = alone.client().await;
    assert_eq!(client.who().await.fd >> 47, 0);
    assert_eq!(client.ask(format!("confirmed {nobody} x")).await, "confirmed gone");
    assert!(alone.status().await["cluster"].is_null());
    assert!(!alone.processes().iter().any(|process| process.name == "wsd: courier"));
}

#[tokio::test]
async fn a_publish_reaches_each_member_of_every_node_once_and_in_order() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 3).await;
    let mut clients = Vec::new();
    for server in [&nodes[0], &nodes[0], &nodes[1], &nodes[2]] {
        let mut client = server.client().await;
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
        clients.push(client);
    }
    let mut stranger = nodes[2].client().await;
    for number in 0..50 {
        assert_eq!(clients[0].ask(format!("publish lobby {number}")).await, number.to_string());
        assert_eq!(clients[0].receive().await, "publish relayed");
    }
    for client in &mut clients[1..] {
        for number in 0..50 {
            assert_eq!(client.receive().await, number.to_string());
        }
        assert_eq!(client.ask("echo now").await, "echo now");
    }
    assert_eq!(stranger.ask("echo now").await, "echo now");
    assert_eq!(stranger.ask("tally lobby all").await, "tally queued for 4 true");
    for client in &mut clients {
        assert_eq!(client.receive().await, "all");
    }
}

#[tokio::test]
async fn a_member_of_several_rooms_and_a_user_of_several_nodes_are_reached_once() {
    let engine = Engine::start().await;
    let nodes = nodes(&engine, 2).await;
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    for room in ["a", "b"] {
        there.ask(format!("join-confirmed me {room}")).await;
    }
    assert_eq!(here.ask("publish-many a,b both").await, "publish-many relayed");
    assert_eq!(there.receive().await, "both");
    assert_eq!(there.ask("echo once").await, "echo once");
    here.ask("bind me ann").await;
    there.ask("bind me ann").await;
    // The interest of both is with the engine once each could be confirmed.
    for client in [&mut here, &mut there] {
        client.ask("join-confirmed me c").await;
    }
    assert_eq!(here.ask("push-uid ann hello").await, "hello");
    assert_eq!(here.receive().await, "push-uid relayed");
    assert_eq!(there.receive().await, "hello");
    assert_eq!(here.ask("count c").await, "count 2");
    assert_eq!(here.ask("broadcast to all").await, "to all");
    assert_eq!(here.receive().await, "broadcast done");
    assert_eq!(there.receive().await, "to all");
    let members = nodes[0].wsd(["members", "c", "--json"]).await.ok();
    assert_eq!(members.matches("\"fd\"").count(), 2, "{members}");
    let mut other = nodes[0].client().await;
    assert_eq!(other.ask("close-uid ann 4001 out").await, "close-uid queued");
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await, Closed::Frame(4001, "out".to_owned()));
    }
}
