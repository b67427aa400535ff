//! What goes to many clients, wherever they are: to those of this node as ever, and once to every
//! other node that may have some.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::task::spawn_local;

use super::{Cluster, What};
use crate::api::Opcode;
use crate::api::rooms::{Call, Member, TOPICS_MAX, Topic};
use crate::error::{Result, Subject};
use crate::ipc::cluster::envelope::{BODY_BYTES_MAX, NodeMessage};
use crate::ipc::cluster::messages::To;
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::manager::gathering::{self, Gathered};
use crate::manager::relay::broadcast::Spread;
use crate::manager::relay::message::{Reply, Wide};
use crate::manager::{Exchange, Manager};

/// For the workers of this node to answer a call of another node, which waits a little longer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Members, or rooms, in one message to another node.
const PART: usize = 64;

impl Cluster {
    /// Who has called under a number of ours.
    fn caller(&self, id: u64) -> Option<(Origin, RequestId)> {
        let asked = self.asked.get(&id).filter(|it| it.what == What::Call)?;
        Some((asked.origin, asked.id))
    }
}

impl Exchange {
    /// Brings a message to the clients of other workers and of other nodes. Answers with what that
    /// is on this node, and whether other nodes are left out.
    pub fn spread_everywhere(&mut self, wide: Wide, body: Body<'_>) -> (Spread, bool) {
        if self.cluster.is_none() || matches!(wide.reach, Reach::Only(_)) {
            return (self.spread(wide, body), false);
        }
        match body {
            Body::Inline(bytes) => {
                let is_abroad = self.spread_abroad(&wide, Some(bytes));
                (self.spread(wide, Body::Inline(bytes)), !is_abroad)
            }
            Body::Beside(memfd, len) => {
                // A worker says how long it is: what is too long for other nodes is not read.
                let bytes = (len <= BODY_BYTES_MAX).then(|| read(&memfd, len)).transpose();
                let is_abroad = match bytes {
                    Ok(bytes) => self.spread_abroad(&wide, bytes.as_deref()),
                    Err(error) => {
                        tracing::error!(%error, "other nodes miss a message");
                        false
                    }
                };
                (self.spread(wide, Body::Beside(memfd, len)), !is_abroad)
            }
        }
    }

    /// Brings it to every other node that may have members, each once; false where that could not
    /// be. `None`: the body is too long for them.
    fn spread_abroad(&mut self, wide: &Wide, body: Option<&[u8]>) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let (to, asker, message) = match &wide.message {
            ManagerToWorker::Broadcast { opcode, except } => {
                (To::All, None, NodeMessage::Broadcast { opcode: *opcode, except: *except })
            }
            ManagerToWorker::Call { origin, id, call, .. } => {
                // Of several topics a node may have subscribed to more than one.
                let to = match &call.topics[..] {
                    [topic] => To::Members(topic.clone()),
                    _ => To::All,
                };
                (to, Some((*origin, *id)), NodeMessage::Call { id: 0, call: call.clone() })
            }
            _ => return false,
        };
        let asker = asker.filter(|(_, id)| *id != 0);
        let body = body.filter(|body| body.len() <= BODY_BYTES_MAX);
        let (fits, body) = (body.is_some(), body.unwrap_or_default());
        let asked = match asker {
            Some((origin, id)) if cluster.is_up() && fits => cluster.ask(origin, id, What::Call),
            _ => Some(0),
        };
        if let Some(asked) = asked.filter(|_| cluster.is_up() && fits) {
            let message = match message {
                NodeMessage::Call { call, .. } => NodeMessage::Call { id: asked, call },
                other => other,
            };
            if cluster.send(to, asked, &message, body) {
                return true;
            }
            cluster.asked.remove(&asked);
        }
        self.row.add(Counter::LaneFull, 1);
        if let Some((origin, id)) = asker {
            self.tell_nodes_asked(origin, id, None);
        }
        false
    }

    /// Tells whoever waits for a tally how many nodes were asked besides this one; `None`: nobody
    /// knows.
    pub(super) fn tell_nodes_asked(&mut self, origin: Origin, id: RequestId, nodes: Option<u32>) {
        let away = !self.cluster.as_ref().is_some_and(Cluster::is_up);
        match origin {
            Origin::Worker(worker) => {
                if let Some(worker) = self.workers.get(worker) {
                    worker.tell_of_nodes(&ManagerToWorker::NodesAsked { id, nodes, away });
                }
            }
            Origin::Control => self.commands.gathered(id, |it| it.nodes_asked(nodes, away)),
        }
    }

    fn answer_call(&self, from: NodeId, id: u64, gathered: Gathered) {
        let Gathered { tally, members, rooms } = gathered;
        for part in members.chunks(PART) {
            self.answer_node(from, &NodeMessage::Members { id, part: part.to_vec() });
        }
        let rooms: Vec<(Topic, u64)> = rooms.into_iter().collect();
        for part in rooms.chunks(PART) {
            self.answer_node(from, &NodeMessage::Rooms { id, part: part.to_vec() });
        }
        let (queued, full, whole) = (tally.queued, tally.full, tally.is_whole());
        self.answer_node(from, &NodeMessage::Tally { id, queued, full, whole });
    }

    pub(super) fn on_node_broadcast(&mut self, opcode: Opcode, except: u64, body: &[u8]) {
        self.spread(Wide::broadcast(None, opcode, except), Body::Inline(body));
    }

    /// A node has answered a call of ours.
    pub(super) fn on_node_tally(&mut self, id: u64, queued: u64, full: u64, whole: bool) {
        let asked = self.cluster.as_mut().and_then(|cluster| cluster.asked.get_mut(&id));
        let Some(asked) = asked.filter(|asked| asked.what == What::Call) else { return };
        asked.answered += 1;
        // The last one that could be asked: the caller is told so behind its answer.
        let ends = asked.heard_by == Some(asked.answered);
        let (origin, caller) = (asked.origin, asked.id);
        self.pass_tally(origin, caller, (queued, full, whole));
        if ends {
            self.tell_nodes_asked(origin, caller, None);
        }
    }

    fn pass_tally(
        &mut self,
        origin: Origin,
        id: RequestId,
        (queued, full, whole): (u64, u64, bool),
    ) {
        match origin {
            Origin::Worker(worker) => {
                if let Some(worker) = self.workers.get(worker) {
                    let tally = ManagerToWorker::NodeTally { id, queued, full, whole };
                    worker.tell_of_nodes(&tally);
                }
            }
            Origin::Control => {
                self.commands.gathered(id, |it| it.node_counted(queued, full, whole))
            }
        }
    }

    pub(super) fn on_node_members(&mut self, id: u64, part: Vec<Member>) {
        let caller = self.cluster.as_ref().and_then(|it| it.caller(id));
        let Some((origin, id)) = caller else { return };
        self.answer(origin, id, Reply::Members { part, last: false });
    }

    pub(super) fn on_node_rooms(&mut self, id: u64, part: Vec<(Topic, u64)>) {
        let caller = self.cluster.as_ref().and_then(|it| it.caller(id));
        let Some((origin, id)) = caller else { return };
        self.answer(origin, id, Reply::Rooms { part, last: false });
    }
}

impl Manager {
    /// Another node asks its members, and so ours, for something.
    pub(super) fn on_node_call(&mut self, from: NodeId, id: u64, call: Call, body: &[u8]) {
        if call.topics.len() > TOPICS_MAX {
            let topics = call.topics.len();
            return tracing::warn!(node = from.node, topics, "a call that no node makes");
        }
        if id == 0 {
            let origin = Origin::Control;
            let message = ManagerToWorker::Call { origin, id, only: Vec::new(), call };
            let reach = Reach::AllBut(Vec::new());
            self.exchange.spread(Wide { sender: None, message, reach }, Body::Inline(body));
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        let Some(owed) = self.exchange.cluster.as_ref().and_then(|cluster| cluster.answers.owe())
        else {
            let none = NodeMessage::Tally { id, queued: 0, full: 0, whole: false };
            return self.exchange.answer_node(from, &none);
        };
        let (ours, whole) = self.exchange.begin_call_here(call, body);
        spawn_local(async move {
            let _owed = owed;
            let gathered = gathering::wait(PATIENCE, &me, ours, whole).await;
            me.borrow().exchange.answer_call(from, id, gathered);
        });
    }
}

fn read(memfd: &OwnedFd, len: usize) -> Result<bytes::Bytes> {
    let memfd = memfd.try_clone().subject(|| "duplicate a message's memfd".to_owned())?;
    Body::Beside(memfd, len).into_bytes()
}
