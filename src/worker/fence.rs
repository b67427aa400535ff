//! When what we push to an adopted connection may go the short way.
//!
//! Until its numbers are ours, a push of ours to an adopted connection goes by the manager, behind
//! what waits there. `Own` says that no more waits, not that all of it is here: what we sent
//! before we heard it is still on its way, and must not be overtaken. So a fence goes the same
//! way, a message to our own slot, which nobody else sends; what is behind it when it comes back
//! was pushed after it.

use std::collections::HashMap;
use std::rc::Rc;

use super::Worker;
use crate::fd::Fd;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::packet::Body;

/// The fences of a worker.
#[derive(Default)]
pub(super) struct Fences {
    sent: u64,
    /// Our own connections that the manager still brings our pushes to, and the fence that has
    /// to come back behind the last of them.
    waiting: HashMap<Fd, u64>,
}

impl Fences {
    fn wait(&mut self, fd: Fd) {
        self.waiting.insert(fd, self.sent + 1);
    }

    /// A push goes the long way, behind every fence that was sent.
    pub fn pushed(&mut self, fd: Fd) {
        if let Some(fence) = self.waiting.get_mut(&fd) {
            *fence = self.sent + 1;
        }
    }

    /// Which connections have nothing on its way any more.
    fn returned(&mut self, fence: u64) -> Vec<Fd> {
        let free = self.waiting.extract_if(|_, needs| *needs <= fence);
        free.map(|(fd, _)| fd).collect()
    }
}

impl Worker {
    /// These are ours for the manager, too.
    pub(super) fn own(self: &Rc<Self>, ranges: &[(u64, u64)]) {
        for key in self.keys(|it| it.by_manager) {
            let Some(fd) = self.table.borrow().get(key).and_then(|it| it.fd) else { continue };
            let number = fd.as_u64();
            if ranges.iter().any(|&(first, last)| (first..=last).contains(&number)) {
                self.fences.borrow_mut().wait(fd);
            }
        }
        self.send_fence();
    }

    /// Sends the next fence, if anybody waits for it.
    pub(super) fn send_fence(&self) {
        let fence = {
            let mut fences = self.fences.borrow_mut();
            if fences.waiting.is_empty() {
                return;
            }
            fences.sent += 1;
            fences.sent
        };
        let message = WorkerToManager::WorkerMessage { to: self.slot() };
        let body = [u64::from(self.id.epoch).to_be_bytes(), fence.to_be_bytes()].concat();
        if let Err(error) = self.link.insist(&message, Body::Inline(&body), Vec::new()) {
            tracing::error!(%error, "a fence was not sent");
        }
    }

    /// A message came from our own slot: a fence of ours, or of who was here before us.
    pub(super) fn fence(self: &Rc<Self>, body: &[u8]) {
        let word = |at: usize| {
            let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<8>()).copied();
            bytes.map(u64::from_be_bytes)
        };
        let (Some(epoch), Some(fence)) = (word(0), word(8)) else { return };
        if epoch != u64::from(self.id.epoch) {
            return;
        }
        let free = self.fences.borrow_mut().returned(fence);
        let mut table = self.table.borrow_mut();
        for fd in free {
            let key = table.find(fd);
            if let Some(connection) = key.and_then(|key| table.get_mut(key)) {
                connection.by_manager = false;
            }
        }
        drop(table);
        // Some were pushed to meanwhile.
        self.send_fence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    #[test]
    fn a_fence_frees_those_who_were_not_pushed_to_behind_it() {
        let fd = |serial| Fd::new(0, Slot(0), serial).unwrap();
        let mut fences = Fences::default();
        fences.wait(fd(1));
        fences.wait(fd(2));
        fences.sent = 1;
        fences.pushed(fd(2));
        fences.pushed(fd(3));
        assert_eq!(fences.returned(1), [fd(1)]);
        fences.sent = 2;
        assert_eq!(fences.returned(2), [fd(2)]);
        assert!(fences.waiting.is_empty());
    }
}
