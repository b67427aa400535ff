//! How many events of one kind a process logs: what any stranger can cause as often as they like
//! must not fill a disk or hide everything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Events of one message, of which only so many are logged.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    pub message: &'static str,
    /// The field that has the reason of one.
    pub reason: &'static str,
    /// How many of one reason are logged in a second.
    pub shown: u64,
}

/// What a stranger can cause as often as they like.
pub static LIMITS: [Limit; 2] = [
    Limit { message: "refused", reason: "why", shown: 10 },
    Limit { message: "closed", reason: "cause", shown: 100 },
];

/// How many events of one kind and reason were not logged.
pub type Rest = (&'static Limit, String, u64);

/// Reasons that are told apart; further ones share the last place.
const REASONS_MAX: usize = 64;

/// The events of this second, by reason.
#[derive(Default)]
pub struct Quota(Mutex<Second>);

#[derive(Default)]
struct Second {
    second: u64,
    seen: BTreeMap<(&'static Limit, String), u64>,
}

impl Quota {
    /// Whether an event of this reason is logged, and what was left out of earlier seconds and is
    /// to be told first: reasons, and how many.
    pub fn admit(&self, limit: &'static Limit, why: &str, second: u64) -> (bool, Vec<Rest>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = now.end(second);
        let mut key = (limit, why.to_owned());
        if now.seen.len() >= REASONS_MAX && !now.seen.contains_key(&key) {
            key.1 = "other reasons".to_owned();
        }
        let seen = now.seen.entry(key).or_default();
        *seen += 1;
        (*seen <= limit.shown, rest)
    }

    /// What was left out of seconds before this one and is not told yet.
    pub fn rest(&self, second: u64) -> Vec<Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end(second)
    }
}

impl Second {
    /// Begins another second, if this one is over.
    fn end(&mut self, second: u64) -> Vec<Rest> {
        if second == self.second {
            return Vec::new();
        }
        self.second = second;
        let seen = std::mem::take(&mut self.seen).into_iter();
        let over = seen.map(|((limit, why), seen)| (limit, why, seen.saturating_sub(limit.shown)));
        over.filter(|(_, _, rest)| *rest > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_shows_some_of_each_reason_and_tells_how_many_more_there_were() {
        let (quota, [refused, closed]) = (Quota::default(), &LIMITS);
        let shown = (0..100).filter(|_| quota.admit(refused, "a", 5).0).count() as u64;
        assert_eq!(shown, refused.shown);
        assert!(quota.admit(refused, "b", 5).0, "each reason has its own");
        let shown = (0..200).filter(|_| quota.admit(closed, "a", 5).0).count() as u64;
        assert_eq!(shown, closed.shown, "and each message");
        assert_eq!(quota.rest(5), []);
        assert_eq!(quota.rest(6), [(closed, "a".to_owned(), 100), (refused, "a".to_owned(), 90)]);
        assert_eq!(quota.rest(6), []);
        assert_eq!(quota.admit(refused, "a", 7), (true, Vec::new()));
    }

    #[test]
    fn reasons_without_end_take_no_memory_without_end() {
        let (quota, refused) = (Quota::default(), &LIMITS[0]);
        let shown = (0..10_000).filter(|n| quota.admit(refused, &n.to_string(), 1).0).count();
        assert!(shown <= REASONS_MAX + refused.shown as usize, "{shown}");
        let rest: u64 = quota.rest(2).iter().map(|(_, _, rest)| rest).sum();
        assert_eq!(rest + shown as u64, 10_000);
    }
}
