//! The clock of the manager: liveness checks, heartbeat sweeps and deadlines, once a second.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::moving::reload::Event;
use super::{Manager, Shared};
use crate::ipc::messages::ManagerToMaster;
use crate::ipc::scoreboard::Counter;
use crate::sys::clock::monotonic_ms;

/// Between two liveness checks.
const TICK_MS: u64 = 1000;
/// A tick that comes so late says that we ourselves were stopped.
const LATE_MS: u64 = 3000;

/// Ticks for ever.
pub async fn run(manager: Shared) {
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = monotonic_ms();
    let mut swept = last;
    // Weak: the manager's end must not wait for its clock.
    let manager = Rc::downgrade(&manager);
    loop {
        ticks.tick().await;
        let Some(manager) = manager.upgrade() else { return };
        let now = monotonic_ms();
        let mut manager = manager.borrow_mut();
        if now.saturating_sub(last) > LATE_MS {
            manager.exchange.workers.forgive(now);
        }
        last = now;
        manager.exchange.row.set(Counter::HeldBytes, manager.exchange.hold.bytes() as u64);
        let timeout_ms = manager.exchange.settings.worker_timeout_ms;
        for id in manager.exchange.workers.check_liveness(now, timeout_ms) {
            tracing::error!(worker = %id, "the worker does not answer: it is killed");
            manager.master.send(&ManagerToMaster::KillHung(id));
        }
        if let Some((idle_ms, interval_ms)) = manager.exchange.settings.heartbeat
            && now.saturating_sub(swept) >= interval_ms
        {
            swept = now;
            manager.exchange.workers.sweep(idle_ms);
        }
        manager.exchange.tell_who_left(now);
        manager.exchange.tell_missed();
        manager.check_deadlines(now);
        manager.exchange.tick_cluster(now);
        manager.master.flush();
    }
}

impl Manager {
    fn check_deadlines(&mut self, now: u64) {
        let is_due = self.exchange.owners_due_at.is_some_and(|until| now >= until);
        // What a pass is about is known when the workers that it concerns have spoken, or died.
        if is_due && self.exchange.passes.has_inherited_nothing() {
            self.owners_known();
        }
        self.exchange.tick_awaited(now);
        for id in self.exchange.workers.take_overdue(now) {
            tracing::warn!(worker = %id, "the worker outlived the deadline of its drain");
            self.master.send(&ManagerToMaster::Kill(id));
        }
        // What waits for a worker that hangs has that worker's deadline.
        if !self.exchange.direct.holds_up_handover() {
            let waits_for = self.exchange.passes.waits_for();
            self.reload_event(Event::Tick { waits_for });
        }
        self.follow();
    }
}
