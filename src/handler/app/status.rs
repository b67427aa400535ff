//! What is told of the processes: in `status`, and while a start waits for them.

use super::shared::Shared;
use crate::api::{Context, ProcessState};

impl Shared {
    /// The places of this worker that have no process yet that is ready.
    pub fn loading(&self) -> Vec<u16> {
        let (pool, places) = (self.pool.borrow(), self.places.get().into_iter().flatten());
        places.copied().filter(|place| !pool.is_ready(*place)).collect()
    }

    /// What a start waits for.
    pub fn loads(&self) -> String {
        let loading = self.loading();
        let names: Vec<String> = loading.iter().map(u16::to_string).collect();
        let (s, has) = if loading.len() == 1 { ("", "has") } else { ("es", "have") };
        format!(
            "application process{s} {} of {} {has} not said READY (loading, or in workerStart)",
            names.join(", "),
            self.places.get().map_or(0, Vec::len)
        )
    }

    /// Shows the process of each place in `status`: the one that takes its events, else the newest.
    pub fn show(&self, ctx: &Context) {
        let pool = self.pool.borrow();
        for place in 0..pool.places() {
            let ready = pool.process(place);
            let link = ready.and_then(|id| self.links.get(id));
            let link = link.or_else(|| self.links.newest_of(place));
            let state = link.map(|link| ProcessState {
                pid: link.pid,
                ready: ready == Some(link.id),
                task: place >= self.settings.processes.max(1),
                restarts: link.id.epoch.saturating_sub(1),
                events: u32::try_from(pool.events_of(place)).unwrap_or(u32::MAX),
            });
            ctx.reactor().show_process(place, state);
        }
    }
}
