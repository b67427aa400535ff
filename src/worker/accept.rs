//! Letting clients in: accept, the limits on how many, and what to do without descriptors.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::Worker;
use super::connection::Connection;
use super::head::Refusal;
use super::life::Phase;
use super::table::Key;
use super::timers::tick;
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;
use crate::sys::socket;

/// Clients told in one turn that there is no descriptor left.
const TOLD_MAX: usize = 64;
/// How long a worker without descriptors stops accepting.
const PAUSE: Duration = Duration::from_millis(200);
/// When a refused client may come back, in seconds.
const RETRY_AFTER: u32 = 5;

/// Who is on the way in.
pub(super) struct Gatekeeper {
    /// Pending handshakes.
    pending: Cell<usize>,
    by_ip: RefCell<HashMap<IpAddr, u32>>,
    /// Accepts until the connections of all workers are counted again.
    credit: Cell<u64>,
    /// A descriptor to give up when there are no others, so that a client can be told.
    reserve: RefCell<Option<OwnedFd>>,
    /// When the log last told that there were none, in milliseconds of the monotonic clock.
    warned_at: Cell<u64>,
}

impl Default for Gatekeeper {
    fn default() -> Gatekeeper {
        Gatekeeper {
            pending: Cell::new(0),
            by_ip: RefCell::default(),
            credit: Cell::new(0),
            reserve: RefCell::new(open_reserve()),
            warned_at: Cell::new(0),
        }
    }
}

fn open_reserve() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

impl Worker {
    /// Accepts on a listener that is ready; what is left there is told again.
    pub(super) fn accept_some(self: &Rc<Self>, index: u32) {
        let accepts = self.listeners.borrow_mut().accepts(index, self.now_ms.get());
        for _ in 0..accepts {
            let accepted = {
                let listeners = self.listeners.borrow();
                let Some(listener) = listeners.get(index) else { return };
                socket::accept(listener.as_fd())
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.add(Counter::Accepted, 1);
                    self.admit(socket, peer);
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

    /// A connection comes back from plain HTTP: its next request is an upgrade.
    pub(super) fn admit_again(
        self: &Rc<Self>,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        mut received: Vec<u8>,
        fd: Option<Fd>,
    ) {
        if let Some(key) = self.admit(socket, peer) {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.fd = fd;
            }
            self.feed(key, &mut received);
        }
    }

    /// A client was accepted.
    pub(super) fn admit(
        self: &Rc<Self>,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
    ) -> Option<Key> {
        if let Err(refusal) = self.check_room(peer) {
            self.add(Counter::Refused, 1);
            tracing::info!(
                status = refusal.status,
                why = refusal.why,
                peer = peer.map(tracing::field::display),
                "refused"
            );
            self.turn_away(socket, peer, &refusal);
            return None;
        }
        let now_ms = self.now_ms.get();
        let mut table = self.table.borrow_mut();
        let key = table.insert(|key| Connection::accepted(socket, peer, key.turn, now_ms));
        let connection = table.get_mut(key)?;
        connection.deadline = tick(now_ms) + self.settings.handshake;
        if self.watch(key, connection).is_err() {
            table.remove(key);
            return None;
        }
        self.look_again(key, connection);
        connection.pending = true;
        self.gate.pending.set(self.gate.pending.get() + 1);
        self.board.add(Counter::Handshakes, 1);
        if let Some(ip) = self.counted_ip(peer) {
            *self.gate.by_ip.borrow_mut().entry(ip).or_default() += 1;
        }
        Some(key)
    }

    fn check_room(&self, peer: Option<SocketAddr>) -> Result<(), Refusal> {
        let full = |why| Err(Refusal::overloaded(why, RETRY_AFTER));
        if !self.has_credit() {
            return full("max_connection is reached");
        }
        if self.gate.pending.get() >= self.settings.config.handshakes_max {
            return full("handshakes_max is reached");
        }
        if let Some(ip) = self.counted_ip(peer) {
            let here = self.gate.by_ip.borrow().get(&ip).copied().unwrap_or(0);
            if here as usize >= self.settings.config.handshakes_per_ip {
                return full("handshakes_per_ip is reached");
            }
        }
        Ok(())
    }

    /// Whether `max_connection` of all workers has room for one more. Far from the limit they
    /// are counted only now and then, near it each time.
    fn has_credit(&self) -> bool {
        let limit = self.settings.config.max_connection as u64;
        if limit == 0 {
            return true;
        }
        let gate = &self.gate;
        if gate.credit.get() > 0 {
            gate.credit.set(gate.credit.get() - 1);
            return true;
        }
        let board = &self.board.scoreboard;
        let taken = board.sum(Counter::Connections) + board.sum(Counter::Handshakes);
        let Some(room) = limit.checked_sub(taken + 1) else { return false };
        gate.credit.set((room / (4 * u64::from(self.worker_num.get().max(1)))).min(256));
        true
    }

    /// The address a pending handshake counts for; a trusted proxy's is nobody's own.
    fn counted_ip(&self, peer: Option<SocketAddr>) -> Option<IpAddr> {
        let ip = peer?.ip().to_canonical();
        (!self.settings.trusts(ip)).then_some(ip)
    }

    /// A connection left the handshake, one way or the other.
    pub(super) fn no_longer_pending(&self, connection: &mut Connection) {
        if !std::mem::take(&mut connection.pending) {
            return;
        }
        self.gate.pending.set(self.gate.pending.get().saturating_sub(1));
        self.board.sub(Counter::Handshakes, 1);
        let Some(ip) = self.counted_ip(connection.peer()) else { return };
        let mut by_ip = self.gate.by_ip.borrow_mut();
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
            }
        }
    }

    /// Tells a client that there is no room. It has not been read, so what it sent is read and
    /// forgotten while it reads the answer.
    fn turn_away(self: &Rc<Self>, socket: OwnedFd, peer: Option<SocketAddr>, refusal: &Refusal) {
        let answer = refusal.to_bytes(SystemTime::now());
        let now_ms = self.now_ms.get();
        let mut table = self.table.borrow_mut();
        // Beyond some, a client is not worth a descriptor any more.
        if self.gate.pending.get() >= 2 * self.settings.config.handshakes_max {
            // As much as fits; the client may be gone.
            let _ = socket::write(socket.as_fd(), &[IoSlice::new(&answer)]);
            return;
        }
        let key = table.insert(|key| Connection::accepted(socket, peer, key.turn, now_ms));
        let Some(connection) = table.get_mut(key) else { return };
        connection.extra = None;
        self.queue_control(key, connection, &answer);
        self.linger(key, connection);
        if self.watch(key, connection).is_err() {
            table.remove(key);
            return;
        }
        self.look_again(key, connection);
    }

    /// No descriptor is left: the clients that wait are told with the reserved one, and the
    /// listeners rest a while, since they would be ready all the time.
    fn out_of_descriptors(self: &Rc<Self>, index: u32) {
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
            // What it sent is read first: closing over unread bytes would reset the answer.
            let _ = socket::read(socket.as_fd(), &mut [0; 4096]);
            let _ = socket::write(socket.as_fd(), &[IoSlice::new(&answer)]);
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
                tracing::error!(%error, "cannot accept again");
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
            tracing::warn!(pause_ms, "no descriptor is left; accepting rests again and again");
        }
    }

    /// Whether a handshake may still be finished here.
    pub(super) fn accepts_more(&self) -> bool {
        self.phase.get() != Phase::Leaving
    }
}
