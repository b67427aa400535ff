//! What a connection has begun and not finished, and how it travels to another process.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Role};
use super::event::Fault;
use super::extension::Params;
use super::head::{self, CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Op};
use super::mask;
use crate::api::Opcode;

/// All that is half read. Boxed, since most connections are idle most of the time.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    head_len: u8,
    head_bytes: [u8; HEAD_BYTES_MAX],
    /// A frame whose payload is not all here. It has bytes left.
    pub frame: Option<Partial>,
    /// A message whose frames are not all here.
    pub message: Option<Assembly>,
    /// What came of the payload of a control frame.
    #[serde(with = "blob")]
    pub control: Vec<u8>,
}

impl Pending {
    /// The start of a head that was cut.
    pub fn head(&self) -> &[u8] {
        &self.head_bytes[..usize::from(self.head_len)]
    }

    /// Keeps the start of a head. A whole head never comes here.
    pub fn keep_head(&mut self, bytes: &[u8]) {
        self.head_bytes[..bytes.len()].copy_from_slice(bytes);
        self.head_len = bytes.len() as u8;
    }

    pub fn heap_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.data.capacity());
        size_of::<Pending>() + message + self.control.capacity()
    }

    /// True if the engine could have come to this state by itself.
    fn is_sound(&self, role: Role, params: Option<Params>) -> bool {
        // One that is whole, or wrong, would not have been kept.
        let head = usize::from(self.head_len) < HEAD_BYTES_MAX
            && matches!(head::parse(self.head(), role == Role::Server), Ok(None));
        let message = self.message.as_ref().is_none_or(|message| {
            message.checked <= message.data.len()
                && message.fragments > 0
                && (params.is_some() || !message.compressed)
        });
        let in_control = self.frame.is_some_and(|frame| frame.op.is_control());
        let control = self.control.is_empty() || in_control;
        let frame = self.frame.is_none_or(|frame| {
            let place = if frame.op.is_control() {
                frame.left.saturating_add(self.control.len() as u64) <= CONTROL_BYTES_MAX as u64
            } else {
                self.message.is_some()
            };
            self.head_len == 0 && frame.left > 0 && frame.left >> 63 == 0 && place
        });
        head && message && control && frame
    }
}

/// A frame in the middle of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partial {
    pub op: Op,
    pub fin: bool,
    pub rsv1: bool,
    /// Bytes of payload still to come.
    pub left: u64,
    /// The key, turned to the byte that comes next. All zero if the frame is not masked.
    pub mask: [u8; 4],
}

impl Partial {
    /// What remains after `done` more bytes.
    pub fn after(self, done: usize) -> Partial {
        Partial { left: self.left - done as u64, mask: mask::advance(self.mask, done), ..self }
    }

    pub fn opcode(&self) -> Opcode {
        if self.op == Op::Text { Opcode::Text } else { Opcode::Binary }
    }

    /// The message that this frame, its first, begins.
    pub fn begin(&self) -> Assembly {
        Assembly {
            opcode: self.opcode(),
            compressed: self.rsv1,
            fragments: 1,
            checked: 0,
            data: Vec::new(),
        }
    }
}

/// A message being put together. A compressed one stays as it came until its last frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assembly {
    pub opcode: Opcode,
    pub compressed: bool,
    pub fragments: u32,
    /// How many bytes of a text are known to be whole characters. At most three bytes more are
    /// here at any time, so checking is linear however small the pieces are.
    pub checked: usize,
    #[serde(with = "blob")]
    pub data: Vec<u8>,
}

impl Assembly {
    /// Appends a piece of `frame`, which is still as it was before this piece.
    pub fn append(&mut self, piece: &[u8], frame: &Partial) -> Result<(), Fault> {
        self.make_room(piece.len(), frame);
        self.data.extend_from_slice(piece);
        if self.opcode == Opcode::Text && !self.compressed {
            match simdutf8::compat::from_utf8(&self.data[self.checked..]) {
                Ok(_) => self.checked = self.data.len(),
                Err(error) if error.error_len().is_none() => {
                    self.checked += error.valid_up_to();
                }
                Err(_) => return Err(Fault::text()),
            }
        }
        Ok(())
    }

    /// Doubles with what was received, whatever was declared; but the last frame gets no more
    /// than it has left.
    fn make_room(&mut self, piece: usize, frame: &Partial) {
        let len = self.data.len();
        if self.data.capacity() - len >= piece {
            return;
        }
        let double = len.max(piece);
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        self.data.reserve_exact(if frame.fin { double.min(left) } else { double });
    }

    /// The message, all of whose frames are here.
    pub fn finish(self) -> Result<Vec<u8>, Fault> {
        if self.opcode == Opcode::Text && self.checked != self.data.len() {
            return Err(Fault::text());
        }
        Ok(self.data)
    }
}

/// The last plaintext in each direction, where context takeover was agreed: all that is needed
/// to go on with a fresh inflater or compressor (RFC 7692 section 7.2).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Windows {
    #[serde(with = "blob")]
    pub incoming: Vec<u8>,
    #[serde(with = "blob")]
    pub outgoing: Vec<u8>,
}

impl Windows {
    pub fn heap_bytes(&self) -> usize {
        size_of::<Windows>() + self.incoming.capacity() + self.outgoing.capacity()
    }

    fn is_sound(&self, params: Option<Params>) -> bool {
        let Some(params) = params else { return false };
        let fits =
            |window: &[u8], takeover: bool, size| window.len() <= if takeover { size } else { 0 };
        fits(&self.incoming, params.decompress.takeover, params.decompress.window_bytes())
            && fits(&self.outgoing, params.compress.takeover, params.compress.window_bytes())
    }
}

/// An [`Engine`] taken out at any byte, to be sent to another process and put back there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineState(Version);

/// One variant for each shape that was ever released; a new one goes to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    V1 {
        role: Role,
        done: bool,
        params: Option<Params>,
        pending: Option<Box<Pending>>,
        windows: Option<Box<Windows>>,
    },
}

/// A state that no engine could have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadState;

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of a connection is not sound")
    }
}

impl std::error::Error for BadState {}

impl Engine {
    /// Takes the state out. May be called after any byte.
    pub fn freeze(self) -> EngineState {
        let Engine { role, done, params, pending, windows } = self;
        EngineState(Version::V1 { role, done, params, pending, windows })
    }

    /// Puts a state back: the events that follow are the ones the old engine would have given.
    ///
    /// # Errors
    /// [`BadState`] if the state was not made by [`Engine::freeze`].
    pub fn thaw(state: EngineState) -> Result<Engine, BadState> {
        let Version::V1 { role, done, params, pending, windows } = state.0;
        let sound = params.is_none_or(|params| params.is_sound())
            && pending.as_ref().is_none_or(|pending| pending.is_sound(role, params))
            && windows.as_ref().is_none_or(|windows| windows.is_sound(params));
        if !sound {
            return Err(BadState);
        }
        Ok(Engine { role, done, params, pending, windows })
    }
}

/// Bytes as one piece, where serde would take them one by one.
mod blob {
    use std::fmt;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(data)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Blob)
    }

    struct Blob;

    impl<'de> Visitor<'de> for Blob {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, data: &[u8]) -> Result<Vec<u8>, E> {
            Ok(data.to_vec())
        }

        fn visit_byte_buf<E>(self, data: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(data)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut data = Vec::new();
            while let Some(byte) = seq.next_element()? {
                data.push(byte);
            }
            Ok(data)
        }
    }
}
