//! What comes out of the engine.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::api::Opcode;
use crate::close::{Cause, Close};

/// Where a payload lies: in the receive buffer that was given in, or on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In the slice given to [`Engine::next`](super::Engine::next), unmasked in place. Counts
    /// from the start of that slice.
    Here(Range<usize>),
    /// Put together from pieces, or inflated.
    Own(Vec<u8>),
}

impl Data {
    /// The payload. `buf` is the slice that was given to `next`.
    #[inline]
    pub fn bytes<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self {
            Data::Here(range) => &buf[range.clone()],
            Data::Own(data) => data,
        }
    }

    /// The payload to keep: a copy of what lies in `buf`, and no copy of what does not.
    #[inline]
    pub fn into_bytes(self, buf: &[u8]) -> Bytes {
        match self {
            Data::Here(range) => Bytes::copy_from_slice(&buf[range]),
            Data::Own(data) => Bytes::from(data),
        }
    }
}

/// What a peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message; text is UTF-8.
    Message {
        /// Text or binary.
        opcode: Opcode,
        /// The payload, at most [`Limits::message_bytes`](super::Limits::message_bytes).
        data: Data,
        /// Whether the client had compressed it.
        compressed: bool,
    },
    /// A ping, to be answered with a pong of the same payload (at most 125 bytes).
    Ping(Data),
    /// A pong, whether we asked or not.
    Pong(Data),
    /// A close frame, the last event of a connection: what follows it is swallowed.
    Close {
        /// The code, if the frame had one; one that may stand in a frame (section 7.4).
        code: Option<u16>,
        /// The reason, at most 123 bytes.
        reason: String,
    },
}

/// One step of [`Engine::next`](super::Engine::next).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the slice are done with.
    pub used: usize,
    /// What they said. `None` only if the whole slice was used and more must be read.
    pub event: Option<Event>,
}

/// A peer broke a rule: its connection ends with this cause, and nobody else is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The named cause, which has the close code.
    pub cause: Cause,
    /// Which rule, in a few words; fit to be the reason of a close frame.
    pub text: &'static str,
}

impl Fault {
    #[cold]
    pub(super) fn protocol(text: &'static str) -> Fault {
        Fault { cause: Cause::ProtocolError, text }
    }

    #[cold]
    pub(super) fn text() -> Fault {
        Fault { cause: Cause::InvalidText, text: "text is not UTF-8" }
    }

    #[cold]
    pub(super) fn too_big() -> Fault {
        Fault { cause: Cause::MessageTooBig, text: "message too big" }
    }

    #[cold]
    pub(super) fn fragments() -> Fault {
        Fault { cause: Cause::TooManyFragments, text: "too many fragments" }
    }
}

impl From<Fault> for Close {
    fn from(fault: Fault) -> Close {
        Close { reason: fault.text.to_owned(), ..Close::because(fault.cause) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.text)
    }
}

impl std::error::Error for Fault {}
