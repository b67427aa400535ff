//! Push, broadcast, close and their questions: to clients here by the outbox, to all others by
//! the manager.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::Worker;
use super::connection::Connection;
use super::ending::asked_close;
use super::life::Phase;
use super::parked::Parcel;
use super::table::Key;
use crate::api::{
    Info, LocalFuture, Message, Opcode, ProcessEvent, ProcessId, Reactor, TaskError, Verdict,
};
use crate::close::{Cause, Close};
use crate::fd::{Fd, Slot, WorkerId};
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::websocket::{Variant, frame};

/// Where a client is, as far as this worker knows.
enum Route {
    Here(Key),
    /// Here, and not ours yet for the manager.
    Arriving,
    /// With another worker, or nowhere: the manager knows.
    Elsewhere,
    /// It was ours and is no more.
    Gone,
}

/// A message as its receivers are sent it, compressed at most once for each variant.
struct Encoded<'a> {
    opcode: Opcode,
    plain: &'a Bytes,
    compressed: Option<Box<Compressed>>,
}

/// By variant: once it is known, the compressed payload, or `None` if it would not shrink.
type Compressed = [Option<Option<Bytes>>; Variant::COUNT];

impl Worker {
    #[inline]
    fn route(&self, fd: Fd) -> Route {
        let table = self.table.borrow();
        match table.find(fd) {
            Some(key) if table.get(key).is_some_and(|it| it.arriving) => Route::Arriving,
            Some(key) => Route::Here(key),
            // Once connections were handed over, a number of ours may live elsewhere.
            None if self.phase.get() == Phase::HandedOver => Route::Elsewhere,
            None if self.serials.borrow().is_ours(fd) => Route::Gone,
            None => Route::Elsewhere,
        }
    }

    /// Pushes to a client of this worker.
    #[inline]
    pub(super) fn push_here(self: &Rc<Self>, key: Key, opcode: Opcode, data: &Bytes) -> Verdict {
        let verdict = if data.len() > self.settings.message.message_bytes {
            Verdict::TooBig
        } else {
            let mut encoded = Encoded { opcode, plain: data, compressed: None };
            self.offer(key, &mut encoded)
        };
        self.count_verdict(verdict)
    }

    /// The one way to a client.
    #[inline]
    fn offer(self: &Rc<Self>, key: Key, message: &mut Encoded<'_>) -> Verdict {
        match self.try_offer(key, message, false) {
            // Perhaps only since the turn's pushes were not written.
            None => {
                self.flush(key);
                self.try_offer(key, message, true).unwrap_or(Verdict::Full)
            }
            Some(verdict) => verdict,
        }
    }

    /// `None` if there is no room and the kernel might make some. `finally` takes what it takes.
    #[inline]
    fn try_offer(&self, key: Key, message: &mut Encoded<'_>, finally: bool) -> Option<Verdict> {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key).filter(|it| it.is_open()) else {
            return Some(Verdict::Gone);
        };
        let Encoded { opcode, plain, .. } = *message;
        let (compressed, payload) = message.for_peer(self, connection);
        let head = frame::message_head(opcode, compressed, payload.len());
        let limit = self.settings.buffer_bytes;
        let blocked = connection.blocked;
        let outbox = self.outbox(connection);
        if !outbox.has_room(head.len() + payload.len(), limit) {
            if !blocked && !finally {
                return None;
            }
            if self.settings.close_slow {
                self.say_close(key, connection, Close::because(Cause::SlowReader));
            }
            return Some(Verdict::Full);
        }
        outbox.add_message(&head, payload);
        if compressed {
            connection.engine.sent_compressed(plain);
        }
        if !blocked {
            self.turn.flush_later(key, connection);
        }
        Some(Verdict::Queued)
    }

    /// Pushes to every client of this worker that `to` picks.
    pub(super) fn broadcast_here(
        self: &Rc<Self>,
        opcode: Opcode,
        data: &Bytes,
        to: impl Fn(&Connection) -> bool,
    ) {
        if data.len() > self.settings.message.message_bytes {
            self.count_verdict(Verdict::TooBig);
            return;
        }
        let rest = self.sing(opcode, data, to);
        let mut encoded = Encoded { opcode, plain: data, compressed: None };
        for key in rest {
            let verdict = self.offer(key, &mut encoded);
            self.count_verdict(verdict);
        }
    }

    /// Adds a broadcast to the chorus, for all who can hear it from there; the answer is who
    /// cannot.
    fn sing(&self, opcode: Opcode, data: &Bytes, to: impl Fn(&Connection) -> bool) -> Vec<Key> {
        let verse = self.chorus.borrow_mut().add(opcode, data, self.settings.buffer_bytes);
        let (mut heard, mut rest) = (0, Vec::new());
        let mut table = self.table.borrow_mut();
        for (key, connection) in table.iter_mut() {
            if !connection.is_open() || !to(connection) {
                continue;
            }
            if verse.is_some_and(|verse| connection.hears(verse)) {
                heard += 1;
                self.turn.flush_later(key, connection);
            } else {
                rest.push(key);
            }
        }
        self.add(Counter::PushQueued, heard);
        rest
    }

    /// Closes a client of this worker.
    pub(super) fn close_here(
        self: &Rc<Self>,
        key: Key,
        code: u16,
        reason: &str,
        cause: Cause,
    ) -> Verdict {
        if !self.table.borrow().get(key).is_some_and(Connection::is_open) {
            return Verdict::Gone;
        }
        self.start_close(key, asked_close(code, reason, cause));
        Verdict::Queued
    }

    pub(super) fn info_here(&self, fd: Fd) -> Option<Info> {
        let table = self.table.borrow();
        let connection = table.get(table.find(fd)?)?;
        connection.info(self.slot(), self.now_ms.get())
    }

    /// Gives a message for a client elsewhere to the manager.
    fn relay(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        match self.link.send(Lane::Data, message, Body::Inline(body), Vec::new()) {
            Ok(Sent::Queued) => Verdict::Relayed,
            Ok(Sent::Full) => {
                self.add(Counter::LaneFull, 1);
                Verdict::Full
            }
            Err(error) => {
                tracing::error!(%error, "cannot relay");
                Verdict::Full
            }
        }
    }

    #[inline]
    fn push(self: &Rc<Self>, fd: Fd, message: &Message, id: RequestId) -> Verdict {
        let Message { opcode, data } = message;
        match self.route(fd) {
            Route::Here(key) => self.push_here(key, *opcode, data),
            Route::Gone => self.count_verdict(Verdict::Gone),
            _ if data.len() > self.settings.message.message_bytes => {
                self.count_verdict(Verdict::TooBig)
            }
            Route::Arriving => self.park(Parcel::Push { fd, message: message.clone(), id }),
            Route::Elsewhere => {
                let push = WorkerToManager::Push { id, fd: fd.as_u64(), opcode: *opcode };
                match self.relay(&push, data) {
                    Verdict::Relayed => self.count_verdict(Verdict::Relayed),
                    other => other,
                }
            }
        }
    }
}

impl Encoded<'_> {
    /// The payload for one peer, and whether it is compressed.
    #[inline]
    fn for_peer(&mut self, worker: &Worker, connection: &Connection) -> (bool, &Bytes) {
        let Some(variant) = connection.engine.variant() else { return (false, self.plain) };
        let slot = &mut self.compressed.get_or_insert_default()[variant.index()];
        let compressed =
            slot.get_or_insert_with(|| worker.codec.borrow_mut().compress(self.plain, variant));
        match compressed {
            Some(payload) => (true, payload),
            None => (false, self.plain),
        }
    }
}

/// The worker as handlers see it.
pub(super) struct Port(pub Weak<Worker>);

impl Port {
    fn with<T>(&self, gone: T, f: impl FnOnce(&Rc<Worker>) -> T) -> T {
        match self.0.upgrade() {
            Some(worker) => f(&worker),
            // A handler's context outlived its worker, which ends with the process.
            None => gone,
        }
    }
}

impl Reactor for Port {
    fn worker(&self) -> WorkerId {
        self.with(WorkerId { slot: Slot(0), epoch: 0 }, |worker| worker.id)
    }

    fn worker_num(&self) -> u16 {
        self.with(0, |worker| worker.worker_num.get())
    }

    fn push(&self, fd: Fd, message: Message) -> Verdict {
        self.with(Verdict::Gone, |worker| worker.push(fd, &message, 0))
    }

    fn push_confirmed(&self, fd: Fd, message: Message) -> LocalFuture<Verdict> {
        self.with(ready(Verdict::Gone), |worker| {
            let question = worker.ask_verdict();
            match worker.push(fd, &message, question.id) {
                Verdict::Relayed => {
                    Box::pin(async move { question.answer().await.unwrap_or(Verdict::Unknown) })
                }
                verdict => ready(verdict),
            }
        })
    }

    fn broadcast(&self, message: Message, except: Option<Fd>) {
        self.with((), |worker| {
            let Message { opcode, data } = message;
            worker.broadcast_here(opcode, &data, |it| !it.arriving && it.fd != except);
            if data.len() <= worker.settings.message.message_bytes {
                worker.park_broadcast(opcode, &data, except);
                let except = except.map_or(0, Fd::as_u64);
                // Refused only where the lane is full, which was counted.
                let _ = worker.relay(&WorkerToManager::Broadcast { opcode, except }, &data);
            }
        });
    }

    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.with(Verdict::Gone, |worker| match worker.route(fd) {
            Route::Here(key) => worker.close_here(key, code, reason, Cause::HandlerClosed),
            Route::Gone => Verdict::Gone,
            Route::Arriving => {
                let reason = reason.to_owned();
                worker.park(Parcel::Close { fd, code, reason })
            }
            Route::Elsewhere => {
                let close = WorkerToManager::Close { id: 0, fd: fd.as_u64(), code };
                worker.relay(&close, reason.as_bytes())
            }
        })
    }

    fn info(&self, fd: Fd) -> LocalFuture<Option<Info>> {
        self.with(ready(None), |worker| match worker.route(fd) {
            Route::Gone => ready(None),
            Route::Here(_) | Route::Arriving => ready(worker.info_here(fd)),
            Route::Elsewhere => {
                let question = worker.ask_info();
                let ask = WorkerToManager::Info { id: question.id, fd: fd.as_u64() };
                match worker.relay(&ask, &[]) {
                    Verdict::Relayed => Box::pin(async move { question.answer().await.flatten() }),
                    _ => ready(None),
                }
            }
        })
    }

    fn connections(&self) -> LocalFuture<Vec<Info>> {
        self.with(ready(Vec::new()), |worker| {
            let question = worker.ask_list();
            worker.say(&WorkerToManager::List { id: question.id });
            Box::pin(async move { question.answer().await.unwrap_or_default() })
        })
    }

    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict {
        self.with(Verdict::Gone, |worker| {
            if u16::from(to.0) >= worker.worker_num.get() {
                return Verdict::Gone;
            }
            if to == worker.slot() {
                worker.message_self(data);
                return Verdict::Queued;
            }
            worker.relay(&WorkerToManager::WorkerMessage { to }, &data)
        })
    }

    fn spawn(&self, future: LocalFuture<()>) {
        tokio::task::spawn_local(future);
    }

    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError> {
        self.with(Err(TaskError::Full), |worker| worker.jobs.run(job))
    }

    fn start_process(&self, id: ProcessId, descriptors: Vec<OwnedFd>) {
        self.with((), |worker| worker.start_process(id, &descriptors));
    }

    fn kill_process(&self, id: ProcessId) {
        self.with((), |worker| worker.kill_process(id));
    }

    fn process_event(&self) -> LocalFuture<ProcessEvent> {
        match self.0.upgrade() {
            Some(worker) => Box::pin(worker.process_event()),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn ready<T: 'static>(value: T) -> LocalFuture<T> {
    Box::pin(std::future::ready(value))
}
