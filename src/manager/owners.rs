//! Who owns what, as a new manager learns it: the workers introduce themselves, once.

use super::Manager;
use super::worker_handle::{Phase, WorkerHandle};
use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::sys::clock::monotonic_ms;

/// The longest that a new manager waits to hear who owns what, in milliseconds.
pub const WAIT_MS: u64 = 1000;

/// Whether a worker has introduced itself, or need not.
fn is_known(worker: &WorkerHandle) -> bool {
    worker.introduced || !worker.record.ready
}

impl Manager {
    /// A worker says which clients it has of others' numbers. It is believed once, by a manager
    /// that is new: nobody else could tell it. From then on the manager knows what moved.
    pub fn on_owns(
        &mut self,
        id: WorkerId,
        manager: u32,
        ranges: &[(u64, u64)],
        last: bool,
    ) -> Result<()> {
        let Some(worker) = self.exchange.workers.get_mut(id).filter(|_| manager == self.epoch)
        else {
            // It was said to a manager that died.
            return Ok(());
        };
        if !worker.may_claim && !ranges.is_empty() {
            let count = ranges.len();
            tracing::error!(worker = %id, count, "a worker claims clients of others");
            return Ok(());
        }
        if !worker.tells_ranges(ranges.len()) {
            let most = worker.ranges_max();
            return Err(Error::new(format!("more than {most} ranges of numbers")));
        }
        // Ranges that overlap would each cost a look at all that they have in common.
        for &(first, last) in ranges {
            if first > last || worker.told_to.is_some_and(|told_to| first <= told_to) {
                return Err(Error::new("ranges of numbers that do not ascend"));
            }
            worker.told_to = Some(last);
        }
        self.exchange.router.owns(id, ranges);
        if last {
            (worker.introduced, worker.may_claim) = (true, false);
            self.resolve_passes();
            self.check_owners_known();
            self.exchange.await_no_more(id);
        }
        Ok(())
    }

    /// Ends the wait of a successor once every worker that may have clients has said what it
    /// owns.
    pub fn check_owners_known(&mut self) {
        if self.exchange.owners_due_at.is_none() || !self.exchange.passes.has_inherited_nothing() {
            return;
        }
        let all_here = (0..self.state.worker_num)
            .all(|slot| self.exchange.workers.iter().any(|w| u16::from(w.id().slot.0) == slot));
        if all_here && self.exchange.workers.iter().all(is_known) {
            self.owners_known();
        }
    }

    pub fn owners_known(&mut self) {
        self.exchange.owners_due_at = None;
        self.exchange.direct.links_known();
        let steps = self.exchange.passes.settle_all();
        self.carry_out(steps);
        self.exchange.deliver_to_slots();
        self.exchange.tell_topics_whole();
        let silent = self.exchange.workers.iter().filter(|worker| !is_known(worker));
        let silent = silent.map(WorkerHandle::id).collect();
        self.exchange.begin_all_presence(silent, monotonic_ms());
        self.resume_reload();
        if std::mem::take(&mut self.begin_with_reload) {
            self.request_reload(None);
        }
        self.begin_awaited();
        let draining = |w: &&WorkerHandle| matches!(w.phase, Phase::Draining { .. });
        let left: Vec<WorkerId> =
            self.exchange.workers.iter().filter(draining).map(|w| w.id()).collect();
        for id in left {
            // Our predecessor may have died before it told them, or between two of their batches.
            self.exchange.workers.drain(id, &self.exchange.settings);
            self.on_can_give(id);
        }
    }
}
