//! How connections end: the close handshake, what follows it, and `on_close`.
//!
//! ```text
//! Open ─ start_close ─► Closing ─ their close ─► Parting ─ flushed ─► Ended ─► on_close
//!   ├─ their close, ours queued ─────────────────►┘                    ▲
//!   ├─ a fault ─► Lingering ─ their end, or 2 s of silence ─────────────┤
//!   └─ the network, a pong that never came ─────────────────────────────┘
//! ```

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use super::Worker;
use super::accept::tell_and_leave;
use super::connection::{Connection, Stage};
use super::dispatch::Panicked;
use super::head::{Reason, Refusal};
use super::table::Key;
use super::timers::{Tick, tick, ticks};
use crate::close::{Cause, Close, Initiator};
use crate::ipc::scoreboard::Counter;
use crate::websocket::frame;

/// How long a client has to answer a close frame: 5 s.
const CLOSE_TICKS: Tick = 5_000 / super::timers::TICK_MS as Tick;
/// How long a client that was answered for the last time may say nothing before it is closed upon
/// (RFC 9112 section 9.6): it may still be reading.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// How long what such a client still sends is thrown away in all, as by nginx.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

impl Worker {
    /// Closes an open connection from our side: a close frame, then up to 5 s for the client's.
    /// What was pushed before is sent first, unless the client is too slow for it.
    pub(super) fn start_close(self: &Rc<Self>, key: Key, close: Close) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if connection.is_open() {
            self.say_close(key, connection, close);
        }
    }

    /// As `start_close`, with the table borrowed already.
    pub(super) fn say_close(&self, key: Key, connection: &mut Connection, close: Close) {
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
    pub(super) fn closed_by_client(self: &Rc<Self>, key: Key, code: Option<u16>, reason: String) {
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

    /// Answers a client that does not come in, and leaves it time to read that.
    pub(super) fn refuse(
        self: &Rc<Self>,
        key: Key,
        status: u16,
        reason: Reason,
        why: &str,
        answer: &[u8],
    ) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        self.note_refusal(status, reason, why, connection.peer());
        if !self.lingers(connection) {
            if let Some(socket) = connection.socket() {
                tell_and_leave(socket, answer, true);
            }
            self.forget(&mut table, key);
            return;
        }
        self.queue_control(key, connection, answer);
        self.linger(key, connection);
    }

    /// Tells of a request that was refused.
    pub(super) fn note_refusal(
        &self,
        status: u16,
        reason: Reason,
        why: &str,
        peer: Option<SocketAddr>,
    ) {
        let peer = peer.map(tracing::field::display);
        // What an operator has to allow is told once where everybody looks.
        let policy = matches!(reason, Reason::Origin | Reason::Host);
        if policy && self.is_first(reason.counter()) {
            tracing::warn!(status, why, peer, "refused");
        } else {
            tracing::info!(status, why, peer, "refused");
        }
        self.add(Counter::Refused, 1);
        self.add(reason.counter(), 1);
    }

    /// Our last bytes go out, and what the client still sends is thrown away for a while.
    pub(super) fn linger(&self, key: Key, connection: &mut Connection) {
        connection.stage = Stage::Lingering;
        connection.extra().lingers_until = tick(self.now_ms.get()) + ticks(LONGEST);
        self.set_deadline(key, connection, ticks(SILENCE));
    }

    /// A client that is lingered for has sent something: it may not have read its answer, or may
    /// have one to get only now.
    pub(super) fn linger_on(&self, key: Key) {
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

    /// A client that has not asked for anything is closed without a word: a browser takes what it
    /// reads on a connection kept for later for the answer to its next request. The others are
    /// answered.
    pub(super) fn refuse_begun(self: &Rc<Self>, key: Key, refusal: Refusal) {
        let begun = self.table.borrow().get(key).is_some_and(Connection::has_begun);
        if begun { self.refuse_head(key, refusal) } else { self.drop_pending(key) }
    }

    /// The client says that nothing more comes.
    pub(super) fn cut(self: &Rc<Self>, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        match connection.stage {
            Stage::Head => {
                drop(table);
                self.refuse_begun(key, Refusal::cut());
            }
            // The answer is not written yet.
            Stage::Lingering if connection.outbox.is_some() => {
                connection.stage = Stage::Parting;
                connection.paused = true;
                self.rewatch(key, connection);
            }
            _ => {
                drop(table);
                self.vanished(key);
            }
        }
    }

    /// A client that left before it was in.
    pub(super) fn drop_pending(self: &Rc<Self>, key: Key) {
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
    pub(super) fn end(self: &Rc<Self>, key: Key, close: Close) {
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
        connection.deadline = super::timers::NEVER;
        connection.ping_at = super::timers::NEVER;
        connection.pong_by = super::timers::NEVER;
        connection.message_by = super::timers::NEVER;
        let lost = std::mem::take(&mut connection.frames).len()
            + connection.outbox.take().map_or(0, |outbox| outbox.messages());
        self.add(Counter::PushLost, lost as u64);
        let fd = connection.fd;
        self.leave_rooms(&mut table, key);
        if let Some(fd) = fd {
            table.unname(fd);
        }
        self.turn.finish_later(key);
    }

    /// Tells the handler that a connection has ended, once.
    pub(super) fn finish(self: &Rc<Self>, key: Key) {
        let (fd, close) = {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            // Whoever came and is not ours yet is told of when it is.
            if connection.busy || connection.arriving || connection.stage != Stage::Ended {
                return;
            }
            let close = connection.extra.as_mut().and_then(|extra| extra.close.take());
            let Some(fd) = connection.fd.filter(|_| connection.opened) else {
                self.forget(&mut table, key);
                return;
            };
            let close = close.unwrap_or_else(|| Close::because(Cause::ClientVanished));
            self.codec.borrow_mut().release(connection.engine.params());
            (fd, close)
        };
        tracing::info!(
            fd = fd.as_u64(),
            code = close.code,
            cause = close.cause.as_str(),
            reason = ?close.reason,
            "closed"
        );
        self.registry.closing(key.index as usize);
        self.board.sub(Counter::Connections, 1);
        self.add(Counter::Closed, 1);
        self.board.row.closed(close.cause);
        let handler = self.handler.clone();
        self.call(
            key,
            fd,
            "on_close",
            move |context| handler.on_close(context, fd, close),
            |worker, key, _: Result<(), Panicked>| {
                worker.registry.closed(key.index as usize);
                worker.forget(&mut worker.table.borrow_mut(), key);
                worker.left();
            },
        );
    }

    /// Ends what has passed the deadline of its stage.
    pub(super) fn past_deadline(self: &Rc<Self>, key: Key, stage: Stage) {
        match stage {
            Stage::Head => self.refuse_begun(key, Refusal::timeout()),
            // What `on_handshake` answers after this finds nobody.
            Stage::Handshaking => self.refuse_head(key, Refusal::undecided()),
            Stage::Open => self.send_away(key, Cause::MaxAge),
            Stage::Closing | Stage::Parting => {
                self.end(key, Close::because(Cause::ClientVanished));
            }
            Stage::Lingering => {
                let pending = self.table.borrow().get(key).is_some_and(|it| !it.opened);
                if pending {
                    self.forget(&mut self.table.borrow_mut(), key);
                } else {
                    self.end(key, Close::because(Cause::ProtocolError));
                }
            }
            Stage::Moving | Stage::Ended => {}
        }
    }

    /// Queues a frame of ours.
    pub(super) fn queue_control(&self, key: Key, connection: &mut Connection, bytes: &[u8]) {
        self.outbox(connection).add_control(bytes);
        if !connection.blocked {
            self.turn.flush_later(key, connection);
        }
    }

    fn set_deadline(&self, key: Key, connection: &mut Connection, time: Tick) {
        connection.ping_at = super::timers::NEVER;
        connection.pong_by = super::timers::NEVER;
        connection.message_by = super::timers::NEVER;
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
}

/// The close that a person asked for: a code that may not be sent becomes 1000, a long reason is
/// cut.
pub(super) fn asked_close(code: u16, reason: &str, cause: Cause) -> Close {
    let code =
        if crate::close::code_may_be_sent(code) { code } else { Cause::HandlerClosed.code() };
    let end = reason.floor_char_boundary(crate::close::REASON_BYTES_MAX);
    debug_assert_eq!(cause.initiator(), Initiator::Server);
    Close { code, reason: reason[..end].to_owned(), cause }
}
