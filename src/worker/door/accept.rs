//! Letting clients in: accept, the limits on how many, and what to do without descriptors.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::Door;
use super::refuse::{is_stranger, tell_and_leave};
use crate::ipc::scoreboard::Counter;
use crate::sys::socket;
use crate::worker::base::phase::Phase;
use crate::worker::base::ticks::tick;
use crate::worker::clients::admission::{CountsAs, open_reserve};
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;
use crate::worker::head::{RETRY_AFTER, Reason, Refusal};

/// Clients told in one turn that there is no descriptor left.
const TOLD_MAX: usize = 64;
/// How long a worker without descriptors stops accepting.
const PAUSE: Duration = Duration::from_millis(200);

impl Door {
    /// Accepts on a listener that is ready; what is left there is told again.
    pub(in crate::worker) fn accept_some(self: &Rc<Self>, index: u32) {
        let accepts = self.listeners.borrow_mut().accepts(index, self.now_ms.get());
        let to_loopback = self.listeners.borrow().is_loopback(index);
        let local = self.listeners.borrow().local(index);
        for _ in 0..accepts {
            let accepted = {
                let listeners = self.listeners.borrow();
                let Some(listener) = listeners.get(index) else { return };
                socket::accept(listener.as_fd())
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.add(Counter::Accepted, 1);
                    match self.check_arrival(peer) {
                        Ok(()) => {
                            if let Some(key) = self.admit(socket, peer, to_loopback) {
                                self.note_local(key, local);
                            }
                        }
                        Err(refusal) => self.turn_away(socket, peer, refusal),
                    }
                }
                // The client left while it waited, or its network did (accept(2)).
                Err(
                    Errno::ECONNABORTED
                    | Errno::EINTR
                    | Errno::ENETDOWN
                    | Errno::EPROTO
                    | Errno::ENOPROTOOPT
                    | Errno::EHOSTDOWN
                    | Errno::ENONET
                    | Errno::EHOSTUNREACH
                    | Errno::EOPNOTSUPP
                    | Errno::ENETUNREACH,
                ) => {}
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    return self.out_of_descriptors(index);
                }
                Err(_) => return,
            }
        }
    }

    /// A client was accepted.
    pub(in crate::worker) fn admit(
        self: &Rc<Self>,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        to_loopback: bool,
    ) -> Option<Key> {
        if let Err(refusal) = self.check_room(peer) {
            self.turn_away(socket, peer, refusal);
            return None;
        }
        let now_ms = self.now_ms.get();
        let mut table = self.table.borrow_mut();
        let key = table.insert(|key| Connection::accepted(socket, peer, key.version, now_ms));
        let connection = table.get_mut(key)?;
        if let Some(opening) = &mut connection.extra().opening {
            opening.to_loopback = to_loopback;
        }
        connection.deadline = tick(now_ms) + self.settings.handshake;
        if self.watch(key, connection).is_err() {
            table.remove(key);
            return None;
        }
        self.look_again(key, connection);
        let counted = self.counted(peer);
        self.count_as(connection, CountsAs::Peer, counted);
        connection.pending = true;
        self.board.add(Counter::Handshakes, 1);
        self.gate.admitted.begin_handshake(key, counted);
        self.gate.admitted.tidy(|key| table.get(key).is_some_and(|it| it.pending));
        Some(key)
    }

    /// The address of a connection at this end, where the kernel need not be asked for that.
    fn note_local(&self, key: Key, local: Option<SocketAddr>) {
        let mut table = self.table.borrow_mut();
        let extra = table.get_mut(key).and_then(|connection| connection.extra.as_mut());
        if let Some(opening) = extra.and_then(|extra| extra.opening.as_mut()) {
            opening.local = local;
        }
    }

    /// Refuses a client that was not read yet. The answer is kept back until the client sends
    /// something, and then what it sends is read and forgotten while it reads the answer. A
    /// client that sends nothing is told nothing: it has asked nothing.
    fn turn_away(self: &Rc<Self>, socket: OwnedFd, peer: Option<SocketAddr>, refusal: Refusal) {
        let refusal = refusal.hide_from_strangers(is_stranger(peer));
        self.note_refusal(refusal.status, refusal.reason, &refusal.for_log(), peer);
        let answer = refusal.to_bytes(SystemTime::now());
        let now_ms = self.now_ms.get();
        let mut table = self.table.borrow_mut();
        let key = table.insert(|key| Connection::accepted(socket, peer, key.version, now_ms));
        let Some(connection) = table.get_mut(key) else { return };
        if !self.lingers(connection) {
            let Some(socket) = connection.socket() else { return };
            tell_and_leave(socket, &answer, false);
            self.forget(&mut table, key);
            return;
        }
        connection.extra().kept_back = answer;
        self.linger(key, connection);
        if self.watch(key, connection).is_err() {
            self.forget(&mut table, key);
            return;
        }
        self.look_again(key, connection);
    }

    /// No descriptor is left: the clients that wait are told with the reserved one, and the
    /// listeners rest a while, since they would be ready all the time.
    pub(in crate::worker) fn out_of_descriptors(self: &Rc<Self>, index: u32) {
        let answer = Refusal::overloaded("the server has no descriptor left", RETRY_AFTER)
            .to_bytes(SystemTime::now());
        for _ in 0..TOLD_MAX {
            let Some(reserve) = self.gate.reserve.take() else { break };
            drop(reserve);
            let accepted = {
                let listeners = self.listeners.borrow();
                listeners.get(index).map(|listener| socket::accept(listener.as_fd()))
            };
            let Some(Ok((socket, _))) = accepted else { break };
            self.add(Counter::Accepted, 1);
            self.add(Counter::Refused, 1);
            self.add(Reason::Full.counter(), 1);
            tell_and_leave(socket.as_fd(), &answer, false);
            drop(socket);
            self.gate.reserve.replace(open_reserve());
        }
        if self.gate.reserve.borrow().is_none() {
            self.gate.reserve.replace(open_reserve());
        }
        self.warn_of_descriptors();
        if self.set_accepting(false).is_err() {
            return;
        }
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(PAUSE).await;
            if worker.phase.get() == Phase::Serving
                && let Err(error) = worker.set_accepting(true)
            {
                tracing::error!(%error, "the worker cannot accept again: tried on");
            }
        });
    }

    /// Once a while, not each time.
    fn warn_of_descriptors(&self) {
        const SILENCE_MS: u64 = 10_000;
        let now_ms = self.now_ms.get();
        let last = self.gate.warned_at.get();
        if last == 0 || now_ms - last >= SILENCE_MS {
            self.gate.warned_at.set(now_ms);
            let pause_ms = PAUSE.as_millis() as u64;
            tracing::warn!(pause_ms, "no descriptor is left; accepting pauses again and again");
        }
    }

    /// Whether a handshake may still be finished here.
    pub(in crate::worker) fn accepts_more(&self) -> bool {
        self.phase.get() != Phase::Leaving
    }
}
