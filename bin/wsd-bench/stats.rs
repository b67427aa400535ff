//! What a thread has seen.

use hdrhistogram::Histogram;

use crate::traffic::Errors;

/// The longest latency that is told from a longer one, in nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

/// Latencies of the measured time alone; counts and errors of all of it.
pub struct Stats {
    /// Set once the warm-up is over.
    pub recording: bool,
    /// Latencies in nanoseconds.
    pub histogram: Histogram<u64>,
    /// Connections lost, by reason.
    pub errors: Errors,
    messages: u64,
}

impl Default for Stats {
    fn default() -> Stats {
        // Three digits, from a nanosecond to an hour, are bounds that the crate takes.
        #[expect(clippy::expect_used)]
        let histogram = Histogram::new_with_bounds(1, HOUR, 3).expect("sound bounds");
        Stats { recording: false, histogram, errors: Errors::new(), messages: 0 }
    }
}

impl Stats {
    /// Stats of a run without warm-up.
    pub fn recording() -> Stats {
        Stats { recording: true, ..Stats::default() }
    }

    /// Counts messages, whether they have a latency or not.
    pub fn count(&mut self, messages: u64) {
        self.messages += messages;
    }

    /// Takes the latency of one message.
    pub fn latency(&mut self, nanos: u64) {
        if self.recording {
            self.histogram.saturating_record(nanos.max(1));
        }
    }

    /// All messages since the start.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Connections lost.
    pub fn lost(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Takes another thread's share in.
    pub fn merge(&mut self, other: Stats) {
        // Both grow as they must, so that nothing is out of range.
        let _ = self.histogram.add(&other.histogram);
        self.messages += other.messages;
        for (why, count) in other.errors {
            *self.errors.entry(why).or_default() += count;
        }
    }
}
