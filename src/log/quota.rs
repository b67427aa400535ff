//! How many events of one kind a process logs: what any stranger can cause as often as they like
//! must not fill a disk or hide everything else.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// Events of one message, of which only so many are logged.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    /// Empty: any message that no other limit names.
    pub message: &'static str,
    /// The field that has the reason of one; the message itself, where any is meant.
    pub reason: &'static str,
    /// How many of one reason are logged in a second.
    pub shown: u64,
}

impl Limit {
    fn place(&'static self) -> usize {
        LIMITS.iter().position(|limit| limit == self).unwrap_or_default()
    }
}

/// What a stranger can cause as often as they like. As nobody can tell for certain what else a
/// stranger can cause, no message is without a limit.
pub static LIMITS: [Limit; 4] = [
    Limit { message: "refused", reason: "why", shown: 10 },
    Limit { message: "closed", reason: "cause", shown: 100 },
    Limit { message: "", reason: "message", shown: 20 },
    Limit { message: "", reason: "message", shown: INFORMATION_SHOWN },
];

/// The place of the limit of `closed`, of which is asked before an event is made.
pub const CLOSED: usize = 1;

/// Of information with one message: one for each worker of the largest server.
const INFORMATION_SHOWN: u64 = 300;

/// How many events of one kind and reason were not logged.
pub type Rest = (&'static Limit, String, u64);

/// Reasons that are told apart; further ones share the last place.
const REASONS_MAX: usize = 64;

/// Message and reason of an event, without what else the event says and without memory for it:
/// most events of a flood are only counted.
#[derive(Default)]
pub struct Glance {
    message: Word,
    reason: Word,
}

impl Glance {
    pub fn of(event: &Event<'_>) -> Glance {
        let mut glance = Glance::default();
        event.record(&mut glance);
        glance
    }

    /// Where the value of a field goes that is looked at.
    fn word(&mut self, field: &Field) -> Option<&mut Word> {
        match field.name() {
            "message" => Some(&mut self.message),
            name if LIMITS.iter().any(|limit| limit.reason == name) => Some(&mut self.reason),
            _ => None,
        }
    }

    /// The limit of the event, and its reason.
    pub fn limit(&self, level: Level) -> (&'static Limit, &str) {
        let message = self.message.text();
        let [named @ .., trouble, information] = &LIMITS;
        match named.iter().find(|limit| limit.message == message) {
            Some(limit) => (limit, self.reason.sentence()),
            None if level == Level::INFO => (information, message),
            None => (trouble, message),
        }
    }
}

impl Visit for Glance {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(word) = self.word(field) {
            // What does not fit tells enough.
            let _ = write!(word, "{value:?}");
        }
    }

    // No number is a message or a reason.
    fn record_u64(&mut self, _: &Field, _: u64) {}

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(word) = self.word(field) {
            let _ = word.write_str(value);
        }
    }
}

/// The beginning of a text, as far as it fits.
struct Word {
    bytes: [u8; 64],
    len: usize,
}

impl Default for Word {
    fn default() -> Word {
        Word { bytes: [0; 64], len: 0 }
    }
}

impl Word {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// The text up to the end of its first sentence. Behind that may stand a stranger's own words,
    /// such as a Host, each of which would be one more reason.
    fn sentence(&self) -> &str {
        self.text().split(". ").next().unwrap_or_default()
    }
}

impl Write for Word {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The events of this second, by reason.
#[derive(Default)]
pub struct Quota(Mutex<Second>);

#[derive(Default)]
struct Second {
    second: u64,
    /// By limit, in the order of `LIMITS`.
    seen: [BTreeMap<String, u64>; LIMITS.len()],
}

impl Quota {
    /// Whether an event of this reason is logged, and what was left out of earlier seconds and is
    /// to be told first: reasons, and how many.
    pub fn admit(&self, limit: &'static Limit, why: &str, second: u64) -> (bool, Vec<Rest>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = now.end(second);
        let reasons = &mut now.seen[limit.place()];
        if let Some(count) = reasons.get_mut(why) {
            *count += 1;
            return (*count <= limit.shown, rest);
        }
        let why = if reasons.len() < REASONS_MAX { why } else { "other reasons" };
        let count = reasons.entry(why.to_owned()).or_default();
        *count += 1;
        (*count <= limit.shown, rest)
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
        let seen = LIMITS.iter().zip(std::mem::take(&mut self.seen));
        let over = seen.flat_map(|(limit, reasons)| {
            let rest = move |seen: u64| seen.saturating_sub(limit.shown);
            reasons.into_iter().map(move |(why, seen)| (limit, why, rest(seen)))
        });
        over.filter(|(_, _, rest)| *rest > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_shows_some_of_each_reason_and_tells_how_many_more_there_were() {
        let (quota, [refused, closed, ..]) = (Quota::default(), &LIMITS);
        let shown = (0..100).filter(|_| quota.admit(refused, "a", 5).0).count() as u64;
        assert_eq!(shown, refused.shown);
        assert!(quota.admit(refused, "b", 5).0, "each reason has its own");
        let shown = (0..200).filter(|_| quota.admit(closed, "a", 5).0).count() as u64;
        assert_eq!(shown, closed.shown, "and each message");
        assert_eq!(quota.rest(5), []);
        assert_eq!(quota.rest(6), [(refused, "a".to_owned(), 90), (closed, "a".to_owned(), 100)]);
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
