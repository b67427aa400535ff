//! Direct links between workers: made where one sends much to the clients of another, and ended
//! before connections move.
//!
//! A link is there for those who send to the clients of one slot, while one worker has them all,
//! and none of another slot. So whatever comes to that worker by it is for a client of its own, or
//! for one that is gone; and a publish that takes the link comes behind each push to a client
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use super::hold::Scope;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::LinkId;
use crate::manager::worker_handle::Phase;
use crate::manager::workers::Workers;
use crate::manager::{Exchange, Manager};
use crate::sys::clock::monotonic_ms;
use crate::sys::packet;

/// Links to one worker that a new manager is told of: far more than there are. Each message for
/// many is a look at all of them.
pub const PEERS_MAX: usize = 1024;
/// Ends of links that a new manager is told of before it is told of the links.
const OVER_MAX: usize = 4096;

/// The links there are.
pub struct Direct {
    links: BTreeMap<LinkId, Pair>,
    last: LinkId,
    /// Those that their senders said are over before their receivers said that they are there.
    over: BTreeSet<LinkId>,
    /// A handover that waits for links to end.
    handover: Option<(WorkerId, WorkerId)>,
}

/// The two at the ends of a link.
struct Pair {
    from: WorkerId,
    to: WorkerId,
    /// The receiver's end, which it gets behind all that its sender sent by the manager.
    end: Option<OwnedFd>,
    /// Whether the sender was told to end it.
    told: bool,
    /// Whether the receiver was told that the sender has ended it.
    left: bool,
}

impl Direct {
    /// None yet, for the manager of this epoch.
    pub fn new(epoch: u32) -> Direct {
        Direct {
            links: BTreeMap::new(),
            last: u64::from(epoch) << 32,
            over: BTreeSet::new(),
            handover: None,
        }
    }

    fn is_between(&self, from: WorkerId, to: WorkerId) -> bool {
        self.links.values().any(|pair| pair.from == from && pair.to == to)
    }

    fn leads_to(&self, to: WorkerId) -> bool {
        self.links.values().any(|pair| pair.to == to)
    }

    /// Whether all that a worker has sent to another directly may not have been taken yet, though
    /// the worker sends by us again.
    pub fn is_ending(&self, from: WorkerId, to: WorkerId) -> bool {
        self.links.values().any(|pair| pair.from == from && pair.to == to && pair.left)
    }

    /// All who are there have said which links lead to them.
    pub fn links_known(&mut self) {
        self.over.clear();
    }

    /// Whether a handover waits for links to end.
    pub fn holds_up_handover(&self) -> bool {
        self.handover.is_some()
    }

    fn make(&mut self, workers: &Workers, from: WorkerId, to: WorkerId) -> Result<()> {
        let Some(sender) = workers.get(from) else { return Ok(()) };
        let (ours, theirs) = packet::pair()?;
        self.last += 1;
        sender.send_directly(self.last, to, ours);
        let pair = Pair { from, to, end: Some(theirs), told: false, left: false };
        self.links.insert(self.last, pair);
        Ok(())
    }

    /// `Through`: everything the sender sent through the manager has been forwarded. The receiver
    /// may now read the direct link.
    pub fn through(&mut self, workers: &Workers, from: WorkerId, link: LinkId) {
        let Some(pair) = self.links.get_mut(&link) else { return };
        if pair.from == from
            && let Some(end) = pair.end.take()
            && let Some(receiver) = workers.get(pair.to)
        {
            receiver.peer(link, pair.from, end);
        }
    }

    /// Has all links end, since connections are about to move.
    pub fn end_all(&mut self, workers: &Workers) {
        for (link, pair) in &mut self.links {
            if let Some(sender) = workers.get(pair.from).filter(|_| !pair.told) {
                sender.end_direct(*link);
            }
            pair.told = true;
        }
    }

    /// A worker has ended. What it has sent is still to be taken.
    fn forget(&mut self, id: WorkerId) {
        self.links.retain(|_, pair| pair.to != id && !(pair.from == id && pair.end.is_some()));
    }
}

impl Exchange {
    /// Has a worker hand over, when nobody sends to it or to its successor directly any more.
    /// Nothing is held until then.
    pub fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        self.direct.end_all(&self.workers);
        if self.direct.leads_to(from) || self.direct.leads_to(to) {
            self.direct.handover = Some((from, to));
        } else {
            self.direct.handover = None;
            self.workers.hand_over(from, to);
        }
    }
}

impl Manager {
    /// A worker has much for the clients of a slot. Where nothing is in the way it gets a link;
    /// else it will ask again.
    pub fn on_want_direct(&mut self, from: WorkerId, slot: Slot) {
        if let Some(to) = self.may_send_directly(from, slot)
            && let Err(error) = self.exchange.direct.make(&self.exchange.workers, from, to)
        {
            // It goes on by the manager.
            tracing::warn!(%from, %to, %error, "a direct link could not be made");
        }
    }

    fn may_send_directly(&self, from: WorkerId, slot: Slot) -> Option<WorkerId> {
        let still = self.exchange.hold.scope == Scope::Open
            && self.exchange.owners_due_at.is_none()
            && !self.reloads.is_busy()
            && !self.stopping;
        let to = self.exchange.router.sole_owner(slot).filter(|to| still && *to != from)?;
        let serves = |id| self.exchange.workers.get(id).filter(|it| it.phase == Phase::Serving);
        let able = serves(from).is_some() && serves(to).is_some();
        // A push to a client of a removed slot goes by us, and no publish may overtake it.
        let clear = !self.exchange.router.has_of_other_slots(to)
            && !self.exchange.direct.is_between(from, to);
        (able && clear).then_some(to)
    }

    /// `Indirect`: the sender has stopped using the link. The receiver has to drain the link before
    /// it reads anything more from the manager.
    pub fn on_indirect(&mut self, from: WorkerId, link: LinkId) {
        let Some(pair) = self.exchange.direct.links.get_mut(&link) else {
            if self.exchange.owners_due_at.is_some() && self.exchange.direct.over.len() < OVER_MAX
            {
                // The receiver has not told this manager of the link yet.
                self.exchange.direct.over.insert(link);
            }
            return;
        };
        // Nobody ends a link of others, or one of its own a second time.
        if pair.from != from || std::mem::replace(&mut pair.left, true) {
            return;
        }
        let to = pair.to;
        match self.exchange.workers.get(to) {
            Some(receiver) => receiver.peer_left(link),
            None => self.on_peer_ended(to, link),
        }
    }

    /// `PeerEnded`: the receiver has drained the link.
    pub fn on_peer_ended(&mut self, to: WorkerId, link: LinkId) {
        if self.exchange.direct.links.get(&link).is_none_or(|pair| pair.to != to) {
            return;
        }
        self.exchange.direct.links.remove(&link);
        self.hand_over_if_undisturbed();
    }

    /// These direct links lead to a worker, which says so once, before it says what it owns.
    pub fn on_peers(&mut self, to: WorkerId, from: Vec<(LinkId, WorkerId)>) {
        let worker = self.exchange.workers.get_mut(to).filter(|worker| !worker.introduced);
        let Some(worker) = worker else { return };
        let room = PEERS_MAX.saturating_sub(worker.peers_told);
        worker.peers_told += from.len();
        for (link, from) in from.into_iter().take(room) {
            // Its sender ends it, as we are new to it.
            let pair = Pair { from, to, end: None, told: true, left: false };
            self.exchange.direct.links.entry(link).or_insert(pair);
            if self.exchange.direct.over.remove(&link) {
                self.on_indirect(from, link);
            }
        }
    }

    /// A link has ended. The handover that waited for the last has all its time before it.
    fn hand_over_if_undisturbed(&mut self) {
        let Some((from, to)) = self.exchange.direct.handover else { return };
        if self.exchange.direct.leads_to(from) || self.exchange.direct.leads_to(to) {
            return;
        }
        self.exchange.direct.handover = None;
        if let Some(reload) = &mut self.reloads.current
            && reload.moving() == Some((from, to))
        {
            reload.moves_from(monotonic_ms());
            self.exchange.workers.hand_over(from, to);
        }
    }

    /// A worker has ended, and its link was read to the end. Who was sent to by it is asked to take
    /// the rest, for nobody else will.
    pub fn forget_direct(&mut self, id: WorkerId) {
        self.exchange.direct.forget(id);
        let sent = self.exchange.direct.links.iter().filter(|(_, pair)| pair.from == id);
        for link in sent.map(|(link, _)| *link).collect::<Vec<_>>() {
            self.on_indirect(id, link);
        }
        self.hand_over_if_undisturbed();
    }
}
