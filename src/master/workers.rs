//! Workers, as they live: started where one is due, heard, replaced, and closed for.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;

use super::Master;
use super::protocol;
use super::throttle::YOUNG_MS;
use super::worker_handle::WorkerHandle;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::{MasterToManager, MasterToWorker, WorkerToMaster};
use crate::sys::clock;

/// Packets of one worker that are read in one turn.
const PACKETS_PER_TURN: usize = 64;
/// A worker that could not be started is tried again after this time, as long as that takes.
const START_AGAIN_MS: u64 = 500;

impl Master {
    /// Starts a worker of the serving generation wherever one is due.
    pub(super) fn tick_workers(&mut self, now: u64) {
        self.workers.iter_mut().for_each(|worker| worker.child.kill_when_due(now));
        if self.stopping.is_some() || self.waits_for_number() {
            return;
        }
        for slot in self.slots.due(now) {
            self.slots.at(slot).start_at_ms = None;
            let (config, generation) = (self.config.clone(), self.image.generation);
            if let Err(error) = self.start_worker(slot, generation, &config) {
                tracing::error!(%slot, %error, "cannot start a worker");
                self.fail_start(error.to_string());
                self.slots.at(slot).start_at_ms = Some(now + START_AGAIN_MS);
            }
        }
    }

    /// Reads what workers say, at most so many packets of each: whoever says more is heard in the
    /// next turn, and signals, the clock and the manager get theirs before.
    pub(super) fn read_workers(&mut self) {
        let now = clock::monotonic_ms();
        for index in 0..self.workers.len() {
            for _ in 0..PACKETS_PER_TURN {
                let worker = &mut self.workers[index];
                if worker.broke_protocol {
                    break;
                }
                let heard = worker.child.receive(&mut self.buffer).and_then(|heard| {
                    let Some((message, fds)) = heard else { return Ok(None) };
                    worker.protocol.check(&message, worker.closing_lost, now)?;
                    Ok(Some((message, fds)))
                });
                match heard.and_then(|heard| self.worker_said(index, heard)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        let worker = &mut self.workers[index];
                        tracing::error!(
                            worker = %worker.id, %error, "a worker broke the protocol: killed"
                        );
                        worker.end_for_breach();
                    }
                }
            }
        }
    }

    /// Takes the reason that a dead worker gave, which may not have been read when it was reaped.
    pub(super) fn hear_last_words(&mut self, worker: &mut WorkerHandle) {
        for _ in 0..PACKETS_PER_TURN {
            match worker.child.receive(&mut self.buffer) {
                Ok(Some((WorkerToMaster::Fatal { why }, _))) => {
                    worker.fatal.get_or_insert(protocol::last_words(why));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Does what a worker asks; false if it said nothing. Descriptors that its message does not
    /// name are closed.
    fn worker_said(
        &mut self,
        index: usize,
        heard: Option<(WorkerToMaster, Vec<OwnedFd>)>,
    ) -> Result<bool> {
        let Some((message, fds)) = heard else { return Ok(false) };
        match message {
            WorkerToMaster::Hello(hello) if hello.ipc_version == IPC_VERSION => {}
            WorkerToMaster::Hello(hello) => {
                let worker = &mut self.workers[index];
                worker.fatal = Some(format!(
                    "the image (version {}) speaks IPC version {}, this master {IPC_VERSION}: \
                     use `wsd upgrade`",
                    hello.version, hello.ipc_version
                ));
                worker.child.signal(Signal::SIGKILL);
            }
            WorkerToMaster::Ready => {
                self.show_page(index)?;
                self.worker_ready(index);
            }
            WorkerToMaster::NeedLease => self.workers[index].lease.wanted(),
            WorkerToMaster::StartApp { id } => {
                self.start_app(self.workers[index].id, id, fds)?;
            }
            WorkerToMaster::KillApp { id } => self.kill_app(self.workers[index].id, id),
            WorkerToMaster::Fatal { why } => {
                self.workers[index].fatal = Some(protocol::last_words(why));
            }
            WorkerToMaster::Waits { what } => {
                let what = protocol::last_words(what);
                tracing::info!(worker = %self.workers[index].id, what, "waits before it serves");
                self.workers[index].waits = Some(what);
            }
            WorkerToMaster::LostClosed => {
                let worker = &mut self.workers[index];
                worker.closing_lost = worker.closing_lost.saturating_sub(1);
                let slot = worker.id.slot;
                let place = self.slots.at(slot);
                if !place.owed.is_empty() {
                    place.owed.remove(0);
                }
            }
        }
        Ok(true)
    }

    fn worker_ready(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.ready_ms = Some(clock::monotonic_ms());
        let (id, slot) = (worker.id, worker.id.slot);
        self.slots.at(slot).idle_since_ms = None;
        self.take_back_listeners(slot);
        self.tell_manager(&MasterToManager::WorkerReady(id), Vec::new());
        self.close_lost(slot);
    }

    /// Has the newest worker of a slot run the `on_close` that a killed one owes.
    pub(super) fn close_lost(&mut self, slot: Slot) {
        let owed = self.slots.at(slot).owed.iter();
        let owed: Vec<_> = owed.filter_map(|registry| registry.try_clone().ok()).collect();
        let Some(worker) = self.newest_ready(slot) else { return };
        for registry in owed.into_iter().skip(worker.closing_lost) {
            worker.send(&MasterToWorker::CloseLost, vec![registry]);
            worker.closing_lost += 1;
        }
    }

    pub(super) fn worker_died(&mut self, worker: WorkerHandle, how: &str, clean: bool) {
        let now = clock::monotonic_ms();
        let last = self.end_page(worker.id);
        let slot = worker.id.slot;
        let wanted = self.is_wanted(&worker, clean);
        let expected = clean || self.stopping.is_some();
        match expected {
            true => tracing::info!(worker = %worker.id, how, "worker ended"),
            false => {
                let last_words = worker.fatal.as_deref().unwrap_or_default();
                tracing::error!(worker = %worker.id, how, last_words, "worker died");
            }
        }
        if !clean {
            let stand_in = self.slots.stand_in(slot);
            if !self.slots.at(stand_in).owe(worker.registry) {
                let why = "on_close is not called for the clients of one";
                tracing::error!(slot = %stand_in, worker = %worker.id, "too many died: {why}");
            }
            self.close_lost(stand_in);
        }
        self.lend_elsewhere(worker.id);
        self.kill_apps_of(worker.id);
        let respawn_ms = wanted.then(|| {
            let young = worker.ready_ms.is_none_or(|ready| now - ready < YOUNG_MS);
            self.worker_restarts += 1;
            let place = self.slots.at(slot);
            let delay = place.throttle.died(young);
            place.start_at_ms = Some(now + delay);
            place.idle_since_ms.get_or_insert(now);
            delay
        });
        let how = match &worker.fatal {
            Some(why) => format!("{how}: {why}"),
            None => how.to_owned(),
        };
        self.worker_of_reload_died(&worker.id, worker.generation, &how);
        let exited = MasterToManager::Exited { id: worker.id, how: how.clone(), respawn_ms, last };
        self.tell_manager(&exited, Vec::new());
        if wanted {
            self.fail_start(match &worker.fatal {
                Some(why) => format!("worker {slot} cannot serve: {why}"),
                None => format!("worker {slot} died at its start: {how}"),
            });
        }
    }

    /// Whether a dead worker is to be replaced: it was of the serving generation, its slot still
    /// serves, and no newer worker stands there. One that leaves by itself while the next
    /// generation waits to be committed has handed over all it had: a successor would serve on
    /// beside that generation, in a slot that may be gone. One killed in a slot that is about to
    /// be removed is not replaced either; should the reload fail, the slot is staffed again.
    fn is_wanted(&self, dead: &WorkerHandle, clean: bool) -> bool {
        let newer = |worker: &WorkerHandle| {
            worker.id.slot == dead.id.slot && worker.id.epoch > dead.id.epoch
        };
        let handed_over = clean && self.reload.pending_generation().is_some();
        let handed_over = handed_over || self.reload.removes(dead.id.slot);
        self.stopping.is_none()
            && !handed_over
            && dead.generation == self.image.generation
            && self.slots.serves(dead.id.slot)
            && !self.workers.iter().any(newer)
    }

    /// Kills a worker, `abort_first` for a core dump.
    pub(super) fn kill_worker(&mut self, id: WorkerId, abort_first: bool) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        if abort_first {
            worker.child.abort(clock::monotonic_ms());
        } else {
            worker.child.signal(Signal::SIGKILL);
        }
    }
}
