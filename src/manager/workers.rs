//! The workers as the manager sees them, and what several of them are told.

use std::collections::BTreeMap;

use super::liveness::LivenessStep;
use super::relay::message::sender;
use super::worker_handle::{Phase, WorkerHandle};
use crate::fd::WorkerId;
use crate::ipc::messages::{Generation, Origin};

/// For a worker to be ready, before it counts as hung.
pub const BOOT_MS: u64 = 30_000;

/// All of them.
#[derive(Default)]
pub struct Workers {
    by_id: BTreeMap<WorkerId, WorkerHandle>,
}

impl Workers {
    /// Adds one.
    pub fn insert(&mut self, handle: WorkerHandle) {
        self.by_id.insert(handle.id(), handle);
    }

    /// Removes one; its tasks end.
    pub fn remove(&mut self, id: WorkerId) -> Option<WorkerHandle> {
        self.by_id.remove(&id)
    }

    /// One of them.
    pub fn get(&self, id: WorkerId) -> Option<&WorkerHandle> {
        self.by_id.get(&id)
    }

    /// One of them, to change.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerHandle> {
        self.by_id.get_mut(&id)
    }

    /// A worker has answered a liveness check.
    pub fn answered_check(&mut self, id: WorkerId, number: u64) {
        if let Some(worker) = self.get_mut(id) {
            worker.liveness.answered(number);
        }
    }

    /// We ourselves were late: no worker is to blame for an answer that has not come.
    pub fn forgive(&mut self, now_ms: u64) {
        for worker in self.iter_mut() {
            worker.liveness.forgive(now_ms);
        }
    }

    /// Has all close their clients that were silent for so long.
    pub fn sweep(&self, idle_ms: u64) {
        for worker in self.iter().filter(|worker| worker.may_have_clients()) {
            worker.sweep(idle_ms);
        }
    }

    /// A worker has no clients left and is about to exit.
    pub fn part(&mut self, id: WorkerId) {
        tracing::debug!(worker = %id, "the worker has no connections left");
        if let Some(worker) = self.get_mut(id) {
            worker.part();
        }
    }

    /// Something that a worker sent was refused, which the worker is told with the next answers.
    /// What a control command sent has its own answer.
    pub fn count_refused(&mut self, origin: Origin, count: u64) {
        if let Some(worker) = sender(origin).and_then(|id| self.get_mut(id)) {
            worker.refused += count;
        }
    }

    /// A worker is ready.
    pub fn ready(&mut self, id: WorkerId) {
        if let Some(worker) = self.get_mut(id) {
            worker.record.ready = true;
            if let Phase::Starting { .. } = worker.phase {
                worker.phase = Phase::Serving;
            }
        }
    }

    /// A second has passed: asks for signs of life. The answer is who is hung, each told once.
    #[must_use]
    pub fn check_liveness(&mut self, now_ms: u64, timeout_ms: u64) -> Vec<WorkerId> {
        let mut hung = Vec::new();
        for worker in self.iter_mut() {
            // Until it is ready, user code may hold its reactor; that has a deadline of its own.
            if let Phase::Starting { since } = worker.phase {
                if now_ms.saturating_sub(since) >= BOOT_MS && !worker.killed {
                    worker.killed = true;
                    hung.push(worker.id());
                }
                continue;
            }
            match worker.liveness.tick(now_ms, timeout_ms) {
                LivenessStep::Send(number) => worker.check_liveness(number),
                LivenessStep::Wait => {}
                LivenessStep::Hung => hung.push(worker.id()),
            }
        }
        hung
    }

    /// Those of some generations that are not on their way out, and whether each is ready.
    pub fn of_generation(&self, wanted: impl Fn(Generation) -> bool) -> Vec<(WorkerId, bool)> {
        let stays = |worker: &&WorkerHandle| !matches!(worker.phase, Phase::Draining { .. });
        let wanted = self.iter().filter(stays).filter(|worker| wanted(worker.record.generation));
        wanted.map(|worker| (worker.id(), worker.is_ready())).collect()
    }

    /// What is queued for them goes at [`end_turn`](Self::end_turn), which has to follow.
    pub fn begin_turn(&self) {
        for worker in self.by_id.values() {
            worker.link.begin_turn();
        }
    }

    /// Sends what is queued for them.
    pub fn end_turn(&self) {
        for worker in self.by_id.values() {
            worker.link.end_turn();
        }
    }

    /// All, by slot and epoch.
    pub fn iter(&self) -> impl Iterator<Item = &WorkerHandle> {
        self.by_id.values()
    }

    /// All, to change, by slot and epoch.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerHandle> {
        self.by_id.values_mut()
    }
}
