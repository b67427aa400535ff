//! The descriptors of a worker in other hands: what code that took it over could do with them.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;

use super::open_descriptors;

/// A worker's links.
pub struct Stolen {
    master: OwnedFd,
}

impl Stolen {
    /// Takes a copy of every link that the process has. Needs root, or its user and a process that
    /// is dumpable.
    pub fn from(pid: i32) -> Stolen {
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let numbers = open_descriptors(pid).into_iter().map(|(number, _)| number);
        let copies = numbers
            .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
        let mut links = copies.filter(|copy| {
            getsockopt(copy, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket)
        });
        // The link to the master stands at descriptor 3.
        Stolen { master: links.next().unwrap() }
    }

    /// Sends the master a message, as the worker would.
    pub fn tell_master<T: Serialize>(&self, message: &T) {
        let mut bytes = Vec::new();
        wsd::ipc::codec::encode(message, &mut bytes).unwrap();
        wsd::sys::packet::send(self.master.as_fd(), &bytes, &[]).unwrap();
    }
}
