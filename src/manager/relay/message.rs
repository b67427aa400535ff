//! What is relayed: a message to one, a message to many, and the answers.

use crate::api::rooms::{Change, Member, Topic};
use crate::api::{Info, Opcode, Verdict};
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId};

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
    /// A worker's bytes for another, which acts for its slot or not.
    Message { from: WorkerId, acts: bool },
}

impl Routed {
    /// A close that a handler asks for, not an operator.
    pub fn closed_by(origin: Origin, id: RequestId, code: u16) -> Routed {
        Routed::Close { origin, id, code, operator: false }
    }

    /// Bytes that it holds besides its body.
    pub fn weight(&self) -> usize {
        match self {
            Routed::Change { change, .. } => change.weight(),
            _ => 0,
        }
    }

    pub fn sender(&self) -> Option<WorkerId> {
        match self {
            Routed::Message { from, .. } => Some(*from),
            Routed::Push { origin, .. }
            | Routed::Close { origin, .. }
            | Routed::Protect { origin, .. }
            | Routed::Change { origin, .. }
            | Routed::Info { origin, .. } => sender(*origin),
        }
    }

    /// The message that brings it to its worker. `mark`: of a change that may give that a member.
    pub fn message(&self, address: Address, mark: u64) -> ManagerToWorker {
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
            Routed::Message { from, acts } => {
                ManagerToWorker::WorkerMessage { from: from.slot, acts }
            }
        }
    }
}

pub fn sender(origin: Origin) -> Option<WorkerId> {
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
    /// Of one worker to a call for its rooms, in parts.
    Rooms { part: Vec<(Topic, u64)>, last: bool },
    /// To a question for slow clients.
    Slow(Vec<Info>),
}

/// What goes to many workers.
#[derive(Debug)]
pub struct Wide {
    /// The worker that sent it and has served its own clients.
    pub sender: Option<WorkerId>,
    /// `Broadcast`, `Call`, or what is told of presence.
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
    pub fn may_reach(&self, worker: WorkerId) -> bool {
        match &self.reach {
            Reach::AllBut(others) => Some(worker) != self.sender && !others.contains(&worker),
            Reach::Only(one) => worker == *one,
        }
    }

    /// Bytes that it holds besides its body.
    pub fn weight(&self) -> usize {
        let others = match &self.reach {
            Reach::AllBut(others) => size_of_val(&others[..]),
            Reach::Only(_) => 0,
        };
        match &self.message {
            ManagerToWorker::Call { call, .. } => others + call.weight(),
            _ => others,
        }
    }

    /// Whom to tell how many were asked.
    pub fn asker(&self) -> Option<(Origin, u64)> {
        match self.message {
            ManagerToWorker::Call { origin, id: id @ 1.., .. } => Some((origin, id)),
            _ => None,
        }
    }

    /// Whether its sender gets tallies and so learns itself from whom it was kept.
    pub fn is_told(&self) -> bool {
        self.asker().is_some()
    }
}
