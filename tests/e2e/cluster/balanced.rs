//! Nodes behind a real nginx, which chooses a node for each client.

use std::collections::BTreeSet;

use super::{nodes, sees};
use crate::harness::*;
use crate::proxy::Nginx;

#[tokio::test]
async fn behind_a_balancer_clients_reach_each_other_on_whatever_node_and_one_may_leave() {
    let engine = Engine::start().await;
    let mut nodes = nodes(&engine, 3).await;
    let mut addresses = Vec::new();
    for server in &nodes {
        let address = server.status().await["listen"][0].as_str().expect("an address").to_owned();
        addresses.push(address);
    }
    let directory = tempfile::tempdir().unwrap();
    let nginx = Nginx::balancing(directory.path(), &addresses).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(&nginx.address, "/ws").await;
        let fd = client.who().await.fd;
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
        clients.push((fd, client));
    }
    let on: BTreeSet<u64> = clients.iter().map(|(fd, _)| fd >> 47).collect();
    assert_eq!(on, BTreeSet::from([0, 1, 2]), "it takes one after the other");
    let numbers: Vec<u64> = clients.iter().map(|(fd, _)| *fd).collect();
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let pushed = clients[from].1.ask(format!("confirmed {} hello {from}", numbers[to])).await;
        assert_eq!(pushed, "confirmed queued");
        assert_eq!(clients[to].1.receive().await, format!("hello {from}"));
    }
    // A node leaves; its clients come back by nginx, to another.
    assert_eq!(nodes[1].wsd(["stop"]).await.code, Some(0));
    for server in [&nodes[0], &nodes[2]] {
        sees(server, 2).await;
    }
    let (gone, mut stay): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|(fd, _)| fd >> 47 == 1);
    for (_, mut client) in gone {
        assert!(matches!(client.closed().await, Closed::Frame(1001, _)));
        let mut back = Client::connect(&nginx.address, "/ws").await;
        let fd = back.who().await.fd;
        assert_ne!(fd >> 47, 1);
        assert_eq!(back.ask("join-confirmed me lobby").await, "join-confirmed []");
        stay.push((fd, back));
    }
    let told = stay[0].1.ask("tally lobby all").await;
    // The publisher is a member as well, and may hear the message before the tally.
    let (first, second) = (told, stay[0].1.receive().await);
    let both = BTreeSet::from([first.as_str(), second.as_str()]);
    assert_eq!(both, BTreeSet::from(["tally queued for 6 true", "all"]));
    for (_, client) in &mut stay[1..] {
        assert_eq!(client.receive().await, "all");
    }
    assert_eq!(nodes[1].start_again().await.code, Some(0));
    for server in &nodes {
        sees(server, 3).await;
    }
}
