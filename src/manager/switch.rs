//! The switch: brings messages from whoever sent them to the worker that owns their client.
//!
//! Each packet is read once, and a body is copied once, into the packet of its target; a body in
//! a memfd goes on as the memfd. Nothing here waits: what finds no room is refused, told and
//! counted. What is for all goes by [`super::broadcast`].

use super::Manager;
use super::broadcast::Wide;
use super::hold::{Item, OwnedBody, Scope};
use super::listing::Page;
use crate::api::rooms::{Change, Member};
use crate::api::{Info, Opcode, Verdict};
use crate::error::Result;
use crate::fd::{Fd, Slot, WorkerId};
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId, WorkerToManager};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::scoreboard::Counter;

/// For whom a message is.
#[derive(Debug, Clone, Copy)]
pub enum Address {
    /// A client.
    Client(u64),
    /// The handler of the worker in this slot.
    Slot(Slot),
}

/// What is to be brought there, its body apart.
#[derive(Debug, Clone)]
pub enum Routed {
    /// A push.
    Push { origin: Origin, id: RequestId, opcode: Opcode },
    /// A close.
    Close { origin: Origin, id: RequestId, code: u16, operator: bool },
    /// A mark on a client.
    Protect { origin: Origin, id: RequestId, on: bool },
    /// A question.
    Info { origin: Origin, id: RequestId },
    /// A change of its rooms, user, session or expiry.
    Change { origin: Origin, id: RequestId, change: Change },
    /// A worker's bytes for another.
    Message { from: WorkerId },
}

impl Routed {
    /// Bytes that it holds besides its body.
    fn weight(&self) -> usize {
        match self {
            Routed::Change { change, .. } => change.weight(),
            _ => 0,
        }
    }

    /// A close that a handler asks for, not an operator.
    fn closed_by(origin: Origin, id: RequestId, code: u16) -> Routed {
        Routed::Close { origin, id, code, operator: false }
    }

    fn sender(&self) -> Option<WorkerId> {
        match self {
            Routed::Message { from } => Some(*from),
            Routed::Push { origin, .. }
            | Routed::Close { origin, .. }
            | Routed::Protect { origin, .. }
            | Routed::Change { origin, .. }
            | Routed::Info { origin, .. } => sender(*origin),
        }
    }

    /// The message that brings it to its worker. `mark`: of a change that may give that a member.
    fn message(&self, address: Address, mark: u64) -> ManagerToWorker {
        let fd = match address {
            Address::Client(fd) => fd,
            Address::Slot(_) => 0,
        };
        match *self {
            Routed::Push { origin, id, opcode } => {
                ManagerToWorker::Push { origin, id, fd, opcode }
            }
            Routed::Close { origin, id, code, operator } => {
                ManagerToWorker::Close { origin, id, fd, code, operator }
            }
            Routed::Protect { origin, id, on } => ManagerToWorker::Protect { origin, id, fd, on },
            Routed::Change { origin, id, ref change } => {
                ManagerToWorker::Change { origin, id, fd, mark, change: change.clone() }
            }
            Routed::Info { origin, id } => ManagerToWorker::Info { origin, id, fd },
            Routed::Message { from } => ManagerToWorker::WorkerMessage { from: from.slot },
        }
    }
}

fn sender(origin: Origin) -> Option<WorkerId> {
    match origin {
        Origin::Worker(id) => Some(id),
        Origin::Control => None,
    }
}

/// The answer to what a control command has routed.
#[derive(Debug)]
pub enum Reply {
    /// To a push or close.
    Verdict(Verdict),
    /// To a question.
    Info(Box<Option<Info>>),
    /// Of one worker to a call.
    Tally { queued: u64, full: u64 },
    /// Of one worker to a call for a list, in parts.
    Members { part: Vec<Member>, last: bool },
    /// To a question for slow clients.
    Slow(Vec<Info>),
}

impl Manager {
    /// A packet of a worker.
    pub fn on_packet(
        &mut self,
        from: WorkerId,
        packet: &[u8],
        mut fds: Vec<std::os::fd::OwnedFd>,
    ) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != from {
            self.row.add(Counter::StalePackets, 1);
            return Ok(());
        }
        while let Some(frame) = frames.next::<WorkerToManager>(&mut fds)? {
            self.on_message(from, frame.message, frame.body, &mut fds)?;
        }
        if let Some(worker) = self.workers.get_mut(from) {
            worker.tell_refused();
        }
        Ok(())
    }

    /// The answer to what was routed, or a question for a list.
    fn on_answer(&mut self, from: WorkerId, message: WorkerToManager) {
        match message {
            WorkerToManager::Verdict { origin, id, verdict } => {
                self.answer(origin, id, Reply::Verdict(verdict));
            }
            WorkerToManager::InfoAnswer { origin, id, info } => {
                self.answer(origin, id, Reply::Info(Box::new(info)));
            }
            WorkerToManager::List { id } => self.list(from, id, Page::All),
            WorkerToManager::ListPage { id, after, limit } => {
                self.list(from, id, Page::Above { after, limit: usize::from(limit) });
            }
            WorkerToManager::ListSlow { id, limit } => self.answer_slow(from, id, limit),
            WorkerToManager::SlowAnswer { id, part } => {
                self.answer(Origin::Control, id, Reply::Slow(part));
            }
            _ => {}
        }
    }

    fn on_message(
        &mut self,
        from: WorkerId,
        message: WorkerToManager,
        body: Body<'_>,
        fds: &mut Vec<std::os::fd::OwnedFd>,
    ) -> Result<()> {
        let origin = Origin::Worker(from);
        match message {
            WorkerToManager::Push { id, fd, opcode } => {
                self.deliver(Address::Client(fd), Routed::Push { origin, id, opcode }, body);
            }
            WorkerToManager::Close { id, fd, code } => {
                self.deliver(Address::Client(fd), Routed::closed_by(origin, id, code), body);
            }
            WorkerToManager::Protect { id, fd, on } => {
                self.deliver(Address::Client(fd), Routed::Protect { origin, id, on }, body);
            }
            WorkerToManager::Info { id, fd } => {
                self.deliver(Address::Client(fd), Routed::Info { origin, id }, body);
            }
            WorkerToManager::WorkerMessage { to } => self.deliver_to_slot(from, to, body),
            WorkerToManager::Broadcast { opcode, except } => {
                self.spread_everywhere(Wide::broadcast(Some(from), opcode, except), body);
            }
            message @ (WorkerToManager::Change { .. }
            | WorkerToManager::Call { .. }
            | WorkerToManager::Tally { .. }
            | WorkerToManager::Members { .. }
            | WorkerToManager::Rooms { .. }
            | WorkerToManager::Present { .. }
            | WorkerToManager::PresenceOf { .. }
            | WorkerToManager::Interest { .. }) => self.on_room_message(from, message, body),
            message @ (WorkerToManager::Verdict { .. }
            | WorkerToManager::InfoAnswer { .. }
            | WorkerToManager::List { .. }
            | WorkerToManager::ListPage { .. }
            | WorkerToManager::ListSlow { .. }
            | WorkerToManager::SlowAnswer { .. }) => self.on_answer(from, message),
            WorkerToManager::Alive(number) => self.on_alive(from, number),
            WorkerToManager::Owns { manager, ranges, last } => {
                self.on_owns(from, manager, &ranges, last)?;
            }
            WorkerToManager::Moving { pass, fds: numbers } => {
                self.on_moving(from, pass, numbers, body, std::mem::take(fds));
            }
            WorkerToManager::Stays { fds } => self.on_stays(from, fds),
            WorkerToManager::Gave { pass, left } => self.on_gave(from, pass, left),
            WorkerToManager::Gives { manager, pass, fds } => {
                self.on_gives(from, manager, pass, fds)
            }
            WorkerToManager::Holds { manager, pass, from: source, fds, answered } => {
                self.on_holds(from, manager, (pass, source), fds, answered);
            }
            WorkerToManager::Peers { from: peers } => self.on_peers(from, peers),
            WorkerToManager::WantDirect { to } => self.on_want_direct(from, to),
            WorkerToManager::Through { link } => self.on_through(from, link),
            WorkerToManager::Indirect { link } => self.on_indirect(from, link),
            WorkerToManager::PeerEnded { link } => self.on_peer_ended(from, link),
            WorkerToManager::Rested => self.on_rested(from),
            WorkerToManager::Adopted { pass, fds } => self.on_adopted(from, pass, &fds),
            WorkerToManager::TickDue { id, name, period_ms } => {
                self.on_tick_due(from, id, &name, period_ms)?;
            }
            WorkerToManager::Drained => {
                tracing::debug!(worker = %from, "the worker has no connections left");
            }
        }
        Ok(())
    }

    /// Brings a message to one. The verdict goes to whoever sent it.
    pub fn deliver(&mut self, address: Address, routed: Routed, body: Body<'_>) {
        if let Address::Client(number) = address
            && self.is_abroad(number)
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
            let item = Item::One(address, routed, OwnedBody::new(body));
            if let Some(Item::One(_, routed, _)) = self.hold.add(item, len) {
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
                    self.count_refused(origin);
                }
            }
            Routed::Info { origin, id } => {
                // `None` means gone. Where the lane is full nobody knows; the asker's deadline
                // says so.
                if verdict == Verdict::Gone || origin == Origin::Control {
                    self.answer(origin, id, Reply::Info(Box::new(None)));
                }
            }
            Routed::Message { from } => self.count_refused(Origin::Worker(from)),
        }
    }

    pub fn count_refused(&mut self, origin: Origin) {
        if let Some(worker) = sender(origin).and_then(|id| self.workers.get_mut(id)) {
            worker.refused += 1;
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
                    // Only this process asks for these.
                    Reply::Slow(_) => true,
                };
                self.row.add(Counter::LaneFull, u64::from(!queued));
            }
            Origin::Control => match reply {
                Reply::Tally { queued, full } => {
                    self.gathered(id, |it| it.counted(queued, full));
                }
                Reply::Members { part, last } => self.gathered(id, |it| it.listed(part, last)),
                Reply::Verdict(_) | Reply::Info(_) | Reply::Slow(_) => {
                    if let Some(asker) = self.asked.remove(&id) {
                        // A command that has given up waits no more.
                        let _ = asker.send(reply);
                    }
                }
            },
        }
    }

    /// Ends the hold: all that waited goes through the same doors again. `ends` are those of the
    /// pass, and `arriving` have clients that they may not serve yet.
    pub fn release(&mut self, ends: &[WorkerId], arriving: &[(WorkerId, Vec<u64>)]) {
        let was_all = self.hold.scope == Scope::All;
        for item in self.hold.release() {
            match item {
                Item::One(address, routed, kept) => match kept.body() {
                    Ok(body) => self.deliver(address, routed, body),
                    Err(_) => self.refuse(routed, Verdict::Full),
                },
                Item::Wide { wide, had, body } => {
                    let is_whole = !matches!(wide.reach, Reach::Only(_));
                    let is_its = |id| is_whole && !had && wide.sender == Some(id);
                    let missed = arriving.iter().filter(|(id, _)| is_its(*id));
                    let missed: Vec<_> = missed.collect();
                    self.release_wide((!was_all).then_some(ends), wide, &missed, &body);
                }
            }
        }
        for worker in self.workers.iter_mut() {
            worker.tell_refused();
        }
    }
}
