//! Connections that a handover left behind: they are served here until they can follow.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Worker;
use super::snapshot::Snapshot;
use super::table::Key;
use crate::error::{Error, Result};
use crate::fd::Fd;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::scoreboard::Counter;

impl Worker {
    /// Tells the manager as soon as one of these could move, unless another pass finds it first.
    pub(super) fn watch_stayers(self: &Rc<Self>, stayers: Vec<Key>, pass: u32) {
        for key in stayers {
            let worker = self.clone();
            tokio::task::spawn_local(async move {
                worker.until_at_rest(key).await;
                let is_here = worker.table.borrow().get(key).is_some();
                if is_here && worker.handover.borrow().is_last(pass) {
                    worker.say(&WorkerToManager::Rested);
                }
            });
        }
    }

    /// Serves again what was given away and nobody took.
    pub(super) fn take_back(self: &Rc<Self>) {
        let (moving, batches) = self.handover.borrow_mut().take_unacknowledged();
        // Whoever waits for room or descriptors to send them need not any more.
        self.leaving.changed.notify_waiters();
        if moving.is_empty() {
            return;
        }
        tracing::warn!(
            count = moving.len(),
            "no worker took these connections; this worker serves them again"
        );
        for batch in batches {
            let mut state = &batch.state[..];
            for (&fd, &key) in batch.fds.iter().zip(&batch.keys) {
                let taken = Snapshot::unpack(&mut state).and_then(|snapshot| {
                    if moving.contains_key(&fd) {
                        self.take_one(fd, key, snapshot)
                    } else {
                        Ok(())
                    }
                });
                if let Err(error) = taken {
                    tracing::error!(fd = fd.as_u64(), %error, "a connection was not taken back");
                }
            }
        }
        // Nobody else has heard of them.
        self.own();
    }

    fn take_one(self: &Rc<Self>, fd: Fd, key: Key, snapshot: Snapshot) -> Result<()> {
        let gone = self.forget(&mut self.table.borrow_mut(), key);
        let mut gone = gone.ok_or_else(|| Error::new("it is gone"))?;
        if gone.opened {
            self.registry.closed(key.index as usize);
            self.board.sub(Counter::Connections, 1);
        }
        let socket: OwnedFd = gone.socket.take().ok_or_else(|| Error::new("it is closed"))?;
        if let Some((key, fd, frozen)) = self.adopt_one(fd, snapshot, socket)? {
            self.attach(key, fd, frozen);
        }
        Ok(())
    }
}
