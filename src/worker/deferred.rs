//! What our handlers send to connections that came over and are not ours yet for the manager.
//!
//! What we pushed to a connection before it came waits with the manager until the whole handover
//! is through. So what we push to it from then on is deferred here, and follows as soon as the
//! manager says that nothing more is to come (`Own`).

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;

use super::Worker;
use super::table::Key;
use crate::api::rooms::{Call, Change};
use crate::api::{Message, Opcode, Verdict};
use crate::close::Cause;
use crate::fd::Fd;
use crate::ipc::DATA_LANE_BYTES_MAX;
use crate::ipc::messages::RequestId;
use crate::ipc::scoreboard::Counter;

/// What a send weighs besides its payload.
const SEND_BYTES: usize = 128;

/// What waits, in its order.
#[derive(Default)]
pub(super) struct DeferredSends {
    sends: Vec<DeferredSend>,
    bytes: usize,
    /// Connections that came over and have ended since, and requests that came over half read.
    /// Should their batch come once more, they are acknowledged, and no more.
    ended: HashSet<Fd>,
}

/// Something for one connection, or a broadcast for many.
pub(super) enum DeferredSend {
    Push {
        fd: Fd,
        message: Message,
        id: RequestId,
    },
    Broadcast {
        fds: Vec<Fd>,
        message: Message,
    },
    Close {
        fd: Fd,
        code: u16,
        reason: String,
    },
    Protect {
        fd: Fd,
        on: bool,
    },
    Change {
        fd: Fd,
        change: Change,
        id: RequestId,
    },
    /// For those of these that are members when it is unpacked.
    Call {
        fds: Vec<u64>,
        call: Call,
        body: Bytes,
        id: RequestId,
    },
}

impl DeferredSend {
    fn weight(&self) -> usize {
        SEND_BYTES
            + match self {
                DeferredSend::Push { message, .. } => message.data.len(),
                DeferredSend::Broadcast { fds, message } => {
                    message.data.len() + size_of_val(&fds[..])
                }
                DeferredSend::Close { reason, .. } => reason.len(),
                DeferredSend::Protect { .. } => 0,
                // Names and sessions are bounded, and few.
                DeferredSend::Change { change, .. } => change.weight(),
                DeferredSend::Call { fds, call, body, .. } => {
                    body.len() + call.weight() + size_of_val(&fds[..])
                }
            }
    }
}

impl DeferredSends {
    /// Whether a connection came over and has ended before it was ours.
    pub fn has_ended(&self, fd: Fd) -> bool {
        self.ended.contains(&fd)
    }

    /// A connection that was not ours yet has ended.
    pub fn ended(&mut self, fd: Fd) {
        self.ended.insert(fd);
    }
}

impl Worker {
    /// Keeps something until its connections are ours; `Full` where too much waits already.
    pub(super) fn defer(&self, send: DeferredSend) -> Verdict {
        let mut deferred = self.deferred.borrow_mut();
        let weight = send.weight();
        if deferred.bytes > 0 && deferred.bytes + weight > DATA_LANE_BYTES_MAX {
            self.add(Counter::LaneFull, 1);
            return Verdict::Full;
        }
        deferred.bytes += weight;
        deferred.sends.push(send);
        Verdict::Relayed
    }

    /// Defers a broadcast of ours for those that are not ours yet.
    pub(super) fn defer_broadcast(&self, opcode: Opcode, data: &Bytes, except: Option<Fd>) {
        let fds: Vec<Fd> = {
            let table = self.table.borrow();
            let arriving = table.iter().filter(|(_, it)| it.arriving && it.is_open());
            arriving.filter_map(|(_, it)| it.fd).filter(|fd| Some(*fd) != except).collect()
        };
        if !fds.is_empty() {
            // Counted, where there is no room.
            let _ = self.defer(DeferredSend::Broadcast {
                fds,
                message: Message { opcode, data: data.clone() },
            });
        }
    }

    /// All that came over so far is ours for the manager, too, and what was sent to it before
    /// has been sent here.
    pub(super) fn own(self: &Rc<Self>) {
        for key in self.keys(|it| it.arriving) {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.arriving = false;
            }
        }
        self.own_rooms();
        let deferred = std::mem::take(&mut *self.deferred.borrow_mut());
        for send in deferred.sends {
            self.send_deferred(send);
        }
    }

    fn send_deferred(self: &Rc<Self>, send: DeferredSend) {
        match send {
            DeferredSend::Push { fd, message, id } => {
                let verdict = self.push_to(fd, &message);
                if id != 0 {
                    self.answer_verdict(id, verdict);
                }
            }
            DeferredSend::Broadcast { fds, message } => {
                for fd in fds {
                    // One that has ended meanwhile has missed nothing.
                    if self.key_of(fd).is_some() {
                        self.push_to(fd, &message);
                    }
                }
            }
            DeferredSend::Close { fd, code, reason } => {
                if let Some(key) = self.key_of(fd) {
                    self.close_here(key, code, &reason, Cause::HandlerClosed);
                }
            }
            DeferredSend::Protect { fd, on } => {
                if let Some(key) = self.key_of(fd) {
                    self.protect_here(key, on);
                }
            }
            DeferredSend::Change { fd, change, id } => {
                let joins = change.joins().is_some();
                let key = self.key_of(fd);
                let verdict = key.map_or(Verdict::Gone, |key| self.change_here(key, change));
                self.when_noted(joins && verdict == Verdict::Queued, id, move |worker| {
                    worker.answer_verdict(id, verdict);
                });
            }
            DeferredSend::Call { fds, call, body, id } => self.unpark_call(&fds, &call, &body, id),
        }
    }

    fn key_of(&self, fd: Fd) -> Option<Key> {
        self.table.borrow().find(fd)
    }

    fn push_to(self: &Rc<Self>, fd: Fd, message: &Message) -> Verdict {
        match self.key_of(fd) {
            Some(key) => self.push_here(key, message.opcode, &message.data),
            None => self.count_verdict(Verdict::Gone),
        }
    }
}
