//! A worker as the manager sees it, with verbs for what the worker is told.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::liveness::Liveness;
use crate::api::rooms::{Member, Topic};
use crate::api::{Info, Verdict};
use crate::error::Result;
use crate::fd::WorkerId;
use crate::ipc::control::WorkerState;
use crate::ipc::link::{Lane, Link};
use crate::ipc::messages::{LinkId, ManagerToWorker, PassId, RequestId, WorkerRecord};
use crate::ipc::packet::Body;
use crate::ipc::registry::Registry;

/// Lists for one worker that are under way at the same time. While there are as many, nothing more
/// is read from that worker.
const LISTS_MAX: usize = 64;

/// Ranges of numbers that any worker may tell a manager.
const RANGES_MIN: usize = 1 << 18;

/// Ranges of numbers that a worker may tell whose registry has room for so many clients: one for
/// each that came from elsewhere, and another for those that are on their way.
fn ranges_max(capacity: usize) -> usize {
    RANGES_MIN.max(2 * capacity)
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not ready yet; `since` in monotonic milliseconds.
    Starting { since: u64 },
    /// Ready.
    Serving,
    /// Gives its connections to another.
    Handing,
    /// Has until then to leave, in monotonic milliseconds.
    Draining { until: u64 },
}

/// One worker process.
pub struct WorkerHandle {
    /// As the master told it.
    pub record: WorkerRecord,
    /// The way to it.
    pub link: Rc<Link>,
    /// Its open connections.
    pub registry: Rc<Registry>,
    /// What it does.
    pub phase: Phase,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Whether it has said what it owns.
    pub introduced: bool,
    /// Whether what it says of that is believed: it was there before this manager.
    pub may_claim: bool,
    /// Whether it has no clients any more and is about to exit.
    drained: bool,
    /// Whether it was told to be killed.
    pub killed: bool,
    /// Ranges of numbers that it has told.
    ranges_told: usize,
    /// The last number that it has told: the next range is above it.
    pub told_to: Option<u64>,
    /// Direct links to it that it has told.
    pub peers_told: usize,
    /// What allows its lists of connections, each while it is under way.
    pub lists: Rc<Semaphore>,
    /// Its pushes that were refused and not yet told.
    pub refused: u64,
    /// The tasks that read and flush its link.
    tasks: Vec<JoinHandle<()>>,
}

impl WorkerHandle {
    /// A worker the master told us of.
    pub fn new(record: WorkerRecord, link: Link, registry: Registry, now: u64) -> WorkerHandle {
        let may_claim = record.ready;
        let phase = if may_claim { Phase::Serving } else { Phase::Starting { since: now } };
        WorkerHandle {
            record,
            link: Rc::new(link),
            registry: Rc::new(registry),
            phase,
            liveness: Liveness::default(),
            introduced: false,
            may_claim,
            drained: false,
            killed: false,
            ranges_told: 0,
            told_to: None,
            peers_told: 0,
            lists: Rc::new(Semaphore::new(LISTS_MAX)),
            refused: 0,
            tasks: Vec::new(),
        }
    }

    /// Runs a task for as long as the handle lives.
    pub fn own_task(&mut self, task: JoinHandle<()>) {
        self.tasks.push(task);
    }

    /// Which.
    pub fn id(&self) -> WorkerId {
        self.record.id
    }

    /// Whether it can have clients: ready, or at least reading what it is sent.
    pub fn may_have_clients(&self) -> bool {
        !self.drained && (self.introduced || !matches!(self.phase, Phase::Starting { .. }))
    }

    /// Whether it is ready and not on its way out.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Handing)
    }

    /// What `status` says.
    pub fn state(&self) -> WorkerState {
        match self.phase {
            _ if self.liveness.is_hung() => WorkerState::Hung,
            Phase::Starting { .. } => WorkerState::Starting,
            Phase::Serving => WorkerState::Serving,
            Phase::Handing => WorkerState::Handing,
            Phase::Draining { .. } => WorkerState::Draining,
        }
    }

    /// Notes that it tells so many more ranges of numbers; false: more than any worker has.
    pub fn tells_ranges(&mut self, count: usize) -> bool {
        self.ranges_told += count;
        self.ranges_told <= self.ranges_max()
    }

    /// Ranges of numbers that it may tell.
    pub fn ranges_max(&self) -> usize {
        ranges_max(self.registry.capacity())
    }

    /// Asks for a sign of life.
    pub fn check_liveness(&self, number: u64) {
        self.tell(&ManagerToWorker::LivenessCheck(number));
    }

    /// Asks what it owns.
    pub fn who_are_you(&self, manager: u32) {
        self.tell(&ManagerToWorker::WhoAreYou { manager });
    }

    /// Has it send to another directly, by this end of a link.
    pub fn send_directly(&self, link: LinkId, to: WorkerId, end: OwnedFd) {
        let direct = ManagerToWorker::Direct { link, to };
        let sent = self.link.send(Lane::Control, &direct, Body::Inline(&[]), vec![end]);
        self.note(sent.map(|_| ()));
    }

    /// Has it send by us again.
    pub fn end_direct(&self, link: LinkId) {
        self.tell(&ManagerToWorker::EndDirect { link });
    }

    /// Another sends to it directly from here on. In the data lane, as what follows: behind what
    /// that had sent before.
    pub fn peer(&self, link: LinkId, from: WorkerId, end: OwnedFd) {
        self.insist(&ManagerToWorker::Peer { link, from }, Body::Inline(&[]), vec![end]);
    }

    /// It does no more.
    pub fn peer_left(&self, link: LinkId) {
        self.insist(&ManagerToWorker::PeerLeft { link }, Body::Inline(&[]), Vec::new());
    }

    /// Has it close clients that were silent for so long.
    pub fn sweep(&self, idle_ms: u64) {
        self.tell(&ManagerToWorker::Sweep { idle_ms });
    }

    /// Tells how many slots serve.
    pub fn worker_num(&self, worker_num: u16) {
        self.tell(&ManagerToWorker::WorkerNum(worker_num));
    }

    /// Tells what became of its push or close. In the control lane, since an answer may not be
    /// lost, but for one to a worker that leaves thousands of them unread. Whether it was queued.
    #[must_use]
    pub fn verdict(&self, id: RequestId, verdict: Verdict) -> bool {
        self.answer(&ManagerToWorker::Verdict { id, verdict })
    }

    /// Answers its question about a client. Whether the answer was queued.
    #[must_use]
    pub fn info(&self, id: RequestId, info: Option<Info>) -> bool {
        self.answer(&ManagerToWorker::InfoAnswer { id, info })
    }

    /// Passes the answer of one worker to its call on. Whether the answer was queued.
    #[must_use]
    pub fn tally(&self, id: RequestId, queued: u64, full: u64) -> bool {
        self.answer(&ManagerToWorker::Tally { id, queued, full })
    }

    /// Passes a part of a list on. Whether the answer was queued.
    #[must_use]
    pub fn members(&self, id: RequestId, part: Vec<Member>, last: bool) -> bool {
        self.answer(&ManagerToWorker::Members { id, part, last })
    }

    /// Passes a part of a list of rooms on. Whether the answer was queued.
    #[must_use]
    pub fn rooms(&self, id: RequestId, part: Vec<(Topic, u64)>, last: bool) -> bool {
        self.answer(&ManagerToWorker::Rooms { id, part, last })
    }

    /// Tells it how many workers are asked by its call.
    pub fn asked(&self, id: RequestId, workers: u32, refused: u32, last: bool) {
        // One that is lost is as the silence of a worker.
        self.answer(&ManagerToWorker::Asked { id, workers, refused, last });
    }

    /// It has no clients and is about to exit: it is asked nothing more, and told so behind all
    /// that it was asked.
    pub fn part(&mut self) {
        self.drained = true;
        self.insist(&ManagerToWorker::Farewell, Body::Inline(&[]), Vec::new());
    }

    /// Tells it that what it said of its members was read.
    pub fn noted(&self, number: u64) {
        self.answer(&ManagerToWorker::Noted { number });
    }

    /// Answers its question whether it is to run a timer. Whether the answer was queued.
    #[must_use]
    pub fn tick_answer(&self, id: RequestId, number: Option<u64>) -> bool {
        self.answer(&ManagerToWorker::TickAnswer { id, number })
    }

    /// Tells it something of other nodes, or what one of them has answered. An answer that is lost
    /// is as the silence of a node.
    pub fn tell_of_nodes(&self, message: &ManagerToWorker) {
        self.answer(message);
    }

    fn answer(&self, message: &ManagerToWorker) -> bool {
        self.link.answer(message).unwrap_or_else(|error| {
            tracing::error!(worker = %self.id(), %error, "an answer is lost");
            false
        })
    }

    /// Tells it what was refused since the last time.
    pub fn tell_refused(&mut self) {
        let count = std::mem::take(&mut self.refused);
        if count > 0 {
            self.tell(&ManagerToWorker::Refused { count });
        }
    }

    /// Has it stop accepting, since its connections are to move to `to`.
    pub fn hand_over(&mut self, to: WorkerId) {
        if !matches!(self.phase, Phase::Draining { .. }) {
            self.phase = Phase::Handing;
        }
        self.insist(&ManagerToWorker::HandOver { to }, Body::Inline(&[]), Vec::new());
    }

    /// Has it give a pass. In the data lane: pushes that were sent before must arrive before, while
    /// their clients are still there.
    pub fn give(&self, pass: PassId) {
        self.insist(&ManagerToWorker::Give { pass }, Body::Inline(&[]), Vec::new());
    }

    /// Gives it connections of a pass.
    pub fn adopt(
        &self,
        (pass, from): (PassId, WorkerId),
        fds: Vec<u64>,
        state: Body<'_>,
        sockets: Vec<OwnedFd>,
    ) {
        self.insist(&ManagerToWorker::Adopt { pass, from, fds }, state, sockets);
    }

    /// Asks it what it has of a pass.
    pub fn take(&self, pass: PassId) {
        self.insist(&ManagerToWorker::Take { pass }, Body::Inline(&[]), Vec::new());
    }

    /// Tells it what was taken of a pass that it gave. True if the kernel has that by now.
    pub fn settled(&self, pass: PassId, taken: Vec<u64>) -> bool {
        self.tell(&ManagerToWorker::Settled { pass, taken });
        self.link.hurry();
        self.link.is_flushed()
    }

    /// Tells it that what it has of a pass is its own.
    pub fn own(&self, pass: PassId) {
        self.insist(&ManagerToWorker::Own { pass }, Body::Inline(&[]), Vec::new());
    }

    /// Has it give what can still follow, close what is left then, and leave.
    pub fn drain(&mut self, jitter_ms: u64, deadline_ms: u64, until: u64) {
        if !matches!(self.phase, Phase::Draining { .. }) {
            self.phase = Phase::Draining { until };
        }
        let message = ManagerToWorker::Drain { jitter_ms, deadline_ms };
        self.insist(&message, Body::Inline(&[]), Vec::new());
    }

    fn tell(&self, message: &ManagerToWorker) {
        self.note(self.link.control(message));
    }

    fn insist(&self, message: &ManagerToWorker, body: Body<'_>, fds: Vec<OwnedFd>) {
        self.note(self.link.insist(message, body, fds));
    }

    /// Queueing fails only where a memfd cannot be made, for want of memory or descriptors.
    fn note(&self, queued: Result<()>) {
        if let Err(error) = queued {
            tracing::error!(worker = %self.id(), %error, "a message to a worker is lost");
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_tell_of_every_client_that_it_has_room_for() {
        for capacity in [64, 1_000_000, 1 << 24] {
            assert!(ranges_max(capacity) >= RANGES_MIN.max(capacity), "{capacity}");
        }
    }
}
