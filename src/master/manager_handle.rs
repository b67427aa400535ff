//! The manager as the master has it, and what it is told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Master;
use super::child::ABORT_MS;
use super::supervised::Supervised;
use crate::ipc::messages::MasterToManager;
use crate::sys::clock;

/// The place of the manager.
pub struct ManagerPlace {
    pub(super) process: Supervised,
    /// Whether a reload was asked for that the master has not prepared yet. One that is started
    /// meanwhile begins with it, since only the one that died knew.
    pub reload_asked: bool,
    /// Managers started again after a crash.
    pub restarts: u64,
    /// The page on which it counts.
    pub(super) page: Option<OwnedFd>,
}

impl ManagerPlace {
    /// The place, empty.
    pub fn new() -> ManagerPlace {
        let process = Supervised::new("manager");
        ManagerPlace { process, reload_asked: false, restarts: 0, page: None }
    }

    /// The image is new: the old manager leaves, and the next one begins with a reload.
    pub fn upgraded(&mut self) {
        self.reload_asked = true;
        if let Some(child) = self.process.replace() {
            // One of another version may not understand; it is killed when its time is over.
            let _ = child.send(&MasterToManager::Leave, Vec::new());
            child.kill_at_ms = Some(clock::monotonic_ms() + ABORT_MS);
        }
    }

    /// The page on which it counts, if it lives.
    pub fn page(&self) -> Option<BorrowedFd<'_>> {
        self.page.as_ref().map(AsFd::as_fd)
    }
}

impl Master {
    pub(super) fn tell_manager(&mut self, message: &MasterToManager, fds: Vec<OwnedFd>) {
        self.manager.process.send(message, fds);
    }
}
