//! The listening sockets: the slot's own, and those lent by slots without a worker.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{SockaddrStorage, getsockname};

use super::Door;
use crate::error::{Result, Subject};
use crate::fd::Slot;
use crate::ipc::messages::{Listener, Purpose};
use crate::sys::socket;
use crate::worker::clients::key::Key;

/// Connections accepted on one listener in one turn.
const ACCEPTS_MAX: usize = 64;

/// The sockets this worker accepts on.
#[derive(Default)]
pub(in crate::worker) struct Listeners {
    /// An index never changes, since the epoll set knows it; what was given back leaves a hole.
    sockets: Vec<Option<Listening>>,
    /// Whether they are in the epoll set.
    armed: bool,
    /// Whether those of the API rest meanwhile.
    api_rests: bool,
    /// Whether no new clients are taken: the server drains.
    clients_rest: bool,
}

struct Listening {
    socket: OwnedFd,
    slot: Slot,
    purpose: Purpose,
    is_unix: bool,
    /// Whether it is bound to a loopback address.
    is_loopback: bool,
    /// The address that every connection of it has at this end; `None` where each has its own.
    local: Option<SocketAddr>,
    /// When it was emptied last, in milliseconds of the monotonic clock.
    emptied_at: u64,
    /// Whether the epoll set has refused it, for want of memory: it is tried again.
    missed: bool,
}

impl Listeners {
    /// Whether new clients are taken.
    pub fn takes_clients(&self) -> bool {
        !self.clients_rest
    }

    /// Whether a listener is watched while the worker accepts. One of a Unix socket is watched
    /// also while no clients are taken: those who come there are told.
    fn is_watched(&self, listening: &Listening) -> bool {
        match listening.purpose {
            Purpose::Api => !self.api_rests,
            Purpose::Clients => !self.clients_rest || listening.is_unix,
        }
    }

    /// Of each whether it is watched while the worker accepts.
    fn watched(&self) -> Vec<bool> {
        let watched = |it: &Option<Listening>| it.as_ref().is_some_and(|it| self.is_watched(it));
        self.sockets.iter().map(watched).collect()
    }

    /// The listeners on which clients are accepted now.
    pub fn of_clients(&self) -> Vec<u32> {
        let accepts = |it: &Option<Listening>| {
            let it = it.as_ref().filter(|it| it.purpose == Purpose::Clients);
            it.is_some_and(|it| self.armed && self.is_watched(it) && !it.missed)
        };
        (0..).zip(&self.sockets).filter(|(_, it)| accepts(it)).map(|(index, _)| index).collect()
    }

    /// A listener's descriptor, to accept on.
    pub fn get(&self, index: u32) -> Option<&OwnedFd> {
        self.sockets.get(index as usize)?.as_ref().map(|listening| &listening.socket)
    }

    /// Who is let in at a listener.
    pub fn purpose(&self, index: u32) -> Purpose {
        let listening = self.sockets.get(index as usize).and_then(Option::as_ref);
        listening.map_or(Purpose::Clients, |listening| listening.purpose)
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

impl Door {
    /// Takes listeners of a slot, and accepts on them if this worker accepts.
    pub(in crate::worker) fn listen(
        &self,
        slot: Slot,
        listeners: Vec<(Listener, OwnedFd)>,
    ) -> Result<()> {
        for (listener, socket) in listeners {
            let is_unix = socket::is_unix(socket.as_fd());
            if !is_unix {
                socket::tune(socket.as_fd(), self.settings.tcp)
                    .subject(|| format!("set the options of {}", listener.address))?;
            }
            let mut all = self.listeners.borrow_mut();
            let index = all.sockets.len() as u32;
            let is_loopback = socket::is_loopback(socket.as_fd());
            let purpose = listener.purpose;
            let local = local_address(&socket).filter(|local| !local.ip().is_unspecified());
            let (emptied_at, missed) = (0, false);
            let listening = Listening {
                socket,
                slot,
                purpose,
                is_unix,
                is_loopback,
                local,
                emptied_at,
                missed,
            };
            if all.armed && all.is_watched(&listening) {
                self.arm(index, &listening.socket)
                    .subject(|| format!("watch {}", listener.address))?;
            }
            all.sockets.push(Some(listening));
        }
        Ok(())
    }

    /// Stops accepting for another slot.
    pub(in crate::worker) fn unlisten(&self, slot: Slot) {
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
    ///
    /// # Errors
    /// When one of them cannot be watched now; it is tried again.
    pub(in crate::worker) fn set_accepting(&self, accepting: bool) -> Result<()> {
        let mut all = self.listeners.borrow_mut();
        if std::mem::replace(&mut all.armed, accepting) == accepting {
            return Ok(());
        }
        let watched = all.watched();
        let mut armed = Ok(());
        for (index, listening) in all.sockets.iter_mut().enumerate() {
            let Some(listening) = listening.as_mut().filter(|_| watched[index]) else { continue };
            if accepting {
                let this = self.arm(index as u32, &listening.socket);
                listening.missed = this.is_err();
                armed = armed.and(this);
            } else {
                let _ = self.epoll.delete(&listening.socket);
                listening.missed = false;
            }
        }
        armed.subject(|| "watch a listener".to_owned())
    }

    /// Tries again to watch what the epoll set has refused.
    pub(in crate::worker) fn watch_missed(&self) {
        let any = self.listeners.borrow().sockets.iter().flatten().any(|it| it.missed);
        if any {
            self.change_watched(|_| true);
        }
    }

    /// Has the listeners of the API rest, or accept again; those for clients go on.
    pub(in crate::worker) fn rest_api(&self, rests: bool) {
        self.change_watched(|all| std::mem::replace(&mut all.api_rests, rests) != rests);
    }

    /// Takes new clients, or does so no more; the API is served all the same.
    pub(in crate::worker) fn take_clients(&self, takes: bool) {
        self.change_watched(|all| std::mem::replace(&mut all.clients_rest, !takes) == takes);
    }

    /// Changes which listeners are watched. What is not watched any more is watched by others, or
    /// by nobody.
    fn change_watched(&self, change: impl FnOnce(&mut Listeners) -> bool) {
        let mut all = self.listeners.borrow_mut();
        let before = all.watched();
        if !change(&mut all) || !all.armed {
            return;
        }
        let now = all.watched();
        for (index, listening) in all.sockets.iter_mut().enumerate() {
            let Some(listening) = listening else { continue };
            match (before[index] && !listening.missed, now[index]) {
                (was, false) => {
                    if was {
                        let _ = self.epoll.delete(&listening.socket);
                    }
                    listening.missed = false;
                }
                (false, true) => {
                    let armed = self.arm(index as u32, &listening.socket);
                    let was_missed = std::mem::replace(&mut listening.missed, armed.is_err());
                    if let (Err(errno), false) = (armed, was_missed) {
                        tracing::error!(%errno, "a listener cannot be watched: tried again");
                    }
                }
                (true, true) => {}
            }
        }
    }

    fn arm(&self, index: u32, socket: &OwnedFd) -> nix::Result<()> {
        let key = Key { index, version: 0 };
        self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key.to_u64()))
    }
}

/// The server's end of a TCP connection.
pub(in crate::worker) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let v4 =
        address.as_sockaddr_in().map(|address| SocketAddr::from(SocketAddrV4::from(*address)));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddrV6::from(*it).into()))
}
