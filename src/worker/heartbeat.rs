//! Deadlines: what the wheel brings up, and the manager's sweep for idle clients.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Worker;
use super::connection::{Connection, Stage};
use super::table::Key;
use super::timers::{NEVER, TICK_MS, tick};
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::{Counter, Histogram};
use crate::sys::clock;
use crate::websocket::frame;

/// Connections looked at in a sweep before others get to run.
const SWEEP_SLICE: usize = 4096;
/// The same of those that are due: many may end, with all that the kernel has of them.
const LOOK_SLICE: usize = 64;

/// The payload of our own pings, by which their answers are known: a client that answers them is
/// alive, and has sent nothing.
pub(super) const PING: &[u8] = b"wsd";

/// What is due on a connection.
enum Due {
    Nothing,
    Pong,
    Message,
    Expired,
    Stage(Stage),
}

/// Turns the wheel, for ever.
pub(super) async fn turn_wheel(worker: Rc<Worker>) {
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
        worker.master.flush();
        worker.add(Counter::Tasks, worker.jobs.newly_done());
        let lines = crate::log::dropped();
        worker.add(Counter::LogDropped, lines - std::mem::replace(&mut dropped, lines));
    }
}

impl Worker {
    /// Has the wheel bring a connection up when its next deadline comes.
    pub(super) fn look_again(&self, key: Key, connection: &mut Connection) {
        let next = connection.next_look();
        if next < connection.look_at {
            connection.look_at = self.wheel.borrow_mut().set(key, next);
        }
    }

    /// The wheel has brought a connection up.
    fn look(self: &Rc<Self>, key: Key) {
        let now = tick(self.now_ms.get());
        let due = {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            if connection.look_at > now {
                // It was set anew since.
                return;
            }
            connection.look_at = NEVER;
            let due = self.due(key, connection, now);
            self.look_again(key, connection);
            due
        };
        match due {
            Due::Nothing => {}
            Due::Pong => self.end(key, Close::because(Cause::PongTimeout)),
            Due::Expired => self.start_close(key, Close::because(Cause::Expired)),
            Due::Message => self.start_close(key, Close::because(Cause::MessageTimeout)),
            Due::Stage(stage) => self.past_deadline(key, stage),
        }
    }

    fn due(&self, key: Key, connection: &mut Connection, now: u32) -> Due {
        if connection.deadline <= now {
            connection.deadline = NEVER;
            return Due::Stage(connection.stage);
        }
        if !connection.is_open() {
            return Due::Nothing;
        }
        if connection.expires_at() <= now {
            return Due::Expired;
        }
        if connection.pong_by <= now {
            connection.pong_by = NEVER;
            // While its handler runs it is not read, so the answer may lie there unread.
            let unread = connection.busy || connection.slowed;
            return if unread { Due::Nothing } else { Due::Pong };
        }
        if connection.message_by <= now {
            connection.message_by = NEVER;
            if !connection.slowed {
                return Due::Message;
            }
            // It is we who do not read the rest.
            connection.message_by = self.settings.message_time.map_or(NEVER, |time| now + time);
        }
        if connection.ping_at <= now {
            self.ping(key, connection, now);
        }
        Due::Nothing
    }

    fn ping(&self, key: Key, connection: &mut Connection, now: u32) {
        let Some(interval) = self.settings.ping else {
            connection.ping_at = NEVER;
            return;
        };
        connection.ping_at = now + interval;
        if connection.pong_by == NEVER {
            let mut bytes = Vec::with_capacity(2 + PING.len());
            frame::put_ping(&mut bytes, PING);
            self.queue_control(key, connection, &bytes);
            connection.pong_by = now + self.settings.pong;
        }
    }

    /// Closes every client that has sent nothing for `idle_ms`.
    pub(super) fn sweep(self: &Rc<Self>, idle_ms: u64) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let keys = worker.table.borrow().keys();
            for slice in keys.chunks(SWEEP_SLICE) {
                let now = clock::monotonic_ms();
                for &key in slice {
                    let idle = worker.table.borrow().get(key).is_some_and(|connection| {
                        connection.is_open()
                            && !connection.busy
                            && !connection.protected
                            && !connection.arriving
                            && now.saturating_sub(connection.received_at) >= idle_ms
                    });
                    if idle {
                        worker.start_close(key, Close::because(Cause::IdleTimeout));
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
}
