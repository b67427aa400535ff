//! Clients that are not let in: the answer, the time to read the answer, and the note of it.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::SystemTime;

use http::HeaderMap;

use super::Door;
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::Counter;
use crate::sys::socket;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::key::Key;
use crate::worker::head::{Reason, Refusal, is_forwarded};

/// Whether a client is not of this machine, so that it reads no name of a key.
pub(in crate::worker) fn is_stranger(peer: Option<SocketAddr>) -> bool {
    !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Whether a request may be a stranger's: who forwards a request may do so for one.
pub(in crate::worker) fn may_be_strangers(peer: Option<SocketAddr>, fields: &HeaderMap) -> bool {
    is_stranger(peer) || is_forwarded(fields.keys().map(|name| name.as_str()))
}

/// Tells a client that nobody can wait for why it is refused, as far as that fits into its socket.
/// One that has `asked` nothing and sent nothing by now is told nothing.
pub(in crate::worker) fn tell_and_leave(socket: BorrowedFd<'_>, answer: &[u8], asked: bool) {
    // What the client sent is read first: closing over unread bytes would reset the answer.
    let sent = socket::read(socket, &mut [0; 4096]).is_ok_and(|count| count > 0);
    if asked || sent {
        let _ = socket::write(socket, &[IoSlice::new(answer)]);
    }
}

impl Door {
    /// Answers a client that does not come in, and leaves it time to read that.
    pub(in crate::worker) fn refuse(
        self: &Rc<Self>,
        key: Key,
        status: u16,
        reason: Reason,
        why: &str,
        answer: &[u8],
    ) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        self.note_refusal(status, reason, why, connection.peer());
        if !self.lingers(connection) {
            if let Some(socket) = connection.socket() {
                tell_and_leave(socket, answer, true);
            }
            self.forget(&mut table, key);
            return;
        }
        self.queue_control(key, connection, answer);
        self.linger(key, connection);
    }

    /// Tells of a request that was refused.
    pub(in crate::worker) fn note_refusal(
        &self,
        status: u16,
        reason: Reason,
        why: &str,
        peer: Option<SocketAddr>,
    ) {
        let peer = peer.map(tracing::field::display);
        // What an operator has to allow is told once where everybody looks.
        let policy = matches!(reason, Reason::Origin | Reason::Host);
        if policy && self.is_first(reason.counter()) {
            tracing::warn!(status, why, peer, "refused");
        } else {
            tracing::info!(status, why, peer, "refused");
        }
        self.add(Counter::Refused, 1);
        self.add(reason.counter(), 1);
    }

    /// A client that has not asked for anything is closed without a word: a browser takes what it
    /// reads on a connection kept for later for the answer to its next request. The others are
    /// answered.
    pub(in crate::worker) fn refuse_begun(self: &Rc<Self>, key: Key, refusal: Refusal) {
        let begun = self.table.borrow().get(key).is_some_and(Connection::has_begun);
        if begun { self.refuse_head(key, refusal) } else { self.drop_pending(key) }
    }

    /// The client says that nothing more comes.
    pub(in crate::worker) fn cut(self: &Rc<Self>, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        match connection.stage {
            Stage::Head => {
                drop(table);
                self.refuse_begun(key, Refusal::cut());
            }
            // The answer is not written yet.
            Stage::Lingering if connection.outbox.is_some() => {
                connection.stage = Stage::Parting;
                connection.paused = true;
                self.rewatch(key, connection);
            }
            _ => {
                drop(table);
                self.vanished(key);
            }
        }
    }

    /// Ends what has passed the deadline of its stage.
    pub(in crate::worker) fn past_deadline(self: &Rc<Self>, key: Key, stage: Stage) {
        match stage {
            Stage::Head => self.refuse_begun(key, Refusal::timeout()),
            // What `on_handshake` answers after this finds nobody.
            Stage::Handshaking => self.refuse_head(key, Refusal::undecided()),
            Stage::Open => self.send_away(key, Cause::MaxAge),
            Stage::Closing | Stage::Parting => {
                self.end(key, Close::because(Cause::ClientVanished));
            }
            Stage::Lingering => {
                let pending = self.table.borrow().get(key).is_some_and(|it| !it.opened);
                if pending {
                    self.forget(&mut self.table.borrow_mut(), key);
                } else {
                    self.end(key, Close::because(Cause::ProtocolError));
                }
            }
            Stage::Moving | Stage::Ended => {}
        }
    }

    /// A head that cannot be let in.
    pub(in crate::worker) fn refuse_head(self: &Rc<Self>, key: Key, refusal: Refusal) {
        let peer = self.table.borrow().get(key).and_then(Connection::peer);
        let refusal = refusal.hide_from_strangers(is_stranger(peer));
        let answer = refusal.to_bytes(SystemTime::now());
        self.refuse(key, refusal.status, refusal.reason, &refusal.for_log(), &answer);
    }
}
