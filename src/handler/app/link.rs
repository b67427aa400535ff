//! The socket to one application process: events out, commands in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::Notify;

use super::codec::{BODY_WINDOW, Broken, Kind, Packet, VERSION};
use super::packets::{WANTS_HAD, WANTS_PLAIN, WANTS_PRESENCE};
use super::shared::Shared;
use super::spawner::{Started, Why};
use crate::api::{Context, ProcessId, Timer, Verdict};
use crate::fd::Fd;

/// Questions of a process that may be open at once; while there are so many, the process is not
/// read. Fewer than a manager answers before it has to hear from the worker again.
const QUESTIONS_MAX: usize = 64;

/// Answers that may wait for a process that asks and does not read.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A question of a process, open until this is dropped.
pub struct Question(Rc<Link>);

impl Drop for Question {
    fn drop(&mut self) {
        let open = self.0.questions.get();
        self.0.questions.set(open - 1);
        if open == QUESTIONS_MAX {
            self.0.wake.notify_one();
        }
    }
}

/// What a process has sent waits until this is dropped.
pub struct Pause(Rc<Link>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.pauses.set(self.0.pauses.get() - 1);
        self.0.wake.notify_one();
    }
}

/// Our side of one process.
pub struct Link {
    pub id: ProcessId,
    pub pid: u32,
    pub shared: Rc<Shared>,
    /// Answers and control frames on their way out; events are encoded when there is space.
    pub(super) out: RefCell<BytesMut>,
    pub(super) wake: Notify,
    pub(super) handled: Cell<u64>,
    pub(super) refused_pushes: Cell<u64>,
    pub(super) replaced: Cell<bool>,
    /// It was told to shut down: its end is no surprise.
    pub(super) leaving: Cell<bool>,
    /// It stands by.
    pub(super) spare: Cell<bool>,
    pub(super) ended: Cell<bool>,
    /// Whether the process has exited. What it started and left running may have its socket still.
    pub(super) exited: Cell<bool>,
    /// Bytes of a payload that is too long and thrown away as it comes.
    pub(super) skip: Cell<usize>,
    /// What came beside frames, in their order.
    pub(super) descriptors: RefCell<VecDeque<OwnedFd>>,
    pub(super) ticker: RefCell<Option<Timer>>,
    pub(super) tick_waits: Rc<Cell<bool>>,
    pub(super) questions: Cell<usize>,
    pauses: Cell<usize>,
    pub(super) ctx: Context,
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
            exited: Cell::new(false),
            skip: Cell::new(0),
            descriptors: RefCell::default(),
            ticker: RefCell::new(None),
            tick_waits: Rc::default(),
            questions: Cell::new(0),
            pauses: Cell::new(0),
            ctx,
        };
        link.answer(link.hello());
        Rc::new(link)
    }

    /// Queues a frame that is no event.
    pub fn answer(&self, packet: Packet) {
        packet.encode(&mut self.out.borrow_mut());
        self.wake.notify_one();
    }

    /// Whether it takes another note: a process that does not read is sent no more of them.
    pub fn takes_notes(&self) -> bool {
        // Half of what costs a process its life: others send it notes.
        self.out.borrow().len() < ANSWER_BYTES_MAX / 2
    }

    /// Queues a VERDICT.
    pub fn verdict(&self, id: u32, code: u16) {
        self.verdict_on(id, code, 0);
    }

    /// Queues a VERDICT on a push, with the bytes that may be pushed to that client next.
    pub fn verdict_on(&self, id: u32, code: u16, fd: u64) {
        let room = Fd::try_from(fd).ok().and_then(|fd| self.ctx.queue_room(fd)).unwrap_or(0);
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
        let none = || Broken::Answer("no descriptor came with a frame that needs one".to_owned());
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

    /// The process has exited: what it has sent is read, and nothing more is waited for.
    pub fn exited(&self) {
        self.exited.set(true);
        self.wake.notify_one();
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
        let (place, shared) = (self.id.place, &self.shared);
        // What no process asks for is not made. What one asks for is kept from the others.
        shared.wants_presence.set(shared.wants_presence.get() || packet.fd & WANTS_PRESENCE != 0);
        shared.wants_had.set(shared.wants_had.get() || packet.fd & WANTS_HAD != 0);
        if self.spare.get() && self.shared.pool.borrow().is_ready(place) {
            self.shared.pool.borrow_mut().stands_by(self.id, packet.flags, packet.id);
            self.shared.pool.borrow_mut().asks(self.id, packet.fd);
            tracing::info!(app = %self.id, pid = self.pid, "the application process stands by");
            return Ok(());
        }
        self.place();
        self.shared.spawner.ready(self.id);
        self.shared.wants.set(Some(packet.flags));
        self.shared.wants_plain.set(packet.fd & WANTS_PLAIN != 0);
        let old = self.shared.pool.borrow_mut().ready(self.id, packet.flags, packet.id);
        self.shared.pool.borrow_mut().asks(self.id, packet.fd);
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
}

impl Link {
    /// Whether the process may ask more.
    pub fn may_ask(&self) -> bool {
        self.questions.get() < QUESTIONS_MAX && self.pauses.get() == 0
    }

    /// What the process sends from here on waits.
    pub fn pause(self: &Rc<Self>) -> Pause {
        self.pauses.set(self.pauses.get() + 1);
        Pause(self.clone())
    }

    /// The process asks what others answer.
    pub fn question(self: &Rc<Self>) -> Question {
        self.questions.set(self.questions.get() + 1);
        Question(self.clone())
    }
}
