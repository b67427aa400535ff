//! One client: a message to it, its close, and what is known of it, each with the word of the
//! worker that has the client.

use std::rc::Rc;

use crate::api::{Info, Message, Opcode, Payload, Verdict};
use crate::close::{Cause, cut_reason};
use crate::fd::Fd;
use crate::ipc::messages::WorkerToWorker;
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::moving::route::Route;
use crate::worker::peers::Peers;
use crate::worker::peers::requests::Question;

/// A message whose verdict is known, or is on its way.
pub(super) enum Pushed {
    Known(Verdict),
    Asked(Question<Verdict>),
}

impl Pushed {
    /// What became of it.
    pub async fn verdict(self) -> Verdict {
        match self {
            Pushed::Known(verdict) => verdict,
            Pushed::Asked(question) => question.answer().await.unwrap_or(Verdict::Unknown),
        }
    }
}

/// What is known of a client, or is on its way.
pub(super) enum Asked {
    Known(Result<Option<Info>, Verdict>),
    Asked(Question<Option<Info>>),
}

impl Asked {
    /// What is known; the error is why nobody could tell.
    pub async fn answer(self) -> Result<Option<Info>, Verdict> {
        match self {
            Asked::Known(info) => info,
            Asked::Asked(question) => question.answer().await.ok_or(Verdict::Unknown),
        }
    }
}

impl Peers {
    /// Pushes a message. What is pushed one after the other arrives in that order.
    pub(super) fn push_asking(
        self: &Rc<Self>,
        fd: Fd,
        opcode: Opcode,
        data: &Payload<'_>,
    ) -> Pushed {
        let question = self.ask_verdict();
        match self.push(fd, opcode, data, question.id) {
            Verdict::Relayed => Pushed::Asked(question),
            verdict => Pushed::Known(verdict),
        }
    }

    /// Closes a connection, of a WebSocket or of plain HTTP.
    pub(in crate::worker) async fn close_told(
        self: &Rc<Self>,
        fd: Fd,
        code: u16,
        reason: &str,
    ) -> Verdict {
        match self.route(fd) {
            Route::Here(key) => self.close_here(key, code, reason, Cause::HandlerClosed),
            Route::Gone if self.http.close(fd) => Verdict::Queued,
            Route::Gone => Verdict::Gone,
            Route::Arriving(pass) => {
                self.defer(pass, DeferredSend::Close { fd, code, reason: reason.to_owned() })
            }
            Route::Elsewhere => {
                let question = self.ask_verdict();
                let close = WorkerToWorker::Close { id: question.id, fd: fd.as_u64(), code };
                match self.send_to_client(fd, close, cut_reason(reason).as_bytes()) {
                    Verdict::Relayed => question.answer().await.unwrap_or(Verdict::Unknown),
                    verdict => verdict,
                }
            }
        }
    }

    /// Asks what is known of a client.
    pub(super) fn info_asking(self: &Rc<Self>, fd: Fd) -> Asked {
        match self.route(fd) {
            Route::Here(_) | Route::Arriving(_) | Route::Gone => {
                Asked::Known(Ok(self.info_here(fd)))
            }
            Route::Elsewhere => {
                let question = self.ask_info();
                let ask = WorkerToWorker::Info { id: question.id, fd: fd.as_u64() };
                match self.send_to_client(fd, ask, &[]) {
                    Verdict::Relayed => Asked::Asked(question),
                    verdict => Asked::Known(Err(verdict)),
                }
            }
        }
    }

    /// Pushes to every client. Where the lane to the manager is full, only the clients of this
    /// worker were reached, and while the engine of a cluster is away, only those of this node.
    pub(in crate::worker) fn broadcast_all(
        self: &Rc<Self>,
        message: Message<'_>,
        except: Option<Fd>,
    ) -> Verdict {
        use crate::ipc::messages::WorkerToManager;
        let (opcode, data) = (message.opcode, message.data.into_bytes());
        self.broadcast_here(opcode, &data, |it| !it.arriving && it.fd != except);
        if self.is_too_big(opcode, &data) {
            return Verdict::TooBig;
        }
        self.defer_broadcast(opcode, &data, except);
        let except = except.map_or(0, Fd::as_u64);
        self.pause_direct();
        match self.relay(&WorkerToManager::Broadcast { opcode, except }, &data) {
            Verdict::Relayed if self.engine_away.get() => Verdict::LocalOnly,
            verdict => verdict,
        }
    }
}
