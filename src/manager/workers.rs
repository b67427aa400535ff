//! The workers as the manager sees them, and what several of them are told.

use std::collections::{BTreeMap, BTreeSet};

use super::liveness::LivenessStep;
use super::relay::message::sender;
use super::settings::Settings;
use super::worker_handle::{Phase, WorkerHandle};
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{Generation, Origin};
use crate::sys::clock::monotonic_ms;

/// For a worker to be ready, before it counts as hung.
pub const BOOT_MS: u64 = 30_000;
/// Old generations that may linger.
const OLD_GENERATIONS_MAX: usize = 4;

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

    /// Whether a new manager may believe what a worker says that so many of its clients are in the
    /// midst of.
    pub fn believes(&mut self, id: WorkerId, count: usize) -> bool {
        self.get_mut(id).is_some_and(|worker| worker.may_claim && worker.tells_ranges(count))
    }

    /// Has an old worker give what can still follow, and leave.
    pub fn drain(&mut self, id: WorkerId, settings: &Settings) {
        let (jitter_ms, deadline_ms) = (settings.jitter_ms, settings.max_wait_ms);
        let until = monotonic_ms() + settings.drain_ms();
        if let Some(worker) = self.get_mut(id) {
            worker.drain(jitter_ms, deadline_ms.max(jitter_ms), until);
        }
    }

    /// Who has outlived the deadline of its drain, each told once: they are to be killed.
    #[must_use]
    pub fn take_overdue(&mut self, now_ms: u64) -> Vec<WorkerId> {
        let is_over = |worker: &WorkerHandle| match worker.phase {
            Phase::Draining { until } => now_ms >= until,
            _ => false,
        };
        self.take(is_over)
    }

    /// Who is of a generation before the last four old ones, each told once: they are to be killed.
    #[must_use]
    pub fn take_oldest(&mut self, serving: Generation) -> Vec<WorkerId> {
        let old = self.iter().map(|worker| worker.record.generation);
        let old: BTreeSet<Generation> = old.filter(|generation| *generation < serving).collect();
        let too_many = old.len().saturating_sub(OLD_GENERATIONS_MAX);
        let doomed: BTreeSet<Generation> = old.into_iter().take(too_many).collect();
        self.take(|worker| doomed.contains(&worker.record.generation))
    }

    /// Notes that these are to be killed, but for those of whom that was noted before.
    fn take(&mut self, doomed: impl Fn(&WorkerHandle) -> bool) -> Vec<WorkerId> {
        let mut taken = Vec::new();
        for worker in self.iter_mut().filter(|worker| !worker.killed) {
            if doomed(worker) {
                worker.killed = true;
                taken.push(worker.id());
            }
        }
        taken
    }

    /// Has a worker stop accepting, since its connections are to move.
    pub fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        if let Some(worker) = self.get_mut(from) {
            worker.hand_over(to);
        }
    }

    /// How well a worker can do what is done once for a slot, whose clients are served in this
    /// place: one that starts may never serve, and one that gives its clients is about to leave.
    pub fn rank(&self, id: WorkerId, place: Slot) -> (bool, u8, WorkerId) {
        let steady = match self.get(id).map(|worker| &worker.phase) {
            Some(Phase::Serving) => 3,
            Some(Phase::Handing) => 2,
            Some(Phase::Starting { .. }) => 1,
            _ => 0,
        };
        (id.slot == place, steady, id)
    }

    /// The newest worker of a slot that is ready.
    pub fn newest_ready(&self, slot: Slot) -> Option<WorkerId> {
        let ready = self.iter().filter(|worker| worker.id().slot == slot && worker.is_ready());
        ready.map(WorkerHandle::id).max_by_key(|id| id.epoch)
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
