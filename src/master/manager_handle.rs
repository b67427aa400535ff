//! The manager as the master sees it: started, asked for signs of life, replaced at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::child::{Birth, Child, duplicate};
use super::throttle::{Throttle, YOUNG_MS};
use super::upgrade::{Leaving, adopt_child};
use super::worker_handle::ABORT_MS;
use super::{CHECK_MS, Master, notify};
use crate::error::Result;
use crate::fd::WorkerId;
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::{ManagerBoot, ManagerToMaster, MasterToManager};
use crate::ipc::scoreboard::{MANAGER, Row};
use crate::sys::{clock, process};

/// Packets of the manager that are read in one turn.
const PACKETS_PER_TURN: usize = 256;

/// The place of the manager.
#[derive(Default)]
pub struct ManagerPlace {
    child: Option<Child>,
    epoch: u32,
    ready_ms: Option<u64>,
    throttle: Throttle,
    start_at_ms: Option<u64>,
    checks: u64,
    next_check_ms: u64,
    answered_ms: u64,
    /// Whether the living one is on its way out, for a new image's.
    replaced: bool,
    /// Whether a reload was asked for that the master has not prepared yet. One that is started
    /// meanwhile begins with it, since only the one that died knew.
    pub reload_asked: bool,
    /// Managers started again after a crash.
    pub restarts: u64,
    /// The page on which it counts.
    page: Option<OwnedFd>,
}

/// The manager, as one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct ManagerLeft {
    process: Option<(i32, RawFd)>,
    epoch: u32,
    ready: bool,
    restarts: u64,
    #[serde(default)]
    page: Option<RawFd>,
}

impl ManagerPlace {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<ManagerLeft> {
        let child = self.child.as_ref();
        let process = child.map(|child| Ok((child.pid.as_raw(), leaving.pass_on(child.link())?)));
        let page = self.page.as_ref().map(|page| leaving.pass_on(page.as_fd())).transpose()?;
        Ok(ManagerLeft {
            process: process.transpose()?,
            page,
            epoch: self.epoch,
            ready: self.ready_ms.is_some(),
            restarts: self.restarts,
        })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(left: ManagerLeft) -> Result<ManagerPlace> {
        let now = clock::monotonic_ms();
        let process = left.process.map(|(pid, link)| adopt_child(pid, now, link));
        Ok(ManagerPlace {
            child: process.transpose()?,
            epoch: left.epoch,
            ready_ms: left.ready.then_some(now),
            answered_ms: now,
            restarts: left.restarts,
            page: left.page.map(process::duplicate_number).transpose()?,
            ..ManagerPlace::default()
        })
    }

    /// The image is new: the old manager leaves, and the next one begins with a reload.
    pub fn upgraded(&mut self) {
        self.reload_asked = true;
        if let Some(child) = &mut self.child {
            self.replaced = true;
            // One of another version may not understand; it is killed when its time is over.
            let _ = child.send(&MasterToManager::Leave, Vec::new());
            child.kill_at_ms = Some(clock::monotonic_ms() + ABORT_MS);
        }
    }

    /// The page on which it counts, if it lives.
    pub fn page(&self) -> Option<BorrowedFd<'_>> {
        self.page.as_ref().map(AsFd::as_fd)
    }

    /// Its process, if it lives.
    pub fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Its process, if it lives.
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.ready_ms.is_some()
    }

    /// Whether this is its pid.
    pub fn is(&self, pid: Pid) -> bool {
        self.child.as_ref().is_some_and(|child| child.pid == pid)
    }

    /// When it has to be looked at again.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let kill = self.child.as_ref().and_then(|child| child.kill_at_ms);
        let check = self.child.as_ref().map(|_| self.next_check_ms);
        [self.start_at_ms, kill, check].into_iter().flatten().min()
    }
}

impl Master {
    /// Sends the manager a message. Without a manager it is lost: the next one is told the whole
    /// state at its start.
    pub(super) fn tell_manager(&mut self, message: &MasterToManager, fds: Vec<OwnedFd>) {
        let Some(child) = self.manager.child_mut() else { return };
        if let Err(error) = child.send(message, fds) {
            tracing::warn!(%error, "a message to the manager was not sent");
        }
    }

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
                self.attach_courier();
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

    fn kill_manager(&mut self) {
        if let Some(child) = self.manager.child() {
            child.signal(Signal::SIGKILL);
        }
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

    pub(super) fn kill_worker(&mut self, id: WorkerId, abort_first: bool) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        if abort_first {
            worker.child.signal(Signal::SIGABRT);
            worker.child.kill_at_ms = Some(clock::monotonic_ms() + ABORT_MS);
        } else {
            worker.child.signal(Signal::SIGKILL);
        }
    }
}
