//! The manager, as it lives: started, asked for signs of life, heard, replaced at once.

use std::os::fd::AsFd;

use super::child::{Birth, Child, duplicate};
use super::supervised::Due;
use super::{Master, notify};
use crate::error::Result;
use crate::ipc::messages::{ManagerBoot, ManagerToMaster, MasterToManager};
use crate::ipc::scoreboard::{MANAGER, Row};
use crate::sys::clock;

/// Packets of the manager that are read in one turn.
const PACKETS_PER_TURN: usize = 256;

impl Master {
    pub(super) fn tick_manager(&mut self, now: u64) {
        let timeout = self.config.worker_timeout.as_millis() as u64;
        match self.manager.process.due(now, timeout, self.stopping.is_some()) {
            Due::Start => self.start_manager(now),
            Due::Check(number) => {
                self.tell_manager(&MasterToManager::LivenessCheck(number), Vec::new());
            }
            Due::Nothing => {}
        }
    }

    fn start_manager(&mut self, now: u64) {
        match self.try_start_manager(now) {
            Ok(()) => {
                self.tell_prepared();
                for index in 0..self.workers.len() {
                    self.attach(index);
                }
                self.attach_courier();
            }
            Err(error) => {
                tracing::error!(%error, "cannot start the manager");
                self.fail_start(error.to_string());
                self.manager.process.not_started(now);
            }
        }
    }

    fn try_start_manager(&mut self, now: u64) -> Result<()> {
        let epoch = self.manager.process.begin();
        let page = Row::create()?;
        let fds = vec![duplicate(self.control.as_fd())?, duplicate(page.as_fd())?];
        let boot = ManagerBoot {
            epoch,
            config: self.config.for_child(false),
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
        child.send(&MasterToManager::Boot(boot), fds)?;
        self.board.opened(MANAGER, page.as_fd())?;
        self.manager.page = Some(page);
        self.manager.process.started(child, now);
        Ok(())
    }

    pub(super) fn read_manager(&mut self) {
        let now = clock::monotonic_ms();
        for _ in 0..PACKETS_PER_TURN {
            let said = self.manager.process.receive(&mut self.buffer, now);
            let Some(message) = said else { return };
            self.manager_said(message, now);
        }
    }

    fn manager_said(&mut self, message: ManagerToMaster, now: u64) {
        match message {
            ManagerToMaster::Hello(hello) => self.manager.process.hello(&hello),
            ManagerToMaster::Ready => self.manager.process.serves_since(now),
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
        self.manager.page = None;
        let last = self.board.page(MANAGER).map(|page| page.totals()).unwrap_or_default();
        self.board.ended(MANAGER, &last);
        let wished = self.stopping.is_some() && clean;
        if self.manager.process.ended(how, wished, clock::monotonic_ms()) {
            self.fail_start(format!("the manager died at its start: {how}"));
            self.manager.restarts += 1;
        }
    }
}
