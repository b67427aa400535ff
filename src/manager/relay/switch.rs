//! The switch: brings messages from whoever sent them to the worker that owns their client.
//!
//! Each packet is read once, and a body is copied once, into the packet of its target; a body in
//! a memfd goes on as the memfd. Nothing here waits: what finds no room is refused, told and
//! counted. What is for all goes by [`super::broadcast`].

use super::hold::{HeldMessage, OwnedBody, Scope};
use super::message::{Address, Reply, Routed};
use crate::api::Verdict;
use crate::fd::{Fd, WorkerId};
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{Origin, RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::manager::Exchange;

/// Topics that one worker may get a member of by changes that are on their way: more joins than a
/// data lane and a socket hold.
const UNSETTLED_MAX: usize = 1 << 18;

impl Exchange {
    /// What a worker has for one client, wherever the client is.
    pub fn on_client_message(&mut self, from: WorkerId, message: WorkerToManager, body: Body<'_>) {
        let origin = Origin::Worker(from);
        let (fd, routed) = match message {
            WorkerToManager::Push { id, fd, opcode } => (fd, Routed::Push { origin, id, opcode }),
            WorkerToManager::Close { id, fd, code } => (fd, Routed::closed_by(origin, id, code)),
            WorkerToManager::Protect { id, fd, on } => (fd, Routed::Protect { origin, id, on }),
            WorkerToManager::Info { id, fd } => (fd, Routed::Info { origin, id }),
            _ => return,
        };
        self.deliver(Address::Client(fd), routed, body);
    }

    /// Brings a message to one. The verdict goes to whoever sent it.
    pub fn deliver(&mut self, address: Address, routed: Routed, body: Body<'_>) {
        if let Address::Client(number) = address
            && self.cluster.as_ref().is_some_and(|cluster| cluster.is_abroad(number))
        {
            return self.deliver_abroad(number, routed, body);
        }
        let sender = routed.sender();
        let target = match address {
            Address::Client(number) => {
                Fd::try_from(number).ok().and_then(|fd| self.router.owner(fd))
            }
            Address::Slot(slot) => self.router.serving(slot),
        };
        let client = if let Address::Client(number) = address { Some(number) } else { None };
        if self.waits(sender, target, client) {
            let len = body.len() + routed.weight();
            let item = HeldMessage::One(address, routed, OwnedBody::new(body));
            if let Some(HeldMessage::One(_, routed, _)) = self.hold.add(item, len) {
                self.refuse(routed, Verdict::Full);
            }
            return;
        }
        self.pass_on(target, address, routed, body);
    }

    /// Gives a message to the link of a worker.
    pub fn pass_on(
        &mut self,
        target: Option<WorkerId>,
        address: Address,
        routed: Routed,
        body: Body<'_>,
    ) {
        let Some(worker) = target.and_then(|id| self.workers.get(id)) else {
            return self.refuse(routed, Verdict::Gone);
        };
        let joins = match &routed {
            Routed::Change { change, .. } => change.joins(),
            _ => None,
        };
        if let Some(topic) = &joins {
            if topic.is_too_long() {
                return self.refuse(routed, Verdict::TooBig);
            }
            // Who reads and never says that a change is done is asked for no more.
            if self.interest.unsettled_by(worker.id()) >= UNSETTLED_MAX {
                return self.refuse(routed, Verdict::Full);
            }
        }
        let mark = joins.as_ref().map_or(0, |_| self.interest.next_mark());
        match worker.link.send(Lane::Data, &routed.message(address, mark), body, Vec::new()) {
            Ok(Sent::Queued) => {
                if let Some(topic) = joins {
                    self.interest.sent(worker.id(), topic, mark);
                }
                self.row.add(Counter::Relayed, 1);
                return;
            }
            Ok(Sent::Full) => {}
            Err(error) => {
                tracing::error!(worker = %worker.id(), %error, "a message could not be passed on");
            }
        }
        self.refuse(routed, Verdict::Full);
    }

    /// Whether a message waits for the end of a pass, or until a new manager knows who owns what.
    pub fn waits(
        &self,
        sender: Option<WorkerId>,
        target: Option<WorkerId>,
        client: Option<u64>,
    ) -> bool {
        self.hold.scope == Scope::All || self.passes.waits(sender, target, client)
    }

    pub fn refuse(&mut self, routed: Routed, verdict: Verdict) {
        if verdict == Verdict::Gone {
            self.row.add(Counter::PushGone, 1);
        } else {
            self.row.add(Counter::LaneFull, 1);
        }
        match routed {
            Routed::Push { origin, id, .. }
            | Routed::Close { origin, id, .. }
            | Routed::Change { origin, id, .. }
            | Routed::Protect { origin, id, .. } => {
                if id != 0 {
                    self.answer(origin, id, Reply::Verdict(verdict));
                } else if verdict != Verdict::Gone {
                    self.workers.count_refused(origin, 1);
                }
            }
            Routed::Info { origin, id } => {
                // `None` means gone. Where the lane is full nobody knows; the asker's deadline
                // says so.
                if verdict == Verdict::Gone || origin == Origin::Control {
                    self.answer(origin, id, Reply::Info(Box::new(None)));
                }
            }
            Routed::Message { from, .. } => self.workers.count_refused(Origin::Worker(from), 1),
        }
    }

    pub fn answer(&mut self, origin: Origin, id: RequestId, reply: Reply) {
        match origin {
            Origin::Worker(worker) => {
                let Some(worker) = self.workers.get(worker) else { return };
                let queued = match reply {
                    Reply::Verdict(verdict) => worker.verdict(id, verdict),
                    Reply::Info(info) => worker.info(id, *info),
                    Reply::Tally { queued, full } => worker.tally(id, queued, full),
                    Reply::Members { part, last } => worker.members(id, part, last),
                    Reply::Rooms { part, last } => worker.rooms(id, part, last),
                    // Only this process asks for these.
                    Reply::Slow(_) => true,
                };
                self.row.add(Counter::LaneFull, u64::from(!queued));
            }
            Origin::Control => self.commands.answer(id, reply),
        }
    }
}
