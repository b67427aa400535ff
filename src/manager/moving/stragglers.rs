//! Old workers after a reload: what stayed behind with them, since its handlers ran, follows when
//! it has come to rest, and they leave.

use std::collections::BTreeSet;

use super::mover::Reloads;
use super::reload::{Event, Reload};
use crate::fd::WorkerId;
use crate::ipc::control::ReloadVerdict;
use crate::ipc::messages::{Generation, ManagerToMaster};
use crate::manager::Manager;
use crate::manager::worker_handle::Phase;
use crate::sys::clock::monotonic_ms;

/// What a drain may take beyond its own deadline before the worker is killed.
const DRAIN_GRACE_MS: u64 = 5_000;
/// Before what nobody took over is asked for again: whoever could not take it may never.
const FOLLOW_AGAIN_MS: u64 = 1_000;
/// Old generations that may linger.
const OLD_GENERATIONS_MAX: usize = 4;

impl Reloads {
    /// Whether what has stayed behind may be asked for.
    fn may_follow(&self, now: u64) -> bool {
        now >= self.follows_at
    }

    /// Nobody has taken over what was given.
    fn follow_later(&mut self, now: u64) {
        self.follows_at = now + FOLLOW_AGAIN_MS;
    }
}

impl Manager {
    /// How long a worker that drains may live, in milliseconds.
    pub fn drain_ms(&self) -> u64 {
        self.settings.max_wait_ms.max(self.settings.jitter_ms) + DRAIN_GRACE_MS
    }

    /// Has an old worker give what can still follow, and leave.
    pub fn drain(&mut self, id: WorkerId) {
        let (jitter_ms, deadline_ms) = (self.settings.jitter_ms, self.settings.max_wait_ms);
        let until = monotonic_ms() + self.drain_ms();
        if let Some(worker) = self.workers.get_mut(id) {
            worker.drain(jitter_ms, deadline_ms.max(jitter_ms), until);
        }
    }

    /// An old worker has something to give: the next round of what moves now, or what follows.
    pub fn on_can_give(&mut self, id: WorkerId) {
        if self.reloads.current.as_ref().is_some_and(|reload| reload.is_from(id)) {
            // Where the handover waits for direct links to end, it has not been told to begin.
            if !self.direct.holds_up_handover() {
                self.reload_event(Event::CanGive { from: id });
            }
        } else {
            self.reloads.can_give.insert(id);
            self.follow();
        }
    }

    /// Moves what had stayed behind, one old worker after the other, while nothing else moves.
    pub fn follow(&mut self) {
        let now = monotonic_ms();
        let is_still = !self.reloads.is_busy() && self.reloads.may_follow(now);
        if !is_still || self.stopping || self.owners_due_at.is_some() {
            return;
        }
        let workers = &self.workers;
        self.reloads.can_give.retain(|id| workers.get(*id).is_some());
        let pair = self.reloads.can_give.iter().find_map(|&from| {
            let drains = matches!(workers.get(from)?.phase, Phase::Draining { .. });
            let to = self.router.serving(from.slot).filter(|to| *to != from)?;
            (drains && workers.get(to)?.phase == Phase::Serving).then_some((from, to))
        });
        let Some((from, to)) = pair else { return };
        self.reloads.can_give.remove(&from);
        let (reload, actions) = Reload::follow(from, to, self.limits(), now);
        self.reloads.current = Some(reload);
        self.act(actions);
    }

    /// What followed is told to the log alone: nobody waits for it.
    pub fn followed(&mut self, reload: &Reload, verdict: &ReloadVerdict) {
        for step in &verdict.slots {
            let (moved, stayed, failed) = (step.moved, step.stayed, step.failed.as_deref());
            tracing::info!(
                slot = %step.slot, moved, stayed, failed,
                "connections followed to the new worker"
            );
            if failed.is_some() {
                // What it gave and nobody took over is to be given to another.
                self.reloads.can_give.extend(reload.old_workers());
                self.reloads.follow_later(monotonic_ms());
            }
        }
    }

    /// At most four old generations linger.
    pub fn kill_oldest(&mut self) {
        let serving = self.reloads.generation();
        let old = self.workers.iter().map(|worker| worker.record.generation);
        let old: BTreeSet<Generation> = old.filter(|generation| *generation < serving).collect();
        let too_many = old.len().saturating_sub(OLD_GENERATIONS_MAX);
        let doomed: BTreeSet<Generation> = old.into_iter().take(too_many).collect();
        for worker in self.workers.iter_mut() {
            if doomed.contains(&worker.record.generation) && !worker.killed {
                worker.killed = true;
                tracing::warn!(worker = %worker.record.id, "too many old generations linger");
                self.master.send(&ManagerToMaster::Kill(worker.record.id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_taken_over_is_not_asked_for_again_at_once() {
        let mut reloads = Reloads::new(1, None);
        assert!(reloads.may_follow(5_000));
        reloads.follow_later(5_000);
        assert!(!reloads.may_follow(5_001));
        assert!(reloads.may_follow(5_000 + FOLLOW_AGAIN_MS));
    }
}
