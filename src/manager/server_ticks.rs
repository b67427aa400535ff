//! Timers that run once in the whole server. Each worker that has such a timer asks when a tick is
//! due; who asks first runs it. No worker has a part of its own in that, so a reload or the death
//! of a worker changes nothing.

use std::collections::HashMap;

use super::workers::Workers;
use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::messages::{RequestId, TICK_NAME_BYTES_MAX};
use crate::sys::clock::monotonic_ms;

/// How many timers are told apart. A worker that asks for more names runs none of them.
const TIMERS_MAX: usize = 1024;

/// When each timer ran last.
#[derive(Debug)]
pub struct ServerTicks {
    /// What a manager before this one has given away, this one does not know.
    since_ms: u64,
    /// By name, the begin of the period that was given away last.
    last_ms: HashMap<String, u64>,
}

impl ServerTicks {
    /// Of a manager that begins now.
    pub fn new(now_ms: u64) -> ServerTicks {
        ServerTicks { since_ms: now_ms, last_ms: HashMap::new() }
    }

    /// The number of the tick that is due, for the first who asks; `None` for everybody else.
    pub fn claim(&mut self, name: &str, period_ms: u64, now_ms: u64) -> Option<u64> {
        let period_ms = period_ms.max(1);
        let number = now_ms / period_ms;
        let begin_ms = number * period_ms;
        let last_ms = self.last_ms.get(name).copied();
        let is_given = begin_ms <= last_ms.unwrap_or(self.since_ms);
        if is_given || (last_ms.is_none() && self.last_ms.len() >= TIMERS_MAX) {
            return None;
        }
        self.last_ms.insert(name.to_owned(), begin_ms);
        Some(number)
    }

    /// A timer of a worker is due.
    ///
    /// # Errors
    /// The name is longer than any that a worker sends.
    pub fn on_due(
        &mut self,
        workers: &Workers,
        from: WorkerId,
        id: RequestId,
        name: &str,
        period_ms: u64,
    ) -> Result<()> {
        if name.len() > TICK_NAME_BYTES_MAX {
            return Err(Error::new(format!("a timer's name has {} bytes", name.len())));
        }
        let number = self.claim(name, period_ms, monotonic_ms());
        if let Some(worker) = workers.get(from) {
            // An answer that is not queued costs this one tick.
            let _ = worker.tick_answer(id, number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tick_is_given_to_the_first_who_asks() {
        let mut ticks = ServerTicks::new(1_500);
        assert_eq!(ticks.claim("news", 1_000, 1_600), None, "a manager before may have given it");
        assert_eq!(ticks.claim("news", 1_000, 2_000), Some(2));
        assert_eq!(ticks.claim("news", 1_000, 2_001), None);
        assert_eq!(ticks.claim("other", 1_000, 2_002), Some(2));
        assert_eq!(ticks.claim("news", 1_000, 2_999), None);
        assert_eq!(ticks.claim("news", 1_000, 5_100), Some(5), "late ones are not made up for");
    }

    #[test]
    fn another_period_goes_on_from_the_last_tick() {
        let mut ticks = ServerTicks::new(0);
        assert_eq!(ticks.claim("news", 100, 2_000), Some(20));
        assert_eq!(ticks.claim("news", 1_000, 2_050), None);
        assert_eq!(ticks.claim("news", 1_000, 3_000), Some(3));
    }

    #[test]
    fn names_have_a_limit() {
        let mut ticks = ServerTicks::new(0);
        let given = (0..2 * TIMERS_MAX).filter(|n| ticks.claim(&n.to_string(), 1, 7).is_some());
        assert_eq!(given.count(), TIMERS_MAX);
        assert_eq!(ticks.claim("0", 1, 8), Some(8));
    }
}
