//! The wheel of deadlines, turned: what is due on whom is done.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Worker;
use super::base::ticks::{TICK_MS, tick};
use super::clients::heartbeat::Due;
use super::clients::key::Key;
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::{Counter, Histogram};
use crate::sys::clock;

/// Connections that are due, looked at before others get to run: many may end, with all that the
/// kernel has of them.
const LOOK_SLICE: usize = 64;

/// Turns the wheel, for ever.
pub(in crate::worker) async fn turn_wheel(worker: Rc<Worker>) {
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut dropped = 0;
    loop {
        let due = ticks.tick().await;
        worker.board.row.measure(Histogram::LoopLag, due.elapsed());
        worker.board.row.set(Counter::ClientMemory, worker.budget.held());
        worker.now_ms.set(clock::monotonic_ms());
        let due = worker.wheel.borrow_mut().advance(tick(worker.now_ms.get()));
        for slice in due.chunks(LOOK_SLICE) {
            slice.iter().for_each(|&key| worker.look(key));
            tokio::task::yield_now().await;
        }
        worker.tell_vacant();
        worker.recount();
        worker.watch_missed();
        worker.master.flush();
        worker.add(Counter::Tasks, worker.jobs.newly_done());
        let lines = crate::log::dropped();
        worker.add(Counter::LogDropped, lines - std::mem::replace(&mut dropped, lines));
    }
}

impl Worker {
    /// The wheel has brought a connection up.
    fn look(&self, key: Key) {
        match self.due_on(key) {
            Due::Nothing => {}
            Due::Pong => self.end(key, Close::because(Cause::PongTimeout)),
            Due::Expired => self.start_close(key, Close::expired()),
            Due::Message => self.start_close(key, Close::because(Cause::MessageTimeout)),
            Due::Stage(stage) => self.past_deadline(key, stage),
        }
    }
}
