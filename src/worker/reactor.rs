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

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;

use super::Worker;
use super::clients::Clients;
use crate::error::{Result, Subject};
use crate::ipc::messages::Purpose;
use crate::sys::{clock, socket};
use crate::worker::app::App;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::key::Key;

/// The one receive buffer of a worker.
const RECEIVE_BYTES: usize = 128 * 1024;
/// What is read of it at once while much waits to be written: one message may add a write for
/// each client, and who asks meanwhile waits.
const CONGESTED_BYTES: usize = 8 * 1024;
/// Events until other tasks have their turn.
const BATCH: usize = 256;
/// Newcomers that go before a crowd: who waits longer than most of them waits like anybody.
const NEWCOMERS: usize = 32;

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
        if room == 0 {
            worker.let_in(&mut buffer);
        }
        let api_waits = worker.api.begin_share();
        if room == 0 || worker.turn.waiting() > 0 || api_waits {
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

    /// Handles one event. What it leaves undone the set tells again: so the set is asked once more
    /// before a sleep, for an end may have come behind bytes that were few.
    fn handle(self: &Rc<Self>, event: EpollEvent, mut buffer: &mut [u8]) {
        let key = Key::from_u64(event.data());
        if key.version == 0 {
            return self.accept(key.index);
        }
        let app = &self.app;
        if app.turn.is_congested() {
            buffer = &mut buffer[..CONGESTED_BYTES];
        }
        match read(app, key, event.events(), buffer) {
            Read::Nothing => {}
            Read::Failed => app.vanished(key),
            Read::End => self.cut(key),
            Read::Bytes { n, stage, waits } => {
                let before = app.turn.waiting();
                match stage {
                    Stage::Open | Stage::Closing => app.feed_frames(key, &mut buffer[..n]),
                    _ => self.feed(key, &mut buffer[..n]),
                }
                // Whoever waits to be written something, perhaps since a turn before, has its
                // answer now.
                if app.turn.take_lone(before, key) || waits {
                    app.flush(key);
                }
            }
        }
    }

    /// Accepts who waits, and reads the heads of the newest. The set lists first who was ready
    /// first, so behind a crowd, such as thousands that leave at once, a newcomer would wait until
    /// all of the crowd have been handled, once to be accepted and once to be read.
    fn let_in(self: &Rc<Self>, buffer: &mut [u8]) {
        let listeners = self.listeners.borrow().of_clients();
        for index in listeners {
            self.accept_some(index);
        }
        for key in self.gate.admitted.newest(NEWCOMERS) {
            let is_pending = self.table.borrow().get(key).is_some_and(|it| it.pending);
            if is_pending {
                self.handle(EpollEvent::new(EpollFlags::EPOLLIN, key.to_u64()), buffer);
            }
        }
    }

    /// A listener is ready.
    fn accept(self: &Rc<Self>, index: u32) {
        let purpose = self.listeners.borrow().purpose(index);
        match purpose {
            Purpose::Api => self.accept_api(index),
            Purpose::Clients => self.accept_some(index),
        }
    }
}

/// What an event of a connection brought.
enum Read {
    Nothing,
    /// The connection is broken.
    Failed,
    /// The client has ended its side.
    End,
    /// So many bytes, of a connection at that stage. `waits`: it is to be flushed in this turn.
    Bytes {
        n: usize,
        stage: Stage,
        waits: bool,
    },
}

/// Reads a connection once, if the event tells of bytes and nothing stands against that.
fn read(app: &Rc<App>, key: Key, events: EpollFlags, buffer: &mut [u8]) -> Read {
    let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
    let mut table = app.table.borrow_mut();
    let Some(connection) = table.get_mut(key) else { return Read::Nothing };
    if events.contains(EpollFlags::EPOLLOUT) {
        app.turn.flush_later(key, connection);
    }
    if !events.intersects(readable) {
        return Read::Nothing;
    }
    if connection.busy || connection.held || connection.slowed {
        pause(app, key, connection, events);
        return Read::Nothing;
    }
    let Some(socket) = connection.socket() else { return Read::Nothing };
    match socket::read(socket, buffer) {
        Ok(0) => Read::End,
        Ok(n) => {
            app.received(key, connection, n);
            Read::Bytes { n, stage: connection.stage, waits: connection.dirty }
        }
        Err(Errno::EAGAIN) => Read::Nothing,
        Err(_) => Read::Failed,
    }
}

/// Stops reading a connection whose handler is at work.
fn pause(clients: &Clients, key: Key, connection: &mut Connection, events: EpollFlags) {
    connection.paused = true;
    if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
        // These are told whether one asks or not.
        clients.unwatch(connection);
    } else {
        clients.rewatch(key, connection);
    }
}
