//! How fast a client may send: `messages_per_second` and `bytes_per_second`.
//!
//! As in [`admission`](crate::worker::clients::admission) each limit keeps one moment for a
//! client: the one at which what the client sent would have come at its rate. Without a limit there
//! is nothing to keep.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::App;
use crate::api::Pace;
use crate::close::{Cause, Close};
use crate::config::{Config, RatePolicy};
use crate::ipc::scoreboard::Counter;
use crate::worker::base::ticks::NEVER;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;

const SECOND_NS: u64 = 1_000_000_000;

/// One limit of all clients.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// The time that one takes, in nanoseconds.
    each: u64,
    /// How far ahead of its time a client may be.
    ahead: u64,
}

impl Limit {
    /// `rate` a second, and `burst` at once; 0 is no limit.
    fn new(rate: u64, burst: u64) -> Option<Limit> {
        let each = SECOND_NS.checked_div(rate)?.max(1);
        Some(Limit { each, ahead: each.saturating_mul(burst) })
    }

    /// Takes `n` off what a client may send; the answer is how long it is to wait, if it is.
    fn take(self, moment: &mut u64, now: u64, n: u64) -> Option<Duration> {
        *moment = (*moment).max(now).saturating_add(self.each.saturating_mul(n));
        let late = moment.saturating_sub(now.saturating_add(self.ahead));
        (late > 0).then(|| Duration::from_nanos(late))
    }
}

/// The moments of one client, in nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    /// Which use of its place in the table it is of.
    version: u32,
    messages: u64,
    bytes: u64,
}

/// The limits and the clients' moments.
#[derive(Default)]
pub(in crate::worker) struct Meters {
    messages: Option<Limit>,
    bytes: Option<Limit>,
    closes: bool,
    /// By a connection's place in the table.
    meters: RefCell<Vec<Meter>>,
}

impl Meters {
    /// The limits of a configuration, or of a handler where it sets none.
    pub fn new(config: &Config, pace: Pace) -> Meters {
        let (rate, burst) = match config.messages_per_second {
            0 => (pace.messages_per_second, pace.messages_burst),
            rate => (rate, config.messages_burst),
        };
        Meters {
            messages: Limit::new(rate as u64, burst as u64),
            bytes: Limit::new(config.bytes_per_second, config.bytes_burst),
            closes: config.rate_policy == RatePolicy::Close,
            meters: RefCell::default(),
        }
    }

    #[inline]
    pub fn counts_messages(&self) -> bool {
        self.messages.is_some()
    }

    #[inline]
    pub fn counts_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    fn take(&self, key: Key, now_ms: u64, messages: u64, bytes: u64) -> Option<Duration> {
        let mut meters = self.meters.borrow_mut();
        let index = key.index as usize;
        if meters.len() <= index {
            meters.resize(index + 1, Meter::default());
        }
        let meter = meters.get_mut(index)?;
        if meter.version != key.version {
            *meter = Meter { version: key.version, ..Meter::default() };
        }
        let now = now_ms * 1_000_000;
        let message = self.messages.and_then(|it| it.take(&mut meter.messages, now, messages));
        let byte = self.bytes.and_then(|it| it.take(&mut meter.bytes, now, bytes));
        message.max(byte)
    }
}

impl App {
    /// An open connection has sent this. If that is more than it may, it is not read for a while,
    /// or is closed.
    pub(in crate::worker) fn meter(
        self: &Rc<Self>,
        key: Key,
        connection: &mut Connection,
        messages: u64,
        bytes: u64,
    ) {
        let Some(wait) = self.meters.take(key, self.now_ms.get(), messages, bytes) else { return };
        if connection.slowed || !connection.is_open() {
            return;
        }
        self.add(Counter::TooFast, 1);
        if self.meters.closes {
            return self.say_close(key, connection, Close::because(Cause::TooFast));
        }
        connection.slowed = true;
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            if let Some(connection) = worker.table.borrow_mut().get_mut(key) {
                connection.slowed = false;
            }
            worker.resume(key);
        });
    }

    /// A client has sent bytes.
    pub(in crate::worker) fn received(
        self: &Rc<Self>,
        key: Key,
        connection: &mut Connection,
        n: usize,
    ) {
        connection.pong_by = NEVER;
        if connection.opened {
            connection.bytes_in += n as u64;
        }
        self.add(Counter::BytesIn, n as u64);
        if self.meters.counts_bytes() && connection.is_open() {
            self.meter(key, connection, 0, n as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_sends_its_burst_at_once_and_then_waits_for_what_is_too_much() {
        let limit = Limit::new(10, 3).unwrap();
        let mut moment = 0;
        let mut take = |now_ms: u64, n| limit.take(&mut moment, now_ms * 1_000_000, n);
        assert_eq!([take(1000, 1), take(1000, 2)], [None, None]);
        assert_eq!(take(1000, 1), Some(Duration::from_millis(100)));
        assert_eq!(take(1100, 0), None);
        assert_eq!(take(1100, 5), Some(Duration::from_millis(500)));
        assert!(Limit::new(0, 3).is_none());
    }
}
