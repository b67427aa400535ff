//! Handing connections over to the worker that follows, cut off at any byte.
//!
//! What moves goes in batches of state and descriptors through the manager. Our own descriptor
//! stays open until the new owner says that it has the connection, so neither of us can lose it.
//! Until its batch is made, a connection is served here as ever.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::{Instant, timeout_at};

use super::Worker;
use super::connection::Stage;
use super::life::Phase;
use super::table::Key;
use super::timers::NEVER;
use super::travel::Traveller;
use crate::close::{Cause, Close};
use crate::fd::{Fd, WorkerId};
use crate::ipc::messages::WorkerToManager;
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

/// Connections in a batch; a packet carries up to 128 descriptors.
const BATCH_FDS: usize = 64;
/// Bytes of state after which a batch is sent.
const BATCH_BYTES: usize = 256 * 1024;
/// Connections that may be on their way at once: the kernel counts descriptors in flight
/// against the limit of open ones.
const MOVING_MAX: usize = 512;
/// How long a handler that runs may hold up its connection; then that one stays. Pushes to the
/// whole slot wait meanwhile.
const HANDLER_TIME: Duration = Duration::from_secs(2);

/// What is on its way.
#[derive(Default)]
pub(super) struct Handover {
    /// A pass over all connections is under way.
    running: bool,
    passes: u32,
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

/// What becomes of a connection when it is asked to move.
enum Fate {
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

    /// Begins a pass, unless one is under way; and says which it is.
    fn begin(&mut self) -> (bool, u32) {
        let under_way = std::mem::replace(&mut self.running, true);
        self.passes += u32::from(!under_way);
        (under_way, self.passes)
    }

    /// Gives up what was sent and not acknowledged.
    pub fn take_unacknowledged(&mut self) -> (HashMap<Fd, (Key, u64)>, Vec<Batch>) {
        let batches = std::mem::take(&mut self.batches);
        (std::mem::take(&mut self.moving), batches.into_values().collect())
    }
}

impl Worker {
    /// The manager says to hand everything over; which worker takes it is the manager's affair.
    /// Said again, it means that what was not acknowledged may be lost, and that more can move.
    pub(super) fn hand_over(self: &Rc<Self>, to: WorkerId) {
        if self.phase.get() == Phase::Starting {
            // It has inherited some.
            let worker = self.clone();
            tokio::task::spawn_local(async move {
                worker.started().await;
                worker.hand_over(to);
            });
            return;
        }
        if let Err(error) = self.set_accepting(false) {
            tracing::error!(%error, "cannot stop accepting");
        }
        if self.phase.get() == Phase::Serving {
            self.enter(Phase::HandedOver);
        }
        self.leaving.stop_http.send_replace(true);
        let (under_way, pass) = self.handover.borrow_mut().begin();
        tracing::info!(to = %to, pass, under_way, "handing over");
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            worker.send_again().await;
            if under_way {
                // The pass that is under way says when it is through.
                return;
            }
            // Whoever stayed once is not waited for again: all others would wait, too.
            let patience = if pass == 1 { HANDLER_TIME } else { Duration::ZERO };
            let stayers = worker.move_all(patience).await;
            worker.handover.borrow_mut().running = false;
            worker.say_stays();
            worker.say_handed_over();
            worker.watch_stayers(stayers, pass);
        });
    }

    /// Moves all that can be moved; the answer is who stays since a handler runs.
    async fn move_all(self: &Rc<Self>, patience: Duration) -> Vec<Key> {
        let waiting = self.move_these(self.keys(|_| true)).await;
        let deadline = Instant::now() + patience;
        let _ = timeout_at(deadline, async {
            for &key in &waiting {
                self.until_at_rest(key).await;
            }
        })
        .await;
        let stayers = self.move_these(waiting).await;
        for &key in &stayers {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.held = false;
            }
            self.resume(key);
        }
        stayers
    }

    /// Moves what can be moved; the answer is whose handler runs.
    async fn move_these(self: &Rc<Self>, keys: Vec<Key>) -> Vec<Key> {
        let mut waiting = Vec::new();
        let mut batch = Batch::default();
        for key in keys {
            if batch.fds.is_empty() {
                self.until_room().await;
            }
            match self.freeze(key, &mut batch) {
                Fate::Moves | Fate::Ends | Fate::Stays(_) => {}
                Fate::Waits => {
                    self.hold(key);
                    waiting.push(key);
                }
            }
            if batch.fds.len() == BATCH_FDS || batch.state.len() >= BATCH_BYTES {
                self.send_batch(std::mem::take(&mut batch)).await;
            }
        }
        self.send_batch(batch).await;
        waiting
    }

    fn hold(&self, key: Key) {
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            self.turn.calmness.stir(key, connection);
            connection.held = true;
        }
    }

    pub(super) async fn until_at_rest(&self, key: Key) {
        loop {
            let changed = self.leaving.changed.notified();
            if self.table.borrow().get(key).is_some_and(|it| it.busy) {
                changed.await;
            } else if let Some(drained) = self.under_way(key) {
                drained.await;
            } else {
                return;
            }
        }
    }

    /// Whether a connection can move now.
    fn fate(&self, key: Key) -> Fate {
        let table = self.table.borrow();
        let Some(connection) = table.get(key) else { return Fate::Ends };
        match connection.stage {
            Stage::Head | Stage::Open | Stage::Handshaking if connection.busy => Fate::Waits,
            Stage::Head | Stage::Open => Fate::Moves,
            Stage::Closing | Stage::Parting => Fate::Stays("it is being closed"),
            Stage::Handshaking | Stage::Lingering | Stage::Moving | Stage::Ended => Fate::Ends,
        }
    }

    /// Takes a connection's state out and adds it to the batch.
    fn freeze(self: &Rc<Self>, key: Key, batch: &mut Batch) -> Fate {
        // What the kernel takes now need not travel.
        self.flush(key);
        let Fate::Moves = self.fate(key) else { return self.fate(key) };
        let fd = self.table.borrow().get(key).and_then(|it| it.fd);
        // A request that is being read gets its number early, to be named by on the way.
        let Some(fd) = fd.or_else(|| self.next_fd()) else { return Fate::Ends };
        if self.under_way(key).is_some() {
            return Fate::Waits;
        }
        let frozen = self.freeze_handler(key, fd);
        // The handler may have closed it.
        let Fate::Moves = self.fate(key) else { return self.fate(key) };
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return Fate::Ends };
        self.turn.calmness.forget(key, connection);
        let params = connection.engine.params();
        if !connection.verses.is_empty() {
            // The handler broadcast something just now.
            self.outbox(connection);
        }
        let Some(traveller) = Traveller::take(connection, frozen) else { return Fate::Ends };
        if let Err(error) = traveller.pack(&mut batch.state) {
            tracing::error!(fd = fd.as_u64(), %error, "a connection cannot move");
            drop(table);
            self.end(key, Close::because(Cause::ServerDrain));
            return Fate::Ends;
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
        Fate::Moves
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

    /// Waits until a batch may go out at once. Not later: what this worker still pushes to a
    /// client goes the same way as the client, and must not overtake it.
    async fn until_room(&self) {
        loop {
            let changed = self.leaving.changed.notified();
            if self.handover.borrow().moving.len() < MOVING_MAX {
                return;
            }
            changed.await;
        }
    }

    /// Sends a batch that there is room for.
    async fn send_batch(self: &Rc<Self>, mut batch: Batch) {
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

    /// Gives a batch to the link, with a duplicate of each descriptor.
    async fn transmit(self: &Rc<Self>, number: u64) {
        loop {
            match self.try_transmit(number) {
                Ok(()) => return,
                // Descriptors come free as batches are acknowledged.
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    self.leaving.changed.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "a batch of connections was not sent");
                    return;
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

    /// What was not acknowledged goes out again.
    async fn send_again(self: &Rc<Self>) {
        let numbers: Vec<u64> = self.handover.borrow().batches.keys().copied().collect();
        for number in numbers {
            self.transmit(number).await;
        }
    }

    fn say_stays(&self) {
        let stays: Vec<(u64, String)> = {
            let table = self.table.borrow();
            let stays = table.iter().filter_map(|(key, it)| {
                let why = match self.fate(key) {
                    Fate::Waits => "its handler runs",
                    Fate::Stays(why) => why,
                    Fate::Moves | Fate::Ends => return None,
                };
                Some((it.fd?.as_u64(), why.to_owned()))
            });
            stays.collect()
        };
        for part in stays.chunks(64) {
            self.say_in_order(&WorkerToManager::Stays { fds: part.to_vec() });
        }
    }

    fn say_handed_over(&self) {
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
            let Some(gone) = self.table.borrow_mut().remove(key) else { continue };
            if gone.opened {
                self.registry.closed(key.index as usize);
                self.board.sub(Counter::Connections, 1);
                self.add(Counter::HandedOver, 1);
            }
        }
        self.left();
    }
}
