//! Whether what is published comes back: a message to oneself in every interval, also under
//! traffic. A connection that is healthy and brings nothing is found by that alone. Pure.

/// Between two probes.
pub const INTERVAL_MS: u64 = 2_000;
/// A probe that has not come back after so long says that the subscription is dead.
const PATIENCE_MS: u64 = 6_000;

/// The probes of one session.
#[derive(Debug, Default)]
pub struct Probes {
    last: u64,
    /// The oldest that has not come back, and when it was sent, in microseconds.
    waits: Option<(u64, u64)>,
    due_us: u64,
    lag_us: u64,
}

impl Probes {
    /// The number of a probe, if one is due now.
    pub fn due(&mut self, now_us: u64) -> Option<u64> {
        if now_us < self.due_us || self.waits.is_some() {
            return None;
        }
        self.due_us = now_us + INTERVAL_MS * 1_000;
        self.last += 1;
        self.waits = Some((self.last, now_us));
        Some(self.last)
    }

    /// One has come back.
    pub fn came_back(&mut self, number: u64, now_us: u64) {
        if let Some((_, sent_us)) = self.waits.take_if(|(waits, _)| *waits == number) {
            self.lag_us = (now_us - sent_us).max(1);
        }
    }

    /// Whether one has not come back in time.
    pub fn is_lost(&self, now_us: u64) -> bool {
        self.waits.is_some_and(|(_, sent_us)| now_us - sent_us > PATIENCE_MS * 1_000)
    }

    /// How long the last one took, in microseconds; 0: none has come back.
    pub fn lag_us(&self) -> u64 {
        self.lag_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_does_not_come_back_is_lost() {
        let mut probes = Probes::default();
        assert_eq!(probes.due(1_000_000), Some(1));
        probes.came_back(1, 1_000_300);
        assert_eq!((probes.lag_us(), probes.due(1_500_000)), (300, None));
        assert_eq!(probes.due(4_000_000), Some(2));
        probes.came_back(1, 4_000_100);
        assert!(!probes.is_lost(9_000_000) && probes.is_lost(10_000_001));
    }
}
