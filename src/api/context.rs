//! What a handler may ask of its worker.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Handle, Message, Reactor, TaskError, Verdict};
use crate::fd::{Fd, Slot, WorkerId};

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
    /// The user it is bound to. Not in a list.
    #[serde(default)]
    pub uid: Option<String>,
    /// The first 128 of the rooms it is in. Not in a list.
    #[serde(default)]
    pub rooms: Vec<String>,
    /// What the application keeps of it, as JSON. Not in a list.
    #[serde(default)]
    pub session: Option<String>,
    /// Bytes that wait for it in the server, since the kernel takes no more.
    #[serde(default)]
    pub queued_bytes: u64,
    /// For how long something has been waiting, in milliseconds.
    #[serde(default)]
    pub queued_ms: u64,
    /// The round-trip time of its TCP connection in microseconds, as the kernel reckons it
    /// (TCP_INFO of tcp(7)); `None` where nobody looked, or over a Unix socket.
    #[serde(default)]
    pub rtt_us: Option<u32>,
    /// Segments that were sent and are not acknowledged.
    #[serde(default)]
    pub unacked: Option<u32>,
    /// Segments that were sent again since the connection was opened.
    #[serde(default)]
    pub retransmits: Option<u32>,
    /// The path of its request, without the query; empty where nobody looked.
    #[serde(default)]
    pub path: String,
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
            uid: None,
            rooms: Vec::new(),
            session: None,
            queued_bytes: 0,
            queued_ms: 0,
            rtt_us: None,
            unacked: None,
            retransmits: None,
            path: String::new(),
        }
    }
}

/// A handler's way to the rest of the server. Cheap to clone; keep as many as you like.
#[derive(Clone)]
pub struct Context {
    reactor: Rc<dyn Reactor>,
    states: Rc<RefCell<HashMap<TypeId, Rc<dyn Any>>>>,
    /// Of a message to the slot, until its handler has ended: whether this process is the one that
    /// acts.
    acts: Weak<bool>,
}

impl Context {
    /// A context over a worker, or over a test's stand-in.
    pub fn new(reactor: Rc<dyn Reactor>) -> Context {
        Context { reactor, states: Rc::default(), acts: Weak::new() }
    }

    /// This context for the handler of one message to the slot. In a reload two processes have
    /// the message, and the manager has said of one of them that it acts. That is good for clones
    /// too, for as long as `acts` is kept.
    pub(crate) fn of_message(&self, acts: &Rc<bool>) -> Context {
        Context { acts: Rc::downgrade(acts), ..self.clone() }
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
    /// A payload that is lent, as that of a frame or a `&str`, is copied where it has to wait.
    #[inline]
    pub fn push<'a>(&self, fd: Fd, message: impl Into<Message<'a>>) -> Verdict {
        let Message { opcode, data } = message.into();
        self.reactor.push(fd, opcode, &data)
    }

    /// As [`push`](Self::push), but answers with the verdict of the worker that owns the client,
    /// or `Unknown` when none came within 5 seconds.
    pub fn push_confirmed<'a>(
        &self,
        fd: Fd,
        message: impl Into<Message<'a>>,
    ) -> impl Future<Output = Verdict> + 'static {
        self.reactor.push_confirmed(fd, message.into())
    }

    /// Pushes to every open connection of the server, on every node of a cluster. Encoded once for
    /// each worker. There is no verdict: the clients of a worker whose lane is full (16 MiB) miss
    /// the message, as does a client whose queue is full, and both are counted. A message that is
    /// too big for a push reaches nobody.
    pub fn broadcast<'a>(&self, message: impl Into<Message<'a>>) {
        self.reactor.broadcast(message.into(), None);
    }

    /// As [`broadcast`](Self::broadcast), leaving one client out.
    pub fn broadcast_except<'a>(&self, except: Fd, message: impl Into<Message<'a>>) {
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

    /// What is known of a client, wherever it is; `None` when it is gone or no answer came within
    /// 5 seconds.
    pub fn info(&self, fd: Fd) -> impl Future<Output = Option<Info>> + 'static {
        self.reactor.info(fd)
    }

    /// Whether the client is still there, wherever it is; also false when no answer came within 5
    /// seconds. Swoole's `exist`.
    pub fn exists(&self, fd: Fd) -> impl Future<Output = bool> + 'static {
        let info = self.reactor.info(fd);
        async move { info.await.is_some() }
    }

    /// Every open connection of this server, in the order of their numbers; none of the other nodes
    /// of a cluster. Empty when no answer came within 5 seconds. The list is as long as there are
    /// connections, each with an [`Info`] that lacks what is said to be missing in a list.
    pub fn connections(&self) -> impl Future<Output = Vec<Info>> + 'static {
        self.reactor.connections()
    }

    /// Sends bytes, at most 16 MiB, to the handler of a worker (`on_worker_message`), this one too.
    /// Swoole's `sendMessage`.
    ///
    /// During a reload a slot is two processes, each with clients of its own, and the message
    /// reaches both: handlers that tell their own clients, and heed `freeze` and `on_attach`, tell
    /// each client once. What is to be done once for a slot, and not for the clients of a process,
    /// is done by the one for which [`is_giving`](Self::is_giving) is false.
    pub fn send_to_worker(&self, to: Slot, data: impl Into<Bytes>) -> Verdict {
        self.reactor.send_to_worker(to, data.into())
    }

    /// Whether this process gives its clients to a newer one of its slot, in a reload, or is about
    /// to leave. From then on the newer process does what is done once for each slot. In
    /// `on_worker_message` the answer is of that message: of the processes that get the message,
    /// one is told `false`. A clone that is kept beyond the end of the handler answers as any other
    /// context does.
    pub fn is_giving(&self) -> bool {
        self.acts.upgrade().map_or_else(|| self.reactor.is_giving(), |acts| !*acts)
    }

    /// How many bytes of messages may be queued for a client of this worker behind what waits for
    /// it already (`buffer_output_size` less that); `None` where this worker has no such client.
    pub fn queue_room(&self, fd: Fd) -> Option<usize> {
        self.reactor.queue_room(fd)
    }

    /// Runs a future on this worker's reactor, beside the connections. It ends with the worker's
    /// process, so also after a reload; a panic in it ends the future and nothing else.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.reactor.spawn(Box::pin(future));
    }

    /// Runs a blocking job on one of the worker's `task_threads`, and gives its result back on
    /// the reactor. Swoole's `task`.
    ///
    /// # Errors
    /// [`TaskError::Full`] while 1,024 jobs wait for each thread, [`TaskError::Panicked`] where the
    /// job did.
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

    /// The value kept by [`set_state`](Self::set_state), or made by
    /// [`Server::state`](crate::Server::state).
    ///
    /// # Panics
    /// If this worker keeps no value of that type.
    #[track_caller]
    pub fn expect_state<T: 'static>(&self) -> Rc<T> {
        let known = self.state();
        known.unwrap_or_else(|| {
            panic!("no state {}: `Server::state` makes it", std::any::type_name::<T>())
        })
    }

    /// The value kept by [`set_state`](Self::set_state); `None` if there is none of that type.
    pub fn state<T: 'static>(&self) -> Option<Rc<T>> {
        self.states.borrow().get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }
}
