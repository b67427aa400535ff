//! The reactor: waits for the worker's own epoll set, and turns what it tells into calls.
//!
//! tokio watches the set through one descriptor. A turn takes the events that are there; each
//! connection gets at most one receive buffer of bytes read, and what all of them were pushed is
//! written once, at the turn's end, or at that of the next where it is much. The set is
//! level-triggered, so what a turn leaves unread comes again. Turn follows turn until the set
//! tells of nothing, or a batch is full and other tasks have theirs.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;

use super::Worker;
use super::connection::{Connection, Stage};
use super::table::Key;
use crate::api::Verdict;
use crate::close::{Cause, Close};
use crate::error::{Result, Subject};
use crate::ipc::scoreboard::Counter;
use crate::sys::{clock, socket};

/// The one receive buffer of a worker.
const RECEIVE_BYTES: usize = 128 * 1024;
/// What is read of it at once while much waits to be written: one message may add a write for
/// each client, and who asks meanwhile waits.
const CONGESTED_BYTES: usize = 8 * 1024;
/// Events until other tasks have their turn.
const BATCH: usize = 256;

/// Serves until the worker is told to leave.
pub(super) async fn run(worker: &Rc<Worker>, watched: AsyncFd<OwnedFd>) -> Result<()> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut events = vec![EpollEvent::empty(); BATCH];
    loop {
        let ready = poll_fn(|cx| {
            if worker.turn.has_work() {
                return Poll::Ready(Ok(None));
            }
            worker.turn.sleep(cx.waker());
            watched.poll_read_ready(cx).map_ok(Some)
        });
        let ready = ready.await.subject(|| "watch the epoll set".to_owned())?;
        // Whatever is queued in a turn is seen at its end: it need not wake us again.
        worker.turn.begin();
        let mut asks = ready.is_some();
        let mut room = BATCH;
        // What came while a turn was at work has its own turn next: to sleep and be woken for it
        // costs more than to ask once in vain. Other tasks wait for one batch at most.
        loop {
            asks |= worker.turn.take_rescan();
            let count = worker.take_turn(asks, &mut events[..room], &mut buffer)?;
            if worker.turn.is_leaving() {
                return Ok(());
            }
            room -= count;
            if count == 0 || room == 0 || worker.turn.waiting() > 0 {
                break;
            }
        }
        if room == 0 || worker.turn.waiting() > 0 {
            // Whoever woke us, there may be more.
            worker.turn.scan_again();
            tokio::task::yield_now().await;
        } else if let Some(mut ready) = ready {
            // Nothing is left, and what is new wakes tokio again.
            ready.clear_ready();
        }
    }
}

impl Worker {
    /// One turn: takes the events that are there, if the set is to be asked, and writes what was
    /// queued. The answer is how many there were.
    fn take_turn(
        self: &Rc<Self>,
        asks: bool,
        events: &mut [EpollEvent],
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.now_ms.set(clock::monotonic_ms());
        let mut count = 0;
        if asks {
            // Without a wait no signal interrupts it.
            let asked = self.epoll.wait(events, EpollTimeout::ZERO);
            count = asked.subject(|| "ask the epoll set".to_owned())?;
            self.begin_links();
            for event in &events[..count] {
                self.handle(*event, buffer);
            }
        }
        self.end_turn();
        Ok(count)
    }

    /// Handles one event. What it leaves undone the set tells again.
    fn handle(self: &Rc<Self>, event: EpollEvent, buffer: &mut [u8]) {
        let key = Key::from_u64(event.data());
        if key.version == 0 {
            return self.accept_some(key.index);
        }
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            if event.events().contains(EpollFlags::EPOLLOUT) {
                self.turn.flush_later(key, connection);
            }
            if !event.events().intersects(readable) {
                return;
            }
            if connection.busy || connection.held || connection.slowed {
                self.pause(key, connection, event.events());
                return;
            }
        }
        self.read(key, buffer);
    }

    /// Stops reading a connection whose handler is at work.
    fn pause(&self, key: Key, connection: &mut Connection, events: EpollFlags) {
        connection.paused = true;
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            // These are told whether one asks or not.
            self.unwatch(connection);
        } else {
            self.rewatch(key, connection);
        }
    }

    /// Reads a connection once.
    fn read(self: &Rc<Self>, key: Key, mut buffer: &mut [u8]) {
        if self.turn.is_congested() {
            buffer = &mut buffer[..CONGESTED_BYTES];
        }
        let (n, waits) = {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            let Some(socket) = connection.socket() else { return };
            match socket::read(socket, buffer) {
                Ok(n) => {
                    if n > 0 {
                        self.received(key, connection, n);
                    }
                    (n, connection.dirty)
                }
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => {
                    drop(table);
                    return self.vanished(key);
                }
            }
        };
        if n == 0 {
            return self.cut(key);
        }
        let before = self.turn.waiting();
        self.feed(key, &mut buffer[..n]);
        // Whoever waits to be written something, perhaps since a turn before, has its answer now.
        if self.turn.take_lone(before, key) || waits {
            self.flush(key);
        }
    }

    fn received(self: &Rc<Self>, key: Key, connection: &mut Connection, n: usize) {
        connection.pong_by = super::timers::NEVER;
        if connection.opened {
            connection.bytes_in += n as u64;
        }
        self.add(Counter::BytesIn, n as u64);
        if self.meters.counts_bytes() && connection.is_open() {
            self.meter(key, connection, 0, n as u64);
        }
    }

    /// The client has sent something that says more than that it is alive.
    #[inline]
    pub(super) fn heard(&self, key: Key, connection: &mut Connection) {
        let now = self.now_ms.get();
        if connection.received_at != now {
            connection.received_at = now;
            self.registry.received(key.index as usize, now);
        }
    }

    /// What bytes mean depends on where their connection stands.
    pub(super) fn feed(self: &Rc<Self>, key: Key, bytes: &mut [u8]) {
        let stage = self.table.borrow().get(key).map(|connection| connection.stage);
        match stage {
            Some(Stage::Head) => self.feed_head(key, bytes),
            Some(Stage::Handshaking) => self.keep_tail(key, bytes),
            Some(Stage::Open | Stage::Closing) => self.feed_frames(key, bytes),
            Some(Stage::Lingering) => self.linger_on(key),
            Some(Stage::Parting | Stage::Moving | Stage::Ended) | None => {}
        }
    }

    /// Keeps bytes aside until a handler has ended.
    pub(super) fn keep_tail(&self, key: Key, bytes: &[u8]) {
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.extra().tail.extend_from_slice(bytes);
            self.reckon(connection);
        }
    }

    /// The client shut its end, or the network did.
    pub(super) fn vanished(self: &Rc<Self>, key: Key) {
        let stage = self.table.borrow().get(key).map(|connection| connection.stage);
        match stage {
            Some(Stage::Head | Stage::Handshaking) => self.drop_pending(key),
            Some(_) => self.end(key, Close::because(Cause::ClientVanished)),
            None => {}
        }
    }

    /// Puts a connection into the epoll set.
    pub(super) fn watch(&self, key: Key, connection: &mut Connection) -> nix::Result<()> {
        let Some(socket) = connection.socket() else { return Ok(()) };
        self.epoll.add(socket, EpollEvent::new(connection.interest(), key.to_u64()))?;
        connection.deaf = false;
        Ok(())
    }

    /// Tells the epoll set what is of interest now.
    pub(super) fn rewatch(&self, key: Key, connection: &mut Connection) {
        if connection.deaf {
            // It fails only for want of kernel memory; the deadline of the connection ends it.
            let _ = self.watch(key, connection);
            return;
        }
        let Some(socket) = connection.socket() else { return };
        let mut event = EpollEvent::new(connection.interest(), key.to_u64());
        let _ = self.epoll.modify(socket, &mut event);
        self.turn.scan_again();
    }

    /// Takes a connection out of the epoll set.
    pub(super) fn unwatch(&self, connection: &mut Connection) {
        if let (false, Some(socket)) = (connection.deaf, connection.socket()) {
            // It is in the set, so this cannot fail.
            let _ = self.epoll.delete(socket);
        }
        connection.deaf = true;
    }

    /// A verdict that nobody waits for is still counted.
    #[inline]
    pub(super) fn count_verdict(&self, verdict: Verdict) -> Verdict {
        let counter = match verdict {
            Verdict::Queued => Counter::PushQueued,
            Verdict::Relayed => Counter::PushRelayed,
            Verdict::Full => Counter::PushFull,
            Verdict::Gone => Counter::PushGone,
            Verdict::TooBig => Counter::PushTooBig,
            Verdict::Unknown | Verdict::NoUser | Verdict::LocalOnly => return verdict,
        };
        self.add(counter, 1);
        verdict
    }
}
