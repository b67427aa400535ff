//! A pass over all connections that hands over what can be moved, in rounds.
//!
//! While a round is under way the manager holds what is pushed to this slot. So a round is short,
//! and nobody is waited for in it: whoever is busy gets a round later, when it has come to rest.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::Worker;
use super::handover::{Batch, Handover, MoveOutcome};
use super::life::Phase;
use super::table::Key;
use crate::fd::WorkerId;
use crate::ipc::messages::WorkerToManager;

/// Bytes of state after which a batch is sent.
const BATCH_BYTES: usize = 256 * 1024;
/// Connections in a round, or bytes of state after which it ends: some milliseconds.
const ROUND_FDS: usize = 256;
const ROUND_BYTES: usize = 2 * 1024 * 1024;
/// How long handlers that run may hold up the reload; their connections are held meanwhile. Whose
/// handler runs longer stays.
const HANDLER_TIME: Duration = Duration::from_secs(2);
/// How long the manager may take to ask for the next round; then it has given the move up.
const ROUND_TIME: Duration = Duration::from_secs(60);

/// A pass over all connections.
struct Pass {
    number: u32,
    /// Whose handler runs. They are held, so that they come to rest.
    busy: Vec<Key>,
}

/// The manager has given the move up.
struct GivenUp;

impl Worker {
    /// The manager says to hand everything over; which worker takes it is the manager's affair.
    /// Said again, it means that what was not acknowledged may be lost, and that more can move.
    pub(super) fn hand_over(self: &Rc<Self>, to: WorkerId) {
        if let Err(error) = self.set_accepting(false) {
            tracing::error!(%error, "cannot stop accepting");
        }
        if self.phase.get() == Phase::Serving {
            self.enter(Phase::HandedOver);
        }
        self.leaving.stop_http.send_replace(true);
        let (under_way, number) = self.handover.borrow_mut().begin();
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            // What goes out again is a round of its own: since it was frozen, much was sent to all.
            let again = worker.send_again().await;
            if again {
                worker.say_in_order(&WorkerToManager::Gave);
            }
            match (under_way, again) {
                // The pass that is under way goes on, and says when it is through.
                (true, false) => return worker.handover.borrow().go_on(),
                (true, true) => return worker.say_in_order(&WorkerToManager::Rested),
                (false, _) => {}
            }
            tracing::info!(to = %to, pass = number, "handing over");
            worker.pass(Pass { number, busy: Vec::new() }, again).await;
        });
    }

    async fn pass(self: &Rc<Self>, mut pass: Pass, waits: bool) {
        let asked = if waits { self.next_round().await } else { Ok(()) };
        let done = match asked {
            Ok(()) => self.move_all(&mut pass).await,
            given_up => given_up,
        };
        for &key in &pass.busy {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.held = false;
            }
            self.resume(key);
        }
        self.handover.borrow_mut().end();
        match done {
            Ok(()) => {
                self.say_stays();
                self.say_handed_over();
                self.watch_stayers(pass.busy, pass.number);
            }
            Err(GivenUp) => {
                tracing::warn!("the manager has given the handover up");
                self.take_back();
                self.say(&WorkerToManager::Rested);
            }
        }
    }

    async fn move_all(self: &Rc<Self>, pass: &mut Pass) -> Result<(), GivenUp> {
        self.move_these(pass, self.keys(|_| true)).await?;
        // Whoever stayed once is not waited for again.
        let patience = if pass.number == 1 { HANDLER_TIME } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        while !pass.busy.is_empty() && Instant::now() < deadline {
            self.say_in_order(&WorkerToManager::Gave);
            let _ = timeout_at(deadline, self.until_any_rests(&pass.busy)).await;
            self.next_round().await?;
            let busy = std::mem::take(&mut pass.busy);
            self.move_these(pass, busy).await?;
        }
        // That all is given may only be said behind all of it.
        self.until_handover(Handover::has_sent_again).await
    }

    /// Moves of these what can be moved.
    async fn move_these(self: &Rc<Self>, pass: &mut Pass, keys: Vec<Key>) -> Result<(), GivenUp> {
        let mut keys = VecDeque::from(keys);
        loop {
            let asked = self.until_handover(Handover::has_room).await;
            if asked.is_ok() {
                for batch in self.freeze_round(&mut keys, &mut pass.busy) {
                    self.send_batch(batch).await;
                }
                if keys.is_empty() {
                    return Ok(());
                }
                self.say_in_order(&WorkerToManager::Gave);
            }
            let next = if asked.is_ok() { self.next_round().await } else { asked };
            if next.is_err() {
                // Some of these may be held.
                pass.busy.extend(keys);
                return next;
            }
        }
    }

    /// Takes the connections of a round out, at once.
    fn freeze_round(self: &Rc<Self>, keys: &mut VecDeque<Key>, busy: &mut Vec<Key>) -> Vec<Batch> {
        let (mut ready, mut bytes) = (Vec::new(), 0);
        while ready.len() < ROUND_FDS && bytes < ROUND_BYTES {
            let Some(key) = keys.pop_front() else { break };
            match self.prepare(key) {
                Ok(one) => {
                    bytes += one.bytes;
                    ready.push(one);
                }
                Err(MoveOutcome::Waits) => {
                    self.hold(key);
                    busy.push(key);
                }
                Err(_) => {}
            }
        }
        let mut batches = vec![Batch::default()];
        for one in ready {
            let mut batch = batches.pop().unwrap_or_default();
            self.freeze(one, &mut batch);
            let is_full =
                batch.fds.len() == self.gate.batch_max || batch.state.len() >= BATCH_BYTES;
            batches.push(batch);
            if is_full {
                batches.push(Batch::default());
            }
        }
        batches
    }

    /// Says that there is more, and waits until it is asked for.
    async fn next_round(&self) -> Result<(), GivenUp> {
        self.say_in_order(&WorkerToManager::Rested);
        let asked = self.handover.borrow().asked();
        match timeout(ROUND_TIME, asked).await {
            Ok(()) if !self.handover.borrow().is_given_up() => Ok(()),
            _ => Err(GivenUp),
        }
    }

    fn hold(&self, key: Key) {
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.held = true;
        }
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

    async fn until_handover(&self, is_so: impl Fn(&Handover) -> bool) -> Result<(), GivenUp> {
        loop {
            let changed = self.leaving.changed.notified();
            if self.handover.borrow().is_given_up() {
                return Err(GivenUp);
            }
            if is_so(&self.handover.borrow()) {
                return Ok(());
            }
            changed.await;
        }
    }
}
