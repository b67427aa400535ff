//! The listening sockets: the slot's own, and those lent by slots without a worker.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::Worker;
use super::plain::local_address;
use super::table::Key;
use crate::error::{Result, Subject};
use crate::fd::Slot;
use crate::ipc::messages::Listener;
use crate::sys::socket;

/// Connections accepted on one listener in one turn.
const ACCEPTS_MAX: usize = 64;

/// The sockets this worker accepts on.
#[derive(Default)]
pub(super) struct Listeners {
    /// An index never changes, since the epoll set knows it; what was given back leaves a hole.
    sockets: Vec<Option<Listening>>,
    /// Whether they are in the epoll set.
    armed: bool,
}

struct Listening {
    socket: OwnedFd,
    slot: Slot,
    /// Whether it is bound to a loopback address.
    is_loopback: bool,
    /// The address that every connection of it has at this end; `None` where each has its own.
    local: Option<SocketAddr>,
    /// When it was emptied last, in milliseconds of the monotonic clock.
    emptied_at: u64,
}

impl Listeners {
    /// A listener's descriptor, to accept on.
    pub fn get(&self, index: u32) -> Option<&OwnedFd> {
        self.sockets.get(index as usize)?.as_ref().map(|listening| &listening.socket)
    }

    /// Whether a listener is bound to a loopback address.
    pub fn is_loopback(&self, index: u32) -> bool {
        let listening = self.sockets.get(index as usize).and_then(Option::as_ref);
        listening.is_some_and(|listening| listening.is_loopback)
    }

    /// The address that every connection of a listener has at this end, if that is one.
    pub fn local(&self, index: u32) -> Option<SocketAddr> {
        self.sockets.get(index as usize)?.as_ref()?.local
    }

    /// How many connections to accept on a listener that is ready: one, and once in a tick of
    /// the clock all that wait. An `accept` that fails with EAGAIN still costs half of one that
    /// succeeds, because the kernel allocates a socket first.
    pub fn accepts(&mut self, index: u32, now_ms: u64) -> usize {
        let Some(Some(listening)) = self.sockets.get_mut(index as usize) else { return 0 };
        let empties = std::mem::replace(&mut listening.emptied_at, now_ms) != now_ms;
        if empties { ACCEPTS_MAX } else { 1 }
    }
}

impl Worker {
    /// Takes listeners of a slot, and accepts on them if this worker accepts.
    pub(super) fn listen(&self, slot: Slot, listeners: Vec<(Listener, OwnedFd)>) -> Result<()> {
        for (listener, socket) in listeners {
            if !socket::is_unix(socket.as_fd()) {
                socket::tune(socket.as_fd(), self.settings.tcp)
                    .subject(|| format!("set the options of {}", listener.address))?;
            }
            let mut all = self.listeners.borrow_mut();
            let index = all.sockets.len() as u32;
            if all.armed {
                self.arm(index, &socket).subject(|| format!("watch {}", listener.address))?;
            }
            let is_loopback = socket::is_loopback(socket.as_fd());
            let local = local_address(&socket).filter(|local| !local.ip().is_unspecified());
            let listening = Listening { socket, slot, is_loopback, local, emptied_at: 0 };
            all.sockets.push(Some(listening));
        }
        Ok(())
    }

    /// Stops accepting for another slot.
    pub(super) fn unlisten(&self, slot: Slot) {
        let mut all = self.listeners.borrow_mut();
        let armed = all.armed;
        for entry in &mut all.sockets {
            if let Some(gone) = entry.take_if(|listening| listening.slot == slot)
                && armed
            {
                // The master holds the same socket, so closing ours would leave it in the set.
                let _ = self.epoll.delete(&gone.socket);
            }
        }
    }

    /// Accepts on all listeners, or on none.
    pub(super) fn set_accepting(&self, accepting: bool) -> Result<()> {
        let mut all = self.listeners.borrow_mut();
        if std::mem::replace(&mut all.armed, accepting) == accepting {
            return Ok(());
        }
        for (index, listening) in all.sockets.iter().enumerate() {
            let Some(listening) = listening else { continue };
            if accepting {
                self.arm(index as u32, &listening.socket)
                    .subject(|| "watch a listener".to_owned())?;
            } else {
                let _ = self.epoll.delete(&listening.socket);
            }
        }
        Ok(())
    }

    fn arm(&self, index: u32, socket: &OwnedFd) -> nix::Result<()> {
        let key = Key { index, version: 0 };
        self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key.to_u64()))
    }
}
