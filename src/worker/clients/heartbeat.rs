//! Deadlines of a connection, and the pings to it.

use super::Clients;
use super::connection::{Connection, Stage};
use super::key::Key;
use crate::fd::Fd;
use crate::websocket::frame;
use crate::worker::base::ticks::{NEVER, Tick, tick};

/// The payload of our own pings, by which their answers are known: a client that answers them is
/// alive, and has sent nothing.
pub(in crate::worker) const PING: &[u8] = b"wsd";

/// What is due on a connection.
pub(in crate::worker) enum Due {
    Nothing,
    Pong,
    Message,
    Expired,
    Stage(Stage),
}

impl Clients {
    /// Has the wheel bring a connection up when its next deadline comes.
    pub(in crate::worker) fn look_again(&self, key: Key, connection: &mut Connection) {
        let next = connection.next_look();
        if next < connection.look_at {
            connection.look_at = self.wheel.borrow_mut().set(key, next);
        }
    }

    /// The wheel has brought a connection up: what is due on it.
    pub(in crate::worker) fn due_on(&self, key: Key) -> Due {
        let now = tick(self.now_ms.get());
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return Due::Nothing };
        if connection.look_at > now {
            // It was set anew since.
            return Due::Nothing;
        }
        connection.look_at = NEVER;
        let due = self.due(key, connection, now);
        self.look_again(key, connection);
        due
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

    /// Sets the clocks of an open connection. Pings are spread over the interval by the number,
    /// so a crowd that came at once is not pinged at once.
    pub(in crate::worker) fn start_timers(&self, key: Key, connection: &mut Connection, fd: Fd) {
        let now = tick(self.now_ms.get());
        let spread = |time: Tick| {
            let jitter = (fd.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as Tick;
            now + time - jitter % (time / 4 + 1)
        };
        connection.ping_at = self.settings.ping.map_or(NEVER, spread);
        connection.deadline = self.settings.age.map_or(NEVER, spread);
        self.look_again(key, connection);
    }
}
