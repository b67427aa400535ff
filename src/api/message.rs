//! Messages in both directions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Payload;
use crate::fd::Fd;

/// The kind of a message (RFC 6455 sections 5.5 and 5.6). The numbers are the wire's.
///
/// What a client sent is `Text` or `Binary`. The two others are for pushes; those of clients come
/// to a handler only where [`Handler::takes_control_frames`] says so.
///
/// [`Handler::takes_control_frames`]: super::Handler::takes_control_frames
// Four bytes, since it stands beside padding and is then read with it: a read of more than was
// written last waits until that has left the processor's store buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u32)]
pub enum Opcode {
    /// UTF-8 text. Swoole's `WEBSOCKET_OPCODE_TEXT`.
    Text = 1,
    /// Bytes. Swoole's `WEBSOCKET_OPCODE_BINARY`.
    Binary = 2,
    /// A ping of the application, at most 125 bytes. The client answers with a pong, which
    /// counts as something that the client sent. Swoole's `WEBSOCKET_OPCODE_PING`.
    Ping = 9,
    /// A pong that nobody asked for, at most 125 bytes. Swoole's `WEBSOCKET_OPCODE_PONG`.
    Pong = 10,
}

impl Opcode {
    /// Whether it is a control frame: at most 125 bytes, never compressed.
    #[inline]
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Ping | Opcode::Pong)
    }
}

/// A message to push, whose payload may be lent: text in a `&str`, a [`Frame`] that is sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// The payload. Text is UTF-8; the constructors see to it.
    pub data: Payload<'a>,
}

impl<'a> Message<'a> {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message<'a> {
        Message { opcode: Opcode::Text, data: text.into().into() }
    }

    /// A binary message.
    pub fn binary(data: impl Into<Payload<'a>>) -> Message<'a> {
        Message { opcode: Opcode::Binary, data: data.into() }
    }

    /// A ping with at most 125 bytes; a longer one is answered `TooBig`.
    pub fn ping(data: impl Into<Payload<'a>>) -> Message<'a> {
        Message { opcode: Opcode::Ping, data: data.into() }
    }

    /// The same, to be kept.
    pub fn into_owned(self) -> Message<'static> {
        Message { opcode: self.opcode, data: self.data.into_owned() }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Message<'a> {
        Message { opcode: Opcode::Text, data: text.into() }
    }
}

impl From<String> for Message<'_> {
    fn from(text: String) -> Self {
        Message::text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(data: &'a [u8]) -> Message<'a> {
        Message::binary(data)
    }
}

impl From<Vec<u8>> for Message<'_> {
    fn from(data: Vec<u8>) -> Self {
        Message::binary(data)
    }
}

impl From<Bytes> for Message<'_> {
    fn from(data: Bytes) -> Self {
        Message::binary(data)
    }
}

/// A whole message that a client sent. Swoole's `Frame`, always with `finish` true.
///
/// A [`Handler`](super::Handler) is lent it: most payloads lie in the worker's receive buffer
/// while the handler runs. A handler that keeps a frame, or goes on asynchronously with it, takes
/// [`into_owned`](Frame::into_owned). A closure of [`Server`](crate::Server) is given a frame of
/// its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame<'a> {
    /// Who sent it.
    pub fd: Fd,
    /// Text or binary; a ping or a pong only for a handler that takes these.
    pub opcode: Opcode,
    /// The payload, reassembled and, for text, checked to be UTF-8. At most `package_max_length`
    /// bytes.
    pub data: Payload<'a>,
    /// Whether the client had compressed it. Swoole's `WEBSOCKET_FLAG_COMPRESS`.
    pub compressed: bool,
}

impl<'a> Frame<'a> {
    /// A message as a client of that number would have sent it: for the tests of handlers. The
    /// caller answers for the UTF-8 of a text.
    pub fn new(fd: Fd, opcode: Opcode, data: impl Into<Payload<'a>>) -> Frame<'a> {
        Frame { fd, opcode, data: data.into(), compressed: false }
    }

    /// The payload as text; `None` for anything but a text message.
    pub fn text(&self) -> Option<&str> {
        match self.opcode {
            Opcode::Text => std::str::from_utf8(&self.data).ok(),
            _ => None,
        }
    }

    /// The same, to be kept: a payload that was lent is copied.
    pub fn into_owned(self) -> Frame<'static> {
        let Frame { fd, opcode, data, compressed } = self;
        Frame { fd, opcode, data: data.into_owned(), compressed }
    }
}

impl<'a> From<Frame<'a>> for Message<'a> {
    fn from(frame: Frame<'a>) -> Message<'a> {
        Message { opcode: frame.opcode, data: frame.data }
    }
}
