//! Handing connections over to the worker that follows, cut off at any byte.
//!
//! What moves goes in batches of state and descriptors through the manager; when, decides
//! [`super::rounds`]. Our own descriptor stays open until the new owner says that it has the
//! connection, so neither of us can lose it. Until its batch is made, a connection is served here
//! as ever.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::errno::Errno;
use tokio::sync::Notify;

use super::Worker;
use super::connection::{Connection, Stage};
use super::snapshot::Snapshot;
use super::table::Key;
use super::timers::NEVER;
use crate::close::{Cause, Close};
use crate::fd::Fd;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

/// Connections that may be on their way at once: the kernel counts descriptors in flight
/// against the limit of open ones.
const MOVING_MAX: usize = 512;

/// What is on its way.
#[derive(Default)]
pub(super) struct Handover {
    /// A pass over all connections is under way.
    running: bool,
    passes: u32,
    /// Says that the next round was asked for, or none will be.
    go_on: Rc<Notify>,
    given_up: bool,
    /// How often it is under way to send again what was not acknowledged.
    sends_again: u32,
    moved: u64,
    /// Which were sent and not acknowledged, and in which batch.
    moving: HashMap<Fd, (Key, u64)>,
    batches: BTreeMap<u64, Batch>,
    last_batch: u64,
}

/// A batch, kept until all of it was acknowledged.
#[derive(Default)]
pub(super) struct Batch {
    pub fds: Vec<Fd>,
    pub keys: Vec<Key>,
    pub state: Vec<u8>,
    left: usize,
}

/// A connection that can move, and what its handler keeps of it.
pub(super) struct Ready {
    key: Key,
    fd: Fd,
    frozen: Option<bytes::Bytes>,
    /// About how many bytes its state has.
    pub bytes: usize,
}

/// What becomes of a connection when it is asked to move.
pub(super) enum MoveOutcome {
    Moves,
    /// Its handler runs.
    Waits,
    Stays(&'static str),
    /// It is about to be gone by itself.
    Ends,
}

impl Handover {
    pub fn is_moving(&self, fd: Fd) -> bool {
        self.moving.contains_key(&fd)
    }

    /// Whether no pass has begun since this one.
    pub fn is_last(&self, pass: u32) -> bool {
        self.passes == pass
    }

    /// Begins a pass, unless one is under way; and says which it is. What was not acknowledged is
    /// to be sent again before anything else.
    pub fn begin(&mut self) -> (bool, u32) {
        self.sends_again += 1;
        self.given_up = false;
        let under_way = std::mem::replace(&mut self.running, true);
        if !under_way {
            self.passes += 1;
            self.go_on = Rc::default();
        }
        (under_way, self.passes)
    }

    pub fn end(&mut self) {
        self.running = false;
    }

    /// Has the pass that is under way go on with its next round.
    pub fn go_on(&self) {
        self.go_on.notify_one();
    }

    /// Has the pass that is under way end before its next round.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.go_on();
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// When the next round was asked for.
    pub fn asked(&self) -> impl Future<Output = ()> + 'static {
        let go_on = self.go_on.clone();
        async move { go_on.notified().await }
    }

    /// Whether nothing is to be sent again before something new is said.
    pub fn has_sent_again(&self) -> bool {
        self.sends_again == 0
    }

    /// Whether a batch may go out at once.
    pub fn has_room(&self) -> bool {
        self.has_sent_again() && self.moving.len() < MOVING_MAX
    }

    /// Gives up what was sent and not acknowledged.
    pub fn take_unacknowledged(&mut self) -> (HashMap<Fd, (Key, u64)>, Vec<Batch>) {
        let batches = std::mem::take(&mut self.batches);
        (std::mem::take(&mut self.moving), batches.into_values().collect())
    }
}

impl Worker {
    /// Whether a connection can move now.
    fn move_outcome(&self, key: Key) -> MoveOutcome {
        let table = self.table.borrow();
        let Some(connection) = table.get(key) else { return MoveOutcome::Ends };
        match connection.stage {
            Stage::Head | Stage::Open | Stage::Handshaking if connection.busy => {
                MoveOutcome::Waits
            }
            Stage::Head | Stage::Open => MoveOutcome::Moves,
            Stage::Closing | Stage::Parting => MoveOutcome::Stays("it is being closed"),
            Stage::Handshaking | Stage::Lingering | Stage::Moving | Stage::Ended => {
                MoveOutcome::Ends
            }
        }
    }

    /// Asks whether a connection can move now, and its handler what to keep of it.
    pub(super) fn prepare(self: &Rc<Self>, key: Key) -> Result<Ready, MoveOutcome> {
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
        let frozen = self.freeze_handler(key, fd);
        let bytes = self.table.borrow().get(key).map_or(0, Connection::state_bytes);
        Ok(Ready { key, fd, frozen, bytes })
    }

    /// Takes a connection's state out and adds it to the batch. No handler runs between the first
    /// of a round and the last: whatever is sent to all has reached each of them, or none.
    pub(super) fn freeze(self: &Rc<Self>, ready: Ready, batch: &mut Batch) {
        let Ready { key, fd, frozen, .. } = ready;
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

    /// Sends a batch that there is room for.
    pub(super) async fn send_batch(self: &Rc<Self>, mut batch: Batch) {
        if batch.fds.is_empty() {
            return;
        }
        let number = {
            let mut handover = self.handover.borrow_mut();
            handover.last_batch += 1;
            let number = handover.last_batch;
            let pairs = batch.fds.iter().copied().zip(batch.keys.iter().copied());
            handover.moving.extend(pairs.map(|(fd, key)| (fd, (key, number))));
            handover.moved += batch.fds.len() as u64;
            batch.left = batch.fds.len();
            handover.batches.insert(number, batch);
            number
        };
        self.transmit(number).await;
    }

    /// Gives a batch to the link, with a duplicate of each descriptor. False where that cannot be.
    async fn transmit(self: &Rc<Self>, number: u64) -> bool {
        loop {
            match self.try_transmit(number) {
                Ok(()) => return true,
                // Descriptors come free as batches are acknowledged.
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    self.leaving.changed.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "a batch of connections was not sent");
                    return false;
                }
            }
        }
    }

    fn try_transmit(&self, number: u64) -> nix::Result<()> {
        let handover = self.handover.borrow();
        let Some(batch) = handover.batches.get(&number) else { return Ok(()) };
        let table = self.table.borrow();
        let mut sockets = Vec::with_capacity(batch.keys.len());
        for &key in &batch.keys {
            let socket = table.get(key).and_then(|it| it.socket.as_ref()).ok_or(Errno::EBADF)?;
            let socket = socket.try_clone();
            sockets.push(socket.map_err(|error| {
                Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EBADF as i32))
            })?);
        }
        let fds = batch.fds.iter().map(|fd| fd.as_u64()).collect();
        let moving = WorkerToManager::Moving { fds };
        self.link
            .insist(&moving, Body::Inline(&batch.state), sockets)
            .map_err(|error| Errno::from_raw(error.errno().unwrap_or(Errno::EMFILE as i32)))
    }

    /// What was not acknowledged goes out again. The answer is whether there was anything.
    pub(super) async fn send_again(self: &Rc<Self>) -> bool {
        let numbers: Vec<u64> = self.handover.borrow().batches.keys().copied().collect();
        let mut any = false;
        for number in numbers {
            any |= self.transmit(number).await;
        }
        self.handover.borrow_mut().sends_again -= 1;
        self.leaving.changed.notify_waiters();
        any
    }

    pub(super) fn say_stays(&self) {
        let stays: Vec<(u64, String)> = {
            let table = self.table.borrow();
            let stays = table.iter().filter_map(|(key, it)| {
                let why = match self.move_outcome(key) {
                    MoveOutcome::Waits => "its handler runs",
                    MoveOutcome::Stays(why) => why,
                    MoveOutcome::Moves | MoveOutcome::Ends => return None,
                };
                Some((it.fd?.as_u64(), why.to_owned()))
            });
            stays.collect()
        };
        for part in stays.chunks(64) {
            self.say_in_order(&WorkerToManager::Stays { fds: part.to_vec() });
        }
    }

    pub(super) fn say_handed_over(&self) {
        let moved = self.handover.borrow().moved;
        let stayed = self.keys(|it| it.opened && it.stage != Stage::Moving).len() as u64;
        tracing::info!(moved, stayed, "handed over");
        self.say_in_order(&WorkerToManager::HandedOver { moved, stayed });
    }

    /// Says something behind all that was said before.
    pub(super) fn say_in_order(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.insist(message, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    /// The new owner has these: our share of them is dropped without a word to the client.
    pub(super) fn let_go(self: &Rc<Self>, fds: &[u64]) {
        for fd in fds.iter().filter_map(|&fd| Fd::try_from(fd).ok()) {
            let key = {
                let mut handover = self.handover.borrow_mut();
                let Some((key, number)) = handover.moving.remove(&fd) else { continue };
                let batch = handover.batches.get_mut(&number);
                let done = batch.is_some_and(|batch| {
                    batch.left -= 1;
                    batch.left == 0
                });
                if done {
                    handover.batches.remove(&number);
                }
                key
            };
            let Some(gone) = self.forget(&mut self.table.borrow_mut(), key) else { continue };
            if gone.opened {
                self.registry.closed(key.index as usize);
                self.board.sub(Counter::Connections, 1);
                self.add(Counter::HandedOver, 1);
            }
        }
        self.left();
    }
}
