//! The counters: what this worker counts, and what it reads of the others.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::scoreboard::{self, Counter, Row, Totals};

/// What this worker counts, and what it reads of the others.
pub(in crate::worker) struct Board {
    pub row: Row,
    pub others: RefCell<scoreboard::Board>,
}

impl Board {
    pub fn new(page: &OwnedFd, departed: Totals, pages: &[(WorkerId, OwnedFd)]) -> Result<Board> {
        let mut others = scoreboard::Board::new(departed);
        for (of, page) in pages {
            others.opened(*of, page.as_fd())?;
        }
        Ok(Board { row: Row::take(page.as_fd())?, others: RefCell::new(others) })
    }

    pub fn page_opened(&self, of: WorkerId, fds: &[OwnedFd]) -> Result<()> {
        let page = fds.first().ok_or_else(|| Error::new("Page without a page"))?;
        self.others.borrow_mut().opened(of, page.as_fd())
    }

    pub fn page_ended(&self, of: WorkerId, last: &Totals) -> Result<()> {
        self.others.borrow_mut().ended(of, last);
        Ok(())
    }

    pub fn add(&self, counter: Counter, n: u64) {
        self.row.add(counter, n);
    }

    pub fn sub(&self, counter: Counter, n: u64) {
        self.row.sub(counter, n);
    }

    /// What all workers have counted, those that ended as well.
    pub fn total(&self, counter: Counter) -> u64 {
        self.others.borrow().sum(counter).saturating_add(self.row.get(counter))
    }
}
