//! Lent listeners: a slot without a ready worker still receives its share of the clients, so a live
//! worker accepts for it until it is back. For a removed slot, that is for good.

use std::os::fd::OwnedFd;

use super::Master;
use super::child::duplicate;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::MasterToWorker;
use crate::sys::clock;

/// How long a slot may be without a ready worker before its listeners are lent.
const LEND_AFTER_MS: u64 = 300;

impl Master {
    /// When the next slot has waited long enough.
    pub(super) fn lend_deadline_ms(&self) -> Option<u64> {
        let waiting = self.slots.iter().filter(|(_, place)| place.lent_to.is_none());
        let since = waiting.filter_map(|(_, place)| place.idle_since_ms);
        let deadline = since.map(|since| since + LEND_AFTER_MS).min()?;
        // With nobody to lend to there is nothing to wake up for.
        self.workers.iter().any(|worker| worker.ready_ms.is_some()).then_some(deadline)
    }

    pub(super) fn tick_lending(&mut self, now: u64) {
        if self.stopping.is_some() || self.starting_until_ms.is_some() {
            return;
        }
        let waited = |since: u64| now >= since + LEND_AFTER_MS;
        let idle: Vec<Slot> = self
            .slots
            .iter()
            .filter(|(_, place)| {
                place.lent_to.is_none() && place.idle_since_ms.is_some_and(waited)
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in idle {
            self.lend_listeners(slot);
        }
    }

    fn lend_listeners(&mut self, slot: Slot) {
        let Some(borrower) = self.borrower(slot) else { return };
        let (listeners, sockets) = self.listeners.own_of_slot(slot);
        let sockets = sockets.into_iter().map(duplicate).collect::<Result<Vec<OwnedFd>>>();
        let sockets = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                return tracing::error!(%slot, %error, "the slot's listeners cannot be lent");
            }
        };
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == borrower) {
            tracing::info!(%slot, to = %borrower, "listeners lent");
            worker.send(&MasterToWorker::LendListeners { slot, listeners }, sockets);
            self.slots.at(slot).lent_to = Some(borrower);
        }
    }

    /// Who accepts for a slot: its stand-in if it was removed, else any that is ready; of the
    /// serving generation if there is one.
    fn borrower(&self, slot: Slot) -> Option<WorkerId> {
        let wanted = self.slots.stand_in(slot);
        let ready = self.workers.iter().filter(|worker| worker.ready_ms.is_some());
        ready
            .filter(|worker| worker.child.kill_at_ms.is_none())
            .max_by_key(|worker| {
                let serves = worker.generation >= self.image.generation;
                (serves, worker.id.slot == wanted, worker.id.epoch)
            })
            .map(|worker| worker.id)
    }

    /// The slot has a worker again.
    pub(super) fn take_back_listeners(&mut self, slot: Slot) {
        let Some(borrower) = self.slots.at(slot).lent_to.take() else { return };
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == borrower) {
            worker.send(&MasterToWorker::TakeBackListeners { slot }, Vec::new());
        }
    }

    /// A borrower is gone, or leaves: what it had is lent to another.
    pub(super) fn lend_elsewhere(&mut self, borrower: WorkerId) {
        let now = clock::monotonic_ms();
        for (_, place) in self.slots.iter_mut() {
            if place.lent_to == Some(borrower) {
                place.lent_to = None;
                place.idle_since_ms = Some(now.saturating_sub(LEND_AFTER_MS));
            }
        }
    }
}
