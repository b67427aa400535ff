//! The scoreboard: what each worker counts, in shared memory, so that `status` answers also
//! while a worker hangs, and `max_connection` can hold for all workers together.
//!
//! One row per worker process, written by it alone. The master clears a row when it gives it to
//! a new process, after adding the dead one's totals to row 0.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::sys::memory::Shared;

/// Rows: 256 slots, each with up to 4 old generations lingering, and the row of the departed.
pub const ROWS: usize = 256 * 5 + 1;
/// The row that sums up workers which are no more.
pub const DEPARTED: u16 = 0;
const ROW_WORDS: usize = 64;

/// What a worker counts. The names are those of `status --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Counter {
    /// Open connections now (not a total).
    Connections,
    /// Pending handshakes now (not a total).
    Handshakes,
    /// TCP connections accepted.
    Accepted,
    /// Handshakes answered with 101.
    Opened,
    /// Handshakes refused.
    Refused,
    /// WebSockets ended.
    Closed,
    /// WebSockets that came over from another process.
    Adopted,
    /// WebSockets handed to another process.
    HandedOver,
    /// Messages received from clients.
    MessagesIn,
    /// Messages written to clients.
    MessagesOut,
    /// Bytes received from clients.
    BytesIn,
    /// Bytes written to clients.
    BytesOut,
    /// Pushes queued for a client here.
    PushQueued,
    /// Pushes refused since the client's queue was full.
    PushFull,
    /// Pushes to clients that were gone.
    PushGone,
    /// Pushes larger than a message may be.
    PushTooBig,
    /// Pushes given to the manager for a client elsewhere.
    PushRelayed,
    /// Pushes refused since the lane to the manager was full.
    LaneFull,
    /// Queued messages that were lost since their connection ended first.
    PushLost,
    /// Packets of a dead epoch, dropped.
    StalePackets,
    /// Handlers that panicked.
    Panics,
    /// Plain HTTP requests answered.
    HttpRequests,
    /// Blocking jobs done.
    Tasks,
    /// Events delivered to application processes.
    AppEvents,
    /// Log lines dropped since the log could not keep up.
    LogDropped,
    /// Plain HTTP connections now (not a total).
    Plain,
    /// Refused clients that read their answer now (not a total).
    Lingering,
    /// Clients refused since the server was full.
    RefusedFull,
    /// Handshakes that gave way to newer ones.
    RefusedHandshakes,
    /// Clients refused since their address had its share.
    RefusedAddress,
    /// Clients refused since their address came too often.
    RefusedRate,
    /// Clients refused since their address is denied.
    RefusedDenied,
    /// Requests refused for want of memory.
    RefusedMemory,
    /// Handshakes refused for their Origin.
    RefusedOrigin,
    /// Requests refused for their Host.
    RefusedHost,
    /// Requests refused for what they are or how slowly they came.
    RefusedRequest,
    /// Handshakes refused by the handler.
    RefusedHandler,
    /// Clients refused since the server was about to stop.
    RefusedStopping,
    /// Handshakes that were let in by `local-null` alone.
    OpenedNull,
    /// Times that a client had to wait, or was closed, since it sent too fast.
    TooFast,
}

impl Counter {
    /// Every counter, in the order of their words.
    pub const ALL: [Counter; 40] = [
        Counter::Connections,
        Counter::Handshakes,
        Counter::Accepted,
        Counter::Opened,
        Counter::Refused,
        Counter::Closed,
        Counter::Adopted,
        Counter::HandedOver,
        Counter::MessagesIn,
        Counter::MessagesOut,
        Counter::BytesIn,
        Counter::BytesOut,
        Counter::PushQueued,
        Counter::PushFull,
        Counter::PushGone,
        Counter::PushTooBig,
        Counter::PushRelayed,
        Counter::LaneFull,
        Counter::PushLost,
        Counter::StalePackets,
        Counter::Panics,
        Counter::HttpRequests,
        Counter::Tasks,
        Counter::AppEvents,
        Counter::LogDropped,
        Counter::Plain,
        Counter::Lingering,
        Counter::RefusedFull,
        Counter::RefusedHandshakes,
        Counter::RefusedAddress,
        Counter::RefusedRate,
        Counter::RefusedDenied,
        Counter::RefusedMemory,
        Counter::RefusedOrigin,
        Counter::RefusedHost,
        Counter::RefusedRequest,
        Counter::RefusedHandler,
        Counter::RefusedStopping,
        Counter::OpenedNull,
        Counter::TooFast,
    ];

    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Counter::Connections => "connections",
            Counter::Handshakes => "handshakes",
            Counter::Accepted => "accepted",
            Counter::Opened => "opened",
            Counter::Refused => "refused",
            Counter::Closed => "closed",
            Counter::Adopted => "adopted",
            Counter::HandedOver => "handed_over",
            Counter::MessagesIn => "messages_in",
            Counter::MessagesOut => "messages_out",
            Counter::BytesIn => "bytes_in",
            Counter::BytesOut => "bytes_out",
            Counter::PushQueued => "push_queued",
            Counter::PushFull => "push_full",
            Counter::PushGone => "push_gone",
            Counter::PushTooBig => "push_too_big",
            Counter::PushRelayed => "push_relayed",
            Counter::LaneFull => "lane_full",
            Counter::PushLost => "push_lost",
            Counter::StalePackets => "stale_packets",
            Counter::Panics => "panics",
            Counter::HttpRequests => "http_requests",
            Counter::Tasks => "tasks",
            Counter::AppEvents => "app_events",
            Counter::LogDropped => "log_dropped",
            Counter::Plain => "plain",
            Counter::Lingering => "lingering",
            Counter::RefusedFull => "refused_full",
            Counter::RefusedHandshakes => "refused_handshakes",
            Counter::RefusedAddress => "refused_address",
            Counter::RefusedRate => "refused_rate",
            Counter::RefusedDenied => "refused_denied",
            Counter::RefusedMemory => "refused_memory",
            Counter::RefusedOrigin => "refused_origin",
            Counter::RefusedHost => "refused_host",
            Counter::RefusedRequest => "refused_request",
            Counter::RefusedHandler => "refused_handler",
            Counter::RefusedStopping => "refused_stopping",
            Counter::OpenedNull => "opened_null",
            Counter::TooFast => "too_fast",
        }
    }

    /// Whether it says how many there are now, rather than how many there were.
    pub fn is_gauge(self) -> bool {
        use Counter::{Connections, Handshakes, Lingering, Plain};
        matches!(self, Connections | Handshakes | Plain | Lingering)
    }
}

/// The whole board.
pub struct Scoreboard {
    shared: Shared,
}

impl Scoreboard {
    /// Makes the board; the master does.
    pub fn create() -> Result<(Scoreboard, OwnedFd)> {
        let (shared, memfd) = Shared::create("wsd-scoreboard", ROWS * ROW_WORDS * 8)?;
        Ok((Scoreboard { shared }, memfd))
    }

    /// Opens the master's board.
    pub fn open(memfd: BorrowedFd<'_>) -> Result<Scoreboard> {
        Ok(Scoreboard { shared: Shared::open(memfd)? })
    }

    /// Adds to a counter of a row this process owns.
    pub fn add(&self, row: u16, counter: Counter, n: u64) {
        let word = self.word(row, counter);
        // One writer for each row: a plain load and store is enough, and cheaper than an atomic
        // addition.
        word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts from a gauge of a row this process owns.
    pub fn sub(&self, row: u16, counter: Counter, n: u64) {
        self.add(row, counter, n.wrapping_neg());
    }

    /// Reads a counter.
    pub fn get(&self, row: u16, counter: Counter) -> u64 {
        self.word(row, counter).load(Relaxed)
    }

    /// The sum of a counter over all rows.
    pub fn sum(&self, counter: Counter) -> u64 {
        (0..ROWS as u16).map(|row| self.get(row, counter)).fold(0, u64::wrapping_add)
    }

    /// Ends a row: its totals go to the departed, its gauges to nobody. The master does this
    /// once the process is reaped.
    pub fn retire(&self, row: u16) {
        for counter in Counter::ALL {
            if !counter.is_gauge() {
                self.add(DEPARTED, counter, self.get(row, counter));
            }
            self.word(row, counter).store(0, Relaxed);
        }
    }

    fn word(&self, row: u16, counter: Counter) -> &std::sync::atomic::AtomicU64 {
        &self.shared.words()[usize::from(row) * ROW_WORDS + counter as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_outlive_their_process_and_gauges_do_not() {
        let (board, _memfd) = Scoreboard::create().unwrap();
        board.add(3, Counter::Connections, 2);
        board.add(3, Counter::Opened, 5);
        board.sub(3, Counter::Connections, 1);
        assert_eq!(board.sum(Counter::Connections), 1);
        board.retire(3);
        assert_eq!((board.sum(Counter::Connections), board.sum(Counter::Opened)), (0, 5));
    }

    #[test]
    fn a_counter_keeps_the_word_it_had_in_the_first_version() {
        let first = include_str!("../../tests/golden/scoreboard-1");
        let now = Counter::ALL.map(Counter::as_str);
        assert!(first.lines().eq(now.into_iter().take(first.lines().count())));
    }

    #[test]
    fn counters_are_listed_in_the_order_of_their_words() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
            assert_eq!(serde_json::to_value(counter).unwrap(), counter.as_str());
        }
        assert!(Counter::ALL.len() <= ROW_WORDS);
    }
}
