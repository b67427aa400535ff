//! Push, broadcast, close and their questions: to clients here by the outbox, to all others by
//! the manager, or straight to their worker.

use std::rc::Rc;

use bytes::Bytes;

use super::Worker;
use super::broadcast_buffer::Shared;
use super::connection::Connection;
use super::deferred::DeferredSend;
use super::ending::asked_close;
use super::life::Phase;
use super::rooms::INFO_ROOMS_MAX;
use super::table::Key;
use crate::api::rooms::Belongings;
use crate::api::{Info, Message, Opcode, Verdict};
use crate::close::{Cause, Close};
use crate::error::Result;
use crate::fd::Fd;
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{PassId, Reach, RequestId, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::websocket::{CONTROL_BYTES_MAX, Head, Variant, frame};

/// Where a client is, as far as this worker knows.
pub(super) enum Route {
    Here(Key),
    /// Here, by this pass, and not ours yet.
    Arriving(PassId),
    /// With another worker, or nowhere.
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
    pub(super) fn route(&self, fd: Fd) -> Route {
        let table = self.table.borrow();
        match table.find(fd) {
            Some(key) if table.get(key).is_some_and(|it| it.arriving) => {
                self.transit.borrow().defers(fd.as_u64()).map_or(Route::Elsewhere, Route::Arriving)
            }
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
        let verdict = if self.is_too_big(opcode, data) {
            Verdict::TooBig
        } else {
            let mut encoded = Encoded { opcode, plain: data, compressed: None };
            self.offer(key, &mut encoded)
        };
        self.count_verdict(verdict)
    }

    /// Whether no client may be pushed this: a control frame carries at most 125 bytes.
    #[inline]
    pub(super) fn is_too_big(&self, opcode: Opcode, data: &Bytes) -> bool {
        let limit = self.settings.push_bytes;
        data.len() > if opcode.is_control() { CONTROL_BYTES_MAX } else { limit }
    }

    /// Whether clients are being given to a newer process.
    pub(super) fn is_giving(&self) -> bool {
        matches!(self.phase.get(), Phase::HandedOver | Phase::Leaving)
    }

    /// How many bytes more may be queued for a client that is open here.
    pub(super) fn room(&self, fd: Fd) -> Option<usize> {
        let table = self.table.borrow();
        let connection = table.get(table.find(fd)?).filter(|it| it.is_open() && !it.arriving)?;
        let limit = self.settings.buffer_bytes;
        Some(connection.outbox.as_ref().map_or(limit, |outbox| outbox.room(limit)))
    }

    /// The one way to a client.
    #[inline]
    fn offer(self: &Rc<Self>, key: Key, message: &mut Encoded<'_>) -> Verdict {
        let try_once = |message: &mut Encoded<'_>, finally| {
            let mut table = self.table.borrow_mut();
            match table.get_mut(key).filter(|it| it.is_open()) {
                Some(connection) => self.try_offer(key, connection, message, finally),
                None => Some(Verdict::Gone),
            }
        };
        match try_once(message, false) {
            // Perhaps only since the turn's pushes were not written.
            None => {
                self.flush(key);
                try_once(message, true).unwrap_or(Verdict::Full)
            }
            Some(verdict) => verdict,
        }
    }

    /// `None` if there is no room and the kernel might make some. `finally` takes what it takes.
    #[inline]
    fn try_offer(
        &self,
        key: Key,
        connection: &mut Connection,
        message: &mut Encoded<'_>,
        finally: bool,
    ) -> Option<Verdict> {
        let Encoded { opcode, plain, .. } = *message;
        let (compressed, payload) = message.for_peer(self, connection);
        let head = frame::message_head(opcode, compressed, payload.len());
        let verdict = self.try_queue(key, connection, &head, payload, finally)?;
        if compressed && verdict == Verdict::Queued {
            connection.engine.sent_compressed(plain);
        }
        Some(verdict)
    }

    #[inline]
    fn try_queue(
        &self,
        key: Key,
        connection: &mut Connection,
        head: &Head,
        payload: &Bytes,
        finally: bool,
    ) -> Option<Verdict> {
        let limit = self.settings.buffer_bytes;
        let blocked = connection.blocked;
        let outbox = self.outbox(connection);
        // Who does not read is who fills the memory.
        let too_much = blocked && self.budget.is_full();
        if too_much || !outbox.has_room(head.len() + payload.len(), limit) {
            if !blocked && !finally {
                return None;
            }
            if self.settings.close_slow {
                self.say_close(key, connection, Close::because(Cause::SlowReader));
            }
            return Some(Verdict::Full);
        }
        outbox.add_message(head, payload);
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
        if self.is_too_big(opcode, data) {
            self.count_verdict(Verdict::TooBig);
            return;
        }
        let rest = self.buffer_broadcast(opcode, data, to);
        self.offer_to_all(&rest, opcode, data);
    }

    /// Pushes one message to several, and says what became of each.
    pub(super) fn offer_to_all(
        self: &Rc<Self>,
        keys: &[Key],
        opcode: Opcode,
        data: &Bytes,
    ) -> Vec<Verdict> {
        let mut encoded = Encoded { opcode, plain: data, compressed: None };
        let offer = |key: &Key| {
            let verdict = self.offer(*key, &mut encoded);
            self.count_verdict(verdict)
        };
        keys.iter().map(offer).collect()
    }

    /// Adds a broadcast to the turn's buffer, for all who can hear it from there; the answer is who
    /// cannot.
    fn buffer_broadcast(
        &self,
        opcode: Opcode,
        data: &Bytes,
        to: impl Fn(&Connection) -> bool,
    ) -> Vec<Key> {
        let frame = self.frame(opcode, data);
        let (mut heard, mut lost, mut rest) = (0, 0, Vec::new());
        let mut table = self.table.borrow_mut();
        for (key, connection) in table.iter_mut() {
            if !connection.is_open() || !to(connection) {
                continue;
            }
            match self.share_frame(frame, key, connection) {
                Shared::Yes => heard += 1,
                Shared::No => lost += 1,
                Shared::Later => rest.push(key),
            }
        }
        self.add(Counter::PushQueued, heard);
        self.add(Counter::PushFull, lost);
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

    /// Has the sweep for idle clients leave a client of this worker alone, or do so no more.
    pub(super) fn protect_here(&self, key: Key, on: bool) -> Verdict {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key).filter(|it| it.is_open()) else {
            return Verdict::Gone;
        };
        connection.protected = on;
        Verdict::Queued
    }

    pub(super) fn info_here(&self, fd: Fd) -> Option<Info> {
        let table = self.table.borrow();
        let Some(connection) = table.find(fd).and_then(|key| table.get(key)) else {
            return self.http.info(fd, self.slot());
        };
        let process = self.handler.process_of(fd);
        let Belongings { mut rooms, uid, session } = self.belongings_of(connection);
        rooms.truncate(INFO_ROOMS_MAX);
        let info = connection.info(self.slot(), self.now_ms.get())?;
        Some(Info { process, rooms, uid, session, ..info })
    }

    /// Gives a message for a client elsewhere to its worker, or to the manager.
    pub(super) fn send_to_client(&self, fd: Fd, message: WorkerToWorker, body: &[u8]) -> Verdict {
        if fd.node() != self.settings.node && self.settings.in_cluster {
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

    /// Gives a message for a client of another node to the manager, unless it would go nowhere.
    fn send_abroad(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        if self.engine_away.get() { Verdict::Unknown } else { self.relay(message, body) }
    }

    /// Gives a message for somebody elsewhere to the manager.
    pub(super) fn relay(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        self.relayed(self.link.send(Lane::Data, message, Body::Inline(body), Vec::new()))
    }

    fn relayed(&self, sent: Result<Sent>) -> Verdict {
        match sent {
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
    pub(super) fn push(
        self: &Rc<Self>,
        fd: Fd,
        opcode: Opcode,
        data: &Bytes,
        id: RequestId,
    ) -> Verdict {
        match self.push_at_once(fd, opcode, data) {
            Some(verdict) => self.count_verdict(verdict),
            None => self.push_anyhow(fd, opcode, data, id),
        }
    }

    /// The short way: to a client of ours that is open and has room.
    #[inline]
    fn push_at_once(&self, fd: Fd, opcode: Opcode, data: &Bytes) -> Option<Verdict> {
        let mut table = self.table.borrow_mut();
        let key = table.find(fd)?;
        let connection = table.get_mut(key).filter(|it| it.is_open() && !it.arriving)?;
        if self.is_too_big(opcode, data) {
            return None;
        }
        if connection.engine.variant().is_some() {
            return None;
        }
        let head = frame::message_head(opcode, false, data.len());
        self.try_queue(key, connection, &head, data, false)
    }

    fn push_anyhow(
        self: &Rc<Self>,
        fd: Fd,
        opcode: Opcode,
        data: &Bytes,
        id: RequestId,
    ) -> Verdict {
        match self.route(fd) {
            Route::Here(key) => self.push_here(key, opcode, data),
            Route::Gone => self.count_verdict(Verdict::Gone),
            _ if self.is_too_big(opcode, data) => self.count_verdict(Verdict::TooBig),
            Route::Arriving(pass) => {
                let message = Message { opcode, data: data.clone() };
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

impl Encoded<'_> {
    /// The payload for one peer, and whether it is compressed.
    #[inline]
    fn for_peer(&mut self, worker: &Worker, connection: &Connection) -> (bool, &Bytes) {
        let variant = connection.engine.variant().filter(|_| !self.opcode.is_control());
        let Some(variant) = variant else { return (false, self.plain) };
        let slot = &mut self.compressed.get_or_insert_default()[variant.index()];
        let compressed =
            slot.get_or_insert_with(|| worker.codec.borrow_mut().compress(self.plain, variant));
        match compressed {
            Some(payload) => (true, payload),
            None => (false, self.plain),
        }
    }
}
