//! The socket to one application process: events out, commands in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::ReadHalf;
use tokio::sync::Notify;

use super::codec::{BODY_WINDOW, Broken, Kind, Packet, VERSION, decode, decode_too_long};
use super::commands;
use super::rooms::WANTS_PRESENCE;
use super::shared::Shared;
use super::spawner::{Started, Why};
use crate::api::{Context, ProcessId, Timer, Verdict};
use crate::fd::Fd;
use crate::sys::packet;

/// What one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// Events are encoded until so much waits for the socket.
const WRITE_BYTES: usize = 64 << 10;
/// Descriptors that may have come before their frames.
const DESCRIPTORS_MAX: usize = 16;
/// Answers that may wait for a process that asks and does not read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Our side of one process.
pub struct Link {
    pub id: ProcessId,
    pub pid: u32,
    pub shared: Rc<Shared>,
    /// Answers and control frames on their way out; events are encoded when there is space.
    out: RefCell<BytesMut>,
    pub(super) wake: Notify,
    handled: Cell<u64>,
    refused_pushes: Cell<u64>,
    replaced: Cell<bool>,
    /// It was told to shut down: its end is no surprise.
    leaving: Cell<bool>,
    /// It stands by.
    spare: Cell<bool>,
    ended: Cell<bool>,
    /// Bytes of a payload that is too long and thrown away as it comes.
    skip: Cell<usize>,
    /// What came beside frames, in their order.
    descriptors: RefCell<VecDeque<OwnedFd>>,
    ticker: RefCell<Option<Timer>>,
    tick_waits: Rc<Cell<bool>>,
    pub(super) questions: Cell<usize>,
    ctx: Context,
}

impl Link {
    pub fn new(shared: Rc<Shared>, ctx: Context, started: &Started) -> Rc<Link> {
        let spare = shared.spawner.is_spare(started.id);
        let link = Link {
            id: started.id,
            pid: started.pid,
            shared,
            out: RefCell::default(),
            wake: Notify::new(),
            handled: Cell::new(0),
            refused_pushes: Cell::new(0),
            replaced: Cell::new(false),
            leaving: Cell::new(false),
            spare: Cell::new(spare),
            ended: Cell::new(false),
            skip: Cell::new(0),
            descriptors: RefCell::default(),
            ticker: RefCell::new(None),
            tick_waits: Rc::default(),
            questions: Cell::new(0),
            ctx,
        };
        link.answer(link.hello());
        Rc::new(link)
    }

    /// Serves until the process is gone. Gives the reason where it is our doing.
    pub async fn serve(self: &Rc<Self>, mut stream: UnixStream) -> Option<Why> {
        let (reader, mut writer) = stream.split();
        let mut buffer = vec![0; READ_BYTES];
        let mut input = BytesMut::new();
        let mut sending = BytesMut::with_capacity(WRITE_BYTES);
        loop {
            self.fill(&mut sending);
            if self.out.borrow().len() > ANSWER_BYTES_MAX {
                return Some(Why::Protocol("it asks much and reads nothing".to_owned()));
            }
            tokio::select! {
                biased;
                sent = writer.write(&sending), if !sending.is_empty() => match sent {
                    Ok(bytes) => sending.advance(bytes),
                    // The read says why, after it has given what the process sent before.
                    Err(_) => sending.clear(),
                },
                read = self.read(&reader, &mut buffer), if self.may_ask() => match read {
                    Ok(0) | Err(_) => return None,
                    Ok(len) => input.extend_from_slice(&buffer[..len]),
                },
                () = self.wake.notified() => {
                    if self.ended.get() {
                        return Some(Why::EventTimeout);
                    }
                }
            }
            if let Err(broken) = self.receive(&mut input) {
                return Some(Why::Protocol(broken.to_string()));
            }
        }
    }

    /// Waits for bytes, and takes descriptors that come beside them.
    async fn read(&self, reader: &ReadHalf<'_>, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            reader.readable().await?;
            let stream: &UnixStream = reader.as_ref();
            let read =
                stream.try_io(Interest::READABLE, || Ok(packet::receive(stream.as_fd(), buffer)?));
            match read {
                Ok(read) => {
                    let mut descriptors = self.descriptors.borrow_mut();
                    descriptors.extend(read.fds);
                    descriptors.truncate(DESCRIPTORS_MAX);
                    return Ok(read.len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues a frame that is no event.
    pub fn answer(&self, packet: Packet) {
        packet.encode(&mut self.out.borrow_mut());
        self.wake.notify_one();
    }

    /// Queues a VERDICT.
    pub fn verdict(&self, id: u32, code: u16) {
        self.verdict_on(id, code, 0);
    }

    /// Queues a VERDICT on a push, with the bytes that may be pushed to that client next.
    pub fn verdict_on(&self, id: u32, code: u16, fd: u64) {
        let room = Fd::try_from(fd).ok().and_then(|fd| self.ctx.room(fd)).unwrap_or(0);
        // Others may push to that client as well.
        let fd = room as u64 / 2;
        self.answer(Packet { id, code, fd, ..Packet::new(Kind::Verdict) });
    }

    /// Tells the process what the client took of an answer's body, or that nobody reads it.
    pub fn taken(&self, id: u32, bytes: usize, gone: bool) {
        let (code, fd) = (gone.into(), bytes as u64);
        self.answer(Packet { id, code, fd, ..Packet::new(Kind::Taken) });
    }

    /// The descriptor that came with the frame at hand.
    pub fn descriptor(&self) -> Result<OwnedFd, Broken> {
        let none = || Broken::Answer("no descriptor came with it".to_owned());
        self.descriptors.borrow_mut().pop_front().ok_or_else(none)
    }

    /// Tells the process to finish and exit.
    pub fn shut_down(&self, code: u16) {
        self.leaving.set(true);
        self.answer(Packet { code, ..Packet::new(Kind::Shutdown) });
        if self.id.place >= self.shared.settings.first_user_place() {
            // Its function may never look at the socket. Where it runs as another user, the signal
            // fails, and the master ends it with its worker.
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid as i32), Signal::SIGTERM);
        }
    }

    /// Whether it was told to shut down.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// END came: the process leaves by itself, and another takes its place.
    pub fn leaves(&self, packet: &Packet) {
        let why = if packet.code == 0 { "it ended its own run" } else { "a fatal error" };
        tracing::info!(app = %self.id, pid = self.pid, why, "the application process ends");
        self.leaving.set(true);
        {
            let mut pool = self.shared.pool.borrow_mut();
            pool.ended(self.id);
            let loss = pool.lost(self.id, false, self.shared.now_ms());
            drop(pool);
            self.shared.placed(loss.placed);
        }
        // It may take a while to exit, and its clients need not wait for that.
        self.shared.spawner.succeed(&self.ctx, self.id);
        self.shared.wake(self.id.place);
    }

    /// Ends the link, since the process finishes nothing.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake.notify_one();
    }

    /// READY came.
    pub fn ready(&self, packet: &Packet) -> Result<(), Broken> {
        if packet.code != VERSION {
            return Err(Broken::Version(packet.code));
        }
        let place = self.id.place;
        if self.spare.get() && self.shared.pool.borrow().is_ready(place) {
            self.shared.pool.borrow_mut().stands_by(self.id, packet.flags, packet.id);
            tracing::info!(app = %self.id, pid = self.pid, "the application process stands by");
            return Ok(());
        }
        self.place();
        self.shared.spawner.ready(self.id);
        self.shared.wants.set(Some(packet.flags));
        self.shared.wants_presence.set(packet.fd & WANTS_PRESENCE != 0);
        let old = self.shared.pool.borrow_mut().ready(self.id, packet.flags, packet.id);
        if let Some(old) = old {
            self.shared.relieve(old);
        }
        tracing::info!(app = %self.id, pid = self.pid, "the application process is ready");
        self.shared.changed.notify_waiters();
        self.shared.wake(place);
        Ok(())
    }

    /// The process has a place from now on: one that stood by is told, and another stands by.
    pub fn place(&self) {
        if self.spare.replace(false) {
            tracing::info!(
                app = %self.id, pid = self.pid,
                "the application process takes its place"
            );
            self.answer(Packet { body: self.facts(), ..Packet::new(Kind::Place) });
            self.shared.spawner.placed(self.id);
        }
        if self.id.place < self.shared.settings.spare {
            self.shared.spawner.start_spare(&self.ctx, self.id.place);
        }
    }

    /// The process finished `count` events.
    pub fn finished(&self, count: u64) {
        self.handled.set(self.handled.get() + count);
        self.tick_waits.set(false);
        self.shared.changed.notify_waiters();
        let settings = &self.shared.settings;
        let task = self.id.place >= settings.processes;
        let max = if task { settings.task_max_requests } else { settings.max_requests };
        if max > 0 && self.handled.get() >= max {
            self.replace(&Why::MaxRequests);
        }
    }

    /// Asks once for a process to take over from this one.
    pub fn replace(&self, why: &Why) {
        if !self.spare.get() && !self.replaced.replace(true) {
            tracing::info!(
                app = %self.id, pid = self.pid, %why,
                "the application process is to be replaced"
            );
            self.shared.spawner.start(&self.ctx, self.id.place);
        }
    }

    /// Sends TICK each `period`; zero ends it. A tick that was not handled yet is not repeated.
    pub fn every(&self, period: Duration) {
        if let Some(timer) = self.ticker.borrow_mut().take() {
            timer.clear();
        }
        if period.is_zero() {
            return;
        }
        let (shared, waits, id) = (self.shared.clone(), self.tick_waits.clone(), self.id);
        let timer = self.ctx.tick(period, move || {
            if shared.pool.borrow().process(id.place) == Some(id) && !waits.replace(true) {
                shared.queue(id.place, Packet::new(Kind::Tick));
            }
        });
        *self.ticker.borrow_mut() = Some(timer);
    }

    /// Ends the ticks.
    pub fn quiet(&self) {
        self.every(Duration::ZERO);
    }

    /// Counts a push nobody asked the verdict of.
    pub fn count_push(&self, fd: u64, verdict: Verdict) {
        if verdict.is_ok() {
            return;
        }
        let refused = self.refused_pushes.get() + 1;
        self.refused_pushes.set(refused);
        // A client that is gone is told of by CLOSE.
        if verdict != Verdict::Gone && refused.is_power_of_two() {
            tracing::warn!(app = %self.id, fd, %verdict, refused, "a push was refused");
        }
    }

    /// What STATS tells of this process and its worker.
    pub fn stats(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut stats = serde_json::Map::new();
        let pool = self.shared.pool.borrow();
        stats.insert("clients".to_owned(), pool.clients().into());
        stats.insert("events_queued".to_owned(), pool.events().into());
        stats.insert("events_handled".to_owned(), self.handled.get().into());
        stats.insert("pushes_refused".to_owned(), self.refused_pushes.get().into());
        stats
    }

    fn hello(&self) -> Packet {
        Packet { code: VERSION, body: self.facts(), ..Packet::new(Kind::Hello) }
    }

    fn facts(&self) -> Bytes {
        let settings = &self.shared.settings;
        let worker = self.ctx.worker();
        let facts = serde_json::json!({
            "server": concat!("wsd/", env!("CARGO_PKG_VERSION")),
            "worker": worker.slot.0,
            "worker_num": self.ctx.worker_num(),
            "epoch": worker.epoch,
            "process": self.id.place,
            "processes": settings.processes,
            "tasks": settings.task_processes,
            "users": settings.user_processes,
            "spare": self.spare.get(),
            "push_max": settings.push_max,
            "push_free": settings.push_free,
            "start": self.id.epoch.saturating_sub(1),
            "frame_max": settings.frame_max,
            "body_window": BODY_WINDOW,
            "window": settings.window,
            "master_pid": std::os::unix::process::parent_id(),
            "worker_pid": std::process::id(),
        });
        Bytes::from(facts.to_string())
    }

    /// Moves what waits to the write buffer.
    fn fill(&self, sending: &mut BytesMut) {
        if sending.len() < WRITE_BYTES {
            let mut out = self.out.borrow_mut();
            if !out.is_empty() {
                sending.extend_from_slice(&out);
                out.clear();
            }
        }
        if sending.len() < WRITE_BYTES {
            let now = self.shared.now_ms();
            let unwanted = self.shared.pool.borrow_mut().take(self.id, now, sending, WRITE_BYTES);
            for id in unwanted {
                self.shared.unwanted(id);
            }
        }
    }

    fn receive(self: &Rc<Self>, input: &mut BytesMut) -> Result<(), Broken> {
        while self.may_ask() {
            let skipped = self.skip.get().min(input.len());
            self.skip.set(self.skip.get() - skipped);
            input.advance(skipped);
            let packet = match decode(input, self.shared.settings.frame_max) {
                Ok(None) => return Ok(()),
                Ok(Some(packet)) => packet,
                Err(Broken::Length(bytes)) => {
                    let Some((packet, skip)) = decode_too_long(input) else { return Ok(()) };
                    self.skip.set(skip);
                    commands::wrong(self, &packet, Broken::Length(bytes))?;
                    continue;
                }
                Err(broken) => return Err(broken),
            };
            let head = packet.head();
            if let Err(broken) = commands::execute(self, &self.ctx, packet) {
                commands::wrong(self, &head, broken)?;
            }
        }
        Ok(())
    }
}
