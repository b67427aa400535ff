//! Leaving: on stop, when the master died, and when a reload has left connections behind.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Worker;
use super::base::phase::Phase;
use super::head::Refusal;
use crate::close::{Cause, Close};
use crate::ipc::messages::{StopMode, WorkerToManager};
use crate::worker::clients::connection::{Connection, Stage};

/// How long clients have to answer our close frames.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a hasty exit may take: what fits is written, and handlers hear of it.
const HASTE: Duration = Duration::from_millis(800);

/// How far the leaving is.
#[derive(Default)]
pub(super) struct Leaving {
    /// Whether the manager sends nothing more for clients.
    farewell: Cell<bool>,
    hasty: Cell<bool>,
    drains: Cell<bool>,
    stopped: Cell<bool>,
}

impl Worker {
    /// The master says to leave.
    pub(super) fn stop(self: &Rc<Self>, mode: StopMode) {
        if mode == StopMode::Quick && self.leaving.hasty.replace(true) {
            return;
        }
        if mode == StopMode::Graceful && self.phase.get() == Phase::Leaving {
            return;
        }
        // The API is answered on, for whoever asks how the server is.
        self.take_clients(false);
        self.own_all();
        self.enter(Phase::Leaving);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            match mode {
                StopMode::Graceful => worker.leave_gracefully().await,
                StopMode::Quick => worker.leave_hastily(Cause::ServerStop, Instant::now()).await,
            }
        });
    }

    /// Nobody is left to ask: 1001 to all, and out within a second.
    pub(super) fn master_died(self: &Rc<Self>) {
        tracing::error!("the master has died; leaving");
        self.processes.end_groups();
        self.stop(StopMode::Quick);
    }

    fn stop_accepting(&self) {
        if let Err(error) = self.set_accepting(false) {
            tracing::error!(%error, "cannot stop accepting");
        }
    }

    async fn leave_gracefully(self: &Rc<Self>) {
        let patience = self.settings.config.max_wait_time;
        self.stop_http.send_replace(true);
        self.refuse_pending();
        let start = Instant::now();
        let deadline = start + patience;
        // Whatever is still at work after that is closed upon.
        let _ = timeout_at(deadline, self.until(|it| !it.busy)).await;
        let left = patience.saturating_sub(start.elapsed());
        let spread = self.settings.config.stop_jitter.min(left);
        self.close_spread(Instant::now(), spread, Cause::ServerStop).await;
        self.close_all(Cause::ServerStop);
        let _ = timeout(ANSWER_TIME, async {
            self.until(|_| false).await;
            self.stop_accepting();
            self.stop_http.closed().await;
        })
        .await;
        self.leave_hastily(Cause::ServerStop, deadline).await;
    }

    /// Ends every connection now, within a second. What else the handler is at, as a task, has
    /// until then too, or until `handler_deadline`.
    async fn leave_hastily(self: &Rc<Self>, cause: Cause, handler_deadline: Instant) {
        let deadline = Instant::now() + HASTE;
        self.stop_accepting();
        self.stop_http.send_replace(true);
        self.close_all(cause);
        // Once all close frames are written nobody is waited for.
        for key in self.keys(|_| true) {
            self.flush(key);
            self.end(key, Close::because(cause));
        }
        self.end_turn();
        let _ = timeout_at(deadline, self.until(|_| false)).await;
        self.leave(deadline.max(handler_deadline)).await;
    }

    /// Says goodbye to the handler and the manager, and ends the reactor.
    async fn leave(self: &Rc<Self>, handler_deadline: Instant) {
        if !self.leaving.stopped.replace(true) {
            let handler = self.handler.clone();
            let stop =
                self.call_alone("on_worker_stop", |context| handler.on_worker_stop(context));
            let _ = timeout_at(handler_deadline, stop).await;
        }
        let deadline = Instant::now() + HASTE;
        self.go_indirect();
        self.say(&WorkerToManager::Drained);
        // Who asks all workers is answered until then, and asks this one no more.
        let _ = timeout_at(deadline, self.hear_farewell()).await;
        let _ = timeout_at(deadline, self.link.flush()).await;
        self.turn.leave();
    }

    async fn hear_farewell(&self) {
        loop {
            let changed = self.changed.notified();
            if self.leaving.farewell.get() {
                return;
            }
            changed.await;
        }
    }

    /// The manager has sent all that it will.
    pub(super) fn farewell(&self) {
        self.leaving.farewell.set(true);
        self.changed.notify_waiters();
    }

    /// A reload has left these behind. They are served until they can follow; whoever is left at
    /// the deadline less the jitter gets 1012, spread over the jitter.
    pub(super) fn drain(self: &Rc<Self>, jitter_ms: u64, deadline_ms: u64) {
        if self.leaving.drains.replace(true) {
            return;
        }
        self.stop_accepting();
        self.release_held();
        if self.phase.get() == Phase::Serving {
            self.enter(Phase::HandedOver);
        }
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            worker.stop_http.send_replace(true);
            let start = Instant::now();
            let deadline = start + Duration::from_millis(deadline_ms);
            let spread = Duration::from_millis(jitter_ms.min(deadline_ms));
            let left = timeout_at(deadline - spread, worker.until(|_| false)).await;
            if left.is_err() {
                worker.close_spread(deadline - spread, spread, Cause::ServerDrain).await;
            }
            let _ = timeout_at(deadline, async {
                worker.until(|_| false).await;
                worker.stop_http.closed().await;
            })
            .await;
            worker.leave_hastily(Cause::ServerDrain, deadline).await;
        });
    }

    async fn close_spread(self: &Rc<Self>, start: Instant, spread: Duration, cause: Cause) {
        let keys = self.keys(Connection::is_open);
        let count = keys.len() as u32;
        for (index, key) in keys.into_iter().enumerate() {
            sleep_until(start + spread * index as u32 / count).await;
            self.send_away(key, cause);
        }
    }

    /// Waits until `done` holds for everybody who is left.
    async fn until(&self, done: impl Fn(&Connection) -> bool) {
        loop {
            let changed = self.changed.notified();
            if self.keys(|connection| !done(connection)).is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Clients on their way in are told to come again.
    fn refuse_pending(self: &Rc<Self>) {
        for key in self.keys(|it| it.stage == Stage::Head) {
            self.refuse_begun(key, Refusal::stopping());
        }
    }

    fn close_all(self: &Rc<Self>, cause: Cause) {
        self.refuse_pending();
        for key in self.keys(Connection::is_open) {
            self.send_away(key, cause);
        }
    }
}
