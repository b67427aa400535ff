//! The place of the manager, and what it is told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Master;
use super::child::ABORT_MS;
use super::child::Child;
use super::throttle::Throttle;
use crate::fd::WorkerId;
use crate::ipc::messages::MasterToManager;
use crate::sys::clock;

/// The place of the manager.
#[derive(Default)]
pub struct ManagerPlace {
    pub(super) child: Option<Child>,
    pub(super) epoch: u32,
    pub(super) ready_ms: Option<u64>,
    pub(super) throttle: Throttle,
    pub(super) start_at_ms: Option<u64>,
    pub(super) checks: u64,
    pub(super) next_check_ms: u64,
    pub(super) answered_ms: u64,
    /// Whether the living one is on its way out, for a new image's.
    pub(super) replaced: bool,
    /// Whether a reload was asked for that the master has not prepared yet. One that is started
    /// meanwhile begins with it, since only the one that died knew.
    pub reload_asked: bool,
    /// Managers started again after a crash.
    pub restarts: u64,
    /// The page on which it counts.
    pub(super) page: Option<OwnedFd>,
}

impl ManagerPlace {
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

    pub(super) fn kill_manager(&mut self) {
        if let Some(child) = self.manager.child() {
            child.signal(Signal::SIGKILL);
        }
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
