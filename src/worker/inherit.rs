//! Taking over what lives on of a killed process: its shadow still holds every descriptor it had,
//! and its ledger says which of its clients were calm.
//!
//! All of it happens before the runtime turns, so that not a byte of anybody is read, and nothing
//! that was sent to these clients is looked at, before they are here. An entry of the dead
//! process's registry is *taken* first. Whether that holds is told by one store at the end
//! ([`Ledger::settle`]): if this process dies before, the next finds everything as it was.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::Worker;
use super::table::Key;
use super::timers::{NEVER, tick, ticks};
use super::travel::OpenV1;
use crate::error::{Error, Result};
use crate::fd::{Fd, WorkerId};
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::ledger::{Calm, Ledger};
use crate::ipc::messages::{ManagerToWorker, WorkerToMaster};
use crate::ipc::packet::Frames;
use crate::ipc::registry::{Entry, Registry};
use crate::ipc::scoreboard::Counter;
use crate::ipc::shadow;
use crate::sys::{clock, packet};
use crate::websocket::{Engine, Params, Role};

/// What a dead process left.
pub(super) struct Legacy {
    pub from: WorkerId,
    pub registry: Registry,
    pub ledger: Ledger,
    /// Leads to its shadow.
    pub shadow: OwnedFd,
}

/// A client that was calm, and where it stands in the dead process's registry.
struct Found {
    index: usize,
    entry: Entry,
    calm: Calm,
}

impl Worker {
    /// Takes over every client that was calm. They are busy until their handler was told, which is
    /// not before `on_worker_start` has ended.
    pub(super) fn inherit(self: &Rc<Self>, legacies: Vec<Legacy>) -> Vec<(Key, Fd)> {
        if legacies.is_empty() {
            return Vec::new();
        }
        let mut heirlooms = Vec::new();
        // The newest first: it may itself have been an heir.
        for legacy in legacies.iter().rev() {
            let before = heirlooms.len();
            if let Err(error) = self.inherit_from(legacy, &mut heirlooms) {
                tracing::error!(from = %legacy.from, %error, "not everything was taken over");
            }
            let count = heirlooms.len() - before;
            tracing::info!(from = %legacy.from, count, "took over the clients of a dead worker");
        }
        self.turn.calmness.settle();
        // Not before these are ours for good: what is written to them is written once.
        for legacy in &legacies {
            if let Err(error) = self.read_unread(legacy) {
                tracing::error!(from = %legacy.from, %error, "its link was not read to the end");
            }
        }
        self.add(Counter::Adopted, heirlooms.len() as u64);
        self.master.send(&WorkerToMaster::Inherited);
        heirlooms
    }

    fn inherit_from(
        self: &Rc<Self>,
        legacy: &Legacy,
        heirlooms: &mut Vec<(Key, Fd)>,
    ) -> Result<()> {
        let registry = &legacy.registry;
        let found = (0..legacy.ledger.used()).filter_map(|index| {
            let entry = registry.entry(index).filter(|entry| !entry.closing)?;
            let calm = legacy.ledger.find(index, entry.fd)?;
            Some(Found { index, entry, calm })
        });
        let found: Vec<Found> = found.collect();
        for batch in found.chunks(shadow::ASKED_MAX) {
            let wanted: Vec<RawFd> = batch.iter().map(|found| found.calm.raw_fd).collect();
            let given = shadow::ask(legacy.shadow.as_fd(), &wanted)?;
            let mut given: HashMap<RawFd, OwnedFd> = given.into_iter().collect();
            for found in batch {
                let Some(socket) = given.remove(&found.calm.raw_fd) else { continue };
                let fd = found.entry.fd;
                let here = self.table.borrow().find(fd).is_some();
                if here || !registry.take(found.index, fd) {
                    continue;
                }
                match self.inherit_one(found, socket) {
                    Ok(key) => heirlooms.push((key, fd)),
                    Err(error) => {
                        registry.give_back(found.index, fd);
                        tracing::error!(fd = fd.as_u64(), %error, "not taken over");
                    }
                }
            }
        }
        Ok(())
    }

    /// Does what the manager had sent to the dead process for its clients, and it had not read.
    fn read_unread(self: &Rc<Self>, legacy: &Legacy) -> Result<()> {
        let Some(link) = legacy.ledger.link() else { return Ok(()) };
        let Some((_, link)) = shadow::ask(legacy.shadow.as_fd(), &[link])?.pop() else {
            return Ok(());
        };
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        loop {
            match packet::receive(link.as_fd(), &mut buffer) {
                Ok(mut got) if got.len > 0 => {
                    let packet = &buffer[..got.len];
                    self.in_turn(|| self.unread_packet(legacy.from, packet, &mut got.fds))?;
                }
                // Once, where the manager is gone or had something unread, too.
                Err(Errno::ECONNRESET) => {}
                Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(Error::io("receive from the dead one's link", error)),
            }
        }
    }

    fn unread_packet(
        self: &Rc<Self>,
        from: WorkerId,
        packet: &[u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        use ManagerToWorker::{Broadcast, Close, Info, Push};
        let mut frames = Frames::new(packet)?;
        if frames.id != from {
            return Ok(());
        }
        while let Some(frame) = frames.next::<ManagerToWorker>(fds)? {
            // All else was for the dead process itself.
            if let Push { .. } | Broadcast { .. } | Close { .. } | Info { .. } = frame.message {
                self.manager_says(frame.message, frame.body, fds)?;
            }
        }
        Ok(())
    }

    fn inherit_one(self: &Rc<Self>, found: &Found, socket: OwnedFd) -> Result<Key> {
        let params = match found.calm.extension {
            0 => None,
            number => {
                let agreed = Params::from_number(number);
                Some(agreed.ok_or_else(|| Error::new("its extension cannot be read"))?)
            }
        };
        let open = OpenV1 {
            kept: found.calm.kept.clone(),
            engine: Engine::new(Role::Server, params).freeze(),
            tail: Vec::new(),
            unsent: None,
            opened_at: found.entry.connected_at,
            received_at: found.entry.received_at,
            bytes_in: 0,
            bytes_out: 0,
            deadline: NEVER,
            ping_at: NEVER,
            pong_by: NEVER,
            message_by: NEVER,
            frozen: None,
        };
        let (key, fd, _) = self.adopt_open(found.entry.fd, socket, open)?;
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return Ok(key) };
        // What was sent to it meanwhile comes by our link and by nobody else's.
        (connection.arriving, connection.busy) = (false, true);
        self.start_timers(key, connection, fd);
        if connection.deadline != NEVER {
            let left = self.settings.config.max_connection_age.saturating_sub(age(found));
            connection.deadline = connection.deadline.min(tick(self.now_ms.get()) + ticks(left));
            self.look_again(key, connection);
        }
        self.turn.calmness.mark(key, connection);
        Ok(key)
    }

    /// Tells the handler of those that were taken over, and goes on with them.
    pub(super) fn attach_heirlooms(self: &Rc<Self>, heirlooms: Vec<(Key, Fd)>) {
        for (key, fd) in heirlooms {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                self.turn.calmness.stir(key, connection);
                connection.busy = false;
            }
            self.attach(key, fd, None);
        }
    }
}

/// How long ago a connection was opened.
fn age(found: &Found) -> std::time::Duration {
    let ms = clock::unix_ms().saturating_sub(found.entry.connected_at);
    std::time::Duration::from_millis(ms)
}
