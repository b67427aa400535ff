//! A worker's stand-in for the tests of handlers: it writes down what it was asked for.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use crate::api::{
    Context, Info, LocalFuture, Message, Opcode, ProcessEvent, ProcessId, Reactor, TaskError,
    Verdict,
};
use crate::fd::{Fd, Slot, WorkerId};

/// One thing the handler asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    Push(Fd, Message),
    Broadcast(Message),
    ToWorker(Slot, Bytes),
}

pub(crate) struct Fake {
    worker: WorkerId,
    worker_num: u16,
    sent: RefCell<Vec<Sent>>,
    spawned: RefCell<Vec<LocalFuture<()>>>,
}

impl Fake {
    pub(crate) fn new(slot: u8, epoch: u32, worker_num: u16) -> Rc<Fake> {
        Rc::new(Fake {
            worker: WorkerId { slot: Slot(slot), epoch },
            worker_num,
            sent: RefCell::default(),
            spawned: RefCell::default(),
        })
    }

    pub(crate) fn context(self: &Rc<Fake>) -> Context {
        Context::new(self.clone())
    }

    /// What was asked for since the last call.
    pub(crate) fn take(&self) -> Vec<Sent> {
        self.sent.take()
    }

    /// How many futures, timers among them, were spawned since the last call. They are dropped.
    pub(crate) fn spawned(&self) -> usize {
        self.spawned.take().len()
    }
}

impl Reactor for Fake {
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

    fn close(&self, _fd: Fd, _code: u16, _reason: &str) -> Verdict {
        Verdict::Gone
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
