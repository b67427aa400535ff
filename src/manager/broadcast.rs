//! What is for many clients, whatever becomes of those: broadcasts, to the clients of all workers
//! but the sender, and calls, to the members of some topics. A call is a broadcast with a filter.

use std::collections::HashSet;
use std::os::fd::AsFd;

use bytes::Bytes;

use super::Manager;
use super::hold::{Item, OwnedBody, Scope};
use super::switch::{Address, Routed};
use crate::api::{Opcode, Verdict};
use crate::error::Error;
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::Sent;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

/// What goes to many workers.
#[derive(Debug)]
pub struct Wide {
    /// The worker that sent it and has served its own clients.
    pub sender: Option<WorkerId>,
    /// `Broadcast` or `Call`.
    pub message: ManagerToWorker,
    /// To which workers it may go.
    pub reach: Reach,
}

impl Wide {
    /// For the clients of all.
    pub fn broadcast(sender: Option<WorkerId>, opcode: Opcode, except: u64) -> Wide {
        let message = ManagerToWorker::Broadcast { opcode, except };
        Wide { sender, message, reach: Reach::AllBut(Vec::new()) }
    }

    /// Whether it goes to a worker, as far as its sender says.
    fn may_reach(&self, worker: WorkerId) -> bool {
        match &self.reach {
            Reach::AllBut(others) => Some(worker) != self.sender && !others.contains(&worker),
            Reach::Only(one) => worker == *one,
        }
    }

    /// Bytes that it holds besides its body.
    fn weight(&self) -> usize {
        match &self.message {
            ManagerToWorker::Call { call, .. } => call.weight(),
            _ => 0,
        }
    }

    /// Whom to tell how many were asked.
    fn asker(&self) -> Option<(Origin, u64)> {
        match self.message {
            ManagerToWorker::Call { origin, id: id @ 1.., .. } => Some((origin, id)),
            _ => None,
        }
    }

    /// Whether its sender gets tallies and so learns itself from whom it was kept.
    fn is_told(&self) -> bool {
        self.asker().is_some()
    }
}

impl Manager {
    /// Brings a message to the clients of other workers. Answers with how many slots that
    /// is.
    pub fn spread(&mut self, wide: Wide, body: Body<'_>) -> usize {
        let (scope, sender) = (self.hold.scope, wide.sender);
        let targets = self.workers.iter().filter(|w| w.may_have_clients());
        let targets = targets.map(|worker| worker.id()).filter(|id| self.is_for(&wide, *id));
        let has_given = self.given_now().is_some();
        let waits_for = |id: &WorkerId| match scope {
            // The clients that the old worker gave have not had it, and will be with the new one.
            Scope::Handover { from, to } if sender == Some(from) => has_given && *id == to,
            scope => scope.holds(sender, Some(*id)),
        };
        let (held, now): (Vec<_>, Vec<_>) = targets.partition(waits_for);
        let is_giver = matches!(scope, Scope::Handover { from, .. } if sender == Some(from));
        let waits = scope == Scope::All || !held.is_empty() || (is_giver && has_given);
        // During a reload a slot has two processes.
        let reached: HashSet<Slot> = held.iter().chain(&now).map(|id| id.slot).collect();
        let reached = reached.len();
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
            let (adopted, len) = (self.adopted_so_far(), kept.len() + wide.weight());
            is_last = self.hold.add(Item::Wide { wide, adopted, body: kept }, len).is_some();
            if is_last {
                asked += held.len().max(1);
                refused += held.len().max(1);
                self.refuse_wide(sender.filter(|_| !is_told), 1);
            }
        }
        self.tell_asked(asker, asked, refused, is_last);
        reached
    }

    /// Whether a worker is to have it. While connections move, both ends may have members that
    /// nobody has told of yet.
    fn is_for(&self, wide: &Wide, worker: WorkerId) -> bool {
        if !wide.may_reach(worker) {
            return false;
        }
        let ManagerToWorker::Call { call, .. } = &wide.message else { return true };
        let moves = match self.hold.scope {
            Scope::Open => false,
            Scope::All => true,
            Scope::Handover { from, to } => worker == from || worker == to,
        };
        // A worker that a new manager has not heard yet may have members as well.
        let unheard = self.workers.get(worker).is_none_or(|worker| !worker.introduced);
        moves
            || unheard
            || matches!(wide.reach, Reach::Only(_))
            || self.interest.has(&call.topics, worker)
            || wide.sender.is_some_and(|sender| self.direct.is_ending(sender, worker))
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
        }
        refused
    }

    /// Tells whoever waits for tallies how many there will be.
    fn tell_asked(
        &self,
        asker: Option<(Origin, u64)>,
        workers: usize,
        refused: usize,
        last: bool,
    ) {
        let Some((Origin::Worker(asker), id)) = asker else { return };
        let (workers, refused) = (workers as u32, refused as u32);
        if let Some(asker) = self.workers.get(asker) {
            asker.asked(id, workers, refused, last);
        }
    }

    fn refuse_wide(&mut self, sender: Option<WorkerId>, count: u64) {
        self.row.add(Counter::LaneFull, count);
        if let Some(worker) = sender.and_then(|id| self.workers.get_mut(id)) {
            worker.refused += count;
        }
    }

    /// What waited for a handover: each client is now at one end of it. `adopted` is what the new
    /// owner took over, in order; it had `had` of these when this came.
    pub fn release_wide(&mut self, scope: Scope, mut wide: Wide, late: &[u64], kept: &OwnedBody) {
        let sender = wide.sender;
        let Scope::Handover { from, to } = scope else {
            match kept.body() {
                Ok(body) => drop(self.spread(wide, body)),
                Err(_) => self.refuse_wide(sender, 1),
            }
            return;
        };
        if sender == Some(from) && self.workers.get(to).is_none() {
            // Whom the old worker had given and nobody took has missed it.
            self.refuse_wide(sender, 1);
        }
        let ends: Vec<_> = [from, to].into_iter().filter(|id| wide.may_reach(*id)).collect();
        let mut refused = self.send_wide(&ends, &wide.message, |_| kept.body());
        let mut asked = ends.len();
        if sender == Some(to) && !late.is_empty() {
            // The new owner has served the clients it had then, and not those that came later.
            match &mut wide.message {
                ManagerToWorker::Broadcast { opcode, except } => {
                    let (opcode, except) = (*opcode, *except);
                    self.push_to_late(to, late, (opcode, except), kept);
                }
                ManagerToWorker::Call { only, .. } => {
                    only.extend_from_slice(late);
                    refused += self.send_wide(&[to], &wide.message, |_| kept.body());
                    asked += 1;
                }
                _ => {}
            }
        }
        self.tell_asked(wide.asker(), asked, refused, true);
    }

    fn push_to_late(
        &mut self,
        to: WorkerId,
        late: &[u64],
        (opcode, except): (Opcode, u64),
        kept: &OwnedBody,
    ) {
        for fd in late.iter().filter(|fd| **fd != except) {
            let routed = Routed::Push { origin: Origin::Worker(to), id: 0, opcode };
            match kept.body() {
                Ok(body) => self.deliver(Address::Client(*fd), routed, body),
                Err(_) => self.refuse(routed, Verdict::Full),
            }
        }
    }
}
