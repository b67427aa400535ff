//! A worker as the master has it, and which one is meant.

use std::os::fd::{AsFd, OwnedFd};

use super::child::{Child, duplicate};
use super::lease::Lease;
use super::protocol::ProtocolState;
use super::{Image, LogFile, Master};
use crate::config::Config;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{Generation, MasterToManager, MasterToWorker, WorkerRecord};

/// How many application processes a worker has asked for lately. Pure.
#[derive(Debug, Default)]
pub struct Starts {
    since_ms: u64,
    count: usize,
}

impl Starts {
    /// One more is asked for; how many that makes within the current second.
    pub fn one_more(&mut self, now: u64) -> usize {
        if now >= self.since_ms + 1_000 {
            *self = Starts { since_ms: now, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

/// A worker process, of whichever generation.
pub struct WorkerHandle {
    /// Which.
    pub id: WorkerId,
    /// Of which generation.
    pub generation: Generation,
    /// Its process and link.
    pub child: Child,
    /// Its page of the scoreboard.
    pub page: OwnedFd,
    /// Whether it told more clients than it can have when that was looked at last.
    pub overstates: bool,
    /// The manager's end of its link, kept for the next manager.
    pub manager_end: OwnedFd,
    /// Its registry, kept for its replacement.
    pub registry: OwnedFd,
    /// When it said `Ready`.
    pub ready_ms: Option<u64>,
    /// What it has said so far.
    pub protocol: ProtocolState,
    /// Whether it said what no worker says. It is killed, and not heard any more.
    pub broke_protocol: bool,
    /// The application processes it asked for lately.
    pub app_starts: Starts,
    /// What it is owed of numbers.
    pub lease: Lease,
    /// Its last words.
    pub fatal: Option<String>,
    /// What its start waits for, as it said last.
    pub waits: Option<String>,
    /// How many registries it was given, of dead workers, and has not answered for.
    pub closing_lost: usize,
}

impl WorkerHandle {
    /// Sends it a message. A worker that takes none is dead or hung, and its end is on the way.
    pub fn send(&mut self, message: &MasterToWorker, fds: Vec<OwnedFd>) {
        if let Err(error) = self.child.send(message, fds) {
            tracing::warn!(worker = %self.id, %error, "a message to the worker was not sent");
        }
    }

    pub(super) fn record(&self) -> WorkerRecord {
        WorkerRecord {
            id: self.id,
            generation: self.generation,
            pid: self.child.pid.as_raw(),
            ready: self.ready_ms.is_some(),
        }
    }
}

impl Master {
    /// The ready worker of a slot and generation.
    pub(super) fn ready_worker(
        &self,
        slot: Slot,
        generation: Generation,
    ) -> Option<&WorkerHandle> {
        let mut workers =
            self.workers.iter().filter(|w| w.id.slot == slot && w.ready_ms.is_some());
        workers.find(|worker| worker.generation == generation)
    }

    /// The newest ready worker of a slot.
    pub(super) fn newest_ready(&mut self, slot: Slot) -> Option<&mut WorkerHandle> {
        let workers = self.workers.iter_mut();
        let ready = workers.filter(|worker| worker.id.slot == slot && worker.ready_ms.is_some());
        ready.max_by_key(|worker| worker.id.epoch)
    }

    pub(super) fn config_of(&self, generation: Generation) -> &Config {
        self.reload.pending_config(generation).unwrap_or(&self.config)
    }

    pub(super) fn log_of(&self, generation: Generation) -> &LogFile {
        self.reload.pending_log(generation).unwrap_or(&self.log_file)
    }

    pub(super) fn image_of(&self, generation: Generation) -> &Image {
        self.reload.pending_image(generation).unwrap_or(&self.image)
    }

    /// Tells the manager of a worker, with the descriptors that lead to it.
    pub(super) fn attach(&mut self, index: usize) {
        let Some(worker) = self.workers.get(index) else { return };
        let record = worker.record();
        let fds = [&worker.manager_end, &worker.registry, &worker.page];
        let fds = fds.map(|fd| duplicate(fd.as_fd()));
        match fds.into_iter().collect::<Result<Vec<_>>>() {
            Ok(fds) => self.tell_manager(&MasterToManager::Attach(record), fds),
            Err(error) => {
                tracing::error!(
                    worker = %record.id, %error,
                    "the manager was not told of the worker"
                )
            }
        }
        self.tell_leases(index);
    }
}
