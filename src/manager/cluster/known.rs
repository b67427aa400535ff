//! Whether what is told of the other nodes is all there is: who cannot be asked, and what a list of
//! presence has of whom.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Cluster;
use super::questions::{Question, Questions};
use crate::api::rooms::{Nodes, Topic};
use crate::fd::WorkerId;
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{ManagerToWorker, RequestId};
use crate::manager::Exchange;

/// What the manager knows of presence on other nodes, besides the lists themselves.
#[derive(Default)]
pub struct Remote {
    /// Rooms whose list is that of all nodes.
    pub(super) known: HashSet<Topic>,
    /// Nodes, with their runs, that have said to this manager in which rooms they have somebody.
    pub(super) heard: HashMap<u8, u64>,
    pub(super) asked: Questions,
    /// Rooms of this node that are to be asked about when there is room for the question.
    pub(super) unasked: BTreeSet<Topic>,
    /// Those that are to be asked about once the courier was told that this node comes to them.
    pub(super) untold: HashSet<Topic>,
    /// Rooms of which the others have still to be told who is there by clients of this node.
    pub(super) unsaid: BTreeSet<Topic>,
    /// Whether the others have still to be told which rooms these are, behind the lists.
    pub(super) rooms_unsaid: bool,
}

impl Cluster {
    /// The nodes that may have clients and cannot be asked, as far as is known.
    pub(super) fn beyond_asking(&self) -> HashSet<u8> {
        self.unheard.union(&self.silent).copied().collect()
    }

    /// Whether each other node has said in which rooms it has somebody. One that was cut off when
    /// this manager came could not be asked, and its users are not gone.
    pub(super) fn has_heard_all(&self) -> bool {
        self.unheard_runs().next().is_none()
    }

    /// Those that have not said so.
    pub(super) fn unheard_runs(&self) -> impl Iterator<Item = NodeId> {
        let others = self.nodes.iter().filter(|record| record.node != self.node);
        let ids = others.map(|record| NodeId { node: record.node, boot: record.boot });
        ids.filter(|id| self.presence.heard.get(&id.node) != Some(&id.boot))
    }

    /// Whether no node can have somebody of whom this one has not been told.
    fn misses_nobody(&self) -> bool {
        let is_told_all = self.is_up() && self.has_heard_all() && !self.drops;
        is_told_all && self.beyond_asking().is_empty()
    }

    /// The other nodes, in the answer to a question. `whole`: all that had to answer have. `cut`:
    /// of so many of these some users found no room here.
    pub(super) fn asked_presence_nodes(
        &self,
        question: &Question,
        whole: bool,
        cut: u32,
    ) -> Nodes {
        let Nodes { asked, answered } = question.nodes(whole);
        let is_known = !question.misses_some && self.misses_nobody();
        Nodes { asked: asked.filter(|_| is_known), answered: answered.saturating_sub(cut) }
    }
}

impl Remote {
    /// Whether the list of a room is that of all nodes, and nothing of it is to be asked anew, as
    /// it is behind an outage.
    fn has_all_of(&self, room: &Topic) -> bool {
        let is_to_be_asked = self.unasked.contains(room) || self.untold.contains(room);
        self.known.contains(room) && self.asked.about(room).is_none() && !is_to_be_asked
    }

    /// The courier was told that this node comes to these: they may be asked about.
    pub(super) fn told(&mut self, rooms: &[Topic]) {
        self.unasked.extend(rooms.iter().filter_map(|room| self.untold.take(room)));
    }
}

impl Exchange {
    /// The other nodes, in the list of a room as it is known here.
    pub(in crate::manager) fn known_presence_nodes(&self, room: &Topic) -> Nodes {
        let (count, answered) = self.presence.nodes_in(room);
        let is_followed =
            |it: &&Cluster| it.presence.has_all_of(room) && it.topics.is_subscribed(room);
        let cluster = self.cluster.as_ref().filter(is_followed);
        let is_all = cluster.is_some_and(Cluster::misses_nobody);
        Nodes { asked: is_all.then_some(count), answered }
    }

    /// Tells a worker what the other nodes have to do with the list that follows.
    pub(in crate::manager) fn tell_presence_nodes(
        &self,
        asker: WorkerId,
        id: RequestId,
        nodes: Nodes,
    ) {
        let (Some(cluster), Some(worker)) = (&self.cluster, self.workers.get(asker)) else {
            return;
        };
        let (Nodes { asked, answered }, away) = (nodes, !cluster.is_up());
        worker.tell_of_nodes(&ManagerToWorker::PresenceNodes { id, asked, answered, away });
    }
}
