//! Old workers after a reload: what stayed behind with them, since its handlers ran, follows when
//! it has come to rest, and they leave.

use std::collections::BTreeSet;

use super::reload::Reload;
use crate::fd::WorkerId;
use crate::ipc::control::ReloadVerdict;
use crate::manager::relay::router::Router;
use crate::manager::worker_handle::Phase;
use crate::manager::workers::Workers;

/// Before what nobody took over is asked for again: a worker that could not take it may never.
const FOLLOW_AGAIN_MS: u64 = 1_000;

/// Old workers that have something to give since it came to rest.
#[derive(Default)]
pub struct Stragglers {
    can_give: BTreeSet<WorkerId>,
    /// From when on that is asked for, in milliseconds of the monotonic clock.
    follows_at: u64,
}

impl Stragglers {
    /// An old worker has something to give.
    pub fn can_give(&mut self, id: WorkerId) {
        self.can_give.insert(id);
    }

    /// Takes an old worker that can give now, and says who takes over.
    pub fn take_pair(
        &mut self,
        workers: &Workers,
        router: &Router,
        now: u64,
    ) -> Option<(WorkerId, WorkerId)> {
        if !self.may_follow(now) {
            return None;
        }
        self.can_give.retain(|id| workers.get(*id).is_some());
        let (from, to) = self.can_give.iter().find_map(|&from| {
            let drains = matches!(workers.get(from)?.phase, Phase::Draining { .. });
            let to = router.serving(from.slot).filter(|to| *to != from)?;
            (drains && workers.get(to)?.phase == Phase::Serving).then_some((from, to))
        })?;
        self.can_give.remove(&from);
        Some((from, to))
    }

    /// What followed is told to the log alone: nobody waits for it.
    pub fn followed(&mut self, reload: &Reload, verdict: &ReloadVerdict, now: u64) {
        for step in &verdict.slots {
            let (moved, stayed, failed) = (step.moved, step.stayed, step.failed.as_deref());
            tracing::info!(
                slot = %step.slot, moved, stayed, failed,
                "connections followed to the new worker"
            );
            if failed.is_some() {
                // What it gave and nobody took over is to be given to another.
                self.can_give.extend(reload.old_workers());
                self.follow_later(now);
            }
        }
    }

    /// Whether what has stayed behind may be asked for.
    fn may_follow(&self, now: u64) -> bool {
        now >= self.follows_at
    }

    /// No worker has taken over what was given.
    fn follow_later(&mut self, now: u64) {
        self.follows_at = now + FOLLOW_AGAIN_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_taken_over_is_not_asked_for_again_at_once() {
        let mut stragglers = Stragglers::default();
        assert!(stragglers.may_follow(5_000));
        stragglers.follow_later(5_000);
        assert!(!stragglers.may_follow(5_001));
        assert!(stragglers.may_follow(5_000 + FOLLOW_AGAIN_MS));
    }
}
