//! The other nodes, as the manager knows them: by a courier, whose link is as any worker's. The
//! manager never waits for it, and does without where there is none.
//!
//! - [`single`] is what goes to one client of another node, and comes from there.
//! - [`wide`] is what goes to the members of topics, or to all.
//! - [`topics`] is which topics this node is subscribed to.
//! - [`presence`] is who is present by clients of other nodes, [`questions`] what is asked of that.
//!   [`said`] is what the others are told of clients of this node.
//! - [`told`] is what the courier says, and what commands are told of the nodes. [`known`] is
//!   whether that is all there is.
//! - [`part`] is how this node leaves the others.

mod known;
mod part;
mod presence;
pub(super) mod questions;
mod said;
mod single;
mod told;
pub(super) mod topics;
mod wide;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::{JoinHandle, spawn_local};

use super::worker_handle::WorkerHandle;
use super::workers::Workers;
use super::{Exchange, Manager, Shared};
use crate::error::{Error, Result};
use crate::fd::Fd;
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::cluster::envelope::{self, NodeMessage};
use crate::ipc::cluster::messages::{
    CourierCounts, CourierToManager, EngineState, ManagerToCourier, To, courier_id,
};
use crate::ipc::cluster::nodes::{NodeId, NodeRecord};
use crate::ipc::link::{Lane, Link, Sent};
use crate::ipc::messages::{ManagerToWorker, Origin, RequestId};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::scoreboard::Counter;
use crate::sys::clock::{monotonic_ms, unix_ms};
use crate::sys::packet;
pub(super) use part::part;
use topics::Topics;

/// Until a question to another node is forgotten: whoever asked has given up before.
const ANSWER_MS: u64 = 6_000;
/// Questions to other nodes that wait for an answer. Whoever asks beyond hears `full`.
const ASKED_MAX: usize = 1 << 18;
/// Bytes of packets of the courier after which the workers get their turn.
const TURN_PACKETS: usize = 64;

/// What the manager knows of its cluster.
pub struct Cluster {
    /// Which node this is.
    pub node: u8,
    /// Which run of it, once the master has said so.
    id: Option<NodeId>,
    link: Option<Rc<Link>>,
    tasks: Vec<JoinHandle<()>>,
    engine: EngineState,
    nodes: Vec<NodeRecord>,
    /// Whether a node that is not among these is dead.
    certain: bool,
    /// Nodes that have said nothing yet since the engine came back: whether they have subscribed
    /// again nobody knows, so the engine's count of who was asked is not the truth.
    unheard: HashSet<u8>,
    /// Nodes that cannot be asked, and nodes that drain, by the courier's last word.
    silent: HashSet<u8>,
    draining: HashSet<u8>,
    /// What the courier has counted, as far as this manager has added that to its own counters;
    /// `None`: a manager before this one has.
    counts: Option<CourierCounts>,
    /// Whether something that came from other nodes was dropped since they were last asked anew.
    drops: bool,
    /// Before then they are not asked anew for that, in milliseconds of the monotonic clock.
    asks_anew_at: u64,
    answers: part::Answers,
    topics: Topics,
    presence: known::Remote,
    /// What was asked of other nodes, under our numbers.
    asked: HashMap<u64, Asked>,
    last_asked: u64,
}

/// A question to another node, or several.
struct Asked {
    origin: Origin,
    id: RequestId,
    what: What,
    due_ms: u64,
    /// How many nodes have answered.
    answered: u32,
    /// Where some could not be asked: how many could.
    heard_by: Option<u32>,
}

/// What kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// What became of a message to a client.
    Verdict,
    /// What is known of a client.
    Info,
    /// For the members of topics.
    Call,
}

impl Cluster {
    /// Of the node with this number, for the manager of this epoch: no two managers of a run ask,
    /// or tell the courier of topics, under the same number.
    pub fn new(node: u8, epoch: u32) -> Cluster {
        let why = "the courier has not been started yet".to_owned();
        let before = u64::from(epoch) << 32;
        Cluster {
            node,
            id: None,
            link: None,
            tasks: Vec::new(),
            engine: EngineState::Away { since: unix_ms(), why },
            nodes: Vec::new(),
            certain: false,
            unheard: HashSet::new(),
            silent: HashSet::new(),
            draining: HashSet::new(),
            counts: (epoch == 1).then(CourierCounts::default),
            drops: false,
            asks_anew_at: 0,
            answers: part::Answers::default(),
            topics: Topics::beyond(before),
            presence: known::Remote::default(),
            asked: HashMap::new(),
            last_asked: before,
        }
    }

    /// Whether the engine carries what is sent.
    pub fn is_up(&self) -> bool {
        self.link.is_some() && self.engine == EngineState::Ok
    }

    /// Whether a number is a client's of another node.
    pub fn is_abroad(&self, number: u64) -> bool {
        Fd::try_from(number).is_ok_and(|fd| fd.node() != self.node)
    }

    /// Tells a worker whether what is for other nodes goes anywhere.
    pub fn tell_engine_to(&self, worker: &WorkerHandle) {
        worker.tell_of_nodes(&ManagerToWorker::Engine { away: !self.is_up() });
    }

    fn tell_engine(&self, workers: &Workers) {
        workers.iter().for_each(|worker| self.tell_engine_to(worker));
    }

    fn is_dead(&self, node: u8) -> bool {
        self.certain && !self.nodes.iter().any(|record| record.node == node)
    }

    /// A number of ours for a question; `None` where too many wait for an answer.
    fn ask(&mut self, origin: Origin, id: RequestId, what: What) -> Option<u64> {
        if self.asked.len() >= ASKED_MAX {
            return None;
        }
        self.last_asked += 1;
        let due_ms = monotonic_ms() + ANSWER_MS;
        let asked = Asked { origin, id, what, due_ms, answered: 0, heard_by: None };
        self.asked.insert(self.last_asked, asked);
        Some(self.last_asked)
    }

    /// Gives an envelope to the courier; false where that could not be.
    fn send(&self, to: To, id: u64, message: &NodeMessage, body: &[u8]) -> bool {
        let (Some(link), Some(from)) = (&self.link, self.id) else { return false };
        let sent = envelope::write(from, message, body).and_then(|bytes| {
            let send = ManagerToCourier::Send { to, id };
            link.send(Lane::Data, &send, Body::Inline(&bytes), Vec::new())
        });
        match sent {
            Ok(Sent::Queued) => true,
            Ok(Sent::Full) => false,
            Err(error) => {
                tracing::error!(%error, "a message to another node is lost");
                false
            }
        }
    }

    fn end_tasks(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

impl Exchange {
    /// Once a second: what lingered long enough is left, and what nobody has answered forgotten.
    pub fn tick_cluster(&mut self, now: u64) {
        if self.cluster.is_none() {
            return;
        }
        self.follow_topics();
        self.leave_topics(now);
        self.tick_presence(now);
        let unheard = self.presence.take_unheard();
        if unheard > 0 {
            tracing::error!(unheard, "presence of other nodes is not kept: no room for it");
        }
        let connections = self.scoreboard.sum(Counter::Connections);
        let Some(cluster) = &mut self.cluster else { return };
        cluster.asked.retain(|_, asked| asked.due_ms > now);
        let load = ManagerToCourier::Load { connections, topics: cluster.topics.len() };
        let gaps = self.scoreboard.sum(Counter::ClusterGaps) + self.row.get(Counter::ClusterGaps);
        for message in [load, ManagerToCourier::Gaps(gaps)] {
            if let Some(Err(error)) = cluster.link.as_ref().map(|link| link.control(&message)) {
                tracing::error!(%error, "the courier is not told the load");
            }
        }
    }
}

impl Manager {
    /// The master has started a courier, or this manager.
    pub fn on_courier(&mut self, epoch: u32, id: NodeId, fds: Vec<OwnedFd>) -> Result<()> {
        let [end] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|fds| Error::new(format!("Courier came with {} descriptors", fds.len())))?;
        let link = Rc::new(Link::new(end, courier_id(epoch))?);
        self.exchange.lose_courier("the courier was started anew");
        let Some(cluster) = &mut self.exchange.cluster else {
            return Err(Error::new("a courier came without a cluster"));
        };
        match cluster.id {
            // A courier that this manager has seen come counts from nothing.
            Some(_) => cluster.counts = Some(CourierCounts::default()),
            // What the manager before had read and not passed on is lost, or its courier is.
            None if cluster.counts.is_none() => self.exchange.row.add(Counter::ClusterGaps, 1),
            None => {}
        }
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let flusher = Rc::clone(&link);
        cluster.tasks.push(spawn_local(async move {
            let error = flusher.flush_forever().await;
            tracing::debug!(%error, "the link of the courier is gone");
        }));
        cluster.tasks.push(spawn_local(read(me, Rc::clone(&link))));
        link.control(&ManagerToCourier::Begin)?;
        (cluster.link, cluster.id) = (Some(link), Some(id));
        self.exchange.tell_all_topics();
        Ok(())
    }

    /// Packets of the courier; then what they are to bring about goes on its way.
    fn on_courier_packet(
        &mut self,
        link: &Rc<Link>,
        packet: &[u8],
        mut fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        let is_current = |it: &Cluster| it.link.as_ref().is_some_and(|it| Rc::ptr_eq(it, link));
        if frames.id != link.id() || !self.exchange.cluster.as_ref().is_some_and(is_current) {
            self.exchange.row.add(Counter::StalePackets, 1);
            return Ok(());
        }
        while let Some(frame) = frames.next::<CourierToManager>(&mut fds)? {
            match frame.message {
                CourierToManager::Arrived => self.on_arrived(frame.body)?,
                message => self.exchange.courier_told(message),
            }
        }
        Ok(())
    }

    /// An envelope of another node.
    fn on_arrived(&mut self, body: Body<'_>) -> Result<()> {
        let bytes;
        let inline = match body {
            Body::Inline(inline) => inline,
            beside => {
                bytes = beside.into_bytes()?;
                &bytes[..]
            }
        };
        match envelope::read(inline) {
            Ok((from, message, body)) => self.on_node_message(from, message, body),
            Err(error) => {
                // The courier has counted those whose header is wrong.
                tracing::warn!(%error, "an envelope of another node cannot be read");
                self.exchange.row.add(Counter::StalePackets, 1);
            }
        }
        Ok(())
    }

    fn on_node_message(&mut self, from: NodeId, message: NodeMessage, body: &[u8]) {
        // A node publishes nothing before it has subscribed to everything.
        let exchange = &mut self.exchange;
        if let Some(cluster) = &mut exchange.cluster {
            cluster.unheard.remove(&from.node);
        }
        match message {
            message @ (NodeMessage::Push { .. }
            | NodeMessage::Close { .. }
            | NodeMessage::Info { .. }
            | NodeMessage::Protect { .. }
            | NodeMessage::Change { .. }) => self.on_single(from, message, body),
            NodeMessage::Verdict { id, verdict } => exchange.on_node_verdict(id, verdict),
            NodeMessage::InfoAnswer { id, info } => exchange.on_node_info(id, info),
            NodeMessage::Call { id, call } => self.on_node_call(from, id, call, body),
            NodeMessage::Broadcast { opcode, except } => {
                exchange.on_node_broadcast(opcode, except, body);
            }
            NodeMessage::Tally { id, queued, full, whole } => {
                exchange.on_node_tally(id, queued, full, whole);
            }
            NodeMessage::Members { id, part } => exchange.on_node_members(id, part),
            NodeMessage::Rooms { id, part } => exchange.on_node_rooms(id, part),
            NodeMessage::Present { room, uid, count } => {
                exchange.on_node_present(from, room, uid, count, body);
            }
            NodeMessage::PresenceAsk { id, room } => exchange.on_presence_ask(from, id, &room),
            NodeMessage::PresenceList { id, room } => {
                exchange.on_presence_list(from, id, room, body);
            }
            NodeMessage::PresenceRooms { is_answer } => {
                exchange.on_presence_rooms(from, is_answer, body);
            }
            NodeMessage::Leaving => exchange.forget_node_presence(from),
            NodeMessage::Probe { .. } => {}
        }
    }
}

/// Reads the courier's link until its end; then the master starts another courier.
async fn read(manager: Shared, link: Rc<Link>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
    let mut in_turn = 0;
    let lose = |why| manager.borrow_mut().exchange.lose_courier(why);
    loop {
        let arrival = match link.receive(&mut buffer).await {
            Ok(Some(arrival)) => arrival,
            Ok(None) => return lose("the courier has ended"),
            Err(error) if packet::is_cut(&error) => {
                tracing::error!(%error, "a message of another node is lost: no descriptor is left");
                manager.borrow_mut().exchange.lose_arrival();
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "the link of the courier is broken");
                return lose("the courier's link is broken");
            }
        };
        let read = {
            let mut manager = manager.borrow_mut();
            manager.exchange.workers.begin_turn();
            let read = manager.on_courier_packet(&link, &buffer[..arrival.len], arrival.fds);
            manager.exchange.workers.end_turn();
            read
        };
        if let Err(error) = read {
            tracing::error!(%error, "the courier broke the protocol");
            return lose("the courier broke the protocol");
        }
        in_turn = if arrival.waited { 0 } else { in_turn + 1 };
        if in_turn >= TURN_PACKETS {
            in_turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_questions_wait_for_other_nodes_and_no_more_until_one_is_answered() {
        let mut cluster = Cluster::new(0, 1);
        let ask = |cluster: &mut Cluster| cluster.ask(Origin::Control, 1, What::Verdict);
        let last = std::iter::from_fn(|| ask(&mut cluster)).last().unwrap();
        assert_eq!(cluster.asked.len(), ASKED_MAX);
        cluster.asked.remove(&last);
        assert!(ask(&mut cluster).is_some() && ask(&mut cluster).is_none());
    }
}
