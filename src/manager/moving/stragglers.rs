//! Old workers after a reload: what stayed behind with them, since its handlers ran, follows when
//! it has come to rest, and they leave.

use std::collections::BTreeMap;

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
    /// Each, and from when on it is asked for that, in milliseconds of the monotonic clock.
    can_give: BTreeMap<WorkerId, u64>,
}

impl Stragglers {
    /// An old worker has something to give.
    pub fn can_give(&mut self, id: WorkerId) {
        self.can_give.entry(id).or_insert(0);
    }

    /// Takes an old worker that can give now, and says who takes over.
    pub fn take_pair(
        &mut self,
        workers: &Workers,
        router: &Router,
        now: u64,
    ) -> Option<(WorkerId, WorkerId)> {
        self.can_give.retain(|id, _| workers.get(*id).is_some());
        let (from, to) = self.due(now).find_map(|from| {
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
                reload.old_workers().for_each(|id| self.follow_later(id, now));
            }
        }
    }

    /// No worker has taken over what this one gave. Meanwhile others have their turn.
    fn follow_later(&mut self, id: WorkerId, now: u64) {
        self.can_give.insert(id, now + FOLLOW_AGAIN_MS);
    }

    /// Those that may be asked for what they have.
    fn due(&self, now: u64) -> impl Iterator<Item = WorkerId> {
        self.can_give.iter().filter(move |(_, at)| **at <= now).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    #[test]
    fn what_nobody_has_taken_over_is_not_asked_for_again_at_once_and_others_have_their_turn() {
        let [first, second] = [0, 1].map(|slot| WorkerId { slot: Slot(slot), epoch: 1 });
        let mut stragglers = Stragglers::default();
        stragglers.can_give(first);
        stragglers.can_give(second);
        stragglers.follow_later(first, 5_000);
        stragglers.can_give(first);
        let due = |now| stragglers.due(now).collect::<Vec<_>>();
        assert_eq!(due(5_001), [second]);
        assert_eq!(due(5_000 + FOLLOW_AGAIN_MS), [first, second]);
    }
}
