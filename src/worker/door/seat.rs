//! What a plain connection holds of its worker: its wait for its client, and bytes of the budget.

use std::cell::Cell;
use std::rc::Rc;

use crate::worker::clients::admission::{Admitted, Wait, Yielding};
use crate::worker::clients::budget::Budget;

/// The place of one plain connection.
#[derive(Default)]
pub(in crate::worker) struct Seat {
    pub yielding: Rc<Yielding>,
    /// The wait for its client that it is in.
    wait: Cell<Option<u64>>,
    /// Bytes of the budget.
    held: Cell<usize>,
}

impl Seat {
    /// The connection waits for its client from now on, or waits no more.
    pub fn waits_for(&self, wait: Option<Wait>, admitted: &Admitted) {
        if let Some(number) = self.wait.take() {
            admitted.wait_no_more(number);
        }
        self.wait.set(wait.map(|wait| admitted.wait(&self.yielding, wait)));
    }

    /// Whether the connection waits for its client.
    pub fn waits(&self) -> bool {
        self.wait.get().is_some()
    }

    /// Takes bytes of the budget, if there is room for them.
    pub fn hold(&self, bytes: usize, budget: &Budget) -> bool {
        let has_room = budget.try_take(bytes);
        if has_room {
            self.held.set(self.held.get() + bytes);
        }
        has_room
    }

    /// Gives back all that was taken of the budget.
    pub fn let_go(&self, budget: &Budget) {
        budget.give_back(self.held.take());
    }
}
