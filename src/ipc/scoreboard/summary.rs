//! The master's summary: what all processes together have counted, on a page that the master
//! alone writes and every worker reads.
//!
//! It is what the outside is told. Workers learn at different times of a page that is new, so
//! their own sums may differ for a moment; this one has a single writer that knows every page,
//! the last totals of every dead process included, and never lets a total go back.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::{Board, Counter, Histogram, Measured, PLACES_AT, Page, Row, WORDS};
use crate::close::Cause;
use crate::error::Result;

/// Where the facts stand.
const FACTS_AT: usize = 448;

/// What the master knows besides counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Fact {
    /// 1: another page comes in the place of this one, and nothing here changes any more.
    Superseded,
    /// 1: the server takes no new clients (`wsd drain`).
    Draining,
    /// How many slots serve.
    Slots,
    /// How many of them have a worker that is ready.
    Ready,
    /// The generation that serves.
    Generation,
    /// Workers started again after a crash.
    WorkerRestarts,
    /// Managers started again after a crash.
    ManagerRestarts,
    /// Application processes that run.
    AppProcesses,
    /// Application processes that were started.
    AppStarts,
    /// When the server was started, milliseconds since 1970.
    StartedAt,
    /// 1 once every slot has served.
    Started,
    /// Grows by two each time that this page is written, and is odd meanwhile: what is made of it
    /// holds until it is written again.
    Published,
    /// Couriers started again after a crash.
    CourierRestarts,
}

/// The summary as its writer has it.
pub struct Summary {
    row: Row,
    memfd: OwnedFd,
}

impl Summary {
    /// A page on which nothing was counted.
    pub fn create() -> Result<Summary> {
        use std::os::fd::AsFd;
        let memfd = Row::create()?;
        Ok(Summary { row: Row::take(memfd.as_fd())?, memfd })
    }

    /// A page that goes on where another stood: no total is less.
    pub fn continuing(before: BorrowedFd<'_>) -> Result<Summary> {
        let (summary, before) = (Summary::create()?, Page::open(before)?);
        for index in 0..WORDS {
            summary.word(index).store(before.total(index), Relaxed);
        }
        let figures = Figures::of(&before);
        for fact in [Fact::AppStarts, Fact::CourierRestarts, Fact::Published] {
            summary.fact(fact).store(figures.fact(fact), Relaxed);
        }
        Ok(summary)
    }

    /// The page, for those who read.
    pub fn memfd(&self) -> &OwnedFd {
        &self.memfd
    }

    /// Writes what all pages say. Of clients each worker counts at most `clients_max`.
    pub fn publish(&self, board: &Board, clients_max: u64) {
        self.write(|| {
            for index in 0..WORDS {
                // A worker that takes back what it has counted does not take it back here.
                let word = self.word(index);
                word.store(board.total(index).max(word.load(Relaxed)), Relaxed);
            }
            for counter in Counter::ALL.into_iter().filter(|counter| counter.is_gauge()) {
                self.row.set(counter, board.gauge(counter, clients_max));
            }
        });
    }

    /// Sets a fact.
    pub fn tell(&self, fact: Fact, value: u64) {
        let word = self.fact(fact);
        if word.load(Relaxed) != value {
            self.write(|| word.store(value, Relaxed));
        }
    }

    /// A fact as it was told last.
    pub fn told(&self, fact: Fact) -> u64 {
        self.fact(fact).load(Relaxed)
    }

    /// Counts one for a fact that is a total.
    pub fn bump(&self, fact: Fact) {
        let word = self.fact(fact);
        self.write(|| word.store(word.load(Relaxed) + 1, Relaxed));
    }

    /// Changes what the page says. The number of the page is odd meanwhile, so that nobody takes
    /// what is half written, and another one behind that: what a worker keeps under a number is
    /// what every other worker reads under that number.
    fn write(&self, change: impl FnOnce()) {
        let published = self.fact(Fact::Published);
        let before = published.load(Relaxed);
        published.store(before + 1, Relaxed);
        fence(Release);
        change();
        fence(Release);
        published.store(before + 2, Relaxed);
    }

    fn fact(&self, fact: Fact) -> &AtomicU64 {
        self.word(FACTS_AT + fact as usize)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.row.shared.words()[index]
    }
}

/// The page as its readers have it.
pub struct SummaryPage(Page);

impl SummaryPage {
    /// Opens the summary of the master.
    pub fn open(memfd: BorrowedFd<'_>) -> Result<SummaryPage> {
        Page::open(memfd).map(SummaryPage)
    }

    /// Reads a fact.
    pub fn fact(&self, fact: Fact) -> u64 {
        self.0.shared.words()[FACTS_AT + fact as usize].load(Relaxed)
    }

    /// What the page says now; `None` while it is written, and where another page has come, or
    /// comes, in its place.
    pub fn figures(&self) -> Option<Figures> {
        let before = self.fact(Fact::Published);
        fence(Acquire);
        let figures = Figures::of(&self.0);
        // Looked at behind all others: what was read before is from before the other page.
        fence(Acquire);
        let whole = before.is_multiple_of(2) && self.fact(Fact::Published) == before;
        (whole && self.fact(Fact::Superseded) == 0).then_some(figures)
    }
}

/// What a summary said at one moment.
#[derive(Debug, Clone)]
pub struct Figures(Vec<u64>);

impl Figures {
    fn of(page: &Page) -> Figures {
        Figures(page.shared.words()[..PLACES_AT].iter().map(|word| word.load(Relaxed)).collect())
    }

    /// A counter, or a gauge.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// How many WebSockets ended for that cause.
    pub fn closed(&self, cause: Cause) -> u64 {
        self.0[super::word_of(cause)]
    }

    /// A histogram.
    pub fn measured(&self, histogram: Histogram) -> Measured {
        Measured::at(histogram, |index| self.0[index])
    }

    /// A fact.
    pub fn fact(&self, fact: Fact) -> u64 {
        self.0[FACTS_AT + fact as usize]
    }
}

const _: () = assert!(WORDS <= FACTS_AT && FACTS_AT + 64 <= PLACES_AT);

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::super::MANAGER;
    use super::*;
    use crate::fd::{Slot, WorkerId};

    fn worker(board: &mut Board, epoch: u32) -> Row {
        let memfd = Row::create().unwrap();
        let row = Row::take(memfd.as_fd()).unwrap();
        board.opened(WorkerId { slot: Slot(0), epoch }, memfd.as_fd()).unwrap();
        row
    }

    #[test]
    fn under_one_number_the_page_says_one_thing() {
        let summary = Summary::create().unwrap();
        let page = SummaryPage::open(summary.memfd().as_fd()).unwrap();
        let mut said = Vec::new();
        for count in 1..=3 {
            summary.bump(Fact::AppStarts);
            said.push(page.figures().unwrap());
            summary.tell(Fact::WorkerRestarts, count);
            said.push(page.figures().unwrap());
            summary.tell(Fact::WorkerRestarts, count);
        }
        let numbers: Vec<u64> = said.iter().map(|it| it.fact(Fact::Published)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    }

    #[test]
    fn a_total_never_goes_back_whoever_takes_it_back() {
        let mut board = Board::default();
        let (worker, manager) = (worker(&mut board, 1), worker(&mut board, MANAGER.epoch));
        worker.add(Counter::Opened, 5);
        worker.closed(Cause::MaxAge);
        worker.measure(Histogram::Handshake, Duration::from_millis(2));
        worker.set(Counter::Connections, 70);
        manager.add(Counter::Relayed, 9);
        let summary = Summary::create().unwrap();
        summary.publish(&board, 50);
        let page = SummaryPage::open(summary.memfd().as_fd()).unwrap();
        let figures = page.figures().unwrap();
        assert_eq!((figures.get(Counter::Opened), figures.get(Counter::Relayed)), (5, 9));
        assert_eq!((figures.closed(Cause::MaxAge), figures.closed(Cause::TooFast)), (1, 0));
        assert_eq!(figures.measured(Histogram::Handshake).sum_us, 2000);
        assert_eq!(figures.get(Counter::Connections), 50);

        worker.sub(Counter::Opened, 3);
        worker.set(Counter::Connections, 1);
        summary.publish(&board, 50);
        let figures = page.figures().unwrap();
        assert_eq!((figures.get(Counter::Opened), figures.get(Counter::Connections)), (5, 1));

        summary.write(|| assert!(page.figures().is_none(), "it is being written"));
        summary.bump(Fact::AppStarts);
        summary.tell(Fact::Superseded, 1);
        assert!(page.figures().is_none());
        let next = Summary::continuing(summary.memfd().as_fd()).unwrap();
        next.publish(&Board::default(), 50);
        let next = SummaryPage::open(next.memfd().as_fd()).unwrap().figures().unwrap();
        assert_eq!((next.fact(Fact::AppStarts), next.fact(Fact::Superseded)), (1, 0));
        assert!(next.fact(Fact::Published) > figures.fact(Fact::Published));
        assert_eq!((next.get(Counter::Opened), next.get(Counter::Connections)), (5, 0));
        assert_eq!(next.closed(Cause::MaxAge), 1);
    }
}
