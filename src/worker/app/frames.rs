//! What an open connection sends: frames in, events out.

use std::rc::Rc;

use bytes::Bytes;

use super::App;
use crate::api::{Frame, Opcode};
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::Counter;
use crate::websocket::{Event, Fault, frame};
use crate::worker::base::ticks::{NEVER, tick};
use crate::worker::clients::budget::FEW;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::heartbeat::PING;
use crate::worker::clients::key::Key;

/// What one step of the engine asks for.
enum Next {
    Nothing,
    Deliver(Frame<'static>),
    Close(Option<u16>, String),
    Fault(Close),
}

impl App {
    /// More bytes of frames. They are used up, or kept aside behind a handler that runs.
    pub(in crate::worker) fn feed_frames(self: &Rc<Self>, key: Key, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (mut messages, mut fault) = (0, None);
            self.deliver_row(key, || match self.whole(key, &mut bytes)? {
                Ok(frame) => {
                    messages += 1;
                    Some(frame)
                }
                Err(broken) => {
                    fault = Some(broken);
                    None
                }
            });
            self.add(Counter::MessagesIn, messages);
            if let Some(fault) = fault {
                return self.start_close(key, Close::from(fault));
            }
            if bytes.is_empty() {
                return;
            }
            let Some((used, next)) = self.step(key, bytes) else {
                return self.keep_tail(key, bytes);
            };
            bytes = &mut bytes[used..];
            match next {
                Next::Nothing => {}
                Next::Deliver(frame) => {
                    let mut frame = Some(frame);
                    self.deliver_row(key, || frame.take());
                }
                Next::Close(code, reason) => return self.closed_by_client(key, code, reason),
                Next::Fault(close) => return self.start_close(key, close),
            }
        }
    }

    /// The next message of an open connection, if it is here whole: nearly all that ever comes.
    #[inline]
    fn whole<'a>(
        self: &Rc<Self>,
        key: Key,
        bytes: &mut &'a mut [u8],
    ) -> Option<Result<Frame<'a>, Fault>> {
        if bytes.is_empty() {
            return None;
        }
        let mut table = self.table.borrow_mut();
        let connection = table.get_mut(key).filter(|it| it.is_open() && !it.busy && !it.slowed)?;
        let fd = connection.fd?;
        let whole = connection.engine.next_whole(bytes, &self.settings.message)?;
        self.heard(key, connection);
        Some(whole.map(|(opcode, data)| {
            if self.meters.counts_messages() {
                self.meter(key, connection, 1, 0);
            }
            Frame { fd, opcode, data, compressed: false }
        }))
    }

    /// One step of the engine: how many bytes it used, and what they said. `None` while a
    /// handler of the connection runs.
    fn step(self: &Rc<Self>, key: Key, bytes: &mut [u8]) -> Option<(usize, Next)> {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else {
            return Some((bytes.len(), Next::Nothing));
        };
        if connection.busy || connection.slowed {
            return None;
        }
        if !matches!(connection.stage, Stage::Open | Stage::Closing) {
            return Some((bytes.len(), Next::Nothing));
        }
        let limits = &self.settings.message;
        let step = match connection.engine.next(bytes, limits, &mut self.codec.borrow_mut()) {
            Ok(step) => step,
            Err(fault) => {
                let close = Close::from(fault);
                if connection.stage == Stage::Closing {
                    // It breaks rules while it is asked to leave: then without its goodbye.
                    connection.stage = Stage::Lingering;
                }
                return Some((bytes.len(), Next::Fault(close)));
            }
        };
        self.mind_message(key, connection);
        match &step.event {
            // Whoever is in the midst of a message sends.
            None if !connection.engine.is_mid_message() => {}
            Some(Event::Pong(payload)) if payload.bytes(bytes) == PING => {}
            event => {
                self.heard(key, connection);
                if event.is_some() && self.meters.counts_messages() {
                    self.meter(key, connection, 1, 0);
                }
            }
        }
        if self.has_no_memory_for(connection) {
            return Some((bytes.len(), Next::Fault(Close::because(Cause::OutOfMemory))));
        }
        let next = match step.event {
            Some(Event::Pong(data)) if data.bytes(bytes) != PING => {
                self.control(connection, Opcode::Pong, data.into_bytes(bytes))
            }
            None | Some(Event::Pong(_)) => Next::Nothing,
            Some(Event::Ping(payload)) if !self.handler.takes_control_frames() => {
                self.pong(key, connection, payload.bytes(bytes));
                Next::Nothing
            }
            Some(Event::Ping(data)) => {
                self.control(connection, Opcode::Ping, data.into_bytes(bytes))
            }
            Some(Event::Message { opcode, data, compressed }) => {
                self.message(connection, opcode, data.into_bytes(bytes), compressed)
            }
            Some(Event::Close { code, reason }) => Next::Close(code, reason),
        };
        Some((step.used, next))
    }

    /// Whether a message that is half here has to go, since all clients together hold too much.
    /// One of few bytes stays: that is not who fills the memory.
    fn has_no_memory_for(&self, connection: &mut Connection) -> bool {
        self.reckon(connection);
        let goes = self.budget.is_full() && connection.engine.pending_bytes() > FEW;
        if goes {
            connection.engine.give_up();
            self.reckon(connection);
        }
        goes
    }

    fn message(
        &self,
        connection: &Connection,
        opcode: Opcode,
        data: Bytes,
        compressed: bool,
    ) -> Next {
        match connection.fd {
            Some(fd) if connection.is_open() => {
                self.add(Counter::MessagesIn, 1);
                Next::Deliver(Frame { fd, opcode, data: data.into(), compressed })
            }
            _ => Next::Nothing,
        }
    }

    /// A ping or pong for a handler that takes them.
    fn control(&self, connection: &Connection, opcode: Opcode, data: Bytes) -> Next {
        match connection.fd {
            Some(fd) if connection.is_open() && self.handler.takes_control_frames() => {
                Next::Deliver(Frame { fd, opcode, data: data.into(), compressed: false })
            }
            _ => Next::Nothing,
        }
    }

    /// Starts or stops the clock of a message that was begun.
    fn mind_message(&self, key: Key, connection: &mut Connection) {
        let Some(time) = self.settings.message_time else { return };
        if !connection.engine.is_mid_message() {
            connection.message_by = NEVER;
        } else if connection.message_by == NEVER && connection.is_open() {
            connection.message_by = tick(self.now_ms.get()) + time;
            self.look_again(key, connection);
        }
    }

    fn pong(&self, key: Key, connection: &mut Connection, payload: &[u8]) {
        if !connection.is_open() {
            return;
        }
        let mut bytes = Vec::with_capacity(2 + payload.len());
        frame::put_pong(&mut bytes, payload);
        let blocked = connection.blocked;
        self.outbox(connection).add_pong(&bytes, blocked);
        if !blocked {
            self.turn.flush_later(key, connection);
        }
    }
}
