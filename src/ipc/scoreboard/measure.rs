//! Histograms on a page: how long things took, in buckets that everybody shares.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{CAUSE_WORDS, COUNTER_WORDS, Row};

/// The upper bounds of the buckets, in microseconds. Behind the last there is one without a bound.
pub const BOUNDS: [u64; 19] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];
/// Words of one histogram: the sum in microseconds, the buckets, and some to spare.
pub(super) const WORDS: usize = 24;

/// What is measured in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Histogram {
    /// How late a worker came to its clock, once a tick: what its clients had to wait.
    LoopLag,
    /// From the accept of a connection to the 101 of its handshake.
    Handshake,
    /// From the request for a reload to its verdict.
    Reload,
    /// What an application process took for an event.
    AppEvent,
}

impl Histogram {
    /// Every histogram, in the order of their words.
    pub const ALL: [Histogram; 4] =
        [Histogram::LoopLag, Histogram::Handshake, Histogram::Reload, Histogram::AppEvent];

    /// Its first word, which is the sum.
    pub(super) fn word(self) -> usize {
        COUNTER_WORDS + CAUSE_WORDS + self as usize * WORDS
    }
}

/// What a histogram says: the sum, and how many were at most each bound and beyond all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// All of them together, in microseconds.
    pub sum_us: u64,
    /// How many fell into each bucket, the one without a bound at the end.
    pub buckets: [u64; BOUNDS.len() + 1],
}

impl Row {
    /// Counts one duration.
    pub fn measure(&self, histogram: Histogram, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < us);
        // One writer, as for counters.
        let add = |word: usize, n: u64| {
            let word = &self.shared.words()[word];
            word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
        };
        add(histogram.word() + 1 + bucket, 1);
        add(histogram.word(), us);
    }
}

impl Measured {
    /// What a histogram says whose words `read` reads.
    pub(super) fn at(histogram: Histogram, read: impl Fn(usize) -> u64) -> Measured {
        let buckets = std::array::from_fn(|bucket| read(histogram.word() + 1 + bucket));
        Measured { sum_us: read(histogram.word()), buckets }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::Page;
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        assert!(BOUNDS.len() + 2 <= WORDS);
        let memfd = Row::create().unwrap();
        let row = Row::take(memfd.as_fd()).unwrap();
        for us in [0, 100, 101, 400_000_000] {
            row.measure(Histogram::Reload, Duration::from_micros(us));
        }
        let page = Page::open(memfd.as_fd()).unwrap();
        let measured = Measured::at(Histogram::Reload, |index| page.total(index));
        assert_eq!(measured.sum_us, 400_000_201);
        assert_eq!(measured.buckets[..2], [2, 1]);
        assert_eq!(measured.buckets[BOUNDS.len()], 1);
        assert_eq!(measured.buckets.iter().sum::<u64>(), 4);
    }

    #[test]
    fn histograms_stand_in_the_order_of_their_words() {
        for (index, histogram) in Histogram::ALL.into_iter().enumerate() {
            assert_eq!(histogram as usize, index);
        }
    }
}
