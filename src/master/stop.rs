//! How the server ends: every worker is asked, then made to; the manager goes last.

use nix::sys::signal::Signal;

use super::{Master, notify};
use crate::ipc::messages::{MasterToManager, MasterToWorker, StopMode};
use crate::sys::clock;

/// How long clients have to answer a close frame.
pub const CLOSE_MS: u64 = 5_000;
/// What a process may take beyond its deadlines before it is killed.
const GRACE_MS: u64 = 2_000;

/// A stop under way.
pub struct Stopping {
    /// How it was asked for; `None` where everyone was killed at once.
    mode: Option<StopMode>,
    deadline_ms: u64,
    manager_told: bool,
    failed: bool,
}

impl Stopping {
    /// After a start that failed.
    pub fn failed(now: u64) -> Stopping {
        Stopping { mode: None, deadline_ms: now + GRACE_MS, manager_told: false, failed: true }
    }

    /// When patience ends.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Whether the exit status is to tell of a failure.
    pub fn is_failure(&self) -> bool {
        self.failed
    }
}

impl Master {
    /// Begins to stop, or stops harder: a second TERM is an INT, and after that a QUIT.
    pub(super) fn stop(&mut self, mode: StopMode, times: usize) {
        let mode = match (self.stopping.as_ref().map(|stopping| stopping.mode), mode, times) {
            (None, mode, 1) => mode,
            (None, StopMode::Graceful, 2) => StopMode::Quick,
            (Some(Some(StopMode::Graceful)), _, 1) => StopMode::Quick,
            _ => return self.stop_at_once(),
        };
        tracing::info!(?mode, "stopping");
        notify::stopping();
        let failed = self.fail_start_quietly();
        let now = clock::monotonic_ms();
        let patience = match mode {
            StopMode::Graceful => self.config.max_wait_time.as_millis() as u64 + CLOSE_MS,
            StopMode::Quick => 1_000,
        };
        let deadline_ms = now + patience + GRACE_MS;
        self.stopping =
            Some(Stopping { mode: Some(mode), deadline_ms, manager_told: false, failed });
        self.tell_manager(&MasterToManager::Stopping(mode), Vec::new());
        for worker in &mut self.workers {
            worker.send(&MasterToWorker::Stop(mode), Vec::new());
        }
        // Nobody would accept whoever comes now: refused at once, they find another server.
        self.listeners.shut_clients();
    }

    /// The answer is whether the start has failed, now or before.
    fn fail_start_quietly(&mut self) -> bool {
        if self.starting_until_ms.take().is_some() {
            self.report.failed("stopped before every worker served");
            return true;
        }
        self.stopping.as_ref().is_some_and(Stopping::is_failure)
    }

    /// QUIT: nobody is asked.
    pub(super) fn stop_at_once(&mut self) {
        tracing::warn!("killing every process");
        notify::stopping();
        let failed = self.fail_start_quietly();
        let deadline_ms = clock::monotonic_ms() + GRACE_MS;
        self.stopping = Some(Stopping { mode: None, deadline_ms, manager_told: true, failed });
        self.kill_everyone(Signal::SIGKILL);
    }

    pub(super) fn kill_everyone(&mut self, signal: Signal) {
        for worker in &self.workers {
            worker.child.signal(signal);
        }
        self.kill_all_apps();
        for child in self.supervised().chain(self.reload.probe()) {
            child.signal(signal);
        }
    }

    pub(super) fn tick_stopping(&mut self, now: u64) {
        let workers_gone = self.workers.is_empty();
        let manager_gone = self.manager.process.child().is_none();
        let Some(stopping) = &mut self.stopping else { return };
        if workers_gone && !stopping.manager_told {
            stopping.manager_told = true;
            stopping.deadline_ms = now + GRACE_MS;
            self.tell_manager(&MasterToManager::Leave, Vec::new());
        } else if workers_gone && manager_gone && !self.courier.has_taken_leave() {
            // Last, for what the others have still said.
            stopping.deadline_ms = now + GRACE_MS;
            self.courier.take_leave();
        } else if now >= stopping.deadline_ms {
            stopping.deadline_ms = now + GRACE_MS;
            tracing::warn!("the time is over: killing the processes that are left");
            self.kill_everyone(Signal::SIGKILL);
        }
    }
}
