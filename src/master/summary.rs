//! The summary of all counters, as the outside is told it, and what the master knows besides.

use std::os::fd::AsFd;

use super::Master;
use super::child::duplicate;
use crate::error::Result;
use crate::ipc::messages::MasterToWorker;
use crate::ipc::scoreboard::Fact;

impl Master {
    /// Writes the summary anew, once a second.
    pub(super) fn sum_up(&self) {
        let ready = |slot: &_| self.ready_worker(*slot, self.image.generation).is_some();
        let facts = [
            (Fact::Slots, self.slots.serving().count() as u64),
            (Fact::Ready, self.slots.serving().filter(ready).count() as u64),
            (Fact::Generation, u64::from(self.image.generation)),
            (Fact::WorkerRestarts, self.worker_restarts),
            (Fact::ManagerRestarts, self.manager.restarts),
            (Fact::AppProcesses, self.apps.len() as u64),
            (Fact::StartedAt, self.started_at),
            (Fact::Started, u64::from(self.starting_until_ms.is_none())),
            (Fact::Draining, u64::from(self.drain.is_some())),
        ];
        for (fact, value) in facts {
            self.summary.tell(fact, value);
        }
        self.summary.publish(&self.board, self.config.max_connection as u64);
    }

    /// Gives the summary to a worker that has just been started.
    pub(super) fn show_summary(&mut self, index: usize) -> Result<()> {
        self.tell_drain(index);
        let page = duplicate(self.summary.memfd().as_fd())?;
        self.workers[index].send(&MasterToWorker::Summary, vec![page]);
        Ok(())
    }

    /// The image is new, and so is the summary: every worker reads this one from here on.
    pub(super) fn show_summary_to_all(&mut self) {
        self.sum_up();
        for index in 0..self.workers.len() {
            if let Err(error) = self.show_summary(index) {
                let worker = self.workers[index].id;
                tracing::error!(%worker, %error, "a worker has no figures to tell");
            }
        }
    }
}
