//! What waits while connections move, or while a new manager learns who owns what: bounded, in
//! the order it came, and sent again through the same doors when the hold ends.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;

use super::message::{Address, Routed, Wide};
use crate::fd::{Slot, WorkerId};
use crate::ipc::DATA_LANE_BYTES_MAX;
use crate::ipc::packet::Body;

/// Bytes that may wait; beyond, the answer is `full`. As much as the lanes to both ends of a
/// handover would take, so that nobody hears `full` because connections move.
const HELD_BYTES_MAX: usize = 2 * DATA_LANE_BYTES_MAX;
/// What a message weighs besides its body.
const ITEM_BYTES: usize = 256;

/// For whom messages wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Nobody.
    #[default]
    Open,
    /// Everybody: this manager is new and has not heard yet who owns what.
    All,
    /// What a pass says ([`crate::manager::moving::pass::Passes::waits`]).
    Pass,
}

/// A body that was kept.
#[derive(Debug)]
pub enum OwnedBody {
    /// Copied.
    Bytes(Bytes),
    /// Where it was.
    Memfd(OwnedFd, usize),
}

impl OwnedBody {
    /// Keeps a body: bytes are copied, a memfd is taken.
    pub fn new(body: Body<'_>) -> OwnedBody {
        match body {
            Body::Inline(bytes) => OwnedBody::Bytes(Bytes::copy_from_slice(bytes)),
            Body::Beside(memfd, len) => OwnedBody::Memfd(memfd, len),
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            OwnedBody::Bytes(bytes) => bytes.len(),
            OwnedBody::Memfd(_, len) => *len,
        }
    }

    /// As a body again.
    pub fn body(&self) -> std::io::Result<Body<'_>> {
        Ok(match self {
            OwnedBody::Bytes(bytes) => Body::Inline(bytes),
            OwnedBody::Memfd(memfd, len) => Body::Beside(dup(memfd.as_fd())?, *len),
        })
    }
}

fn dup(memfd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    memfd.try_clone_to_owned()
}

/// What waits.
#[derive(Debug)]
pub enum HeldMessage {
    /// A message to one.
    One(Address, Routed, OwnedBody),
    /// A message to many.
    Wide {
        /// What, and for whom.
        wide: Wide,
        /// Whether the sender's clients of a pass had it, or will have it from the sender.
        had: bool,
        /// The payload.
        body: OwnedBody,
    },
}

/// A message between workers, for all processes of a slot.
#[derive(Debug)]
pub struct SlotMessage {
    /// Who sent it.
    pub from: WorkerId,
    /// For which slot.
    pub to: Slot,
    /// Whether its sender, a process of that slot, has had it and acts.
    pub acts: bool,
    /// The bytes.
    pub body: OwnedBody,
}

impl SlotMessage {
    /// Keeps a message.
    pub fn new(from: WorkerId, to: Slot, acts: bool, body: Body<'_>) -> SlotMessage {
        SlotMessage { from, to, acts, body: OwnedBody::new(body) }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Hold {
    /// For whom.
    pub scope: Scope,
    items: VecDeque<HeldMessage>,
    bytes: usize,
    /// By its sender, where each message to many stands that is not marked as had.
    unmarked: HashMap<WorkerId, Vec<usize>>,
    /// Whether something was refused since the last release.
    full: bool,
    /// Messages for slots that have no worker yet, or whose clients move.
    for_slots: VecDeque<SlotMessage>,
    for_slots_bytes: usize,
}

impl Hold {
    /// An empty queue.
    pub fn new(scope: Scope) -> Hold {
        Hold { scope, ..Hold::default() }
    }

    /// Adds an item of so many body bytes; gives it back where there is no room.
    #[must_use]
    pub fn add(&mut self, item: HeldMessage, body_len: usize) -> Option<HeldMessage> {
        let weight = body_len + ITEM_BYTES;
        if self.bytes + weight > HELD_BYTES_MAX {
            self.full = true;
            return Some(item);
        }
        self.bytes += weight;
        if let HeldMessage::Wide { wide, had: false, .. } = &item
            && let Some(sender) = wide.sender
        {
            self.unmarked.entry(sender).or_default().push(self.items.len());
        }
        self.items.push_back(item);
        None
    }

    /// Adds a message for a slot; false where there is no room.
    #[must_use]
    pub fn add_for_slot(&mut self, message: SlotMessage) -> bool {
        let weight = message.body.len() + ITEM_BYTES;
        if self.for_slots_bytes + weight > HELD_BYTES_MAX {
            return false;
        }
        self.for_slots_bytes += weight;
        self.for_slots.push_back(message);
        true
    }

    /// Gives out what was added for slots.
    pub fn take_for_slots(&mut self) -> VecDeque<SlotMessage> {
        self.for_slots_bytes = 0;
        std::mem::take(&mut self.for_slots)
    }

    /// What this worker sent to all so far, its clients of a pass have had.
    pub fn mark_had(&mut self, by: WorkerId) {
        // Each is marked once: a worker may say so very often while very much is held.
        for index in self.unmarked.remove(&by).unwrap_or_default() {
            if let Some(HeldMessage::Wide { had, .. }) = self.items.get_mut(index) {
                *had = true;
            }
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether something has found no room.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Ends the hold and gives out all that waited.
    pub fn release(&mut self) -> VecDeque<HeldMessage> {
        self.scope = Scope::Open;
        (self.bytes, self.full) = (0, false);
        self.unmarked.clear();
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Opcode;
    use crate::ipc::messages::ManagerToWorker;

    #[test]
    fn what_a_worker_sent_is_marked_once_and_what_it_sends_later_is_not() {
        let mut hold = Hold::new(Scope::All);
        let id = |slot| WorkerId { slot: Slot(slot), epoch: 1 };
        let add = |hold: &mut Hold, sender| {
            let wide = Wide::broadcast(sender, Opcode::Text, 0);
            let body = OwnedBody::Bytes(Bytes::new());
            assert!(hold.add(HeldMessage::Wide { wide, had: false, body }, 0).is_none());
        };
        for sender in [Some(id(0)), Some(id(1)), None, Some(id(0))] {
            add(&mut hold, sender);
        }
        assert_eq!(hold.unmarked[&id(0)], [0, 3]);
        hold.mark_had(id(0));
        assert!(!hold.unmarked.contains_key(&id(0)), "nothing is left to look at");
        add(&mut hold, Some(id(0)));
        let had: Vec<bool> = hold
            .release()
            .iter()
            .map(|item| matches!(item, HeldMessage::Wide { had: true, .. }))
            .collect();
        assert_eq!(had, [true, false, false, true, false]);
        assert!(hold.unmarked.is_empty());
    }

    #[test]
    fn a_hold_is_bounded_and_keeps_its_order() {
        let mut hold = Hold::new(Scope::All);
        let item = |n: u64| HeldMessage::Wide {
            wide: Wide::broadcast(None, Opcode::Text, n),
            had: false,
            body: OwnedBody::Bytes(Bytes::new()),
        };
        let mut held = 0;
        while hold.add(item(held), 1_000_000).is_none() {
            held += 1;
        }
        assert_eq!(held, 33);
        let order: Vec<u64> = hold
            .release()
            .into_iter()
            .map(|item| match item {
                HeldMessage::Wide { wide, .. } => match wide.message {
                    ManagerToWorker::Broadcast { except, .. } => except,
                    other => panic!("{other:?}"),
                },
                HeldMessage::One(..) => unreachable!(),
            })
            .collect();
        assert_eq!(order, (0..33).collect::<Vec<_>>());
        assert_eq!((hold.scope, hold.bytes()), (Scope::Open, 0));
    }
}
