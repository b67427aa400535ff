//! The scoreboard: what each worker counts, in shared memory, so that `status` answers also
//! while a worker hangs, and `max_connection` can hold for all workers together.
//!
//! Each worker counts on a [`Row`], a page of its own that nobody else can write: the worker maps
//! it and then seals it. The others read that [`Page`], and believe no more of it than can be,
//! since code that took the worker over may write there what it likes.
//!
//! A total outlives its worker and never goes back: the master reads the page of a worker that
//! ended, and tells everybody of the end and of the last totals in one message
//! ([`Board::ended`]).

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::places::{self, PLACES_MAX, PlaceState};
use crate::sys::memory::{self, Shared};

/// Words of a page that are for counters; behind them stand those of application processes.
const COUNTER_WORDS: usize = 512;
/// Bytes of a worker's page.
pub const PAGE_BYTES: usize = (COUNTER_WORDS + PLACES_MAX) * 8;
/// The largest total that is believed or shown: JSON and JavaScript keep it exact.
const TOTAL_MAX: u64 = 1 << 53;

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
    /// Memberships of rooms and users now (not a total).
    Memberships,
    /// Messages that were published to rooms and users, whoever was there.
    Publishes,
}

impl Counter {
    /// Every counter, in the order of their words.
    pub const ALL: [Counter; 42] = [
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
        Counter::Memberships,
        Counter::Publishes,
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
            Counter::Memberships => "memberships",
            Counter::Publishes => "publishes",
        }
    }

    /// Whether it says how many there are now, rather than how many there were.
    pub fn is_gauge(self) -> bool {
        use Counter::{Connections, Handshakes, Lingering, Memberships, Plain};
        matches!(self, Connections | Handshakes | Plain | Lingering | Memberships)
    }
}

/// What `max_connection` is about.
const CLIENTS: [Counter; 3] = [Counter::Connections, Counter::Handshakes, Counter::Plain];

/// A worker's own page.
pub struct Row {
    shared: Shared,
}

impl Row {
    /// Makes the page of a worker; the master does.
    pub fn create() -> Result<OwnedFd> {
        Shared::create("wsd-scoreboard", PAGE_BYTES).map(|(_, memfd)| memfd)
    }

    /// Takes the page, as its only writer from here on.
    pub fn take(memfd: BorrowedFd<'_>) -> Result<Row> {
        let shared = Shared::open(memfd)?;
        memory::seal_for_others(memfd)?;
        Ok(Row { shared })
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        let word = self.word(counter);
        // There is one writer: a plain load and store is enough, and cheaper than an addition.
        word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts from a gauge.
    #[inline]
    pub fn sub(&self, counter: Counter, n: u64) {
        self.add(counter, n.wrapping_neg());
    }

    /// Reads a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        believed(counter, self.word(counter).load(Relaxed))
    }

    /// Shows the application process of a place; `None`: there is none.
    pub fn show(&self, place: usize, state: Option<PlaceState>) {
        places::write(&self.shared.words()[COUNTER_WORDS..], place, state);
    }

    /// Connections of every kind that `max_connection` is about.
    pub fn clients(&self) -> u64 {
        CLIENTS.into_iter().map(|counter| self.get(counter)).sum()
    }

    fn word(&self, counter: Counter) -> &AtomicU64 {
        &self.shared.words()[counter as usize]
    }
}

/// The page of another process, which is only read.
pub struct Page {
    shared: Shared,
}

impl Page {
    /// Opens the page of a worker.
    pub fn open(memfd: BorrowedFd<'_>) -> Result<Page> {
        let shared = Shared::view(memfd)?;
        if shared.words().len() * 8 != PAGE_BYTES {
            return Err(Error::new(format!("a worker's counters are not {PAGE_BYTES} bytes")));
        }
        Ok(Page { shared })
    }

    /// Reads a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        believed(counter, self.shared.words()[counter as usize].load(Relaxed))
    }

    /// Connections of every kind that `max_connection` is about, as the worker tells them.
    pub fn clients(&self) -> u64 {
        CLIENTS.into_iter().map(|counter| self.get(counter)).sum()
    }

    /// The application processes, each with its place.
    pub fn places(&self) -> impl Iterator<Item = (usize, PlaceState)> {
        places::read(&self.shared.words()[COUNTER_WORDS..])
    }

    /// Every total.
    pub fn totals(&self) -> Totals {
        let total = |counter: Counter| if counter.is_gauge() { 0 } else { self.get(counter) };
        Totals(Counter::ALL.map(total).to_vec())
    }
}

/// So much of what a worker wrote as can be: a gauge below zero is none.
fn believed(counter: Counter, value: u64) -> u64 {
    match counter.is_gauge() && value > i64::MAX as u64 {
        true => 0,
        false => value.min(TOTAL_MAX),
    }
}

/// What workers that are no more have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals(Vec<u64>);

impl From<Vec<u64>> for Totals {
    /// Of counters in the order of [`Counter::ALL`].
    fn from(totals: Vec<u64>) -> Totals {
        Totals(totals)
    }
}

impl Totals {
    /// Reads a total.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Adds those of one more.
    pub fn add(&mut self, last: &Totals) {
        self.0.resize(Counter::ALL.len().max(self.0.len()), 0);
        for (sum, more) in self.0.iter_mut().zip(&last.0) {
            *sum = sum.saturating_add(*more).min(TOTAL_MAX);
        }
    }
}

/// The pages of all workers, or of all the others, as one process reads them.
#[derive(Default)]
pub struct Board {
    pages: BTreeMap<WorkerId, Page>,
    departed: Totals,
}

impl Board {
    /// Without a page. `departed` is what workers have counted that ended before.
    pub fn new(departed: Totals) -> Board {
        Board { pages: BTreeMap::new(), departed }
    }

    /// A worker is there, and counts on this page.
    pub fn add(&mut self, id: WorkerId, page: Page) {
        self.pages.insert(id, page);
    }

    /// As [`add`](Self::add).
    pub fn opened(&mut self, id: WorkerId, memfd: BorrowedFd<'_>) -> Result<()> {
        self.add(id, Page::open(memfd)?);
        Ok(())
    }

    /// A worker is no more: its totals stay, its gauges go.
    pub fn ended(&mut self, id: WorkerId, last: &Totals) {
        self.pages.remove(&id);
        self.departed.add(last);
    }

    /// Reads a counter of one worker.
    pub fn get(&self, id: WorkerId, counter: Counter) -> u64 {
        self.pages.get(&id).map_or(0, |page| page.get(counter))
    }

    /// The page of one worker.
    pub fn page(&self, id: WorkerId) -> Option<&Page> {
        self.pages.get(&id)
    }

    /// What workers that are no more have counted.
    pub fn departed(&self) -> &Totals {
        &self.departed
    }

    /// The sum of a counter over all pages and the departed.
    pub fn sum(&self, counter: Counter) -> u64 {
        let gone = self.departed.get(counter);
        let sum = self.pages.values().map(|page| page.get(counter));
        sum.fold(gone, u64::saturating_add).min(TOTAL_MAX)
    }

    /// What [`Page::clients`] says of all pages, of each at most `each_max`.
    pub fn clients(&self, each_max: u64) -> u64 {
        let clients = self.pages.values().map(|page| page.clients().min(each_max));
        clients.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fd::Slot;

    fn id(epoch: u32) -> WorkerId {
        WorkerId { slot: Slot(0), epoch }
    }

    fn worker(board: &mut Board, epoch: u32) -> Row {
        let memfd = Row::create().unwrap();
        let row = Row::take(memfd.as_fd()).unwrap();
        board.opened(id(epoch), memfd.as_fd()).unwrap();
        row
    }

    fn end(board: &mut Board, epoch: u32) {
        let last = board.page(id(epoch)).unwrap().totals();
        board.ended(id(epoch), &last);
    }

    #[test]
    fn totals_outlive_their_process_and_gauges_do_not() {
        let mut board = Board::default();
        let (first, second) = (worker(&mut board, 1), worker(&mut board, 2));
        first.add(Counter::Connections, 2);
        first.add(Counter::Opened, 5);
        first.sub(Counter::Connections, 1);
        second.add(Counter::Opened, 1);
        assert_eq!((board.sum(Counter::Connections), board.sum(Counter::Opened)), (1, 6));
        assert_eq!(board.get(id(1), Counter::Opened), 5);
        end(&mut board, 1);
        assert_eq!((board.sum(Counter::Connections), board.sum(Counter::Opened)), (0, 6));
        end(&mut board, 2);
        assert_eq!(board.sum(Counter::Opened), 6);
        assert_eq!(board.departed().get(Counter::Opened), 6);
        assert_eq!(Board::new(board.departed().clone()).sum(Counter::Opened), 6);
    }

    #[test]
    fn a_page_is_written_by_its_worker_alone() {
        let memfd = Row::create().unwrap();
        let row = Row::take(memfd.as_fd()).unwrap();
        row.add(Counter::Connections, 3);
        assert!(nix::sys::uio::pwrite(&memfd, &[0xff; 8], 0).is_err());
        assert!(Shared::open(memfd.as_fd()).is_err());
        assert_eq!(Page::open(memfd.as_fd()).unwrap().get(Counter::Connections), 3);
    }

    #[test]
    fn a_count_that_cannot_be_is_worth_no_more_than_one_that_can() {
        let mut board = Board::default();
        let (liar, honest) = (worker(&mut board, 1), worker(&mut board, 2));
        honest.add(Counter::Connections, 7);
        liar.add(Counter::Connections, 1 << 40);
        assert_eq!(board.clients(100), 107);
        liar.sub(Counter::Connections, (1 << 40) + 1);
        assert_eq!(board.clients(100), 7);
        for _ in 0..3 {
            liar.add(Counter::Opened, u64::MAX / 2);
            honest.add(Counter::Opened, 1);
            assert_eq!(board.sum(Counter::Opened), TOTAL_MAX);
        }
        end(&mut board, 1);
        end(&mut board, 2);
        assert_eq!(board.sum(Counter::Opened), TOTAL_MAX);
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
        assert!(Counter::ALL.len() <= COUNTER_WORDS);
    }
}
