//! Handing connections over to the worker that follows, cut off at any byte.
//!
//! The manager asks for one pass after the other. A pass is short: nobody is waited for in it, and
//! all its connections are taken out at once. They go in batches of state and descriptors through
//! the manager, and our own descriptors stay open until it says which of them the new worker has
//! ([`super::take_back`]). What is away is known to [`Transit`](crate::ipc::transit::Transit).

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Moving;
use super::snapshot::Snapshot;
use super::take_back::Batch;
use crate::close::{Cause, Close};
use crate::error::Result;
use crate::fd::{Fd, WorkerId};
use crate::ipc::messages::{Left, PassId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::sys::point;
use crate::worker::base::phase::Phase;
use crate::worker::base::ticks::NEVER;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::key::Key;

/// Connections of a pass, bytes of state and time after which it ends: some milliseconds for those
/// who wait for its end.
const PASS_FDS: usize = 1024;
const PASS_BYTES: usize = 2 * 1024 * 1024;
const PASS_TIME: Duration = Duration::from_millis(10);
/// Bytes of state after which a batch is sent.
const BATCH_BYTES: usize = 256 * 1024;
/// How long handlers that run are waited for; their connections are held meanwhile. Whose handler
/// runs longer stays.
const HANDLER_TIME: Duration = Duration::from_secs(2);
/// Until a pass is tried again for which there was no descriptor.
const DESCRIPTOR_TIME: Duration = Duration::from_millis(50);

/// What this worker gives.
#[derive(Default)]
pub(in crate::worker) struct Handover {
    /// Until when handlers are waited for: from the first pass on.
    patience: Option<Instant>,
    /// Whose handler runs. They are held, so that they come to rest.
    pub held: Vec<Key>,
    /// The batches of the pass that is away.
    pub away: Vec<Batch>,
    /// How often somebody was waited for to come to rest; the last counts.
    waits: u32,
    pub moved: u64,
}

/// A connection that can move, and what its handler keeps of it.
struct Ready {
    key: Key,
    fd: Fd,
    frozen: Option<bytes::Bytes>,
    /// A duplicate of its descriptor, to be sent.
    socket: OwnedFd,
    /// About how many bytes its state has.
    bytes: usize,
}

/// What becomes of a connection when it is asked to move.
enum MoveOutcome {
    Moves,
    /// Its handler runs.
    Waits,
    Stays(&'static str),
    /// It is about to be gone by itself.
    Ends,
    /// There is no descriptor to send it with.
    NoDescriptor,
}

/// What was found to move.
#[derive(Default)]
struct Found {
    ready: Vec<Ready>,
    busy: Vec<Key>,
    /// The pass was full before all were asked.
    more: bool,
    no_descriptor: bool,
}

impl Moving {
    /// The manager says that all is to be handed over, and will ask for passes. Which worker takes
    /// them is the manager's affair.
    pub(in crate::worker) fn hand_over(self: &Rc<Self>, to: WorkerId) {
        if let Err(error) = self.set_accepting(false) {
            tracing::error!(%error, "cannot stop accepting");
        }
        if self.phase.get() == Phase::Serving {
            self.enter(Phase::HandedOver);
        }
        self.stop_http.send_replace(true);
        tracing::info!(to = %to, "handing over");
        point::reached("old-is-told");
        self.say_in_order(&WorkerToManager::CanGive);
    }

    /// The manager asks for a pass.
    pub(in crate::worker) fn give(self: &Rc<Self>, pass: PassId) {
        if !self.transit.borrow_mut().give(pass) {
            return tracing::error!(pass, "a pass was asked for before the last was over");
        }
        let deadline = *self
            .handover
            .borrow_mut()
            .patience
            .get_or_insert_with(|| Instant::now() + HANDLER_TIME);
        let is_patient = Instant::now() < deadline;
        point::reached("old-is-asked");
        let Found { ready, busy, more, no_descriptor } = self.find_ready(is_patient);
        let gives = !ready.is_empty();
        self.send_pass(pass, ready);
        let left = match () {
            () if more && (gives || !no_descriptor) => Left::More,
            () if more || (is_patient && !busy.is_empty()) => Left::Busy,
            () => Left::Nothing,
        };
        let waits = {
            let mut handover = self.handover.borrow_mut();
            handover.waits += 1;
            handover.waits
        };
        match left {
            Left::More => {}
            Left::Busy => self.wait_for_rest(busy, no_descriptor, deadline, waits),
            Left::Nothing => {
                self.release_held();
                self.say_stays();
                self.watch_stragglers(busy, waits);
                let moved = self.handover.borrow().moved;
                tracing::info!(moved, "all is given that can move");
            }
        }
        self.transit.borrow_mut().gave();
        self.say_in_order(&WorkerToManager::Gave { pass, left });
        self.link.hurry();
        point::reached("old-has-given");
    }

    /// Asks connections whether they can move, until the pass is full.
    fn find_ready(self: &Rc<Self>, is_patient: bool) -> Found {
        let (mut found, mut bytes, began) = (Found::default(), 0, std::time::Instant::now());
        // Who leaves closes its clients itself.
        let leaves = self.phase.get() == Phase::Leaving;
        for key in self.keys(|_| !leaves) {
            let is_full = found.ready.len() >= PASS_FDS
                || bytes >= PASS_BYTES
                || (!found.ready.is_empty() && began.elapsed() >= PASS_TIME);
            if is_full {
                found.more = true;
                break;
            }
            match self.prepare(key) {
                Ok(one) => {
                    bytes += one.bytes;
                    found.ready.push(one);
                }
                Err(MoveOutcome::Waits) => {
                    if is_patient {
                        self.hold(key);
                    }
                    found.busy.push(key);
                }
                Err(MoveOutcome::NoDescriptor) => {
                    (found.more, found.no_descriptor) = (true, true);
                    break;
                }
                Err(_) => {}
            }
        }
        found
    }

    /// Takes connections out, all at once, and sends them.
    fn send_pass(self: &Rc<Self>, pass: PassId, ready: Vec<Ready>) {
        let mut batches = vec![(Batch::default(), Vec::new())];
        for one in ready {
            let is_full = |(batch, _): &(Batch, Vec<OwnedFd>)| {
                batch.fds.len() == self.gate.batch_max || batch.state.len() >= BATCH_BYTES
            };
            if batches.last().is_none_or(is_full) {
                batches.push((Batch::default(), Vec::new()));
            }
            if let Some((batch, sockets)) = batches.last_mut() {
                self.freeze(one, batch, sockets);
            }
        }
        for (batch, sockets) in batches.into_iter().filter(|(batch, _)| !batch.fds.is_empty()) {
            let fds: Vec<u64> = batch.fds.iter().map(|fd| fd.as_u64()).collect();
            for &fd in &fds {
                self.transit.borrow_mut().gives(fd);
            }
            let moving = WorkerToManager::Moving { pass, fds };
            if let Err(error) = self.link.insist(&moving, Body::Inline(&batch.state), sockets) {
                // The new worker will not have them, so they come back.
                tracing::error!(%error, "a batch of connections was not sent");
            }
            let mut handover = self.handover.borrow_mut();
            handover.moved += batch.fds.len() as u64;
            handover.away.push(batch);
            // Each batch's duplicates are closed when the kernel has it.
            self.link.hurry();
            point::reached("old-has-given-a-batch");
        }
    }

    /// Whether a connection can move now.
    fn move_outcome(&self, key: Key) -> MoveOutcome {
        let table = self.table.borrow();
        let Some(connection) = table.get(key) else { return MoveOutcome::Ends };
        match connection.stage {
            Stage::Head | Stage::Open | Stage::Handshaking
                if connection.busy || connection.arriving =>
            {
                MoveOutcome::Waits
            }
            Stage::Head | Stage::Open => MoveOutcome::Moves,
            Stage::Closing | Stage::Parting => MoveOutcome::Stays("the connection closes"),
            Stage::Handshaking | Stage::Lingering | Stage::Moving | Stage::Ended => {
                MoveOutcome::Ends
            }
        }
    }

    /// Asks whether a connection can move now, and its handler what to keep of it.
    fn prepare(self: &Rc<Self>, key: Key) -> Result<Ready, MoveOutcome> {
        // What the kernel takes now need not travel.
        self.flush(key);
        let MoveOutcome::Moves = self.move_outcome(key) else {
            return Err(self.move_outcome(key));
        };
        let fd = self.table.borrow().get(key).and_then(|it| it.fd);
        // A request that is being read gets its number early, to be named by on the way.
        let fd = fd.or_else(|| self.next_fd()).ok_or(MoveOutcome::Ends)?;
        if self.under_way(key).is_some() {
            return Err(MoveOutcome::Waits);
        }
        let socket = {
            let table = self.table.borrow();
            let socket = table.get(key).and_then(|it| it.socket.as_ref());
            socket.ok_or(MoveOutcome::Ends)?.try_clone().map_err(|_| MoveOutcome::NoDescriptor)?
        };
        let frozen = self.freeze_handler(key, fd);
        let bytes = self.table.borrow().get(key).map_or(0, |it| self.bytes_to_move(it))
            + frozen.as_ref().map_or(0, bytes::Bytes::len);
        Ok(Ready { key, fd, frozen, socket, bytes })
    }

    /// About how many bytes of a connection travel, but for what its handler keeps.
    fn bytes_to_move(&self, connection: &Connection) -> usize {
        const ROOM_BYTES: usize = 17;
        let rooms = self.rooms.table.borrow();
        let topics = rooms.topics_of(&connection.memberships);
        let names = topics.map(|topic| topic.as_str().len() + ROOM_BYTES);
        connection.state_bytes() + names.sum::<usize>()
    }

    /// Takes a connection's state out and adds it to the batch. No handler runs between the first
    /// of a pass and the last: whatever is sent to all has reached each of them, or none.
    fn freeze(self: &Rc<Self>, ready: Ready, batch: &mut Batch, sockets: &mut Vec<OwnedFd>) {
        let Ready { key, fd, frozen, socket, .. } = ready;
        // A handler that was asked since may have closed it.
        let MoveOutcome::Moves = self.move_outcome(key) else { return };
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        let params = connection.engine.params();
        if !connection.frames.is_empty() {
            // A handler broadcast something just now.
            self.outbox(connection);
        }
        let topics = self.topics_of(connection);
        let Some(snapshot) = Snapshot::take(connection, frozen, topics) else { return };
        if let Err(error) = snapshot.pack(&mut batch.state) {
            tracing::error!(fd = fd.as_u64(), %error, "a connection cannot move");
            drop(table);
            self.end(key, Close::because(Cause::ServerDrain));
            return;
        }
        self.unwatch(connection);
        connection.fd = Some(fd);
        connection.stage = Stage::Moving;
        connection.outbox = None;
        (connection.deadline, connection.ping_at) = (NEVER, NEVER);
        (connection.pong_by, connection.message_by) = (NEVER, NEVER);
        self.no_longer_pending(connection);
        table.unname(fd);
        self.codec.borrow_mut().release(params);
        batch.fds.push(fd);
        batch.keys.push(key);
        sockets.push(socket);
    }

    /// What the handler keeps of an open connection. A panic keeps nothing.
    fn freeze_handler(&self, key: Key, fd: Fd) -> Option<bytes::Bytes> {
        self.table.borrow().get(key).filter(|it| it.opened)?;
        let context = self.context()?;
        catch_unwind(AssertUnwindSafe(|| self.handler.freeze(context, fd))).unwrap_or_else(|_| {
            tracing::error!(fd = fd.as_u64(), event = "freeze", "a handler panicked");
            self.add(Counter::Panics, 1);
            None
        })
    }

    fn hold(&self, key: Key) {
        if let Some(connection) = self.table.borrow_mut().get_mut(key)
            && !std::mem::replace(&mut connection.held, true)
        {
            self.handover.borrow_mut().held.push(key);
        }
    }

    /// Says when one of these can move, or is waited for no longer.
    fn wait_for_rest(
        self: &Rc<Self>,
        busy: Vec<Key>,
        no_descriptor: bool,
        deadline: Instant,
        waits: u32,
    ) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            if no_descriptor {
                sleep(DESCRIPTOR_TIME).await;
            } else {
                let _ = timeout_at(deadline, worker.until_any_rests(&busy)).await;
            }
            if worker.handover.borrow().waits == waits {
                worker.say_in_order(&WorkerToManager::CanGive);
            }
        });
    }

    async fn until_any_rests(&self, keys: &[Key]) {
        let mut resting: Vec<_> =
            keys.iter().map(|&key| Box::pin(self.until_at_rest(key))).collect();
        let first = |context: &mut Context<'_>| {
            let any = resting.iter_mut().any(|it| it.as_mut().poll(context).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(first).await;
    }

    async fn until_at_rest(&self, key: Key) {
        loop {
            let changed = self.changed.notified();
            if self.table.borrow().get(key).is_some_and(|it| it.busy) {
                changed.await;
            } else if let Some(drained) = self.under_way(key) {
                drained.await;
            } else {
                return;
            }
        }
    }

    /// Tells the manager as soon as one of these could move, which stayed.
    fn watch_stragglers(self: &Rc<Self>, stragglers: Vec<Key>, waits: u32) {
        if stragglers.is_empty() {
            return;
        }
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            worker.until_any_rests(&stragglers).await;
            if worker.handover.borrow().waits == waits {
                worker.say_in_order(&WorkerToManager::CanGive);
            }
        });
    }

    fn say_stays(&self) {
        let stays: Vec<(u64, String)> = {
            let table = self.table.borrow();
            let stays = table.iter().filter_map(|(key, it)| {
                let why = match self.move_outcome(key) {
                    MoveOutcome::Waits => "its handler runs",
                    MoveOutcome::Stays(why) => why,
                    _ => return None,
                };
                Some((it.fd?.as_u64(), why.to_owned()))
            });
            stays.collect()
        };
        for part in stays.chunks(64) {
            self.say_in_order(&WorkerToManager::Stays { fds: part.to_vec() });
        }
    }
}
