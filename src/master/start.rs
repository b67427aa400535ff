//! The start of a server: over once every worker serves, and failed where any of it fails.

use nix::sys::signal::Signal;

use super::stop::Stopping;
use super::{Master, notify};
use crate::ipc::messages::Purpose;
use crate::ipc::scoreboard::Fact;
use crate::sys::clock;

/// Every worker has to serve within this time of the start.
pub(super) const MS_MAX: u64 = 30_000;
/// A start that lasts longer tells what it waits for.
const SLOW_MS: u64 = 2_000;

impl Master {
    /// Once every slot has served, the start is a success; before, any failure ends it.
    pub(super) fn tick_starting(&mut self, now: u64) {
        let Some(until) = self.starting_until_ms else { return };
        let ready = |slot| self.ready_worker(slot, self.image.generation).is_some();
        if self.manager.process.serves() && self.slots.serving().all(ready) {
            self.starting_until_ms = None;
            tracing::info!("every worker serves");
            self.summary.tell(Fact::Started, 1);
            notify::ready();
            let addresses = self.listeners.addresses(Purpose::Clients);
            self.report.ready(&self.config, &self.launch.sources, &addresses);
            return;
        }
        if now + MS_MAX < until + SLOW_MS {
            return;
        }
        let waits = self.start_waits_for();
        self.report.note(&format!("the start waits for {waits}"));
        if now >= until {
            let limit = MS_MAX / 1000;
            self.fail_start(format!(
                "not every worker served within {limit} s, for want of {waits}"
            ));
        }
    }

    /// What a start waits for still.
    fn start_waits_for(&self) -> String {
        if self.waits_for_number() {
            let why = self.courier.trouble().map_or("no answer yet", String::as_str);
            return format!("the number of this node in the cluster ({why})");
        }
        let mut waits = Vec::new();
        for slot in self.slots.serving() {
            if self.ready_worker(slot, self.image.generation).is_some() {
                continue;
            }
            let worker = self.workers.iter().rfind(|worker| worker.id.slot == slot);
            let what = worker.and_then(|worker| worker.waits.as_deref());
            waits.push(match what {
                Some(what) => format!("worker {slot}: {what}"),
                None => format!("worker {slot}"),
            });
        }
        if !self.manager.process.serves() {
            waits.push("the manager".to_owned());
        }
        waits.join("; ")
    }

    pub(super) fn fail_start(&mut self, why: String) {
        if self.starting_until_ms.take().is_some() {
            tracing::error!(%why, "the start failed");
            self.report.failed(&why);
            self.stopping = Some(Stopping::failed(clock::monotonic_ms()));
            self.kill_everyone(Signal::SIGKILL);
        }
    }
}
