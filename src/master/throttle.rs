//! How long to wait before a dead process is started again. Pure.

/// A process that dies before it is ready, or within this time of it, died young.
pub const YOUNG_MS: u64 = 1_000;
const FIRST_DELAY_MS: u64 = 100;
const LAST_DELAY_MS: u64 = 30_000;

/// Keeps a crash loop from becoming a fork storm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttle {
    delay_ms: u64,
}

impl Throttle {
    /// A process died; the answer is how long to wait, in milliseconds. One that had served is
    /// replaced at once, and so is the first that died young.
    pub fn died(&mut self, young: bool) -> u64 {
        let delay = if young { self.delay_ms } else { 0 };
        self.delay_ms = match (young, self.delay_ms) {
            (false, _) => 0,
            (true, 0) => FIRST_DELAY_MS,
            (true, delay) => (delay * 2).min(LAST_DELAY_MS),
        };
        delay
    }

    /// The delay that the next early death will cost; 0 while all is well.
    pub fn next_delay_ms(&self) -> u64 {
        self.delay_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_deaths_double_the_delay_and_service_ends_it() {
        let mut throttle = Throttle::default();
        let delays: Vec<u64> = (0..12).map(|_| throttle.died(true)).collect();
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
        assert_eq!(delays, expected);
        assert_eq!(throttle.died(false), 0);
        assert_eq!(throttle.died(true), 0);
        assert_eq!(throttle.died(true), 100);
    }
}
