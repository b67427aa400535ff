//! The scoreboard: what each worker counts, in shared memory, so that `status` answers also
//! while a worker hangs, and `max_connection` can hold for all workers together.
//!
//! Each worker counts on a [`Row`], a page of its own that nobody else can write: the worker maps
//! it and then seals it. The others read that [`Page`], and believe no more of it than can be,
//! since code that took the worker over may write there what it likes.
//!
//! A total outlives its worker and never goes back: the master reads the page of a worker that
//! ended, and tells everybody of the end and of the last totals in one message
//! ([`Board::ended`]). What is told outside, by `/metrics`, is the master's [`Summary`] of all
//! pages.

mod counter;
mod measure;
mod summary;

pub use counter::Counter;
pub use measure::{BOUNDS, Histogram, Measured};
pub use summary::{Fact, Figures, Summary, SummaryPage};

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::close::Cause;
use crate::error::{Error, Result};
use crate::fd::{Slot, WorkerId};
use crate::ipc::places::{self, PLACES_MAX, PlaceState};
use crate::sys::memory::{self, Shared};

/// Words of a page that are for what is counted; behind them stand application processes.
const PLACES_AT: usize = 512;
/// Bytes of a worker's page.
pub const PAGE_BYTES: usize = (PLACES_AT + PLACES_MAX) * 8;
/// The largest total that is believed or shown: JSON and JavaScript keep it exact.
const TOTAL_MAX: u64 = 1 << 53;
/// Words of a page that counters may take; closes by cause and histograms follow.
const COUNTER_WORDS: usize = 192;
/// Words of closes by cause.
const CAUSE_WORDS: usize = 64;
/// The words of a page that a process counts on.
const WORDS: usize = COUNTER_WORDS + CAUSE_WORDS + Histogram::ALL.len() * measure::WORDS;
/// Under which number the manager's page stands among those of workers, none of which has it:
/// epochs begin at 1.
pub const MANAGER: WorkerId = WorkerId { slot: Slot(0), epoch: 0 };

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

    /// Sets a gauge.
    pub fn set(&self, counter: Counter, value: u64) {
        self.word(counter).store(value, Relaxed);
    }

    /// Counts a WebSocket that ended.
    pub fn closed(&self, cause: Cause) {
        let word = &self.shared.words()[word_of(cause)];
        word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Reads a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        believed(counter, self.word(counter).load(Relaxed))
    }

    /// Shows the application process of a place; `None`: there is none.
    pub fn show(&self, place: usize, state: Option<PlaceState>) {
        places::write(&self.shared.words()[PLACES_AT..], place, state);
    }

    /// Connections of every kind that `max_connection` is about.
    pub fn clients(&self) -> u64 {
        CLIENTS.into_iter().map(|counter| self.get(counter)).sum()
    }

    fn word(&self, counter: Counter) -> &AtomicU64 {
        &self.shared.words()[counter as usize]
    }
}

/// Where the closes of a cause are counted: the causes stand in the order of [`Cause::ALL`].
fn word_of(cause: Cause) -> usize {
    COUNTER_WORDS + cause as usize
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
            let bytes = shared.words().len() * 8;
            let why = format!("a worker's counters are {bytes} bytes, not {PAGE_BYTES}");
            return Err(Error::new(why));
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
        places::read(&self.shared.words()[PLACES_AT..])
    }

    /// Every total: of counters, of closes and of histograms.
    pub fn totals(&self) -> Totals {
        Totals((0..WORDS).map(|index| self.total(index)).collect())
    }

    /// What stands at a word, or 0 where it is a gauge's.
    fn total(&self, index: usize) -> u64 {
        if Counter::ALL.get(index).is_some_and(|counter| counter.is_gauge()) {
            return 0;
        }
        self.shared.words()[index].load(Relaxed).min(TOTAL_MAX)
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
        self.0.resize(WORDS.max(self.0.len()), 0);
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

    /// The sum of a word, gauges left out, over all pages and the departed.
    fn total(&self, index: usize) -> u64 {
        let gone = self.departed.0.get(index).copied().unwrap_or(0);
        let sum = self.pages.values().map(|page| page.total(index));
        sum.fold(gone, u64::saturating_add).min(TOTAL_MAX)
    }

    /// The sum of a gauge. Of clients each worker counts at most `clients_max`.
    fn gauge(&self, counter: Counter, clients_max: u64) -> u64 {
        let most = if counter.is_clients() { clients_max } else { TOTAL_MAX };
        let sum = self.pages.values().map(|page| page.get(counter).min(most));
        sum.fold(0, u64::saturating_add).min(TOTAL_MAX)
    }

    /// A gauge of each worker by its slot, of all its epochs together.
    pub fn by_slot(&self, counter: Counter) -> BTreeMap<Slot, u64> {
        let mut slots = BTreeMap::new();
        for (id, page) in self.pages.iter().filter(|(id, _)| **id != MANAGER) {
            let sum = slots.entry(id.slot).or_insert(0u64);
            *sum = sum.saturating_add(page.get(counter));
        }
        slots
    }

    /// What [`Page::clients`] says of all pages, of each at most `each_max`.
    pub fn clients(&self, each_max: u64) -> u64 {
        let clients = self.pages.values().map(|page| page.clients().min(each_max));
        clients.fold(0, u64::saturating_add)
    }

    /// Plain requests under way on all pages: on each no more than its plain connections, which
    /// the master compares with the worker's descriptors.
    pub fn running(&self) -> u64 {
        let running = |page: &Page| page.get(Counter::HttpRunning).min(page.get(Counter::Plain));
        self.pages.values().map(running).fold(0, u64::saturating_add)
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
        honest.add(Counter::Plain, 5);
        honest.add(Counter::HttpRunning, 4);
        liar.add(Counter::HttpRunning, 1 << 40);
        assert_eq!(board.running(), 4);
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
        assert!(Cause::ALL.len() <= CAUSE_WORDS);
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(word_of(*cause), COUNTER_WORDS + index);
        }
    }
}
