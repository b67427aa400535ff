//! Push, broadcast, close and their questions: to clients here by the outbox, to all others by
//! the manager, or straight to their worker.

use std::rc::Rc;

use super::Peers;
use crate::api::{Message, Opcode, Payload, Verdict};
use crate::fd::Fd;
use crate::ipc::messages::{Reach, RequestId, WorkerToManager, WorkerToWorker};
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::moving::route::Route;

impl Peers {
    /// Gives a message for a client elsewhere to its worker, or to the manager.
    pub(in crate::worker) fn send_to_client(
        &self,
        fd: Fd,
        message: WorkerToWorker,
        body: &[u8],
    ) -> Verdict {
        if self.is_abroad(fd) {
            return self.send_abroad(&message.by_manager(Reach::AllBut(Vec::new())), body);
        }
        match self.direct.send(fd.slot(), &message, body) {
            Some(sent) => self.relayed(sent),
            None => {
                self.want_direct(fd.slot());
                self.relay(&message.by_manager(Reach::AllBut(Vec::new())), body)
            }
        }
    }

    fn is_abroad(&self, fd: Fd) -> bool {
        self.settings.in_cluster && fd.node() != self.settings.node
    }

    /// Whether a client is another node's while the engine is away: nothing goes there.
    pub(super) fn is_cut_off(&self, fd: Fd) -> bool {
        self.engine_away.get() && self.is_abroad(fd)
    }

    /// Gives a message for a client of another node to the manager, unless it would go nowhere.
    fn send_abroad(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        if self.engine_away.get() { Verdict::Unknown } else { self.relay(message, body) }
    }

    #[inline]
    pub(in crate::worker) fn push(
        self: &Rc<Self>,
        fd: Fd,
        opcode: Opcode,
        data: &Payload<'_>,
        id: RequestId,
    ) -> Verdict {
        let at_once = self.push_at_once(fd, opcode, data);
        at_once.unwrap_or_else(|| self.push_anyhow(fd, opcode, data, id))
    }

    /// To a client wherever it is, whatever that takes.
    pub(super) fn push_anyhow(
        self: &Rc<Self>,
        fd: Fd,
        opcode: Opcode,
        data: &Payload<'_>,
        id: RequestId,
    ) -> Verdict {
        match self.route(fd) {
            Route::Here(key) => self.push_here(key, opcode, data),
            Route::Gone => self.count_verdict(Verdict::Gone),
            _ if self.is_too_big(opcode, data) => self.count_verdict(Verdict::TooBig),
            Route::Arriving(pass) => {
                let message = Message { opcode, data: data.to_bytes().into() };
                self.defer(pass, DeferredSend::Push { fd, message, id })
            }
            Route::Elsewhere => {
                let push = WorkerToWorker::Push { id, fd: fd.as_u64(), opcode };
                match self.send_to_client(fd, push, data) {
                    Verdict::Relayed => self.count_verdict(Verdict::Relayed),
                    other => other,
                }
            }
        }
    }
}
