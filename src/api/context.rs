//! What a handler may ask of its worker.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Handle, Message, Opcode, ProcessEvent, ProcessId, ProcessState, Verdict};
use crate::fd::{Fd, Slot, WorkerId};

/// A future that stays on its worker.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What is known of a connection. Swoole's `getClientInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Info {
    /// The client's number.
    pub fd: Fd,
    /// The slot of the worker that serves it now.
    pub worker: Slot,
    /// The other end of the TCP connection as `address:port`, or `unix:`.
    pub peer: String,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: Option<IpAddr>,
    /// When it was opened, milliseconds since 1970.
    pub connected_at: u64,
    /// How long the client has sent nothing, in milliseconds. The answer to a ping of the
    /// server does not count.
    pub idle_ms: u64,
    /// Bytes received since it was opened, after the handshake.
    pub bytes_in: u64,
    /// Bytes sent since it was opened, after the handshake.
    pub bytes_out: u64,
    /// Whether it is plain HTTP so far, and no WebSocket.
    #[serde(default)]
    pub plain: bool,
    /// Which of the worker's application processes serves it, where that is known.
    #[serde(default)]
    pub process: Option<u16>,
}

impl Info {
    /// A connection of which no more is known: for tests.
    pub fn new(fd: Fd, worker: Slot) -> Info {
        Info {
            fd,
            worker,
            peer: String::new(),
            client: None,
            connected_at: 0,
            idle_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
            plain: false,
            process: None,
        }
    }
}

/// The worker as user code sees it. Implemented by the worker; a test may bring its own.
pub trait Reactor {
    /// Which worker process this is.
    fn worker(&self) -> WorkerId;
    /// How many slots serve.
    fn worker_num(&self) -> u16;
    /// See [`Context::push`].
    fn push(&self, fd: Fd, opcode: Opcode, data: &Bytes) -> Verdict;
    /// See [`Context::push_confirmed`].
    fn push_confirmed(&self, fd: Fd, message: Message) -> LocalFuture<Verdict>;
    /// See [`Context::broadcast`].
    fn broadcast(&self, message: Message, except: Option<Fd>);
    /// See [`Context::close`].
    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict;
    /// See [`Context::protect`].
    fn protect(&self, fd: Fd, on: bool) -> Verdict;
    /// See [`Context::info`].
    fn info(&self, fd: Fd) -> LocalFuture<Option<Info>>;
    /// See [`Context::connections`].
    fn connections(&self) -> LocalFuture<Vec<Info>>;
    /// See [`Context::send_to_worker`].
    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict;
    /// Sends bytes to the other process of this worker's slot, which there is during a reload.
    fn send_to_sibling(&self, data: Bytes) {
        let _ = data;
    }
    /// See [`Context::is_giving`].
    fn is_giving(&self) -> bool {
        false
    }
    /// See [`Context::room`].
    fn room(&self, fd: Fd) -> Option<usize> {
        let _ = fd;
        None
    }
    /// Runs a future on the worker's reactor.
    fn spawn(&self, future: LocalFuture<()>);
    /// Runs a job on the worker's blocking threads; the answer is `Err` if it panicked or the
    /// queue of jobs is full.
    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError>;
    /// Starts a process of the application. `descriptors`: its socket, its standard error, and
    /// its standard output unless that is to be the server's own.
    fn start_process(&self, id: ProcessId, descriptors: Vec<OwnedFd>);
    /// Ends a process of the application at once.
    fn kill_process(&self, id: ProcessId);
    /// Shows the process of a place in `status`; `None`: there is none.
    fn show_process(&self, place: u16, state: Option<ProcessState>) {
        let _ = (place, state);
    }
    /// What became of the processes, one event after the other. One caller at a time.
    fn process_event(&self) -> LocalFuture<ProcessEvent>;
}

/// Why a blocking job gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// Too many jobs wait already.
    Full,
    /// The job panicked.
    Panicked,
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TaskError::Full => "too many jobs wait for a task thread already",
            TaskError::Panicked => "the job panicked",
        })
    }
}

impl std::error::Error for TaskError {}

/// A handler's way to the rest of the server. Cheap to clone; keep as many as you like.
#[derive(Clone)]
pub struct Context {
    reactor: Rc<dyn Reactor>,
    states: Rc<RefCell<HashMap<TypeId, Rc<dyn Any>>>>,
}

impl Context {
    /// A context over a worker, or over a test's stand-in.
    pub fn new(reactor: Rc<dyn Reactor>) -> Context {
        Context { reactor, states: Rc::default() }
    }

    /// Which worker process this is.
    pub fn worker(&self) -> WorkerId {
        self.reactor.worker()
    }

    /// How many slots serve: `send_to_worker` takes 0 to one less than this.
    pub fn worker_num(&self) -> u16 {
        self.reactor.worker_num()
    }

    /// The slots that serve, in their order, this worker's among them.
    pub fn workers(&self) -> impl DoubleEndedIterator<Item = Slot> + Clone + use<> {
        Slot::first(self.worker_num())
    }

    /// This worker for other threads and runtimes: a handle that is `Send + Clone`. All handles
    /// of a worker share one queue.
    pub fn handle(&self) -> Handle {
        if let Some(handle) = self.state::<Handle>() {
            return (*handle).clone();
        }
        let handle = Handle::new(self);
        self.set_state(handle.clone());
        handle
    }

    /// Pushes a message to a client, wherever it is, without waiting. For a client of this
    /// worker the verdict is final; for any other it is `Relayed`, or `Full` where the lane to
    /// the manager is. Messages of one worker to one client arrive in the order of the calls.
    pub fn push(&self, fd: Fd, message: impl Into<Message>) -> Verdict {
        let Message { opcode, data } = message.into();
        self.push_shared(fd, opcode, &data)
    }

    /// As [`push`](Self::push), of bytes that stay the caller's, for instance to push them to
    /// many. The caller answers for the UTF-8 of a text.
    #[inline]
    pub fn push_shared(&self, fd: Fd, opcode: Opcode, data: &Bytes) -> Verdict {
        self.reactor.push(fd, opcode, data)
    }

    /// As [`push`](Self::push), but answers with the verdict of the worker that owns the client,
    /// or `Unknown` when none came within 5 seconds.
    pub fn push_confirmed(
        &self,
        fd: Fd,
        message: impl Into<Message>,
    ) -> impl Future<Output = Verdict> + 'static {
        self.reactor.push_confirmed(fd, message.into())
    }

    /// Pushes to every open connection of the server. Encoded once for each worker.
    pub fn broadcast(&self, message: impl Into<Message>) {
        self.reactor.broadcast(message.into(), None);
    }

    /// As [`broadcast`](Self::broadcast), leaving one client out.
    pub fn broadcast_except(&self, except: Fd, message: impl Into<Message>) {
        self.reactor.broadcast(message.into(), Some(except));
    }

    /// Closes a client's connection with a close frame, wherever it is. What was pushed before
    /// is sent first. A code that may not be sent (RFC 6455 section 7.4) becomes 1000, a reason
    /// over 123 bytes is cut. Swoole's `disconnect`.
    pub fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.reactor.close(fd, code, reason)
    }

    /// Whether `heartbeat_idle_time` leaves a client alone, wherever the client is. The mark stays
    /// on the connection over reloads until it is taken away. The verdict says whether the mark
    /// was set (`Queued`), is on its way to another worker (`Relayed`), or found nobody. Swoole's
    /// `protect`.
    pub fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.reactor.protect(fd, on)
    }

    /// What is known of a client; `None` when it is gone or no answer came within 5 seconds.
    pub fn info(&self, fd: Fd) -> impl Future<Output = Option<Info>> + 'static {
        self.reactor.info(fd)
    }

    /// Whether the client is still there. Swoole's `exist`.
    pub fn exists(&self, fd: Fd) -> impl Future<Output = bool> + 'static {
        let info = self.reactor.info(fd);
        async move { info.await.is_some() }
    }

    /// Every open connection of the server, in the order of their numbers.
    pub fn connections(&self) -> impl Future<Output = Vec<Info>> + 'static {
        self.reactor.connections()
    }

    /// Sends bytes, at most 16 MiB, to the handler of another worker (`on_worker_message`).
    /// Swoole's `sendMessage`.
    ///
    /// During a reload a slot is two processes, each with clients of its own, and the message
    /// reaches both. What is to be done once for a slot, and not for the clients of a process, is
    /// done by the one for which [`is_giving`](Self::is_giving) is false.
    pub fn send_to_worker(&self, to: Slot, data: impl Into<Bytes>) -> Verdict {
        self.reactor.send_to_worker(to, data.into())
    }

    /// Whether this process gives its clients to a newer one of its slot, in a reload, or is about
    /// to leave. From then on the newer process does what is done once for each slot.
    pub fn is_giving(&self) -> bool {
        self.reactor.is_giving()
    }

    /// How many bytes of messages may be queued for a client of this worker behind what waits for
    /// it already; `None` where this worker has no such client.
    pub fn room(&self, fd: Fd) -> Option<usize> {
        self.reactor.room(fd)
    }

    /// Runs a future on this worker's reactor, beside the connections.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.reactor.spawn(Box::pin(future));
    }

    /// Calls `f` once, after `delay`. Swoole's `after`.
    pub fn after(&self, delay: Duration, f: impl FnOnce() + 'static) -> Timer {
        let (timer, cancelled) = Timer::new();
        self.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => f(),
                _ = cancelled => {}
            }
        });
        timer
    }

    /// Calls `f` each `period` until the timer is cleared. Late ticks are skipped, not made up
    /// for. Swoole's `tick`.
    pub fn tick(&self, period: Duration, mut f: impl FnMut() + 'static) -> Timer {
        let (timer, mut cancelled) = Timer::new();
        let period = period.max(Duration::from_millis(1));
        self.spawn(async move {
            let mut interval =
                tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = interval.tick() => f(),
                    _ = &mut cancelled => break,
                }
            }
        });
        timer
    }

    /// Runs a blocking job on one of the worker's `task_threads`, and gives its result back on
    /// the reactor. Swoole's `task`.
    pub fn task<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, TaskError>> + 'static {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let queued = self.reactor.task(Box::new(move || {
            // A receiver that is gone only means that nobody waits for the result any more.
            let _ = sender.send(job());
        }));
        async move {
            queued?;
            receiver.await.map_err(|_| TaskError::Panicked)
        }
    }

    /// The worker itself, for handlers that start processes.
    pub fn reactor(&self) -> &Rc<dyn Reactor> {
        &self.reactor
    }

    /// Keeps a value for this worker, one of each type: a database pool opened in
    /// `on_worker_start`, say.
    pub fn set_state<T: 'static>(&self, value: T) {
        self.states.borrow_mut().insert(TypeId::of::<T>(), Rc::new(value));
    }

    /// The value kept by [`set_state`](Self::set_state).
    pub fn state<T: 'static>(&self) -> Option<Rc<T>> {
        self.states.borrow().get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }
}

/// A running timer. Dropping it lets the timer run on; `clear` ends it. Swoole's timer id.
pub struct Timer(Option<tokio::sync::oneshot::Sender<()>>);

impl Timer {
    fn new() -> (Timer, LocalFuture<()>) {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let cancelled = async move {
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        (Timer(Some(sender)), Box::pin(cancelled))
    }

    /// Ends the timer. Swoole's `clearTimer`.
    pub fn clear(mut self) {
        if let Some(sender) = self.0.take() {
            // The timer may have run out already, which is what was wanted.
            let _ = sender.send(());
        }
    }
}
