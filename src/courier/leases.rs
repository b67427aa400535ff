//! Which nodes live, by their leases. Pure: it is told what was read when, and says who is there.
//!
//! A node that was there is dead when its lease was missing at two looks in a row, and this node
//! has itself kept its own without a break for a whole lease before: whoever was cut off, or finds
//! an engine that has lost everything, declares nobody dead until everybody could have come back.

use std::collections::BTreeMap;

use crate::ipc::cluster::nodes::NodeRecord;

/// Looks in a row at which a lease has to be missing.
const MISSING_LOOKS: u32 = 2;

/// What is known of the nodes.
#[derive(Debug)]
pub struct Leases {
    ttl_ms: u64,
    /// Since when this node has kept its lease without a break, on the monotonic clock.
    whole_since: Option<u64>,
    renewed_at: u64,
    nodes: BTreeMap<u8, Known>,
    /// By node the run of it that has left last: a look may still find the lease of that.
    left: BTreeMap<u8, u64>,
}

#[derive(Debug, Clone)]
struct Known {
    record: NodeRecord,
    missing: u32,
}

/// What a look has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Who is there.
    pub nodes: Vec<NodeRecord>,
    /// Whether whoever is not in the list is dead.
    pub certain: bool,
    /// Who has died or left since the last look.
    pub dead: Vec<NodeRecord>,
}

impl Leases {
    /// Nothing is known yet.
    pub fn new(ttl_ms: u64) -> Leases {
        let (nodes, left) = (BTreeMap::new(), BTreeMap::new());
        Leases { ttl_ms, whole_since: None, renewed_at: 0, nodes, left }
    }

    /// This node has renewed its own lease; `asked_at` is when it began to ask.
    pub fn renewed(&mut self, asked_at: u64) {
        if asked_at.saturating_sub(self.renewed_at) >= self.ttl_ms {
            // It had ended meanwhile, whoever was asked about it.
            self.broken();
        }
        self.renewed_at = asked_at;
        self.whole_since.get_or_insert(asked_at);
    }

    /// This node could not renew its lease, or found it gone.
    pub fn broken(&mut self) {
        self.whole_since = None;
        for known in self.nodes.values_mut() {
            known.missing = 0;
        }
    }

    /// A node says that it leaves. The answer is what was known of it.
    pub fn left(&mut self, node: u8, boot: u64) -> Option<NodeRecord> {
        self.left.insert(node, boot);
        let known = self.nodes.get(&node).filter(|known| known.record.boot == boot)?;
        let record = known.record.clone();
        self.nodes.remove(&node);
        Some(record)
    }

    /// All leases were read.
    pub fn looked(&mut self, now: u64, read: Vec<NodeRecord>) -> Look {
        let certain = self.is_certain(now);
        let mut dead = Vec::new();
        let is_there = |record: &NodeRecord| self.left.get(&record.node) != Some(&record.boot);
        let read = read.into_iter().filter(is_there);
        let mut read: BTreeMap<u8, NodeRecord> =
            read.map(|record| (record.node, record)).collect();
        self.nodes.retain(|node, known| match read.remove(node) {
            Some(record) => {
                if record.boot != known.record.boot {
                    dead.push(known.record.clone());
                }
                *known = Known { record, missing: 0 };
                true
            }
            None => {
                known.missing += 1;
                let is_dead = certain && known.missing >= MISSING_LOOKS;
                if is_dead {
                    dead.push(known.record.clone());
                }
                !is_dead
            }
        });
        let new = read.into_iter().map(|(node, record)| (node, Known { record, missing: 0 }));
        self.nodes.extend(new);
        Look { dead, ..self.look(now) }
    }

    /// Who is there, as far as is known.
    pub fn look(&self, now: u64) -> Look {
        let nodes = self.nodes.values().map(|known| known.record.clone()).collect();
        Look { nodes, certain: self.is_certain(now), dead: Vec::new() }
    }

    /// The numbers of the nodes that are not dead, as far as is known.
    pub fn numbers(&self) -> Vec<u8> {
        self.nodes.keys().copied().collect()
    }

    /// Which of these nodes say that they drain.
    pub fn draining(&self) -> Vec<u8> {
        let draining = self.nodes.iter().filter(|(_, it)| it.record.drains);
        draining.map(|(node, _)| *node).collect()
    }

    /// Who may have clients and cannot be asked for them: the nodes that are not dead and have not
    /// subscribed, or whose lease is missing.
    pub fn silent(&self, subscribed: &[u8]) -> Vec<u8> {
        let nodes = self.nodes.iter();
        let silent = nodes.filter(|(node, it)| it.missing > 0 || !subscribed.contains(node));
        silent.map(|(node, _)| *node).collect()
    }

    fn is_certain(&self, now: u64) -> bool {
        self.whole_since.is_some_and(|since| now.saturating_sub(since) >= self.ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: u8, boot: u64) -> NodeRecord {
        NodeRecord { node, boot, ..NodeRecord::default() }
    }

    fn nodes(look: &Look) -> Vec<u8> {
        look.nodes.iter().map(|record| record.node).collect()
    }

    #[test]
    fn a_node_is_dead_after_two_looks_of_one_that_was_whole_for_a_lease() {
        let mut leases = Leases::new(5_000);
        leases.renewed(0);
        assert_eq!(nodes(&leases.looked(0, vec![record(1, 1), record(2, 2)])), [1, 2]);
        let look = leases.looked(6_000, vec![record(1, 1)]);
        assert!(look.certain && look.dead.is_empty() && nodes(&look) == [1, 2]);
        let look = leases.looked(7_000, vec![record(1, 1)]);
        assert_eq!((nodes(&look), look.dead), (vec![1], vec![record(2, 2)]));
    }

    #[test]
    fn a_node_that_cannot_be_asked_is_silent_until_it_can_be_or_is_dead() {
        let mut leases = Leases::new(5_000);
        leases.renewed(0);
        leases.looked(0, vec![record(1, 1), record(2, 2)]);
        assert!(leases.silent(&[1, 2]).is_empty());
        assert_eq!(leases.silent(&[1]), [2], "its courier is replaced");
        // The engine may count a connection of a host that is dead.
        leases.looked(6_000, vec![record(1, 1)]);
        assert_eq!(leases.silent(&[1, 2]), [2]);
        leases.looked(7_000, vec![record(1, 1)]);
        assert!(leases.silent(&[1]).is_empty(), "it is dead");
        leases.looked(8_000, vec![record(1, 1), record(2, 3)]);
        assert_eq!(leases.silent(&[1]), [2]);
        leases.left(2, 3);
        assert!(leases.silent(&[1]).is_empty(), "it has left");
        // Its lease was read before it was given back.
        leases.looked(9_000, vec![record(1, 1), record(2, 3)]);
        assert!(leases.silent(&[1]).is_empty(), "it has left still");
        leases.looked(10_000, vec![record(1, 1), record(2, 4)]);
        assert_eq!(leases.silent(&[1]), [2], "another run of it has come");
    }

    #[test]
    fn after_an_outage_nobody_is_dead_before_all_could_have_come_back() {
        let mut leases = Leases::new(5_000);
        leases.renewed(0);
        leases.looked(6_000, vec![record(1, 1), record(2, 2)]);
        leases.broken();
        leases.renewed(40_000);
        // An engine that has lost everything.
        for now in [40_000, 41_000, 42_000, 43_000, 44_000] {
            let look = leases.looked(now, vec![record(1, 1)]);
            assert!(!look.certain && look.dead.is_empty() && nodes(&look) == [1, 2], "{now}");
        }
        leases.looked(45_000, vec![record(1, 1), record(2, 2)]);
        assert!(leases.looked(46_000, vec![record(1, 1)]).dead.is_empty());
        assert_eq!(leases.looked(47_000, vec![record(1, 1)]).dead, [record(2, 2)]);
    }

    #[test]
    fn another_run_of_a_node_says_that_the_one_before_is_dead() {
        let mut leases = Leases::new(5_000);
        leases.renewed(0);
        leases.looked(0, vec![record(2, 2)]);
        let look = leases.looked(1_000, vec![record(2, 3)]);
        assert_eq!((nodes(&look), look.dead), (vec![2], vec![record(2, 2)]));
        assert_eq!(leases.left(2, 2), None, "it was the other run that left");
        assert_eq!(leases.left(2, 3), Some(record(2, 3)));
        assert!(leases.look(1_000).nodes.is_empty());
    }
}
