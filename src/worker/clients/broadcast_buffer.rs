//! What a turn broadcasts: each frame once, whoever hears it.
//!
//! A client to whom nothing else was said in the turn only remembers which frames are its own,
//! and is sent them from here: no copy and no outbox. Whatever else is said to it, or a kernel
//! that does not take all, moves its frames to an outbox first, so the order stays.

use bytes::Bytes;

use super::outbox::Outbox;
use crate::api::Opcode;
use crate::websocket::frame;

/// The most bytes of the buffer. A payload that would not fit goes to the outboxes, which share it.
const BYTES_MAX: usize = 32 * 1024;
/// The most frames: they are counted in a byte.
const FRAMES_MAX: usize = u8::MAX as usize;

/// The frames, one after the other.
#[derive(Default)]
pub(in crate::worker) struct BroadcastBuffer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A message for many in the buffer of the turn.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct SharedFrame {
    /// Which frame, if there was room for it.
    pub number: Option<u8>,
    /// Bytes of its frame.
    pub len: usize,
}

/// Whether a connection hears a message from the broadcast buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Shared {
    Yes,
    /// There is no room for certain.
    No,
    /// Only an outbox keeps the order.
    Later,
}

/// Some frames in a row: those that one client has not been sent yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct FrameRange {
    from: u8,
    to: u8,
}

impl FrameRange {
    pub fn is_empty(self) -> bool {
        self.from == self.to
    }

    pub fn len(self) -> usize {
        usize::from(self.to - self.from)
    }

    /// Adds one; false if it does not follow the others.
    pub fn add(&mut self, frame: u8) -> bool {
        let from = if self.is_empty() { frame } else { self.from };
        let follows = self.is_empty() || self.to == frame;
        if follows {
            *self = FrameRange { from, to: frame + 1 };
        }
        follows
    }
}

impl BroadcastBuffer {
    /// Adds a message that is sent as it is. `None` if it is full, with `limit` bytes at most.
    pub fn add(&mut self, opcode: Opcode, payload: &Bytes, limit: usize) -> Option<u8> {
        let head = frame::message_head(opcode, false, payload.len());
        let len = self.bytes.len() + head.len() + payload.len();
        if len > BYTES_MAX.min(limit) || self.ends.len() == FRAMES_MAX {
            return None;
        }
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
        self.ends.push(len);
        Some((self.ends.len() - 1) as u8)
    }

    /// Some frames as the wire has them.
    pub fn bytes(&self, frames: FrameRange) -> &[u8] {
        if frames.is_empty() {
            return &[];
        }
        &self.bytes[self.start(frames.from)..self.ends[usize::from(frames.to) - 1]]
    }

    /// Moves some frames to an outbox.
    pub fn hand_out(&self, frames: FrameRange, outbox: &mut Outbox) {
        for frame in frames.from..frames.to {
            outbox.add_frame(self.bytes(FrameRange { from: frame, to: frame + 1 }));
        }
    }

    /// To be called when no client has frames any more.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn start(&self, frame: u8) -> usize {
        frame.checked_sub(1).map_or(0, |before| self.ends[usize::from(before)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(buffer: &mut BroadcastBuffer, text: &str) -> u8 {
        buffer.add(Opcode::Text, &Bytes::from(text.to_owned()), 1 << 20).unwrap()
    }

    #[test]
    fn a_client_gets_the_frames_that_are_its_own() {
        let (mut buffer, mut early, mut late) =
            (BroadcastBuffer::default(), FrameRange::default(), FrameRange::default());
        for (n, text) in ["a", "bb", "ccc"].into_iter().enumerate() {
            let frame = add(&mut buffer, text);
            assert!(early.add(frame));
            assert!(n == 0 || late.add(frame));
        }
        assert_eq!(buffer.bytes(early), b"\x81\x01a\x81\x02bb\x81\x03ccc");
        assert_eq!((buffer.bytes(late), late.len()), (&b"\x81\x02bb\x81\x03ccc"[..], 2));
        assert_eq!(buffer.bytes(FrameRange::default()), b"");
    }

    #[test]
    fn frames_in_an_outbox_are_messages_of_their_own() {
        let (mut buffer, mut frames) = (BroadcastBuffer::default(), FrameRange::default());
        for text in ["a", "bb", "ccc"] {
            assert!(frames.add(add(&mut buffer, text)));
        }
        let mut outbox = Outbox::default();
        buffer.hand_out(frames, &mut outbox);
        assert_eq!(outbox.took(3 + 2), 1);
        assert_eq!(outbox.messages(), 2);
    }

    #[test]
    fn a_client_that_missed_a_frame_gets_no_more_of_the_turn() {
        let mut frames = FrameRange { from: 2, to: 4 };
        assert!(!frames.add(5));
        assert!(frames.add(4));
        assert_eq!(frames, FrameRange { from: 2, to: 5 });
    }

    #[test]
    fn the_buffer_is_bounded_in_bytes_and_in_frames() {
        let mut buffer = BroadcastBuffer::default();
        let big = Bytes::from(vec![b'x'; BYTES_MAX]);
        assert_eq!(buffer.add(Opcode::Text, &big, 1 << 20), None);
        assert_eq!(buffer.add(Opcode::Text, &big.slice(..100), 100), None);
        for _ in 0..FRAMES_MAX {
            add(&mut buffer, "x");
        }
        assert_eq!(buffer.add(Opcode::Text, &big.slice(..1), 1 << 20), None);
        buffer.clear();
        assert_eq!(add(&mut buffer, "x"), 0);
    }
}
