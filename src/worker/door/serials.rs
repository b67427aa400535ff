//! The numbers this worker may give to clients: blocks of serials the master leases to it.

use std::collections::VecDeque;

use super::Door;
use crate::fd::{Fd, Slot};
use crate::ipc::messages::{LEASE_SERIALS, WorkerToMaster};

/// The leases of a worker.
pub(in crate::worker) struct Serials {
    node: u8,
    slot: Slot,
    next: u64,
    /// The last serial of the block in use.
    last: u64,
    /// Blocks that were granted and not begun.
    waiting: VecDeque<u64>,
    asked: bool,
    /// Every block there ever was, as (first, last) serial. They ascend.
    leased: Vec<(u64, u64)>,
}

impl Serials {
    /// Of a slot of a node, with the block that begins with `first`.
    pub fn new(node: u8, slot: Slot, first: u64) -> Serials {
        let last = first + LEASE_SERIALS - 1;
        let leased = vec![(first, last)];
        let waiting = VecDeque::new();
        Serials { node, slot, next: first, last, waiting, asked: false, leased }
    }

    /// The next number, `None` until a block comes; and whether one should be asked for.
    fn next(&mut self) -> (Option<Fd>, bool) {
        if self.next > self.last
            && let Some(first) = self.waiting.pop_front()
        {
            (self.next, self.last) = (first, first + LEASE_SERIALS - 1);
            self.asked = false;
        }
        let fd = Fd::new(self.node, self.slot, self.next).filter(|_| self.next <= self.last);
        self.next += u64::from(fd.is_some());
        let half_used = self.next + LEASE_SERIALS / 2 > self.last;
        let ask =
            half_used && self.waiting.is_empty() && !std::mem::replace(&mut self.asked, true);
        (fd, ask)
    }

    fn grant(&mut self, first: u64) {
        let last = first + LEASE_SERIALS - 1;
        self.waiting.push_back(first);
        match self.leased.last_mut() {
            Some(block) if block.1 + 1 == first => block.1 = last,
            _ => self.leased.push((first, last)),
        }
    }

    /// Whether the number is of a block of ours.
    pub fn is_ours(&self, fd: Fd) -> bool {
        let begun = self.leased.partition_point(|(first, _)| *first <= fd.serial());
        let within = self.leased[..begun].last().is_some_and(|(_, last)| fd.serial() <= *last);
        fd.node() == self.node && fd.slot() == self.slot && within
    }
}

impl Door {
    /// A number for a new client; asks the master in time for the next block. The master answers
    /// each question as soon as it can, however long that takes.
    pub(in crate::worker) fn next_fd(&self) -> Option<Fd> {
        let (fd, ask) = self.serials.borrow_mut().next();
        if ask {
            self.master.send(&WorkerToMaster::NeedLease);
        }
        fd
    }

    /// The master has granted a block.
    pub(in crate::worker) fn leased(&self, first: u64) {
        self.serials.borrow_mut().grant(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_for_once_at_half_and_begun_when_the_last_is_used() {
        let mut serials = Serials::new(5, Slot(3), 1);
        let asks: Vec<u64> = (1..=LEASE_SERIALS)
            .filter(|&serial| {
                let (fd, ask) = serials.next();
                assert_eq!(fd, Fd::new(5, Slot(3), serial));
                ask
            })
            .collect();
        assert_eq!(asks.len(), 1);
        assert!(asks[0] <= LEASE_SERIALS / 2 + 2);
        assert_eq!(serials.next(), (None, false));
        serials.grant(10 * LEASE_SERIALS);
        let (fd, ask) = serials.next();
        let fd = fd.unwrap();
        assert_eq!((fd.serial(), ask), (10 * LEASE_SERIALS, false));
        assert!(serials.is_ours(fd));
        assert!(!serials.is_ours(Fd::new(5, Slot(3), 5 * LEASE_SERIALS).unwrap()));
        assert!(!serials.is_ours(Fd::new(5, Slot(4), 1).unwrap()));
        assert!(!serials.is_ours(Fd::new(0, Slot(3), 1).unwrap()), "another node's");
        assert_eq!(serials.leased.len(), 2);
    }
}
