//! What goes to one client of another node: to the inbox of the node that opened the connection,
//! which does what it does for its own and answers with the owner's verdict.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;

use super::What;
use crate::api::{Info, Verdict};
use crate::fd::Fd;
use crate::ipc::cluster::envelope::{BODY_BYTES_MAX, NodeMessage};
use crate::ipc::cluster::messages::To;
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{Origin, RequestId};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::manager::relay::message::{Address, Reply, Routed};
use crate::manager::{Exchange, Manager};

/// For a worker of this node to answer what another node asks.
const WORKER_PATIENCE: Duration = Duration::from_secs(5);

impl Exchange {
    /// Brings a message to a client of another node. The verdict goes to whoever sent it.
    pub fn deliver_abroad(&mut self, number: u64, routed: Routed, body: Body<'_>) {
        let Some(cluster) = &mut self.cluster else { return };
        let Ok(fd) = Fd::try_from(number) else { return };
        let (origin, id, what) = asker(&routed);
        if cluster.is_dead(fd.node()) {
            return self.refuse_abroad((origin, id, what), Verdict::Gone);
        }
        if !cluster.is_up() {
            return self.refuse_abroad((origin, id, what), Verdict::Unknown);
        }
        if body.len() > BODY_BYTES_MAX {
            return self.refuse_abroad((origin, id, what), Verdict::TooBig);
        }
        let bytes;
        let inline = match body {
            Body::Inline(inline) => inline,
            beside => match beside.into_bytes() {
                Ok(read) => {
                    bytes = read;
                    &bytes[..]
                }
                Err(error) => {
                    tracing::error!(%error, "a message to another node cannot be read");
                    return self.refuse_abroad((origin, id, what), Verdict::Full);
                }
            },
        };
        let asked = if id == 0 { Some(0) } else { cluster.ask(origin, id, what) };
        let Some(asked) = asked else {
            return self.refuse_abroad((origin, id, what), Verdict::Full);
        };
        let Some(message) = message(routed, number, asked) else { return };
        if cluster.send(To::Node(fd.node()), asked, &message, inline) {
            return self.row.add(Counter::Relayed, 1);
        }
        cluster.asked.remove(&asked);
        self.refuse_abroad((origin, id, what), Verdict::Full);
    }

    /// A message could not be brought to another node.
    pub(super) fn refuse_abroad(
        &mut self,
        (origin, id, what): (Origin, RequestId, What),
        verdict: Verdict,
    ) {
        let counter = if verdict == Verdict::Gone { Counter::PushGone } else { Counter::LaneFull };
        self.row.add(counter, 1);
        match what {
            What::Info if verdict == Verdict::Gone => {
                self.answer(origin, id, Reply::Info(Box::new(None)));
            }
            // A worker that asks has only the deadline to tell it that nobody knows.
            What::Info if origin != Origin::Control => {}
            _ if id != 0 => self.answer(origin, id, Reply::Verdict(verdict)),
            _ if verdict != Verdict::Gone => self.workers.count_refused(origin, 1),
            _ => {}
        }
    }

    /// Answers a question of another node's. An answer that finds no room is lost, and whoever
    /// asked learns from its own deadline that nobody knows.
    pub(super) fn answer_node(&self, to: NodeId, answer: &NodeMessage) {
        let sent = self.cluster.as_ref().map(|it| it.send(To::Node(to.node), 0, answer, &[]));
        if sent != Some(true) {
            self.row.add(Counter::LaneFull, 1);
        }
    }

    pub(super) fn on_node_verdict(&mut self, id: u64, verdict: Verdict) {
        let Some(asked) = self.take_asked(id) else { return };
        match asked.what {
            What::Verdict => self.answer(asked.origin, asked.id, Reply::Verdict(verdict)),
            _ => self.refuse_abroad((asked.origin, asked.id, asked.what), verdict),
        }
    }

    pub(super) fn on_node_info(&mut self, id: u64, info: Option<Info>) {
        let Some(asked) = self.take_asked(id).filter(|it| it.what == What::Info) else { return };
        self.answer(asked.origin, asked.id, Reply::Info(Box::new(info)));
    }

    fn take_asked(&mut self, id: u64) -> Option<super::Asked> {
        self.cluster.as_mut()?.asked.remove(&id)
    }
}

impl Manager {
    /// Another node has something for a client of ours.
    pub(super) fn on_single(&mut self, from: NodeId, message: NodeMessage, body: &[u8]) {
        let ours = self.exchange.cluster.as_ref().map(|cluster| cluster.node);
        let (fd, id) = match &message {
            NodeMessage::Push { fd, id, .. }
            | NodeMessage::Close { fd, id, .. }
            | NodeMessage::Info { fd, id }
            | NodeMessage::Protect { fd, id, .. }
            | NodeMessage::Change { fd, id, .. } => (*fd, *id),
            _ => return,
        };
        if Fd::try_from(fd).ok().map(Fd::node) != ours {
            // Not to be sent on: two nodes that disagree would send it to and fro for ever.
            return tracing::warn!(fd, node = from.node, "a message for no client of this node");
        }
        let ours = if id == 0 { Some(0) } else { self.ask_for(from, id) };
        let origin = Origin::Control;
        let Some(id) = ours else {
            return self
                .exchange
                .answer_node(from, &NodeMessage::Verdict { id, verdict: Verdict::Full });
        };
        let routed = match message {
            NodeMessage::Push { opcode, .. } => Routed::Push { origin, id, opcode },
            NodeMessage::Close { code, operator, .. } => {
                Routed::Close { origin, id, code, operator }
            }
            NodeMessage::Info { .. } => Routed::Info { origin, id },
            NodeMessage::Protect { on, .. } => Routed::Protect { origin, id, on },
            NodeMessage::Change { change, .. } => Routed::Change { origin, id, change },
            _ => return,
        };
        self.exchange.deliver(Address::Client(fd), routed, Body::Inline(body));
    }

    /// A number of ours for a question of another node's, which is answered when a worker has.
    /// `None`: too many are.
    fn ask_for(&mut self, from: NodeId, theirs: u64) -> Option<RequestId> {
        let owed = self.exchange.cluster.as_ref()?.answers.owe()?;
        let (ours, reply) = self.exchange.commands.ask();
        let me = self.me.clone();
        spawn_local(async move {
            let _owed = owed;
            let reply = timeout(WORKER_PATIENCE, reply).await;
            let Some(manager) = me.upgrade() else { return };
            let mut manager = manager.borrow_mut();
            manager.exchange.commands.forget(ours);
            let answer = match reply {
                Ok(Ok(Reply::Verdict(verdict))) => NodeMessage::Verdict { id: theirs, verdict },
                Ok(Ok(Reply::Info(info))) => NodeMessage::InfoAnswer { id: theirs, info: *info },
                // Whoever asked has given up at the same time.
                _ => return,
            };
            manager.exchange.answer_node(from, &answer);
        });
        Some(ours)
    }
}

/// Who is to be told what became of it, and what.
fn asker(routed: &Routed) -> (Origin, RequestId, What) {
    match *routed {
        Routed::Push { origin, id, .. }
        | Routed::Close { origin, id, .. }
        | Routed::Protect { origin, id, .. }
        | Routed::Change { origin, id, .. } => (origin, id, What::Verdict),
        Routed::Info { origin, id } => (origin, id, What::Info),
        Routed::Message { from, .. } => (Origin::Worker(from), 0, What::Verdict),
    }
}

/// The message to the other node; `None` for what never goes there.
fn message(routed: Routed, fd: u64, id: u64) -> Option<NodeMessage> {
    Some(match routed {
        Routed::Push { opcode, .. } => NodeMessage::Push { id, fd, opcode },
        Routed::Close { code, operator, .. } => NodeMessage::Close { id, fd, code, operator },
        Routed::Protect { on, .. } => NodeMessage::Protect { id, fd, on },
        Routed::Info { .. } => NodeMessage::Info { id, fd },
        Routed::Change { change, .. } => NodeMessage::Change { id, fd, change },
        Routed::Message { .. } => return None,
    })
}
