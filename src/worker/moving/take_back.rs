//! What the manager says of connections on their way. Of those that were given: the new worker has
//! them, or they are here again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Moving;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::fd::Fd;
use crate::ipc::messages::{PassId, WorkerToManager};
use crate::ipc::scoreboard::Counter;
use crate::sys::point;
use crate::worker::clients::key::Key;

/// Connections that were taken out, and their state.
#[derive(Default)]
pub(in crate::worker) struct Batch {
    pub fds: Vec<Fd>,
    pub keys: Vec<Key>,
    pub state: Vec<u8>,
}

impl Moving {
    /// Nobody is waited for any more: whoever was held goes on here.
    pub(in crate::worker) fn release_held(self: &Rc<Self>) {
        let held = std::mem::take(&mut self.handover.borrow_mut().held);
        for key in held {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.held = connection.arriving;
            }
            self.resume(key);
        }
    }

    /// The manager says what the new worker has of a pass. Our share of that is dropped without a
    /// word to the clients; the rest is here again, and served when the manager says so.
    pub(in crate::worker) fn settled(self: &Rc<Self>, pass: PassId, taken: &[u64]) {
        point::reached("old-hears-what-was-taken");
        let settled = self.transit.borrow_mut().settle(self.id, pass, taken);
        let Some(settled) = settled else { return };
        let batches = std::mem::take(&mut self.handover.borrow_mut().away);
        let mut keys: HashMap<u64, Key> = HashMap::new();
        for batch in &batches {
            keys.extend(batch.fds.iter().map(|fd| fd.as_u64()).zip(batch.keys.iter().copied()));
        }
        for key in settled.let_go.iter().filter_map(|fd| keys.get(fd)) {
            self.let_go(*key);
        }
        point::reached("old-has-let-go");
        if !settled.back.is_empty() {
            let count = settled.back.len();
            tracing::warn!(
                count,
                "no worker took these connections; this worker serves them again"
            );
            self.handover.borrow_mut().moved -= count as u64;
            self.take_back(pass, batches, &settled.back);
            self.say_in_order(&WorkerToManager::Adopted { pass, fds: settled.back });
        }
        self.left();
    }

    fn let_go(&self, key: Key) {
        let Some(gone) = self.forget(&mut self.table.borrow_mut(), key) else { return };
        if gone.opened {
            self.registry.closed(key.index as usize);
            self.board.sub(Counter::Connections, 1);
            self.add(Counter::HandedOver, 1);
        }
    }

    fn take_back(self: &Rc<Self>, pass: PassId, batches: Vec<Batch>, back: &[u64]) {
        for batch in batches {
            let mut state = &batch.state[..];
            for (&fd, &key) in batch.fds.iter().zip(&batch.keys) {
                let taken = Snapshot::unpack(&mut state).and_then(|snapshot| {
                    if !back.contains(&fd.as_u64()) {
                        return Ok(());
                    }
                    // The old connection goes before the new one is there: its user has not left.
                    let stays = self.stay_present(key);
                    let taken = self.take_one(pass, fd, key, snapshot);
                    self.stay_no_longer(&stays);
                    taken
                });
                if let Err(error) = taken {
                    tracing::error!(fd = fd.as_u64(), %error, "a connection was not taken back");
                }
            }
        }
    }

    fn take_one(
        self: &Rc<Self>,
        pass: PassId,
        fd: Fd,
        key: Key,
        snapshot: Snapshot,
    ) -> Result<()> {
        let gone = self.forget(&mut self.table.borrow_mut(), key);
        let mut gone = gone.ok_or_else(|| Error::new("the connection is gone"))?;
        if gone.opened {
            self.registry.closed(key.index as usize);
            self.board.sub(Counter::Connections, 1);
        }
        let socket: OwnedFd =
            gone.socket.take().ok_or_else(|| Error::new("the connection is closed"))?;
        self.adopt_one(pass, fd, snapshot, socket)
    }
}
