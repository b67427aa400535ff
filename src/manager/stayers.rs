//! What stayed behind in a reload, since its handlers ran, follows when it has come to rest.

use super::Manager;
use super::reload::{Event, Reload};
use super::workers::Phase;
use crate::fd::WorkerId;
use crate::ipc::control::ReloadVerdict;
use crate::sys::clock::monotonic_ms;

impl Manager {
    /// An old worker has something to give: the next round of what moves now, or what follows.
    pub fn on_rested(&mut self, id: WorkerId) {
        if self.reloads.current.as_ref().is_some_and(|reload| reload.pauses(id)) {
            self.reload_event(Event::Rested { from: id });
        } else {
            self.reloads.rested.insert(id);
            self.follow();
        }
    }

    /// Moves what had stayed behind, one old worker after the other, while nothing else moves.
    pub fn follow(&mut self) {
        if self.reloads.is_busy() || self.stopping || self.settle_until.is_some() {
            return;
        }
        let workers = &self.workers;
        self.reloads.rested.retain(|id| workers.get(*id).is_some());
        let pair = self.reloads.rested.iter().find_map(|&from| {
            let drains = matches!(workers.get(from)?.phase, Phase::Draining { .. });
            let to = self.router.serving(from.slot).filter(|to| *to != from)?;
            (drains && workers.get(to)?.phase == Phase::Serving).then_some((from, to))
        });
        let Some((from, to)) = pair else { return };
        self.reloads.rested.remove(&from);
        let (reload, actions) = Reload::follow(from, to, self.limits(), monotonic_ms());
        self.reloads.current = Some(reload);
        self.act(actions);
    }

    /// What followed is told to the log alone: nobody waits for it.
    pub fn followed(&mut self, verdict: &ReloadVerdict) {
        for step in &verdict.slots {
            let (moved, stayed, failed) = (step.moved, step.stayed, step.failed.as_deref());
            tracing::info!(slot = %step.slot, moved, stayed, failed, "connections followed");
        }
    }
}
