//! Leases as workers are owed them: each question is answered, however long the write that has
//! to come before the answer fails.

use serde::{Deserialize, Serialize};

use super::Master;
use crate::ipc::messages::{LEASE_SERIALS, MasterToManager, MasterToWorker};

/// A lease whose write failed is tried again after this time.
const AGAIN_MS: u64 = 250;
/// The least time between two leases of a worker: 130,000 clients a second. It bounds how fast a
/// worker that was taken over uses up the numbers of its slot.
const APART_MS: u64 = 500;

/// What a worker is owed of numbers. Pure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// When to try, on the monotonic clock; `None` while nothing is owed.
    due_ms: Option<u64>,
    /// Before this time nothing is granted.
    not_before_ms: u64,
    /// Whether the last try failed.
    failing: bool,
    /// The serials that it has, from the first to the last of each run.
    has: Vec<(u64, u64)>,
}

impl Lease {
    /// The worker asks for a block. A second question before the answer changes nothing.
    pub fn wanted(&mut self) {
        self.due_ms.get_or_insert(self.not_before_ms);
    }

    /// When the next try is due.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// What a worker begins with: the block with this first serial.
    pub fn begun(first: u64) -> Lease {
        let mut lease = Lease::default();
        lease.add(first, None);
        lease
    }

    /// The serials that the worker has, from the first to the last of each run.
    pub fn has(&self) -> &[(u64, u64)] {
        &self.has
    }

    /// The block that begins with `first` is the worker's; before, the slot's next serial was
    /// `next`. The answer is what the worker has by that.
    fn granted(&mut self, now: u64, first: u64, next: Option<u64>) -> (u64, u64) {
        (self.due_ms, self.not_before_ms, self.failing) = (None, now + APART_MS, false);
        self.add(first, next)
    }

    /// Where the clock has moved a quiet slot on, and its last block was this worker's, nobody has
    /// a number between the two: they are one run, or there would be one more with each block.
    fn add(&mut self, first: u64, next: Option<u64>) -> (u64, u64) {
        let last = first + LEASE_SERIALS - 1;
        match self.has.last_mut() {
            Some(run) if next == Some(run.1 + 1) && first > run.1 => {
                let first = run.1 + 1;
                run.1 = last;
                (first, last)
            }
            _ => {
                self.has.push((first, last));
                (first, last)
            }
        }
    }

    /// Whether that is news.
    fn failed(&mut self, now: u64) -> bool {
        self.due_ms = Some(now + AGAIN_MS);
        !std::mem::replace(&mut self.failing, true)
    }
}

impl Master {
    /// Grants what is due.
    pub(super) fn tick_leases(&mut self, now: u64) {
        let mut granted = Vec::new();
        for worker in &mut self.workers {
            if worker.lease.due_ms().is_none_or(|due| due > now) {
                continue;
            }
            let slot = worker.id.slot;
            let next = self.serials.next().get(&slot.0).copied();
            let leased = self.serials.lease(slot);
            let told = leased.and_then(|first| {
                let lease = MasterToWorker::Lease { first };
                worker.child.send(&lease, Vec::new()).map(|()| first)
            });
            match told {
                Ok(first) => {
                    if worker.lease.failing {
                        tracing::info!(%slot, "numbers are leased again");
                    }
                    let (first, last) = worker.lease.granted(now, first, next);
                    granted.push((worker.id, first, last));
                }
                Err(error) if worker.lease.failed(now) => {
                    tracing::error!(%slot, %error, "no numbers to lease; the master tries again");
                }
                Err(_) => {}
            }
        }
        for (id, first, last) in granted {
            self.tell_manager(&MasterToManager::Leased { id, first, last }, Vec::new());
        }
    }

    /// Tells the manager which numbers a worker has.
    pub(super) fn tell_leases(&mut self, index: usize) {
        let Some(worker) = self.workers.get(index) else { return };
        let id = worker.id;
        for (first, last) in worker.lease.has().to_vec() {
            self.tell_manager(&MasterToManager::Leased { id, first, last }, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_stays_due_until_it_is_granted_and_is_news_once() {
        let mut lease = Lease::default();
        assert_eq!(lease.due_ms(), None);
        lease.wanted();
        assert_eq!(lease.due_ms(), Some(0));
        assert!(lease.failed(1_000));
        assert_eq!(lease.due_ms(), Some(1_000 + AGAIN_MS));
        assert!(!lease.failed(2_000));
        lease.wanted();
        assert_eq!(lease.due_ms(), Some(2_000 + AGAIN_MS));
        lease.granted(3_000, 1, None);
        assert_eq!(lease.due_ms(), None);
        assert!(lease.failed(4_000));
    }

    #[test]
    fn blocks_in_a_row_are_one_run_and_so_are_those_between_which_nobody_has_any() {
        let block = |n: u64| 1 + n * LEASE_SERIALS;
        let mut lease = Lease::begun(block(0));
        let in_a_row = lease.granted(0, block(1), Some(block(1)));
        assert_eq!(in_a_row, (block(1), block(2) - 1));
        let others_between = lease.granted(0, block(9), Some(block(5)));
        assert_eq!(others_between, (block(9), block(10) - 1));
        let quiet = lease.granted(0, block(20), Some(block(10)));
        assert_eq!(quiet, (block(10), block(21) - 1));
        assert_eq!(lease.has(), [(1, block(2) - 1), (block(9), block(21) - 1)]);
    }

    #[test]
    fn leases_of_one_worker_are_apart() {
        let mut lease = Lease::default();
        lease.granted(1_000, 1, None);
        lease.wanted();
        lease.wanted();
        assert_eq!(lease.due_ms(), Some(1_000 + APART_MS));
    }
}
