//! Pushes to clients of this worker, alone or for many: the one way of a message into an outbox.

use bytes::Bytes;

use super::Clients;
use super::broadcast_buffer::Shared;
use super::connection::Connection;
use super::key::Key;
use crate::api::{Opcode, Payload, Verdict};
use crate::close::{Cause, Close};
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;
use crate::websocket::{CONTROL_BYTES_MAX, Head, Variant, frame};

/// A message as its receivers are sent it, compressed at most once for each variant.
struct Encoded<'a> {
    opcode: Opcode,
    plain: &'a Payload<'a>,
    compressed: Option<Box<Compressed>>,
}

/// By variant: once it is known, the compressed payload, or `None` if it would not shrink.
type Compressed = [Option<Option<Payload<'static>>>; Variant::COUNT];

impl Clients {
    /// Pushes to a client of this worker.
    #[inline]
    pub(in crate::worker) fn push_here(
        &self,
        key: Key,
        opcode: Opcode,
        data: &Payload<'_>,
    ) -> Verdict {
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
    pub(in crate::worker) fn is_too_big(&self, opcode: Opcode, data: &[u8]) -> bool {
        let limit = self.settings.push_bytes;
        data.len() > if opcode.is_control() { CONTROL_BYTES_MAX } else { limit }
    }

    /// How many bytes more may be queued for a client that is open here.
    pub(in crate::worker) fn room(&self, fd: Fd) -> Option<usize> {
        let table = self.table.borrow();
        let connection = table.get(table.find(fd)?).filter(|it| it.is_open() && !it.arriving)?;
        let limit = self.settings.buffer_bytes;
        Some(connection.outbox.as_ref().map_or(limit, |outbox| outbox.room(limit)))
    }

    /// The way to a client that may have no room at once, or has compression.
    #[inline]
    fn offer(&self, key: Key, message: &mut Encoded<'_>) -> Verdict {
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
        payload: &Payload<'_>,
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
    pub(in crate::worker) fn broadcast_here(
        &self,
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
    pub(in crate::worker) fn offer_to_all(
        &self,
        keys: &[Key],
        opcode: Opcode,
        data: &Bytes,
    ) -> Vec<Verdict> {
        let plain = Payload::from(data);
        let mut encoded = Encoded { opcode, plain: &plain, compressed: None };
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

    /// Has the sweep for idle clients leave a client of this worker alone, or do so no more.
    pub(in crate::worker) fn protect_here(&self, key: Key, on: bool) -> Verdict {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key).filter(|it| it.is_open()) else {
            return Verdict::Gone;
        };
        connection.protected = on;
        Verdict::Queued
    }

    /// The short way: to a client of ours that is open and has room.
    #[inline]
    pub(in crate::worker) fn push_at_once(
        &self,
        fd: Fd,
        opcode: Opcode,
        data: &Payload<'_>,
    ) -> Option<Verdict> {
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
        let verdict = self.try_queue(key, connection, &head, data, false)?;
        Some(self.count_verdict(verdict))
    }
}

impl Encoded<'_> {
    /// The payload for one peer, and whether it is compressed.
    #[inline]
    fn for_peer(&mut self, worker: &Clients, connection: &Connection) -> (bool, &Payload<'_>) {
        let variant = connection.engine.variant().filter(|_| !self.opcode.is_control());
        let Some(variant) = variant else { return (false, self.plain) };
        let slot = &mut self.compressed.get_or_insert_default()[variant.index()];
        let compressed = slot.get_or_insert_with(|| {
            let compressed = worker.codec.borrow_mut().compress(self.plain, variant);
            compressed.map(Payload::from)
        });
        match compressed {
            Some(payload) => (true, payload),
            None => (false, self.plain),
        }
    }
}
