//! Sentinels bring a replica to the place of a master that died: the nodes follow.

use super::{node, sees};
use crate::harness::*;

#[tokio::test]
async fn a_failover_by_sentinels_is_an_outage_that_heals() {
    let mut group = SentinelGroup::start().await;
    let mut nodes = Vec::new();
    let engine = Engine::start().await;
    for number in 0..2 {
        let setup = node(&engine, number).set("cluster.engine", group.address());
        nodes.push(setup.start().await);
    }
    for server in &nodes {
        sees(server, 2).await;
    }
    let (mut here, mut there) = (nodes[0].client().await, nodes[1].client().await);
    there.ask("join-confirmed me lobby").await;
    assert_eq!(here.ask("tally lobby before").await, "tally queued for 1 true");
    assert_eq!(there.receive().await, "before");
    group.kill_master();
    until("the engine to be away", async || {
        let status = nodes[0].status().await;
        (!status["cluster"]["away_since"].is_null()).then_some(())
    })
    .await;
    for server in &nodes {
        sees(server, 2).await;
    }
    assert_eq!(here.ask("tally lobby after").await, "tally queued for 1 true");
    assert_eq!(there.receive().await, "after");
}
