//! Messages in both directions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fd::Fd;

/// The kind of a message (RFC 6455 sections 5.5 and 5.6). The numbers are the wire's.
///
/// What a client sent is `Text` or `Binary`. The two others are for pushes alone.
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

/// A message to push. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub opcode: Opcode,
    /// The payload. Text is UTF-8; the constructors see to it.
    pub data: Bytes,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message {
        Message { opcode: Opcode::Text, data: Bytes::from(text.into()) }
    }

    /// A binary message.
    pub fn binary(data: impl Into<Bytes>) -> Message {
        Message { opcode: Opcode::Binary, data: data.into() }
    }

    /// A ping with at most 125 bytes; a longer one is answered `TooBig`.
    pub fn ping(data: impl Into<Bytes>) -> Message {
        Message { opcode: Opcode::Ping, data: data.into() }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Message {
        Message::binary(data)
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Message {
        Message::binary(data)
    }
}

/// A whole message that a client sent. Swoole's `Frame`, always with `finish` true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who sent it.
    pub fd: Fd,
    /// Text or binary.
    pub opcode: Opcode,
    /// The payload, reassembled and, for text, checked to be UTF-8.
    pub data: Bytes,
    /// Whether the client had compressed it. Swoole's `WEBSOCKET_FLAG_COMPRESS`.
    pub compressed: bool,
}

impl Frame {
    /// A message as a client of that number would have sent it: for the tests of handlers. The
    /// caller answers for the UTF-8 of a text.
    pub fn new(fd: Fd, opcode: Opcode, data: impl Into<Bytes>) -> Frame {
        Frame { fd, opcode, data: data.into(), compressed: false }
    }

    /// The payload as text; `None` for a binary message.
    pub fn text(&self) -> Option<&str> {
        match self.opcode {
            Opcode::Text => std::str::from_utf8(&self.data).ok(),
            _ => None,
        }
    }
}

impl From<Frame> for Message {
    fn from(frame: Frame) -> Message {
        Message { opcode: frame.opcode, data: frame.data }
    }
}
