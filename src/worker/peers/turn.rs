//! A turn of the loop: what is queued in it is written at its end, for other processes too.

use std::rc::Rc;

use super::Peers;
use crate::sys::clock;
use crate::worker::clients::turn::Pace;

/// Rounds of flushing and ending in one turn: `on_close` may push, and so on.
const ROUNDS_MAX: usize = 8;

impl Peers {
    /// Does something that queues, and writes that at once: a turn of its own, for which the
    /// reactor need not wake.
    pub(in crate::worker) fn in_turn<T>(self: &Rc<Self>, work: impl FnOnce() -> T) -> T {
        let waker = self.turn.waker.take();
        self.begin_links();
        self.now_ms.set(clock::monotonic_ms());
        let done = work();
        self.end_turn();
        self.turn.waker.replace(waker);
        if self.turn.has_work() {
            self.turn.wake();
        }
        done
    }

    /// Writes what the turn has queued, for other processes too, and tells of connections that
    /// ended in it.
    pub(in crate::worker) fn end_turn(self: &Rc<Self>) {
        let mut pace = Pace::default();
        for _ in 0..ROUNDS_MAX {
            let all = self.flush_all(&mut pace);
            self.turn.congested.set(!all);
            let mut ended = self.turn.ended.take();
            ended.drain(..).for_each(|key| self.finish(key));
            // Its memory serves the next turn.
            if self.turn.ended.borrow().is_empty() {
                self.turn.ended.replace(ended);
            }
            if !all {
                // The others have a turn, and then this goes on.
                self.turn.scan_again();
                break;
            }
            if self.turn.dirty.borrow().is_empty() && self.turn.ended.borrow().is_empty() {
                break;
            }
        }
        if self.turn.dirty.borrow().is_empty() {
            self.broadcasts.borrow_mut().clear();
        }
        self.link.end_turn();
        self.direct.end_turn();
    }

    /// What is queued for others goes at the end of the turn.
    pub(in crate::worker) fn begin_links(&self) {
        self.link.begin_turn();
        self.direct.begin_turn();
    }
}
