//! How many events of one kind a process logs: what any stranger can cause as often as they like
//! must not fill a disk or hide everything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The message of events that are counted by their reason, the field `why`.
pub const LIMITED: &str = "refused";
/// Events of one reason that are logged in a second.
const SHOWN_MAX: u64 = 10;
/// Reasons that are told apart; further ones share the last place.
const REASONS_MAX: usize = 64;

/// The events of this second, by reason.
#[derive(Default)]
pub struct Quota(Mutex<Second>);

#[derive(Default)]
struct Second {
    second: u64,
    seen: BTreeMap<String, u64>,
}

impl Quota {
    /// Whether an event of this reason is logged, and what was left out of earlier seconds and is
    /// to be told first: reasons, and how many.
    pub fn admit(&self, why: &str, second: u64) -> (bool, Vec<(String, u64)>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = now.end(second);
        let known = now.seen.contains_key(why) || now.seen.len() < REASONS_MAX;
        let seen = now.seen.entry(if known { why } else { "other reasons" }.to_owned());
        let seen = seen.or_default();
        *seen += 1;
        (*seen <= SHOWN_MAX, rest)
    }

    /// What was left out of seconds before this one and is not told yet.
    pub fn rest(&self, second: u64) -> Vec<(String, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end(second)
    }
}

impl Second {
    /// Begins another second, if this one is over.
    fn end(&mut self, second: u64) -> Vec<(String, u64)> {
        if second == self.second {
            return Vec::new();
        }
        self.second = second;
        let seen = std::mem::take(&mut self.seen).into_iter();
        let over = seen.map(|(why, seen)| (why, seen.saturating_sub(SHOWN_MAX)));
        over.filter(|(_, rest)| *rest > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_shows_some_of_each_reason_and_tells_how_many_more_there_were() {
        let quota = Quota::default();
        let shown = (0..100).filter(|_| quota.admit("a", 5).0).count() as u64;
        assert_eq!(shown, SHOWN_MAX);
        assert!(quota.admit("b", 5).0, "each reason has its own");
        assert_eq!(quota.rest(5), []);
        assert_eq!(quota.rest(6), [("a".to_owned(), 100 - SHOWN_MAX)]);
        assert_eq!(quota.rest(6), []);
        assert_eq!(quota.admit("a", 7), (true, Vec::new()));
    }

    #[test]
    fn reasons_without_end_take_no_memory_without_end() {
        let quota = Quota::default();
        let shown = (0..10_000).filter(|n| quota.admit(&n.to_string(), 1).0).count();
        assert!(shown <= REASONS_MAX + SHOWN_MAX as usize, "{shown}");
        let rest: u64 = quota.rest(2).iter().map(|(_, rest)| rest).sum();
        assert_eq!(rest + shown as u64, 10_000);
    }
}
