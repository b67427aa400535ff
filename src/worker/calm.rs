//! Which connections are calm, for whoever replaces this process should it be killed: nothing of
//! them is half read, unsent, or under way. `docs/decisions/crash-proof.md` says why that is all
//! there is to know.
//!
//! The mark is taken away before the first byte is read and whenever something is queued, and set
//! again when nothing is left. Where the worker is not crash-proof, no connection is *recorded*,
//! and that one flag is all that is looked at.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::Worker;
use super::connection::{Connection, Stage};
use super::table::Key;
use crate::ipc::ledger::Ledger;

/// What the worker keeps of this.
#[derive(Default)]
pub(super) struct Calmness {
    ledger: Option<Ledger>,
    /// Those at rest but for what their handler still has under way; it tells nobody when that
    /// has ended.
    waiting: RefCell<Vec<Key>>,
}

impl Calmness {
    pub fn new(ledger: Option<Ledger>) -> Calmness {
        Calmness { ledger, ..Calmness::default() }
    }

    /// What was inherited is ours.
    pub fn settle(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.settle();
        }
    }

    /// Writes down a connection that has just become open here.
    pub fn record(&self, key: Key, connection: &mut Connection) {
        let Some(ledger) = &self.ledger else { return };
        let extension = match connection.engine.params() {
            None => Some(0),
            Some(params) => params.to_number(),
        };
        let (Some(extension), Some(fd), Some(kept), Some(socket)) =
            (extension, connection.fd, &connection.kept, &connection.socket)
        else {
            return;
        };
        let (index, raw) = (key.index as usize, socket.as_raw_fd());
        connection.recorded = ledger.opened(index, fd, raw, extension, kept.as_bytes());
    }

    /// Something of it may be half read, unsent or under way from now on.
    #[inline]
    pub fn stir(&self, key: Key, connection: &mut Connection) {
        if connection.calm {
            connection.calm = false;
            if let (Some(ledger), Some(fd)) = (&self.ledger, connection.fd) {
                ledger.stir(key.index as usize, fd);
            }
        }
    }

    /// Its descriptor is about to be closed, or it is about to move.
    pub fn forget(&self, key: Key, connection: &mut Connection) {
        connection.calm = false;
        if std::mem::take(&mut connection.recorded)
            && let Some(ledger) = &self.ledger
        {
            ledger.forget(key.index as usize);
        }
    }

    /// It has come over from a process that died, and nothing was done with it yet.
    pub fn mark(&self, key: Key, connection: &mut Connection) {
        if let (true, Some(ledger), Some(fd)) = (connection.recorded, &self.ledger, connection.fd)
        {
            connection.calm = true;
            ledger.calm(key.index as usize, fd);
        }
    }
}

impl Connection {
    /// Whether nothing of it would be lost with this process but what its handler has under way.
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.stage == Stage::Open
            && !(self.busy || self.held || self.dirty || self.blocked || self.arriving)
            && self.outbox.is_none()
            && self.verses.is_empty()
            && self.extra.is_none()
            && self.engine.is_calm()
    }
}

impl Worker {
    /// Marks a connection as calm if it is.
    #[inline]
    pub(super) fn settle(self: &Rc<Self>, key: Key) {
        if self.turn.calmness.ledger.is_some() {
            self.settle_recorded(key);
        }
    }

    fn settle_recorded(self: &Rc<Self>, key: Key) {
        let may = |it: &&Connection| it.recorded && !it.calm && it.is_at_rest();
        if self.table.borrow().get(key).filter(may).is_none() {
            return;
        }
        // A handler is asked while nothing is borrowed.
        if self.under_way(key).is_some() {
            return self.turn.calmness.waiting.borrow_mut().push(key);
        }
        if let Some(connection) = self.table.borrow_mut().get_mut(key)
            && connection.is_at_rest()
        {
            self.turn.calmness.mark(key, connection);
        }
    }

    /// Looks again at those whose handler had something under way.
    pub(super) fn settle_waiting(self: &Rc<Self>) {
        let mut waiting = self.turn.calmness.waiting.take();
        waiting.sort_unstable_by_key(|key| (key.index, key.turn));
        waiting.dedup();
        for key in waiting {
            self.settle(key);
        }
    }
}
