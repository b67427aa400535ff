//! What this worker says to the manager.

use super::Base;
use crate::api::Verdict;
use crate::error::Result;
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{Origin, RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

impl Base {
    /// Says something to the manager that must arrive.
    pub(in crate::worker) fn say(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.control(message) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    pub(in crate::worker) fn tell_verdict(&self, origin: Origin, id: RequestId, verdict: Verdict) {
        if id != 0 {
            self.say(&WorkerToManager::Verdict { origin, id, verdict });
        }
    }

    /// Says something behind all that was said before.
    pub(in crate::worker) fn say_in_order(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.insist(message, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    /// Gives a message for somebody elsewhere to the manager.
    pub(in crate::worker) fn relay(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        self.relayed(self.link.send(Lane::Data, message, Body::Inline(body), Vec::new()))
    }

    pub(in crate::worker) fn relayed(&self, sent: Result<Sent>) -> Verdict {
        match sent {
            Ok(Sent::Queued) => Verdict::Relayed,
            Ok(Sent::Full) => {
                self.add(Counter::LaneFull, 1);
                Verdict::Full
            }
            Err(error) => {
                tracing::error!(%error, "cannot relay");
                Verdict::Full
            }
        }
    }
}
