//! How far this worker is: from its start to its exit.

use super::Base;

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Phase {
    /// `on_worker_start` has not ended.
    Starting,
    /// It accepts and serves.
    Serving,
    /// A newer process accepts; what is still here moves there, or leaves.
    HandedOver,
    /// It is about to exit.
    Leaving,
}

impl Base {
    /// Is that far.
    pub(in crate::worker) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits until `on_worker_start` has ended.
    pub(in crate::worker) async fn started(&self) {
        loop {
            let changed = self.changed.notified();
            if self.phase.get() != Phase::Starting {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it is told to leave.
    pub(in crate::worker) async fn leaving(&self) {
        loop {
            let changed = self.changed.notified();
            if self.phase.get() == Phase::Leaving {
                return;
            }
            changed.await;
        }
    }
}
