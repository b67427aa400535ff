//! How connections end: the close handshake, and what follows it up to `on_close`.
//!
//! ```text
//! Open ─ start_close ─► Closing ─ their close ─► Parting ─ flushed ─► Ended ─► on_close
//!   ├─ their close, ours queued ─────────────────►┘                    ▲
//!   ├─ a fault ─► Lingering ─ their end, or 2 s of silence ─────────────┤
//!   └─ the network, a pong that never came ─────────────────────────────┘
//! ```

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use super::Clients;
use super::budget::FEW;
use super::connection::{Connection, Stage};
use super::key::Key;
use crate::api::Verdict;
use crate::close::{Cause, Close, Initiator, cut_reason};
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;
use crate::websocket::frame;
use crate::worker::base::ticks::{NEVER, TICK_MS, Tick, tick, ticks};

/// How long a client has to answer a close frame: 5 s.
const CLOSE_TICKS: Tick = 5_000 / TICK_MS as Tick;
/// How long a client that was answered for the last time may say nothing before it is closed upon
/// (RFC 9112 section 9.6): it may still be reading.
pub(in crate::worker) const SILENCE: Duration = Duration::from_secs(2);
/// How long what such a client still sends is thrown away in all, as by nginx.
pub(in crate::worker) const LONGEST: Duration = Duration::from_secs(30);

impl Clients {
    /// Closes an open connection from our side: a close frame, then up to 5 s for the client's.
    /// What was pushed before is sent first, unless the client is too slow for it.
    pub(in crate::worker) fn start_close(&self, key: Key, close: Close) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if connection.is_open() {
            self.say_close(key, connection, close);
        }
    }

    /// Has the longest unfinished message end with 1013, whether its client sends more or not;
    /// false where none is longer than a few bytes.
    pub(in crate::worker) fn longest_message_ends(&self) -> bool {
        let now_ms = self.now_ms.get();
        if !self.budget.looks(now_ms) {
            return false;
        }
        let mut table = self.table.borrow_mut();
        let messages = table.iter().filter(|(_, connection)| connection.is_open());
        let messages = messages.map(|(key, connection)| (connection.engine.pending_bytes(), key));
        let longest = messages.filter(|(bytes, _)| *bytes > FEW).max_by_key(|(bytes, _)| *bytes);
        let Some(connection) = longest.and_then(|(_, key)| table.get_mut(key)) else {
            self.budget.found_nothing(now_ms);
            return false;
        };
        connection.engine.give_up();
        self.reckon(connection);
        if let Some((_, key)) = longest {
            self.say_close(key, connection, Close::because(Cause::OutOfMemory));
        }
        true
    }

    /// Closes a client of this worker.
    pub(in crate::worker) fn close_here(
        &self,
        key: Key,
        code: u16,
        reason: &str,
        cause: Cause,
    ) -> Verdict {
        if !self.table.borrow().get(key).is_some_and(Connection::is_open) {
            return Verdict::Gone;
        }
        self.start_close(key, asked_close(code, reason, cause));
        Verdict::Queued
    }

    /// As `start_close`, with the table borrowed already.
    pub(in crate::worker) fn say_close(
        &self,
        key: Key,
        connection: &mut Connection,
        close: Close,
    ) {
        let fault = matches!(
            close.cause,
            Cause::ProtocolError
                | Cause::InvalidText
                | Cause::MessageTooBig
                | Cause::TooManyFragments
                | Cause::OutOfMemory
        );
        if close.cause == Cause::SlowReader
            && let Some(outbox) = &mut connection.outbox
        {
            self.add(Counter::PushLost, outbox.cut() as u64);
        }
        let mut bytes = Vec::with_capacity(32);
        frame::put_close(&mut bytes, Some(close.code), &close.reason);
        self.queue_control(key, connection, &bytes);
        connection.decide(close);
        connection.stage = Stage::Closing;
        if fault {
            return self.linger(key, connection);
        }
        self.set_deadline(key, connection, CLOSE_TICKS);
    }

    /// The client sent a close frame.
    pub(in crate::worker) fn closed_by_client(&self, key: Key, code: Option<u16>, reason: String) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if connection.is_open() {
            let mut bytes = Vec::with_capacity(32);
            frame::put_close(&mut bytes, code, "");
            self.queue_control(key, connection, &bytes);
            let code = code.unwrap_or(Cause::ClientClosed.code());
            connection.decide(Close { code, reason, cause: Cause::ClientClosed });
        }
        connection.stage = Stage::Parting;
        self.set_deadline(key, connection, CLOSE_TICKS);
        self.turn.flush_later(key, connection);
        if connection.outbox.is_none() {
            drop(table);
            self.end(key, Close::because(Cause::ClientVanished));
        }
    }

    /// Our last bytes go out, and what the client still sends is thrown away for a while.
    pub(in crate::worker) fn linger(&self, key: Key, connection: &mut Connection) {
        connection.stage = Stage::Lingering;
        connection.extra().lingers_until = tick(self.now_ms.get()) + ticks(LONGEST);
        self.set_deadline(key, connection, ticks(SILENCE));
    }

    /// A client that is lingered for has sent something: it may not have read its answer, or may
    /// have one to get only now.
    pub(in crate::worker) fn linger_on(&self, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        let answer = std::mem::take(&mut connection.extra().kept_back);
        if !answer.is_empty() {
            self.queue_control(key, connection, &answer);
        }
        let until = connection.extra().lingers_until;
        let silent_at = tick(self.now_ms.get()) + ticks(SILENCE);
        connection.deadline = silent_at.min(until);
        self.look_again(key, connection);
    }

    /// A client that left before it was in.
    pub(in crate::worker) fn drop_pending(&self, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if connection.busy {
            // Its `on_handshake` runs still; what it answers will find nobody.
            connection.stage = Stage::Ended;
            connection.socket = None;
            return;
        }
        self.forget(&mut table, key);
    }

    /// The connection has ended, with `close` unless how was decided before. Closes the socket
    /// now; `on_close` follows at the end of the turn, or when the running handler has ended.
    pub(in crate::worker) fn end(&self, key: Key, close: Close) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if connection.stage == Stage::Ended {
            return;
        }
        connection.decide(close);
        connection.stage = Stage::Ended;
        connection.paused = false;
        self.part_with_shared(connection);
        connection.socket = None;
        connection.deadline = NEVER;
        connection.ping_at = NEVER;
        connection.pong_by = NEVER;
        connection.message_by = NEVER;
        let lost = std::mem::take(&mut connection.frames).len()
            + connection.outbox.take().map_or(0, |outbox| outbox.messages());
        self.add(Counter::PushLost, lost as u64);
        let fd = connection.fd;
        self.keep_belongings(key, connection);
        self.leave_rooms(&mut table, key);
        if let Some(fd) = fd {
            table.unname(fd);
        }
        self.turn.finish_later(key);
    }

    fn set_deadline(&self, key: Key, connection: &mut Connection, time: Tick) {
        connection.ping_at = NEVER;
        connection.pong_by = NEVER;
        connection.message_by = NEVER;
        connection.deadline = tick(self.now_ms.get()) + time;
        self.look_again(key, connection);
    }

    /// Another process may have a duplicate of the socket, and then closing ours would neither
    /// take it out of the epoll set nor tell the client.
    fn part_with_shared(&self, connection: &mut Connection) {
        if connection.adopted || connection.stage == Stage::Moving {
            self.unwatch(connection);
        }
        if let (true, Some(socket)) = (connection.arriving, connection.socket()) {
            // The client may have left already.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }

    /// Closes a connection that did nothing wrong, and says when to come back: each a different
    /// time, so that they do not come as one.
    pub(in crate::worker) fn send_away(&self, key: Key, cause: Cause) {
        let jitter_ms = self.settings.config.reload_jitter.as_millis() as u64;
        let fd = self.table.borrow().get(key).and_then(|it| it.fd).map_or(0, Fd::as_u64);
        // The golden ratio spreads consecutive numbers.
        let share = fd.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.start_close(key, Close::until_later(cause, (share * jitter_ms) >> 32));
    }

    /// The client shut its end, or the network did.
    pub(in crate::worker) fn vanished(&self, key: Key) {
        let stage = self.table.borrow().get(key).map(|connection| connection.stage);
        match stage {
            Some(Stage::Head | Stage::Handshaking) => self.drop_pending(key),
            Some(_) => self.end(key, Close::because(Cause::ClientVanished)),
            None => {}
        }
    }
}

/// The close that a person asked for: a code that may not be sent becomes 1000, a long reason is
/// cut.
pub(in crate::worker) fn asked_close(code: u16, reason: &str, cause: Cause) -> Close {
    let code =
        if crate::close::code_may_be_sent(code) { code } else { Cause::HandlerClosed.code() };
    debug_assert_eq!(cause.initiator(), Initiator::Server);
    Close { code, reason: cut_reason(reason).to_owned(), cause }
}
