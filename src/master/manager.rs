//! The manager, as it lives: started, asked for signs of life, heard, replaced at once.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use super::child::ABORT_MS;
use super::child::{Birth, Child, duplicate};
use super::throttle::YOUNG_MS;
use super::{CHECK_MS, Master, notify};
use crate::error::Result;
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::{ManagerBoot, ManagerToMaster, MasterToManager};
use crate::ipc::scoreboard::{MANAGER, Row};
use crate::sys::clock;

/// Packets of the manager that are read in one turn.
const PACKETS_PER_TURN: usize = 256;

impl Master {
    pub(super) fn tick_manager(&mut self, now: u64) {
        let timeout = self.config.worker_timeout.as_millis() as u64;
        let manager = &mut self.manager;
        let Some(child) = manager.child.as_mut() else {
            let due = manager.start_at_ms.unwrap_or(now) <= now;
            if due && self.stopping.is_none() {
                self.start_manager(now);
            }
            return;
        };
        if child.kill_at_ms.is_some_and(|at| at <= now) {
            child.kill_at_ms = None;
            child.signal(Signal::SIGKILL);
        }
        if now < manager.next_check_ms {
            return;
        }
        manager.next_check_ms = now + CHECK_MS;
        if child.kill_at_ms.is_none() && now.saturating_sub(manager.answered_ms) > timeout {
            tracing::error!(timeout_ms = timeout, "the manager does not answer: killed");
            child.signal(Signal::SIGABRT);
            child.kill_at_ms = Some(now + ABORT_MS);
        }
        manager.checks += 1;
        let check = MasterToManager::LivenessCheck(manager.checks);
        self.tell_manager(&check, Vec::new());
    }

    fn start_manager(&mut self, now: u64) {
        self.manager.start_at_ms = None;
        self.manager.epoch += 1;
        match self.try_start_manager(now) {
            Ok(()) => {
                self.tell_prepared();
                for index in 0..self.workers.len() {
                    self.attach(index);
                }
                if let Some(mode) = self.stopping.as_ref().and_then(super::Stopping::mode) {
                    self.tell_manager(&MasterToManager::Stopping(mode), Vec::new());
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot start the manager");
                self.fail_start(error.to_string());
                let delay = self.manager.throttle.died(true).max(100);
                self.manager.start_at_ms = Some(now + delay);
            }
        }
    }

    fn try_start_manager(&mut self, now: u64) -> Result<()> {
        let page = Row::create()?;
        let fds = vec![duplicate(self.control.as_fd())?, duplicate(page.as_fd())?];
        let boot = ManagerBoot {
            epoch: self.manager.epoch,
            config: serde_json::to_string(&self.config).unwrap_or_default(),
            generation: self.image.generation,
            pending: self.reload.pending_generation(),
            begin_with_reload: self.manager.reload_asked,
            state: self.state(),
            departed: self.board.departed().clone(),
        };
        let mut child = Child::start(&Birth {
            image: &self.image.path(),
            title: "wsd: manager",
            arguments: &self.arguments,
            stdout: None,
            stderr: self.log_file.for_child(),
        })?;
        tracing::info!(pid = child.pid.as_raw(), "manager started");
        child.send(&MasterToManager::Boot(boot), fds)?;
        self.board.opened(MANAGER, page.as_fd())?;
        self.manager.page = Some(page);
        self.manager.child = Some(child);
        self.manager.answered_ms = now;
        self.manager.next_check_ms = now + CHECK_MS;
        Ok(())
    }

    pub(super) fn read_manager(&mut self) {
        for _ in 0..PACKETS_PER_TURN {
            let Some(child) = self.manager.child_mut() else { return };
            match child.receive(&mut self.buffer) {
                Ok(Some((message, _))) => self.manager_said(message),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the manager broke the protocol: killed");
                    return child.signal(Signal::SIGKILL);
                }
            }
        }
    }

    fn manager_said(&mut self, message: ManagerToMaster) {
        let now = clock::monotonic_ms();
        self.manager.answered_ms = now;
        match message {
            ManagerToMaster::Hello(hello) if hello.ipc_version == IPC_VERSION => {}
            ManagerToMaster::Hello(hello) => {
                tracing::error!(
                    version = hello.version,
                    "the manager speaks another IPC version: killed"
                );
                self.kill_manager();
            }
            ManagerToMaster::Ready => self.manager.ready_ms = Some(now),
            ManagerToMaster::Alive(_) => self.manager_is_alive(),
            ManagerToMaster::KillHung(id) => {
                tracing::error!(worker = %id, "the worker does not answer: killed");
                self.kill_worker(id, true);
            }
            ManagerToMaster::Kill(id) => {
                tracing::warn!(worker = %id, "the worker outlived its deadline: killed");
                self.kill_worker(id, false);
            }
            ManagerToMaster::Prepare => self.prepare(),
            ManagerToMaster::Spawn(slot) => self.spawn_pending(slot),
            ManagerToMaster::Commit => self.commit(),
            ManagerToMaster::Abort => self.abort("the reload failed"),
            ManagerToMaster::Stop(mode) => self.stop(mode, 1),
            ManagerToMaster::Upgrade => self.upgrade(),
            ManagerToMaster::Reopen => self.reopen_log(),
            ManagerToMaster::Drain { on } => self.drain(on),
        }
    }

    /// The manager answers, and it would not if a worker's silence had been overlooked: the
    /// service manager may know that all is well.
    fn manager_is_alive(&mut self) {
        use crate::ipc::scoreboard::Counter;
        notify::watchdog();
        let ready = self.workers.iter().filter(|worker| worker.ready_ms.is_some()).count();
        let open = self.board.sum(Counter::Connections);
        let throttled = match self.slots.throttled().len() {
            0 => String::new(),
            slots => format!(", {slots} in a crash loop"),
        };
        notify::status(&format!("{ready} workers, {open} connections{throttled}"));
    }

    pub(super) fn manager_died(&mut self, how: &str, clean: bool) {
        let now = clock::monotonic_ms();
        self.manager.child = None;
        self.manager.page = None;
        let last = self.board.page(MANAGER).map(|page| page.totals()).unwrap_or_default();
        self.board.ended(MANAGER, &last);
        let ready_ms = self.manager.ready_ms.take();
        if std::mem::take(&mut self.manager.replaced) {
            self.manager.start_at_ms = Some(now);
            return tracing::info!(how, "the old image's manager ended");
        }
        if self.stopping.is_some() && clean {
            return tracing::info!(how, "manager ended");
        }
        tracing::error!(how, "manager died");
        self.fail_start(format!("the manager died at its start: {how}"));
        let young = ready_ms.is_none_or(|ready| now - ready < YOUNG_MS);
        let delay = self.manager.throttle.died(young);
        self.manager.restarts += 1;
        self.manager.start_at_ms = Some(now + delay);
    }
}
