//! What the courier says, and what commands are told of the nodes.

use super::{Asked, Cluster, What};
use crate::api::Verdict;
use crate::ipc::cluster::messages::{CourierCounts, CourierToManager, EngineState};
use crate::ipc::control::{ClusterReport, NodeReport, NodeState};
use crate::ipc::scoreboard::{Counter, Row};
use crate::manager::Exchange;
use crate::manager::relay::message::Reply;
use crate::sys::clock::{monotonic_ms, unix_ms};

/// Before other nodes are asked anew, since something that they said was dropped: where that was
/// their answers, it may be again.
const ASK_ANEW_MS: u64 = 10_000;

impl Cluster {
    /// What is known of a node that was not declared dead.
    fn state_of(&self, node: u8) -> NodeState {
        if node != self.node && !self.is_up() {
            NodeState::Unknown
        } else if node != self.node && self.silent.contains(&node) {
            NodeState::Silent
        } else if self.draining.contains(&node) {
            NodeState::Drains
        } else {
            NodeState::Serves
        }
    }

    /// What `status` says of the cluster.
    pub fn report(&self, total: impl Fn(Counter) -> u64) -> ClusterReport {
        let (away_since, why) = match &self.engine {
            EngineState::Ok if self.link.is_some() => (None, None),
            EngineState::Ok => (Some(0), None),
            EngineState::Away { since, why } => (Some(*since), Some(why.clone())),
        };
        ClusterReport {
            node: self.node,
            nodes: self.nodes.len() as u64,
            unheard: self.beyond_asking().len() as u64,
            away_since,
            why,
            topics: self.topics.len(),
            sent: total(Counter::ClusterSent),
            received: total(Counter::ClusterReceived),
            unsent: total(Counter::ClusterUnsent),
            dropped: total(Counter::ClusterDropped),
            garbled: total(Counter::ClusterGarbled),
            gaps: total(Counter::ClusterGaps),
            connects: total(Counter::ClusterConnects),
        }
    }

    /// Why the engine is away, where it is.
    pub fn engine_away(&self) -> Option<String> {
        let why = || match &self.engine {
            EngineState::Away { why, .. } => why.clone(),
            EngineState::Ok => "there is no courier".to_owned(),
        };
        (!self.is_up()).then(why)
    }

    /// The nodes of the cluster.
    pub fn node_reports(&self) -> Vec<NodeReport> {
        let report = |record: &crate::ipc::cluster::nodes::NodeRecord| NodeReport {
            node: record.node,
            here: record.node == self.node,
            state: self.state_of(record.node),
            host: record.host.clone(),
            version: record.version.clone(),
            since: record.since,
            connections: record.connections,
            topics: record.topics,
            lag_us: record.lag_us,
            gaps: record.gaps,
        };
        self.nodes.iter().map(report).collect()
    }

    /// Whether the other nodes are to be asked anew: something of theirs was dropped, and nothing
    /// more by the courier's last word.
    fn asks_anew(&mut self, drops: bool, now: u64) -> bool {
        self.drops |= drops;
        let asks = self.drops && !drops && now >= self.asks_anew_at;
        if asks {
            (self.drops, self.asks_anew_at) = (false, now + ASK_ANEW_MS);
        }
        asks
    }
}

/// Adds what a courier has counted more, so that the totals outlive courier and manager.
fn add_counts(row: &Row, before: CourierCounts, now: CourierCounts) {
    let more = [
        (Counter::ClusterSent, before.sent, now.sent),
        (Counter::ClusterReceived, before.received, now.received),
        (Counter::ClusterUnsent, before.unsent, now.unsent),
        (Counter::ClusterDropped, before.dropped, now.dropped),
        (Counter::ClusterGarbled, before.garbled, now.garbled),
        (Counter::ClusterGaps, before.gaps, now.gaps),
        (Counter::ClusterConnects, before.connects, now.connects),
    ];
    for (counter, before, now) in more {
        row.add(counter, now.saturating_sub(before));
    }
}

impl Exchange {
    /// The courier is gone: what waits for it is answered.
    pub(super) fn lose_courier(&mut self, why: &str) {
        // What the courier had may have gone, so this is answered before the engine is away.
        let asked = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.asked));
        for asked in asked.into_iter().flatten() {
            self.answer_unsent(asked.1);
        }
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.link.take().is_none() {
            return;
        }
        cluster.end_tasks();
        cluster.certain = false;
        if cluster.engine == EngineState::Ok {
            // With whatever was on its way there.
            self.row.add(Counter::ClusterGaps, 1);
        }
        self.enter_engine(EngineState::Away { since: unix_ms(), why: why.to_owned() });
        if let Some(cluster) = &mut self.cluster {
            cluster.lose_topics(&self.workers);
        }
        self.lose_presence();
    }

    /// Something that the courier has brought is lost on the way here.
    pub(super) fn lose_arrival(&mut self) {
        self.row.add(Counter::ClusterGaps, 1);
        if let Some(cluster) = &mut self.cluster {
            cluster.drops = true;
        }
    }

    pub(super) fn courier_told(&mut self, message: CourierToManager) {
        let Some(cluster) = &mut self.cluster else { return };
        match message {
            CourierToManager::Engine(state) => self.enter_engine(state),
            CourierToManager::Nodes { nodes, certain } => {
                self.row.set(Counter::ClusterNodes, nodes.len() as u64);
                (cluster.nodes, cluster.certain) = (nodes, certain);
                if certain {
                    cluster.unheard.clear();
                }
                self.forget_dead_nodes();
            }
            CourierToManager::Sent { id, nodes } => self.on_sent(id, nodes),
            CourierToManager::Noted { number } => cluster.note_topics(&self.workers, number),
            CourierToManager::Counts(counts) => {
                let before = cluster.counts.replace(counts).unwrap_or(counts);
                add_counts(&self.row, before, counts);
                if cluster.asks_anew(counts.dropped > before.dropped, monotonic_ms()) {
                    // Of whom it was nobody knows.
                    self.ask_anew();
                }
            }
            CourierToManager::Standing { silent, draining } => {
                cluster.silent = silent.into_iter().collect();
                cluster.draining = draining.into_iter().collect();
            }
            CourierToManager::Parted => cluster.answers.parted(),
            CourierToManager::Arrived => {}
        }
    }

    pub(super) fn enter_engine(&mut self, state: EngineState) {
        let Some(cluster) = &mut self.cluster else { return };
        let was_up = cluster.is_up();
        cluster.engine = state;
        let is_up = cluster.is_up();
        if is_up && !was_up {
            let (node, nodes) = (cluster.node, &cluster.nodes);
            let others = nodes.iter().map(|it| it.node).filter(|it| *it != node);
            cluster.unheard = others.collect();
        }
        self.row.set(Counter::ClusterAway, u64::from(!is_up));
        if was_up != is_up || cluster.link.is_none() {
            cluster.tell_engine(&self.workers);
        }
        if is_up && !was_up {
            // Every node answers that, or says as much by itself when it comes back.
            self.resync_presence();
        }
    }

    /// The engine has a message, or does not.
    fn on_sent(&mut self, id: u64, nodes: Option<u32>) {
        if self.on_presence_sent(id, nodes) {
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        let beyond = cluster.beyond_asking().len() as u32;
        let Some(asked) = cluster.asked.get_mut(&id) else { return };
        let (origin, caller, what) = (asked.origin, asked.id, asked.what);
        match (what, nodes) {
            (What::Call, Some(1..)) if beyond > 0 && nodes > Some(asked.answered) => {
                // The caller waits for the nodes that heard the question, and meanwhile counts the
                // silent ones as asked. Behind the last answer the caller is told that nobody
                // knows how many had to be asked.
                asked.heard_by = nodes;
                self.tell_nodes_asked(origin, caller, nodes.map(|heard| heard + beyond));
            }
            (What::Call, nodes) => {
                let nodes = nodes.filter(|_| beyond == 0);
                if nodes.is_none_or(|nodes| nodes == 0) {
                    cluster.asked.remove(&id);
                }
                self.tell_nodes_asked(origin, caller, nodes);
            }
            (_, Some(1..)) => {}
            // Nobody has it; whether the client lives is not known by that.
            (_, _) => {
                if let Some(asked) = cluster.asked.remove(&id) {
                    self.answer_unsent(asked);
                }
            }
        }
    }

    /// A question did not go anywhere, as far as is known.
    pub(super) fn answer_unsent(&mut self, asked: Asked) {
        let Asked { origin, id, what, .. } = asked;
        match what {
            What::Call => self.tell_nodes_asked(origin, id, None),
            What::Verdict => self.answer(origin, id, Reply::Verdict(Verdict::Unknown)),
            What::Info => self.refuse_abroad((origin, id, what), Verdict::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_what_was_dropped_nodes_are_asked_anew_once_and_not_again_at_once() {
        let mut cluster = Cluster::new(0, 1);
        assert!(!cluster.asks_anew(false, 1_000));
        assert!(!cluster.asks_anew(true, 1_000), "more may be dropped");
        assert!(cluster.asks_anew(false, 2_000));
        // The answers are dropped as well.
        assert!(!cluster.asks_anew(true, 3_000));
        assert!(!cluster.asks_anew(false, 4_000) && cluster.drops);
        assert!(cluster.asks_anew(false, 2_000 + ASK_ANEW_MS));
        assert!(!cluster.asks_anew(false, 2_000 + 2 * ASK_ANEW_MS) && !cluster.drops);
    }
}
