//! Starts application processes, and again when they end. The master does the work; here is
//! what to ask of it and when.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use nix::fcntl::OFlag;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

use super::output;
use super::tail::Tail;
use crate::api::{Context, ProcessEvent, ProcessId};

/// How long a start that was not possible is put off.
const RETRY: Duration = Duration::from_secs(1);
/// How long the second death before READY in a row delays the next start; each further one
/// doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// How long a worker that leaves waits for what its processes print at their end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a process has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It handled `max_requests` events.
    MaxRequests,
    /// It holds more than `memory_limit`, so many bytes.
    Memory(u64),
    /// It finished no event within `event_timeout`.
    EventTimeout,
    /// It broke the protocol, as the text says.
    Protocol(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::MaxRequests => f.write_str("the process handled max_requests events"),
            Why::Memory(bytes) => write!(f, "the process holds {bytes} bytes, over memory_limit"),
            Why::EventTimeout => f.write_str("the process finished no event within event_timeout"),
            Why::Protocol(what) => write!(f, "the process broke the protocol: {what}"),
        }
    }
}

/// A process that runs, with our end of its socket.
#[derive(Debug)]
pub struct Started {
    /// Which one.
    pub id: ProcessId,
    /// Its pid.
    pub pid: u32,
    /// Our end.
    pub stream: UnixStream,
}

/// One place: who was started for it last, and how the ones before fared.
#[derive(Debug, Default)]
struct Place {
    epoch: u32,
    ready: bool,
    delay: Duration,
    /// Its process said that it ends, and the next is on its way.
    succeeded: bool,
    /// The process that stands by, or will.
    spare: Option<u32>,
}

/// How often processes that had been READY are started again: so many at once, and one more in
/// each [`Tokens::EVERY`].
#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
}

impl Tokens {
    const MOST: f64 = 16.0;
    const EVERY: Duration = Duration::from_millis(125);

    fn new() -> Tokens {
        Tokens { left: Tokens::MOST, at: Instant::now() }
    }

    /// Takes one; gives the time until there is one, which is then spoken for.
    fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed / Tokens::EVERY.as_secs_f64()).min(Tokens::MOST) - 1.0;
        if self.left >= 0.0 { Duration::ZERO } else { Tokens::EVERY.mul_f64(-self.left) }
    }
}

/// The processes of a worker, as far as starting goes.
pub struct Spawner {
    own_stdout: bool,
    /// No process is started any more.
    over: Cell<bool>,
    places: RefCell<HashMap<u16, Place>>,
    sockets: RefCell<HashMap<ProcessId, StdStream>>,
    tokens: RefCell<Tokens>,
    /// The worker waits for every place to have a process.
    starting: Cell<bool>,
    /// What processes printed that have not said READY.
    tails: RefCell<HashMap<ProcessId, Rc<Tail>>>,
    /// Why the application does not run.
    unfit: RefCell<Option<String>>,
    /// Kept by each task that logs what a process prints, and by us until no process is started.
    prints: RefCell<Option<mpsc::Sender<Infallible>>>,
    /// Ends when nobody keeps that.
    printed: RefCell<Option<mpsc::Receiver<Infallible>>>,
}

impl Spawner {
    /// With `own_stdout` the processes write to the server's standard output, else to the log.
    pub fn new(own_stdout: bool) -> Spawner {
        let (prints, printed) = mpsc::channel(1);
        Spawner {
            own_stdout,
            over: Cell::new(false),
            places: RefCell::default(),
            sockets: RefCell::default(),
            tokens: RefCell::new(Tokens::new()),
            starting: Cell::new(true),
            tails: RefCell::default(),
            unfit: RefCell::default(),
            prints: RefCell::new(Some(prints)),
            printed: RefCell::new(Some(printed)),
        }
    }

    /// Every place has a process that is ready. One that dies from here on is started again.
    pub fn started(&self) {
        self.starting.set(false);
    }

    /// Whether the worker waits for its processes still.
    pub fn is_starting(&self) -> bool {
        self.starting.get()
    }

    /// Why the application does not run, where one of its first processes ended unready.
    pub fn unfit(&self) -> Option<String> {
        self.unfit.borrow().clone()
    }

    /// Whether the application does not run.
    pub fn is_unfit(&self) -> bool {
        self.unfit.borrow().is_some()
    }

    /// A process is about to be ended, and why.
    pub fn blame(&self, id: ProcessId, why: &Why) {
        if let Some(tail) = self.tails.borrow().get(&id) {
            tail.blame(why.to_string());
        }
    }

    /// Starts a process that stands by for a place, unless there is one.
    pub fn start_spare(self: &Rc<Self>, ctx: &Context, place: u16) {
        {
            let mut places = self.places.borrow_mut();
            let state = places.entry(place).or_default();
            if state.spare.is_some() {
                return;
            }
            state.spare = Some(state.epoch + 1);
        }
        self.start(ctx, place);
    }

    /// Whether a process was started to stand by.
    pub fn is_spare(&self, id: ProcessId) -> bool {
        self.places.borrow().get(&id.place).is_some_and(|place| place.spare == Some(id.epoch))
    }

    /// A process that stood by has its place now.
    pub fn placed(&self, id: ProcessId) {
        if let Some(place) = self.places.borrow_mut().get_mut(&id.place) {
            place.spare = place.spare.filter(|epoch| *epoch != id.epoch);
            place.ready |= place.epoch == id.epoch;
        }
    }

    /// Starts a process for a place, whether there is one or not.
    pub fn start(self: &Rc<Self>, ctx: &Context, place: u16) {
        if self.over.get() {
            return;
        }
        let id = {
            let mut places = self.places.borrow_mut();
            let state = places.entry(place).or_default();
            state.epoch += 1;
            state.succeeded = false;
            state.ready = false;
            ProcessId { place, epoch: state.epoch }
        };
        match self.prepare(ctx, id) {
            Ok(descriptors) => ctx.reactor().start_process(id, descriptors),
            Err(error) => {
                tracing::error!(app = %id, %error, "cannot start an application process");
                // Descriptors come back when others end.
                self.start_later(ctx, place, RETRY, self.is_spare(id));
            }
        }
    }

    fn start_later(self: &Rc<Self>, ctx: &Context, place: u16, wait: Duration, spare: bool) {
        let (spawner, starter) = (self.clone(), ctx.clone());
        // Nobody clears it: the place stays empty until it has run.
        let _ = ctx.after(wait, move || {
            if spare {
                spawner.start_spare(&starter, place);
            } else {
                spawner.start(&starter, place);
            }
        });
    }

    /// Starts no process any more: those that end now are meant to.
    pub fn stop(&self) {
        self.over.set(true);
    }

    /// Waits until all that the processes print is logged, for a while. What a process has started
    /// and left running may have the pipe still.
    pub async fn printed(&self) {
        self.prints.take();
        let printed = self.printed.take();
        if let Some(mut printed) = printed {
            // However the wait ends, the worker leaves.
            let _ = tokio::time::timeout(LAST_WORDS, printed.recv()).await;
        }
    }

    /// Ends a process at once, if it still runs.
    pub fn kill(&self, ctx: &Context, id: ProcessId) {
        ctx.reactor().kill_process(id);
    }

    /// A process said READY.
    pub fn ready(&self, id: ProcessId) {
        self.heard(id);
        if let Some(place) = self.places.borrow_mut().get_mut(&id.place) {
            place.ready |= place.epoch == id.epoch;
        }
    }

    /// What a process prints is not kept any more.
    fn heard(&self, id: ProcessId) -> Option<Rc<Tail>> {
        let tail = self.tails.borrow_mut().remove(&id);
        tail.inspect(|tail| tail.forget())
    }

    /// What became of a process: a socket to serve where it runs; where it ended, the time to
    /// wait before the next, unless the next is there already.
    pub fn happened(&self, event: ProcessEvent) -> Happened {
        match event {
            ProcessEvent::Started { id, pid } => {
                let Some(socket) = self.sockets.borrow_mut().remove(&id) else {
                    return Happened::Nothing;
                };
                match UnixStream::from_std(socket) {
                    Ok(stream) => Happened::Started(Started { id, pid, stream }),
                    Err(error) => {
                        tracing::error!(app = %id, %error, "cannot watch an application's socket");
                        Happened::Nothing
                    }
                }
            }
            ProcessEvent::Exited { id, how } => {
                tracing::info!(app = %id, %how, "an application process ended");
                self.sockets.borrow_mut().remove(&id);
                let tail = self.tails.borrow_mut().remove(&id);
                match tail.filter(|_| self.starting.get() && !self.is_spare(id)) {
                    Some(tail) => Happened::Unfit(id, how, tail),
                    None => self.ended(id),
                }
            }
        }
    }

    fn ended(&self, id: ProcessId) -> Happened {
        let mut places = self.places.borrow_mut();
        let Some(place) = places.get_mut(&id.place) else { return Happened::Nothing };
        let stood_by = place.spare.take_if(|epoch| *epoch == id.epoch).is_some();
        // One that stands by, or will, takes the place; it is always followed by another.
        let followed = place.epoch != id.epoch || place.spare.is_some();
        if !stood_by && (followed || std::mem::replace(&mut place.succeeded, true)) {
            return Happened::Nothing;
        }
        if place.ready {
            place.delay = Duration::ZERO;
            let wait = self.tokens.borrow_mut().take(Instant::now());
            return Happened::Ended(id.place, wait, stood_by);
        }
        let wait = place.delay;
        place.delay = match wait {
            Duration::ZERO => FIRST_DELAY,
            delay => (delay * 2).min(LAST_DELAY),
        };
        Happened::Ended(id.place, wait, stood_by)
    }

    /// Starts the next process of a place whose process said that it ends.
    pub fn succeed(self: &Rc<Self>, ctx: &Context, id: ProcessId) {
        let happened = self.ended(id);
        self.follow(ctx, happened);
    }

    /// Starts what has to be started.
    fn follow(self: &Rc<Self>, ctx: &Context, happened: Happened) {
        match happened {
            Happened::Ended(place, Duration::ZERO, false) => self.start(ctx, place),
            Happened::Ended(place, Duration::ZERO, true) => self.start_spare(ctx, place),
            Happened::Ended(place, wait, spare) => {
                let wait_ms = wait.as_millis();
                tracing::warn!(place, wait_ms, "application processes end often; waiting a while");
                self.start_later(ctx, place, wait, spare);
            }
            _ => {}
        }
    }

    /// The descriptors of a new process: its socket, standard error and standard output.
    fn prepare(&self, ctx: &Context, id: ProcessId) -> io::Result<Vec<OwnedFd>> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut descriptors = vec![OwnedFd::from(theirs)];
        let tail = Rc::new(Tail::default());
        let streams: &[&str] = if self.own_stdout { &["stderr"] } else { &["stderr", "stdout"] };
        for stream in streams {
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let pipe = Receiver::from_owned_fd(reader)?;
            let (lines, prints) =
                (output::log_lines(pipe, id, stream, tail.writer()), self.prints.borrow().clone());
            ctx.spawn(async move {
                lines.await;
                drop(prints);
            });
            descriptors.push(writer);
        }
        self.sockets.borrow_mut().insert(id, ours);
        self.tails.borrow_mut().insert(id, tail);
        Ok(descriptors)
    }
}

/// What became of a process.
pub enum Happened {
    /// It runs; serve it.
    Started(Started),
    /// It ended; start another for that place after a while, which stands by if the last is true.
    Ended(u16, Duration, bool),
    /// It ended before it was ready, while the worker starts: how, and what it printed.
    Unfit(ProcessId, String, Rc<Tail>),
    /// Nothing is left to do.
    Nothing,
}

/// Starts the processes of all places, and again for ever; gives each to `serve`, and tells
/// `exited` of its end. Where the application does not run, `unfit` is called.
pub async fn supervise(
    spawner: Rc<Spawner>,
    ctx: Context,
    places: Vec<u16>,
    serve: impl Fn(Started) + 'static,
    exited: impl Fn(ProcessId) + 'static,
    unfit: impl Fn() + 'static,
) {
    places.into_iter().for_each(|place| spawner.start(&ctx, place));
    loop {
        let event = ctx.reactor().process_event().await;
        if let ProcessEvent::Exited { id, .. } = &event {
            exited(*id);
        }
        match spawner.happened(event) {
            Happened::Started(started) => serve(started),
            Happened::Unfit(id, how, tail) => {
                let why = tail.obituary(id, &how).await;
                spawner.unfit.borrow_mut().get_or_insert(why);
                spawner.stop();
                unfit();
            }
            other => spawner.follow(&ctx, other),
        }
    }
}
