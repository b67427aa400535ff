//! The descriptors of a worker in other hands: what code that took it over could do with them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;
use wsd::fd::{Slot, WorkerId};
use wsd::ipc::packet::Packet;
use wsd::ipc::{codec, messages::WorkerToManager};

/// A worker's links.
pub struct Stolen {
    pub id: WorkerId,
    /// What it accepts on.
    pub listeners: Vec<OwnedFd>,
    master: OwnedFd,
    manager: OwnedFd,
}

impl Stolen {
    /// Takes a copy of both links of the worker that is the first of its slot. Needs root, or its
    /// user and a process that is dumpable.
    pub fn from(slot: u8, pid: i32) -> Stolen {
        Stolen::try_from(slot, 1, pid).unwrap()
    }

    /// As [`from`](Self::from), of a worker that may be gone already.
    pub fn try_from(slot: u8, epoch: u32, pid: i32) -> Option<Stolen> {
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let numbers = 3..256;
        let copies = numbers
            .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
        let (mut links, others): (Vec<_>, Vec<_>) = copies.partition(|copy| {
            getsockopt(copy, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket)
        });
        let listens = |it: &OwnedFd| getsockopt(it, sockopt::AcceptConn).is_ok_and(|it| it);
        let listeners = others.into_iter().filter(listens).collect();
        let mut links = links.drain(..);
        // The link to the master stands at descriptor 3, and that to the manager came first.
        let (master, manager) = (links.next()?, links.next()?);
        Some(Stolen { id: WorkerId { slot: Slot(slot), epoch }, listeners, master, manager })
    }

    /// Sends the master a message, as the worker would, with descriptors beside it.
    pub fn tell_master<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) {
        self.try_tell_master(message, fds).unwrap();
    }

    /// As [`tell_master`](Self::tell_master), where the kernel may not take the message.
    pub fn try_tell_master<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> nix::Result<()> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        wsd::sys::packet::send(self.master.as_fd(), &bytes, fds)
    }

    /// A packet of this worker with so many times the same message.
    pub fn packet(&self, message: &WorkerToManager, body: &[u8], count: usize) -> Packet {
        let mut packet = Packet::new(self.id);
        for _ in 0..count {
            packet.add(message, body).unwrap();
        }
        packet
    }

    /// Sends the manager whatever bytes, with descriptors beside them.
    pub fn to_manager(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        wsd::sys::packet::send(self.manager.as_fd(), bytes, fds)
    }

    /// Sends the manager a packet as soon as the kernel takes it. False if it takes none while the
    /// server is asked a hundred things, one after the other.
    pub async fn insists(&self, bytes: &[u8], mut ask: impl AsyncFnMut()) -> bool {
        for _ in 0..100 {
            match self.to_manager(bytes, &[]) {
                Err(Errno::EAGAIN) => ask().await,
                sent => return sent.is_ok(),
            }
        }
        false
    }
}
