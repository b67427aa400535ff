//! Draining (`wsd drain`): the server says that it is not ready, so that balancers send nobody
//! more; after a grace it takes no new clients; and it ends when the last of its clients is gone.
//!
//! The master keeps the wish, so it outlives reloads, upgrades and managers.

use serde::{Deserialize, Serialize};

use super::Master;
use crate::config::Config;
use crate::fd::Slot;
use crate::ipc::messages::{MasterToWorker, StopMode};
use crate::ipc::scoreboard::{Counter, Fact};
use crate::sys::clock;

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it was asked for, in milliseconds of the monotonic clock.
    since_ms: u64,
    /// Whether no new clients are taken any more.
    closed: bool,
}

impl Drain {
    /// Whether no new clients are taken any more.
    pub fn is_closed(self) -> bool {
        self.closed
    }
}

impl Master {
    /// Begins to drain, or takes that back.
    pub(super) fn drain(&mut self, on: bool) {
        if self.stopping.is_some() || on == self.drain.is_some() {
            return;
        }
        let now = clock::monotonic_ms();
        self.summary.tell(Fact::Draining, u64::from(on));
        self.tell_courier_drains(on);
        if on {
            let grace_s = self.config.drain_grace.as_secs_f64();
            tracing::info!(grace_s, "draining: not ready from now on");
            self.drain = Some(Drain { since_ms: now, closed: false });
            return;
        }
        tracing::info!("not draining any more: new clients are taken");
        if self.drain.take().is_some_and(Drain::is_closed) {
            for slot in self.slots.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
                self.listeners.revive(slot, &self.config);
            }
            self.accept_clients(true);
        }
    }

    /// When something is to be done for a drain.
    pub(super) fn drain_deadline_ms(&self) -> Option<u64> {
        let drain = self.drain.filter(|drain| !drain.closed)?;
        Some(drain.since_ms + self.config.drain_grace.as_millis() as u64)
    }

    pub(super) fn tick_draining(&mut self, now: u64) {
        let Some(drain) = self.drain.filter(|_| self.stopping.is_none()) else { return };
        if self.drain_deadline_ms().is_some_and(|at| at <= now) {
            tracing::info!("draining: no new clients are taken");
            self.drain = Some(Drain { closed: true, ..drain });
            self.accept_clients(false);
        }
        let timeout = self.config.drain_timeout.as_millis() as u64;
        let over = timeout > 0 && now >= drain.since_ms + timeout;
        if !over && !self.drain.is_some_and(Drain::is_closed) {
            return;
        }
        // A reload may have bound an address that is new.
        self.listeners.shut_clients();
        // Plain HTTP connections that are kept do not count: the stop lets each end its request.
        let left = self.board.sum(Counter::Connections) + self.board.sum(Counter::Handshakes);
        if left == 0 || over {
            tracing::info!(left, "drained");
            self.stop(StopMode::Graceful, 1);
        }
    }

    /// Has the listeners of a slot listen, unless no clients are taken any more.
    pub(super) fn revive(&mut self, slot: Slot, config: &Config) {
        if !self.drain.is_some_and(Drain::is_closed) {
            self.listeners.revive(slot, config);
        }
    }

    /// Tells a worker that was just started of a drain that takes no clients any more.
    pub(super) fn tell_drain(&mut self, index: usize) {
        if self.drain.is_some_and(Drain::is_closed) {
            let refuse = MasterToWorker::AcceptClients { on: false };
            self.workers[index].send(&refuse, Vec::new());
        }
    }

    fn accept_clients(&mut self, on: bool) {
        for worker in &mut self.workers {
            worker.send(&MasterToWorker::AcceptClients { on }, Vec::new());
        }
    }
}
