//! The worker behind a handler's [`Context`](super::Context).

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::rooms::{Belongings, Call, Change, Member, PresenceList, Publish, Tally, Topic};
use super::{
    AppReport, Info, Message, Opcode, Payload, ProcessEvent, ProcessId, ProcessState, Verdict,
};
use crate::fd::{Fd, Slot, WorkerId};

/// A future that stays on its worker.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Who may be a [`Reactor`]: the worker, and stand-ins of tests within this repository.
mod sealed {
    /// See [`Reactor`](super::Reactor).
    pub trait Sealed {}
}
#[cfg(not(feature = "internals"))]
pub(crate) use sealed::Sealed;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use sealed::Sealed;

/// The worker as user code sees it: what a [`Context`](super::Context) asks. It grows with the
/// server, so nobody else implements it; the tests of handlers take a
/// [`FakeWorker`](super::testing::FakeWorker).
pub trait Reactor: Sealed {
    /// Which worker process this is.
    fn worker(&self) -> WorkerId;
    /// How many slots serve.
    fn worker_num(&self) -> u16;
    /// See [`Context::push`](super::Context::push).
    fn push(&self, fd: Fd, opcode: Opcode, data: &Payload<'_>) -> Verdict;
    /// See [`Context::push_confirmed`](super::Context::push_confirmed).
    fn push_confirmed(&self, fd: Fd, message: Message<'_>) -> LocalFuture<Verdict>;
    /// See [`Context::broadcast`](super::Context::broadcast).
    fn broadcast(&self, message: Message<'_>, except: Option<Fd>);
    /// See [`Context::close`](super::Context::close).
    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict;
    /// See [`Context::protect`](super::Context::protect).
    fn protect(&self, fd: Fd, on: bool) -> Verdict;
    /// See [`Context::change`](super::Context::change). A stand-in without rooms has no clients in
    /// them, and so on.
    fn change(&self, fd: Fd, change: Change) -> Verdict {
        let _ = (fd, change);
        Verdict::Gone
    }
    /// As [`change`](Self::change), and answers when what any worker publishes from then on finds
    /// the client in the topic that it joins; see
    /// [`Context::join_confirmed`](super::Context::join_confirmed).
    fn change_confirmed(&self, fd: Fd, change: Change) -> LocalFuture<Verdict> {
        Box::pin(std::future::ready(self.change(fd, change)))
    }
    /// What a client of this worker has; `None` where this worker has no such client.
    fn belongings(&self, fd: Fd) -> Option<Belongings> {
        let _ = fd;
        None
    }
    /// See [`Context::publish`](super::Context::publish).
    fn publish(&self, publish: Publish) -> Verdict {
        let _ = publish;
        Verdict::Relayed
    }
    /// See [`Context::publish_confirmed`](super::Context::publish_confirmed).
    fn publish_confirmed(&self, publish: Publish) -> LocalFuture<Result<Tally, Verdict>> {
        let _ = publish;
        Box::pin(std::future::ready(Ok(Tally::default())))
    }
    /// Asks all members for something but a publish or a list, and answers how many there were.
    /// `reason` is that of a close.
    fn count(&self, call: Call, reason: &str) -> LocalFuture<Tally> {
        let _ = (call, reason);
        Box::pin(std::future::ready(Tally::default()))
    }
    /// See [`Context::presence`](super::Context::presence).
    fn presence(&self, room: Topic) -> LocalFuture<Result<PresenceList, Verdict>> {
        let _ = room;
        Box::pin(std::future::ready(Ok(PresenceList::default())))
    }
    /// See [`Context::publish_here`](super::Context::publish_here).
    fn publish_here(&self, publish: Publish) -> Tally {
        let _ = publish;
        Tally::default()
    }
    /// See [`Context::members`](super::Context::members).
    fn members(&self, topic: Topic) -> LocalFuture<Vec<Member>> {
        let _ = topic;
        Box::pin(std::future::ready(Vec::new()))
    }
    /// Closes a connection, with the verdict of whoever has it.
    fn close_confirmed(&self, fd: Fd, code: u16, reason: &str) -> LocalFuture<Verdict> {
        let verdict = self.close(fd, code, reason);
        Box::pin(std::future::ready(verdict))
    }
    /// See [`Context::info`](super::Context::info).
    fn info(&self, fd: Fd) -> LocalFuture<Option<Info>>;
    /// See [`Context::connections`](super::Context::connections).
    fn connections(&self) -> LocalFuture<Vec<Info>>;
    /// See [`Context::send_to_worker`](super::Context::send_to_worker).
    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict;
    /// Sends bytes to the other process of this worker's slot, which there is during a reload.
    fn send_to_sibling(&self, data: Bytes) {
        let _ = data;
    }
    /// See [`Context::is_giving`](super::Context::is_giving).
    fn is_giving(&self) -> bool {
        false
    }
    /// See [`Context::queue_room`](super::Context::queue_room).
    fn queue_room(&self, fd: Fd) -> Option<usize> {
        let _ = fd;
        None
    }
    /// See [`Context::server_tick`](super::Context::server_tick): waits for the next tick of that
    /// timer. The answer is its number if this worker is to run it.
    fn server_tick(&self, name: &str, period: Duration) -> LocalFuture<Option<u64>> {
        let _ = (name, period);
        Box::pin(std::future::pending())
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
    /// Tells of the application's processes, for the metrics.
    fn report_app(&self, report: AppReport) {
        let _ = report;
    }
    /// What became of the processes, one event after the other. One caller at a time.
    fn process_event(&self) -> LocalFuture<ProcessEvent>;
}

/// Why a blocking job gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// 1,024 jobs wait for each of the `task_threads` already, or the worker has left.
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
