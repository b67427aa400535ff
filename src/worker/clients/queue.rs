//! Into an outbox, or for many clients at once into the broadcast buffer.

use bytes::Bytes;

use super::Clients;
use super::broadcast_buffer::{Shared, SharedFrame};
use super::connection::Connection;
use super::key::Key;
use super::outbox::Outbox;
use crate::api::Opcode;
use crate::websocket::frame;

impl Clients {
    /// Adds a message for many to the broadcast buffer.
    pub(in crate::worker) fn frame(&self, opcode: Opcode, data: &Bytes) -> SharedFrame {
        let limit = self.settings.buffer_bytes;
        let number = self.broadcasts.borrow_mut().add(opcode, data, limit);
        let len = frame::message_head(opcode, false, data.len()).len() + data.len();
        SharedFrame { number, len }
    }

    /// Has an open connection hear a message for many, if it can from the broadcast buffer.
    #[inline]
    pub(in crate::worker) fn share_frame(
        &self,
        frame: SharedFrame,
        key: Key,
        connection: &mut Connection,
    ) -> Shared {
        if frame.number.is_some_and(|number| connection.accepts_frame(number)) {
            self.turn.flush_later(key, connection);
            return Shared::Yes;
        }
        let limit = self.settings.buffer_bytes;
        if !self.settings.close_slow && connection.is_stuck(frame.len, limit) {
            return Shared::No;
        }
        Shared::Later
    }

    /// The outbox of a connection, with its frames in it.
    #[inline]
    pub(in crate::worker) fn outbox<'a>(&self, connection: &'a mut Connection) -> &'a mut Outbox {
        let frames = std::mem::take(&mut connection.frames);
        let outbox = connection.outbox.get_or_insert_with(|| self.spares.borrow_mut().take());
        if !frames.is_empty() {
            self.broadcasts.borrow().hand_out(frames, outbox);
        }
        outbox
    }

    /// Queues a frame of ours.
    pub(in crate::worker) fn queue_control(
        &self,
        key: Key,
        connection: &mut Connection,
        bytes: &[u8],
    ) {
        self.outbox(connection).add_control(bytes);
        if !connection.blocked {
            self.turn.flush_later(key, connection);
        }
    }
}
