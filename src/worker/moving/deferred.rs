//! What our handlers send to connections that came and are not ours yet.
//!
//! What we pushed to a connection before we told the manager that it is here waits with the
//! manager until the pass is over. What we push from then on is deferred here, and follows when
//! the manager says that nothing more is to come (`Own`).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Moving;
use crate::api::rooms::{Call, Change};
use crate::api::{Message, Opcode, Verdict};
use crate::fd::Fd;
use crate::ipc::DATA_LANE_BYTES_MAX;
use crate::ipc::messages::{PassId, RequestId};
use crate::ipc::scoreboard::Counter;

/// What a send weighs besides its payload.
const SEND_BYTES: usize = 128;

/// Something for one connection, or a broadcast for many.
pub(in crate::worker) enum DeferredSend {
    Push {
        fd: Fd,
        message: Message<'static>,
        id: RequestId,
    },
    Broadcast {
        fds: Vec<Fd>,
        message: Message<'static>,
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

impl Moving {
    /// Keeps something until the pass of its connections is ours; `Full` where too much waits
    /// already.
    pub(in crate::worker) fn defer(&self, pass: PassId, send: DeferredSend) -> Verdict {
        let weight = send.weight();
        if !self.transit.borrow_mut().defer(pass, send, weight, DATA_LANE_BYTES_MAX) {
            self.add(Counter::LaneFull, 1);
            return Verdict::Full;
        }
        Verdict::Relayed
    }

    /// Defers a broadcast of ours for those that are not ours yet.
    pub(in crate::worker) fn defer_broadcast(
        &self,
        opcode: Opcode,
        data: &Bytes,
        except: Option<Fd>,
    ) {
        let passes: Vec<(PassId, Vec<Fd>)> = {
            let transit = self.transit.borrow();
            let fds = |fds: &BTreeSet<u64>| {
                let fds = fds.iter().filter_map(|fd| Fd::try_from(*fd).ok());
                fds.filter(|fd| Some(*fd) != except).collect()
            };
            transit.deferring().map(|(pass, all)| (pass, fds(all))).collect()
        };
        for (pass, fds) in passes {
            let message = Message { opcode, data: data.clone().into() };
            // Counted, where there is no room.
            let _ = self.defer(pass, DeferredSend::Broadcast { fds, message });
        }
    }
}
