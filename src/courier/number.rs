//! The node's number: its lease at the engine, who else has one, and the numbers of clients that
//! were given under it.

use std::time::Duration;

use tokio::time::sleep;

use super::engine::{Claimed, Lease, Session};
use super::state::Courier;
use crate::error::{Error, Result};
use crate::ipc::cluster::envelope::ENVELOPE_VERSION;
use crate::ipc::cluster::messages::CourierToMaster;
use crate::ipc::cluster::nodes::{NODES_MAX, NodeRecord};
use crate::sys::clock;

/// Between two tries to take a lease that another run holds, which may be a dead one's.
const CLAIM_AGAIN: Duration = Duration::from_millis(200);
/// What a lease may outlive its last renewal by, besides its own time.
const CLAIM_SLACK: Duration = Duration::from_millis(1_000);

impl Courier {
    pub fn lease(&self) -> Lease {
        let mut record = self.record.borrow_mut();
        record.lag_us = self.probes.borrow().lag_us();
        Lease {
            key: self.names.lease(self.id.node),
            owner: format!("{:016x}", self.id.boot),
            record: record.to_bytes(),
        }
    }

    /// Takes this node's number, unless another run has it that lives.
    pub async fn join(&self, session: &mut dyn Session) -> Result<()> {
        let nodes = self.read_leases(session).await?;
        let is_other = |node: &&NodeRecord| node.boot != self.id.boot;
        if let Some(other) =
            nodes.iter().filter(is_other).find(|it| it.envelope != ENVELOPE_VERSION)
        {
            let (them, ours) = (other.envelope, ENVELOPE_VERSION);
            return Err(self.refused(format!(
                "node {} of the cluster, on {}, is wsd {}, whose nodes speak version {them} to \
                 each other, and this one speaks version {ours}: upgrade one of them first",
                other.node, other.host, other.version
            )));
        }
        let give_up_at = clock::monotonic_ms() + (self.ttl + CLAIM_SLACK).as_millis() as u64;
        loop {
            let asked_at = clock::monotonic_ms();
            let Claimed::Held(holder) = session.claim(&self.lease(), self.ttl).await? else {
                self.leases.borrow_mut().renewed(asked_at);
                self.leases.borrow_mut().looked(asked_at, nodes);
                let next = self.raise_serials(session).await?;
                self.master.send(&CourierToMaster::Serials { next });
                return Ok(());
            };
            if self.has_joined.get() || asked_at >= give_up_at {
                return Err(self.refused(self.held_by(&holder)));
            }
            // Perhaps this is what a dead run has left.
            sleep(CLAIM_AGAIN).await;
        }
    }

    /// Has the engine keep which numbers of clients were given. The answer is what it knows of
    /// this node.
    pub async fn raise_serials(&self, session: &mut dyn Session) -> Result<Vec<(u8, u64)>> {
        self.serials_are_news.set(false);
        let given: Vec<(u8, u64)> =
            self.serials.borrow().iter().map(|(slot, next)| (*slot, *next)).collect();
        let raised = session.raise(&self.names.serials(self.id.node), &given).await;
        if raised.is_err() {
            self.serials_are_news.set(true);
        }
        raised
    }

    pub fn held_by(&self, holder: &[u8]) -> String {
        let node = self.id.node;
        let whose = NodeRecord::from_bytes(holder).map_or_else(
            || "another server".to_owned(),
            |it| {
                let seconds = clock::unix_ms().saturating_sub(it.since) / 1000;
                format!("the server on {} (wsd {}, started {seconds} s ago)", it.host, it.version)
            },
        );
        format!(
            "node {node} of this cluster is {whose} already: give each a cluster.node of its own"
        )
    }

    /// The node may not have its number, which the master is told.
    pub fn refused(&self, why: String) -> Error {
        self.master.send(&CourierToMaster::Refused { why: why.clone() });
        Error::new(why)
    }

    /// Reads the leases of all nodes. One that no node writes is counted and passed over.
    pub async fn read_leases(&self, session: &mut dyn Session) -> Result<Vec<NodeRecord>> {
        let keys: Vec<String> = (0..NODES_MAX).map(|node| self.names.lease(node)).collect();
        let holders = session.holders(&keys).await?;
        let mut garbled = 0;
        let records = holders.into_iter().zip(0..).filter_map(|(record, node)| {
            let record = NodeRecord::from_bytes(&record?).filter(|it| it.node == node);
            garbled += u64::from(record.is_none());
            record
        });
        let records = records.collect();
        self.count(|counts| counts.garbled += garbled);
        Ok(records)
    }
}
