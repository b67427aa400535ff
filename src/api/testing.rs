//! For the tests of handlers: a stand-in for the worker, which writes down what it was asked for.
//!
//! ```
//! use wsd::api::{Frame, Handler, Opcode};
//! use wsd::testing::{FakeWorker, Sent};
//!
//! let worker = FakeWorker::new(0, 1);
//! let client = worker.client(7);
//! wsd::handler::Echo.on_message(&worker.context(), Frame::new(client, Opcode::Text, "hello"));
//! assert_eq!(worker.take(), [Sent::Push(client, "hello".into())]);
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::{
    Context, Info, LocalFuture, Message, Opcode, ProcessEvent, ProcessId, Reactor, TaskError,
    Verdict,
};
use crate::fd::{Fd, Slot, WorkerId};

/// One thing the handler asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// A push to a client, confirmed or not.
    Push(Fd, Message),
    /// A broadcast, whoever it leaves out.
    Broadcast(Message),
    /// A message to another worker.
    ToWorker(Slot, Bytes),
    /// A close of a client, with its code and reason.
    Close(Fd, u16, String),
    /// Whether the sweep for idle clients is to leave a client alone.
    Protect(Fd, bool),
}

/// A worker that has no process, no sockets and no clients: each push is `queued`, each client
/// that is asked about is unknown, and a blocking job runs at once in the caller's thread.
pub struct FakeWorker {
    worker: WorkerId,
    worker_num: u16,
    sent: RefCell<Vec<Sent>>,
    spawned: RefCell<Vec<LocalFuture<()>>>,
}

impl FakeWorker {
    /// The first worker of a slot, in a server of `worker_num` workers.
    pub fn new(slot: u8, worker_num: u16) -> Rc<FakeWorker> {
        FakeWorker::of(WorkerId { slot: Slot(slot), epoch: 1 }, worker_num)
    }

    /// A worker of that identity.
    pub fn of(worker: WorkerId, worker_num: u16) -> Rc<FakeWorker> {
        Rc::new(FakeWorker {
            worker,
            worker_num,
            sent: RefCell::default(),
            spawned: RefCell::default(),
        })
    }

    /// What a handler of this worker is given.
    pub fn context(self: &Rc<FakeWorker>) -> Context {
        Context::new(self.clone())
    }

    /// What was asked for since the last call.
    pub fn take(&self) -> Vec<Sent> {
        self.sent.take()
    }

    /// How many futures, timers among them, were spawned since the last call. They are dropped.
    pub fn spawned(&self) -> usize {
        self.spawned.take().len()
    }

    /// Polls what was spawned until nothing of it goes on by itself. What waits for a timer or
    /// another thread is kept for the next call.
    pub fn run(&self) {
        let mut waiting = Vec::new();
        loop {
            let spawned = self.spawned.take();
            if spawned.is_empty() {
                break;
            }
            for mut future in spawned {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                if future.as_mut().poll(&mut context).is_pending() {
                    waiting.push(future);
                }
            }
        }
        self.spawned.replace(waiting);
    }

    /// The number of a client that this worker's slot opened.
    ///
    /// # Panics
    /// If the serial is 0 or above [`SERIAL_MAX`](crate::fd::SERIAL_MAX).
    #[expect(clippy::expect_used, reason = "a test's wrong number is the test's fault")]
    pub fn client(&self, serial: u64) -> Fd {
        Fd::new(0, self.worker.slot, serial).expect("a serial is 1 to SERIAL_MAX")
    }
}

impl Reactor for FakeWorker {
    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn worker_num(&self) -> u16 {
        self.worker_num
    }

    fn push(&self, fd: Fd, opcode: Opcode, data: &Bytes) -> Verdict {
        let message = Message { opcode, data: data.clone() };
        self.sent.borrow_mut().push(Sent::Push(fd, message));
        Verdict::Queued
    }

    fn push_confirmed(&self, fd: Fd, message: Message) -> LocalFuture<Verdict> {
        let verdict = self.push(fd, message.opcode, &message.data);
        Box::pin(std::future::ready(verdict))
    }

    fn broadcast(&self, message: Message, _except: Option<Fd>) {
        self.sent.borrow_mut().push(Sent::Broadcast(message));
    }

    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.sent.borrow_mut().push(Sent::Close(fd, code, reason.to_owned()));
        Verdict::Queued
    }

    fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.sent.borrow_mut().push(Sent::Protect(fd, on));
        Verdict::Queued
    }

    fn info(&self, _fd: Fd) -> LocalFuture<Option<Info>> {
        Box::pin(std::future::ready(None))
    }

    fn connections(&self) -> LocalFuture<Vec<Info>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict {
        self.sent.borrow_mut().push(Sent::ToWorker(to, data));
        Verdict::Relayed
    }

    fn spawn(&self, future: LocalFuture<()>) {
        self.spawned.borrow_mut().push(future);
    }

    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError> {
        job();
        Ok(())
    }

    fn start_process(&self, _: ProcessId, _: Vec<std::os::fd::OwnedFd>) {}

    fn kill_process(&self, _: ProcessId) {}

    fn process_event(&self) -> LocalFuture<ProcessEvent> {
        Box::pin(std::future::pending())
    }
}
