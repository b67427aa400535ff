//! Leases as workers are owed them: each question is answered, however long the write that has
//! to come before the answer fails.

use serde::{Deserialize, Serialize};

use super::Master;
use crate::ipc::messages::MasterToWorker;

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

    fn granted(&mut self, now: u64) {
        *self = Lease { due_ms: None, not_before_ms: now + APART_MS, failing: false };
    }

    /// Whether that is news.
    fn failed(&mut self, now: u64) -> bool {
        self.due_ms = Some(now + AGAIN_MS);
        !std::mem::replace(&mut self.failing, true)
    }
}

impl Master {
    /// Grants what is due.
    pub(super) fn keep_leases(&mut self, now: u64) {
        for worker in &mut self.workers {
            if worker.lease.due_ms().is_none_or(|due| due > now) {
                continue;
            }
            let slot = worker.id.slot;
            let leased = self.serials.lease(slot);
            let told = leased
                .and_then(|first| worker.child.send(&MasterToWorker::Lease { first }, Vec::new()));
            match told {
                Ok(()) if worker.lease.failing => {
                    tracing::info!(%slot, "numbers are leased again");
                    worker.lease.granted(now);
                }
                Ok(()) => worker.lease.granted(now),
                Err(error) if worker.lease.failed(now) => {
                    tracing::error!(%slot, %error, "no numbers to lease; the master tries again");
                }
                Err(_) => {}
            }
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
        lease.granted(3_000);
        assert_eq!(lease.due_ms(), None);
        assert!(lease.failed(4_000));
    }

    #[test]
    fn leases_of_one_worker_are_apart() {
        let mut lease = Lease::default();
        lease.granted(1_000);
        lease.wanted();
        lease.wanted();
        assert_eq!(lease.due_ms(), Some(1_000 + APART_MS));
    }
}
