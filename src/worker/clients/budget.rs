//! What a worker holds for its clients, all of them together: `client_memory`.
//!
//! Bodies and what is half read are counted as they come and go. Outboxes are counted in full,
//! which is too much where many wait for the same broadcast; so while they are near the limit
//! they are counted again, each payload once.

use std::cell::Cell;
use std::collections::HashSet;

use super::connection::Connection;
use super::{Clients, outbox};

/// The bytes that are held, and how many may be.
pub(in crate::worker) struct Budget {
    limit: u64,
    /// Of bodies, unfinished messages, heads, and bytes that wait for a handler.
    held: Cell<u64>,
    /// What the outboxes really took when they were counted last, and what they seemed to take.
    waiting: Cell<(u64, u64)>,
    /// No message is looked for that could end before then, in milliseconds: there was none.
    nothing_until: Cell<u64>,
}

/// A message of so few bytes does not fill the memory.
pub(in crate::worker) const FEW: usize = 4096;
/// Between two looks for a message that could end, where there was none.
const LOOK_MS: u64 = 100;

impl Budget {
    /// A budget of `limit` bytes; 0 is no limit.
    pub fn new(limit: u64) -> Budget {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let (held, waiting) = (Cell::new(0), Cell::new((0, 0)));
        Budget { limit, held, waiting, nothing_until: Cell::new(0) }
    }

    /// Takes bytes of a body if there is room for them. Bodies leave a quarter to everything else.
    pub fn try_take(&self, bytes: usize) -> bool {
        let has_room = self.all().saturating_add(bytes as u64) <= self.limit / 4 * 3;
        if has_room {
            self.held.set(self.held.get() + bytes as u64);
        }
        has_room
    }

    /// Gives bytes back that were taken.
    pub fn give_back(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_sub(bytes as u64));
    }

    /// Whether more is held than may be.
    pub fn is_full(&self) -> bool {
        self.all() > self.limit
    }

    fn all(&self) -> u64 {
        let (now, (real, seeming)) = (outbox::waiting() as u64, self.waiting.get());
        // Since they were counted some have grown, or all together have shrunk.
        let waiting = if now > seeming { real + (now - seeming) } else { real.min(now) };
        self.held.get().saturating_add(waiting)
    }

    /// Whether a message that could end is looked for, where there was none a moment ago.
    pub fn looks(&self, now_ms: u64) -> bool {
        now_ms >= self.nothing_until.get()
    }

    /// There was no message that could end.
    pub fn found_nothing(&self, now_ms: u64) {
        self.nothing_until.set(now_ms + LOOK_MS);
    }

    /// The bytes that are held now.
    pub fn held(&self) -> u64 {
        self.all()
    }

    fn is_near(&self) -> bool {
        self.held.get().saturating_add(outbox::waiting() as u64) > self.limit / 4 * 3
    }
}

impl Clients {
    /// Counts what a connection holds besides its outbox.
    pub(in crate::worker) fn reckon(&self, connection: &mut Connection) {
        let holds = connection.holds();
        if holds != connection.counted {
            self.budget.give_back(connection.counted as usize);
            self.budget.held.set(self.budget.held.get() + u64::from(holds));
            connection.counted = holds;
        }
    }

    /// Counts the outboxes again if they are near the limit.
    pub(in crate::worker) fn recount(&self) {
        if !self.budget.is_near() {
            return self.budget.waiting.set((0, 0));
        }
        let mut seen = HashSet::new();
        let table = self.table.borrow();
        let outboxes = table.iter().filter_map(|(_, connection)| connection.outbox.as_ref());
        let real: usize = outboxes.map(|outbox| outbox.memory(&mut seen)).sum();
        self.budget.waiting.set((real as u64, outbox::waiting() as u64));
    }
}
