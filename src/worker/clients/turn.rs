//! The end of a turn: what its events have queued is written, and who ended is told of.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::Clients;
use super::broadcast_buffer::FrameRange;
use super::connection::{Connection, Stage};
use super::key::Key;
use super::outbox::Flushed;
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::Counter;
use crate::sys::socket;

/// How long a turn may write when many are to be written: who asks meanwhile waits.
const FLUSH_TIME: Duration = Duration::from_micros(200);
/// What may be written between two looks at the clock, in writes of few bytes.
const WRITES_BETWEEN_LOOKS: usize = 8;
/// The bytes that take as long as a write of few.
const WRITE_BYTES: usize = 8 * 1024;

/// How far a turn is with its writing.
#[derive(Default)]
pub(in crate::worker) struct Pace {
    /// Writes since it was looked at the clock.
    writes: usize,
    /// Until when it goes on, once it was looked at the clock.
    until: Option<Instant>,
}

impl Pace {
    fn wrote(&mut self, bytes: usize) {
        self.writes += 1 + bytes / WRITE_BYTES;
    }

    /// Whether more may be written in this turn.
    fn goes_on(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        if self.writes < WRITES_BETWEEN_LOOKS {
            return true;
        }
        self.writes = 0;
        let now = clock();
        now < *self.until.get_or_insert(now + FLUSH_TIME)
    }
}

/// What is to be done at the end of a turn.
#[derive(Default)]
pub(in crate::worker) struct Turn {
    pub dirty: RefCell<Vec<Key>>,
    pub ended: RefCell<Vec<Key>>,
    pub waker: RefCell<Option<Waker>>,
    rescan: Cell<bool>,
    /// Whether the last turn ended before all was written.
    pub congested: Cell<bool>,
    leaving: Cell<bool>,
}

impl Turn {
    /// Has a connection flushed at the end of the turn.
    #[inline]
    pub fn flush_later(&self, key: Key, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.borrow_mut().push(key);
            self.wake();
        }
    }

    /// Takes a connection off the list if it alone was put on it since there were `before`: it
    /// was answered and nobody else was told anything, so its answer need not wait for the end
    /// of the turn, when all of it would have left the processor's cache.
    pub fn take_lone(&self, before: usize, key: Key) -> bool {
        let mut dirty = self.dirty.borrow_mut();
        let lone = dirty.get(before..) == Some(&[key]);
        if lone {
            dirty.pop();
        }
        lone
    }

    /// Has a connection that has ended told to the handler.
    pub fn finish_later(&self, key: Key) {
        self.ended.borrow_mut().push(key);
        self.wake();
    }

    /// Has the epoll set asked again, though tokio tells nothing. A connection that is in the
    /// set's ready list wakes nobody when its interest changes.
    pub fn scan_again(&self) {
        self.rescan.set(true);
        self.wake();
    }

    /// Ends the reactor after this turn.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.wake();
    }

    pub fn has_work(&self) -> bool {
        !self.dirty.borrow().is_empty()
            || !self.ended.borrow().is_empty()
            || self.rescan.get()
            || self.leaving.get()
    }

    /// Whether the epoll set is to be asked again; once.
    pub fn take_rescan(&self) -> bool {
        self.rescan.take()
    }

    /// Whether the reactor ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether more is to be written than a turn has time for.
    pub fn is_congested(&self) -> bool {
        self.congested.get()
    }

    /// How many connections are to be flushed.
    pub fn waiting(&self) -> usize {
        self.dirty.borrow().len()
    }

    /// Has the reactor woken when there is work.
    pub fn sleep(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }

    /// Whatever is queued in a turn is seen at its end: it need not wake the reactor again.
    pub fn begin(&self) {
        self.waker.take();
    }

    /// The reactor runs after all tasks that are ready now, so what they push leaves together.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Clients {
    /// Flushes all that is to be, one after the other; whether that was done in time.
    pub(in crate::worker) fn flush_all(&self, pace: &mut Pace) -> bool {
        let mut dirty = self.turn.dirty.take();
        let mut done = 0;
        while done < dirty.len() && pace.goes_on(Instant::now) {
            pace.wrote(self.flush(dirty[done]));
            done += 1;
        }
        dirty.drain(..done);
        let all = dirty.is_empty();
        // Its memory serves the next turn, and what is left comes before what is new.
        let mut new = self.turn.dirty.borrow_mut();
        dirty.append(&mut new);
        *new = dirty;
        all
    }

    /// Gives a connection's outbox to the kernel; the answer is how many bytes it took.
    pub(in crate::worker) fn flush(&self, key: Key) -> usize {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return 0 };
        connection.dirty = false;
        if connection.stage == Stage::Moving {
            return 0;
        }
        if connection.outbox.is_none() && connection.frames.is_empty() {
            return 0;
        }
        let Ok(flushed) = self.write(connection) else {
            drop(table);
            self.end(key, Close::because(Cause::ClientVanished));
            return 0;
        };
        connection.bytes_out += flushed.bytes as i64;
        self.add(Counter::BytesOut, flushed.bytes as u64);
        if flushed.messages > 0 {
            self.add(Counter::MessagesOut, flushed.messages as u64);
        }
        if !flushed.blocked
            && let Some(outbox) = connection.outbox.take()
        {
            self.spares.borrow_mut().put(outbox);
        }
        if flushed.blocked != connection.blocked {
            connection.blocked = flushed.blocked;
            if let Some(outbox) = connection.outbox.as_mut().filter(|_| flushed.blocked) {
                outbox.blocked_at_ms = self.now_ms.get();
            }
            self.rewatch(key, connection);
        }
        if connection.blocked {
            return flushed.bytes;
        }
        match connection.stage {
            Stage::Parting => {
                drop(table);
                // How was decided when it began to part.
                self.end(key, Close::because(Cause::ClientVanished));
            }
            Stage::Lingering => {
                if let Some(socket) = connection.socket() {
                    socket::finish_writing(socket);
                }
            }
            _ => {}
        }
        flushed.bytes
    }

    /// Writes what waits for a connection: frames from the broadcast buffer, all else from its
    /// outbox.
    fn write(&self, connection: &mut Connection) -> nix::Result<Flushed> {
        let Connection { socket: Some(socket), outbox, frames, .. } = connection else {
            return Ok(Flushed::default());
        };
        let (socket, frames) = (socket.as_fd(), *frames);
        if let Some(outbox) = outbox {
            return outbox.flush(socket);
        }
        let buffer = self.broadcasts.borrow();
        let wire = buffer.bytes(frames);
        let bytes = match socket::write(socket, &[IoSlice::new(wire)]) {
            Err(nix::errno::Errno::EAGAIN) => 0,
            wrote => wrote?,
        };
        if bytes == wire.len() {
            connection.frames = FrameRange::default();
            return Ok(Flushed { bytes, messages: frames.len(), blocked: false });
        }
        let messages = self.outbox(connection).took(bytes);
        Ok(Flushed { bytes, messages, blocked: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_writes_little_without_a_clock_and_much_for_a_while() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let late = start + FLUSH_TIME;
        for _ in 0..WRITES_BETWEEN_LOOKS {
            assert!(pace.goes_on(|| unreachable!()));
            pace.wrote(WRITE_BYTES - 1);
        }
        let looks = [(start, true), (late - Duration::from_nanos(1), true), (late, false)];
        for (now, goes_on) in looks {
            assert_eq!(pace.goes_on(|| now), goes_on);
            assert!(pace.goes_on(|| unreachable!()));
            pace.wrote(WRITES_BETWEEN_LOOKS * WRITE_BYTES);
        }
    }
}
