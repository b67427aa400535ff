//! What of the pool is looked at now and then: events that nobody takes, and processes that hang.

use super::Pool;
use crate::api::ProcessId;
use crate::handler::app::process_queue::Process;

impl Pool {
    /// Looks whether events wait and no process takes one; to be called now and then.
    pub fn watch(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.suspects.forget(now_ms);
        let waits = self.served().iter().any(|queue| !queue.waiting.is_empty());
        let goes_on = self.stalled.is_some_and(|(_, progress)| progress != self.progress);
        if !waits || goes_on {
            self.stalled = None;
        }
        if waits {
            self.stalled.get_or_insert((now_ms, self.progress));
        }
    }

    /// For how long events have waited of which no process took one, in milliseconds.
    pub fn stalled_ms(&self, now_ms: u64) -> u64 {
        let stalled = self.stalled.filter(|(_, progress)| *progress == self.progress);
        stalled.map_or(0, |(since, _)| now_ms.saturating_sub(since))
    }

    /// The processes that finished nothing for too long.
    pub fn overdue(&self, now_ms: u64) -> Vec<ProcessId> {
        let timeout = self.event_timeout_ms;
        let late = |process: &&Process| {
            !process.sent.is_empty() && now_ms.saturating_sub(process.since) >= timeout
        };
        self.served()
            .iter()
            .filter_map(|queue| queue.process.as_ref())
            .filter(late)
            .map(|p| p.id)
            .collect()
    }
}
