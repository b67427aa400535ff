//! What is for many clients, whatever becomes of those: broadcasts, to the clients of all workers
//! but the sender, and calls, to the members of some topics. A call is a broadcast with a filter.

use std::collections::HashSet;
use std::os::fd::AsFd;

use bytes::Bytes;

use super::hold::{HeldMessage, OwnedBody, Scope, SlotMessage};
use super::message::{Address, Routed, Wide};
use crate::api::Verdict;
use crate::error::Error;
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::Sent;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::manager::Exchange;
use crate::manager::worker_handle::WorkerHandle;

/// To how many workers a message for many was brought.
#[derive(Debug)]
pub struct Spread {
    /// Slots that it is for.
    pub slots: usize,
    /// Workers that did not take it, or all that it is for where it could not be kept for them.
    pub refused: usize,
}

impl Exchange {
    /// Brings a message to the clients of other workers.
    pub fn spread(&mut self, wide: Wide, body: Body<'_>) -> Spread {
        let sender = wide.sender;
        let targets = self.workers.iter().filter(|w| w.may_have_clients());
        let targets = targets.map(|worker| worker.id()).filter(|id| self.is_for(&wide, *id));
        let (held, now): (Vec<_>, Vec<_>) =
            targets.partition(|id| self.waits(sender, Some(*id), None));
        let waits = self.hold.scope == Scope::All || !held.is_empty() || self.passes.keeps(sender);
        // During a reload a slot has two processes.
        let reached: HashSet<Slot> = held.iter().chain(&now).map(|id| id.slot).collect();
        let slots = reached.len();
        let (kept, mut refused) = match body {
            Body::Inline(bytes) => {
                let refused = self.send_wide(&now, &wide.message, |_| Ok(Body::Inline(bytes)));
                (waits.then(|| OwnedBody::Bytes(Bytes::copy_from_slice(bytes))), refused)
            }
            Body::Beside(memfd, len) => {
                let refused = self.send_wide(&now, &wide.message, |_| {
                    Ok(Body::Beside(memfd.as_fd().try_clone_to_owned()?, len))
                });
                (waits.then_some(OwnedBody::Memfd(memfd, len)), refused)
            }
        };
        let (asker, is_told, mut asked) = (wide.asker(), wide.is_told(), now.len());
        let mut is_last = true;
        if let Some(kept) = kept {
            let (had, len) = (self.passes.has_answered(sender), kept.len() + wide.weight());
            let back = self.hold.add(HeldMessage::Wide { wide, had, body: kept }, len);
            is_last = back.is_some();
            if let Some(HeldMessage::Wide { wide, .. }) = back {
                held.iter().for_each(|id| self.note_missed(*id, &wide.message));
                asked += held.len().max(1);
                refused += held.len().max(1);
                self.refuse_wide(sender.filter(|_| !is_told), 1);
            }
        }
        self.tell_asked(asker, asked, refused, is_last);
        Spread { slots, refused }
    }

    /// Whether a worker is to have it. While connections move, both ends may have members that
    /// nobody has told of yet.
    fn is_for(&self, wide: &Wide, worker: WorkerId) -> bool {
        if !wide.may_reach(worker) {
            return false;
        }
        let topics = match &wide.message {
            ManagerToWorker::Call { call, .. } => &call.topics[..],
            ManagerToWorker::Presence { room, .. } => std::slice::from_ref(room),
            _ => return true,
        };
        let moves = match self.hold.scope {
            Scope::Open => false,
            Scope::All => true,
            Scope::Pass => self.passes.is_end(worker),
        };
        // A worker that a new manager has not heard yet may have members as well.
        let unheard = self.workers.get(worker).is_none_or(|worker| !worker.introduced);
        moves
            || unheard
            || topics.is_empty()
            || matches!(wide.reach, Reach::Only(_))
            || self.interest.has(topics, worker)
            || wide.sender.is_some_and(|sender| self.direct.is_ending(sender, worker))
    }

    /// Brings a message to every process of a slot that may have clients: while one hands its
    /// clients over to the other there are two. The sender is among them unless it has had the
    /// message. Whoever gets it may tell its own clients, so it waits while some of them are on
    /// their way from one process to the other.
    pub fn deliver_to_slot(&mut self, message: SlotMessage) {
        let SlotMessage { from, to, acts, .. } = message;
        let routed = |acts| Routed::Message { from, acts };
        let mut targets: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|worker| worker.id().slot == to && worker.may_have_clients())
            .map(WorkerHandle::id)
            .chain(self.router.serving(to))
            .chain(Some(from).filter(|from| from.slot == to))
            .filter(|id| *id != from || !acts)
            .collect();
        targets.sort_unstable();
        targets.dedup();
        // The slot's worker is about to start, or to start again.
        let starts = targets.is_empty() && from.slot != to;
        if starts && !self.router.has_slot(to) {
            return self.refuse(routed(false), Verdict::Gone);
        }
        let moves = |id: &WorkerId| match acts {
            // The clients that its sender still had then have it.
            true => self.passes.waits(Some(from), Some(*id), None),
            false => self.passes.is_end(*id),
        };
        if starts || self.hold.scope == Scope::All || targets.iter().any(moves) {
            if !self.hold.add_for_slot(message) {
                self.refuse(routed(false), Verdict::Full);
            }
            return;
        }
        // In a reload each process of the slot may take itself for the one that is to act.
        let place = self.router.serving(to).map_or(to, |serving| serving.slot);
        let actor = targets.iter().max_by_key(|id| self.workers.rank(**id, place));
        let actor = actor.filter(|_| !acts).copied();
        for target in targets {
            let routed = routed(Some(target) == actor);
            match message.body.body() {
                Ok(body) => self.pass_on(Some(target), Address::Slot(to), routed, body),
                Err(error) => {
                    tracing::error!(worker = %target, %error, "a message could not be passed on");
                    self.refuse(routed, Verdict::Full);
                }
            }
        }
    }

    /// A slot has a worker now, or a pass is over: what waited for that goes out, and the rest
    /// waits on.
    pub fn deliver_to_slots(&mut self) {
        for message in self.hold.take_for_slots() {
            self.deliver_to_slot(message);
        }
    }

    /// Sends it to these; `body` makes the body for each. The answer is to how many it did not go.
    fn send_wide<'a>(
        &mut self,
        targets: &[WorkerId],
        message: &ManagerToWorker,
        body: impl Fn(WorkerId) -> std::io::Result<Body<'a>>,
    ) -> usize {
        let mut refused = 0;
        for id in targets {
            let Some(worker) = self.workers.get(*id) else {
                refused += 1;
                continue;
            };
            let sent = body(*id)
                .map_err(|error| Error::io("dup a message's memfd", error))
                .and_then(|body| worker.link.send_to_all(message, body));
            match sent {
                Ok(Sent::Queued) => {
                    self.row.add(Counter::Relayed, 1);
                    continue;
                }
                Ok(Sent::Full) => {}
                Err(error) => {
                    tracing::error!(worker = %id, %error, "a broadcast could not be passed on");
                }
            }
            refused += 1;
            self.row.add(Counter::LaneFull, 1);
            self.note_missed(*id, message);
        }
        refused
    }

    /// There is no room for something that a worker was to be told. What it misses of presence is
    /// made up for by a whole list, since else its members would believe for ever what is over.
    fn note_missed(&mut self, worker: WorkerId, message: &ManagerToWorker) {
        if let ManagerToWorker::Presence { room, .. } = message
            && self.interest.has(std::slice::from_ref(room), worker)
        {
            self.presence.missed.entry(worker).or_default().insert(room.clone());
        }
    }

    /// Tells whoever waits for tallies how many there will be.
    fn tell_asked(
        &mut self,
        asker: Option<(Origin, u64)>,
        workers: usize,
        refused: usize,
        last: bool,
    ) {
        let (workers, refused) = (workers as u32, refused as u32);
        match asker {
            Some((Origin::Worker(asker), id)) => {
                if let Some(asker) = self.workers.get(asker) {
                    asker.asked(id, workers, refused, last);
                }
            }
            Some((Origin::Control, id)) => {
                self.commands.gathered(id, |it| it.asked(workers, refused, last));
            }
            None => {}
        }
    }

    fn refuse_wide(&mut self, sender: Option<WorkerId>, count: u64) {
        self.row.add(Counter::LaneFull, count);
        if let Some(sender) = sender {
            self.workers.count_refused(Origin::Worker(sender), count);
        }
    }

    /// What waited: for both ends of a pass, where each client now is at one of them, or for all.
    /// `missed` are those clients of its sender that the sender could not serve then.
    pub fn release_wide(
        &mut self,
        ends: Option<&[WorkerId]>,
        wide: Wide,
        missed: &[&(WorkerId, Vec<u64>)],
        kept: &OwnedBody,
    ) {
        let (mut asked, mut refused) = (0, 0);
        for (by, fds) in missed {
            let message = match &wide.message {
                ManagerToWorker::Broadcast { opcode, except } => {
                    ManagerToWorker::Missed { opcode: *opcode, except: *except }
                }
                ManagerToWorker::Call { origin, id, call, .. } => {
                    let (origin, id, only, call) = (*origin, *id, fds.clone(), call.clone());
                    ManagerToWorker::Call { origin, id, only, call }
                }
                _ => continue,
            };
            refused += self.send_wide(&[*by], &message, |_| kept.body());
            asked += 1;
        }
        if let Some(ends) = ends {
            let ends = ends.iter().copied().filter(|id| wide.may_reach(*id));
            let ends: Vec<WorkerId> = ends.collect();
            refused += self.send_wide(&ends, &wide.message, |_| kept.body());
            return self.tell_asked(wide.asker(), asked + ends.len(), refused, true);
        }
        self.tell_asked(wide.asker(), asked, refused, false);
        let sender = wide.sender;
        match kept.body() {
            Ok(body) => drop(self.spread(wide, body)),
            Err(_) => self.refuse_wide(sender, 1),
        }
    }
}
