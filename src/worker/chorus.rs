//! What a turn broadcasts: each frame once, whoever hears it.
//!
//! A client to whom nothing else was said in the turn only remembers which verses are its own,
//! and is sent them from here: no copy and no outbox. Whatever else is said to it, or a kernel
//! that does not take all, moves its verses to an outbox first, so the order stays.

use bytes::Bytes;

use super::Worker;
use super::connection::Connection;
use super::outbox::Outbox;
use crate::api::Opcode;
use crate::websocket::frame;

/// The most bytes of a chorus. A payload that would not fit goes to the outboxes, which share it.
const BYTES_MAX: usize = 32 * 1024;
/// The most verses: they are counted in a byte.
const VERSES_MAX: usize = u8::MAX as usize;

/// The frames, one after the other.
#[derive(Default)]
pub(super) struct Chorus {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Some verses in a row: those that one client has not been sent yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verses {
    from: u8,
    to: u8,
}

impl Verses {
    pub fn is_empty(self) -> bool {
        self.from == self.to
    }

    pub fn len(self) -> usize {
        usize::from(self.to - self.from)
    }

    /// Adds one; false if it does not follow the others.
    fn add(&mut self, verse: u8) -> bool {
        let from = if self.is_empty() { verse } else { self.from };
        let follows = self.is_empty() || self.to == verse;
        if follows {
            *self = Verses { from, to: verse + 1 };
        }
        follows
    }
}

impl Chorus {
    /// Adds a message that is sent as it is. `None` if it is full, with `limit` bytes at most.
    pub fn add(&mut self, opcode: Opcode, payload: &Bytes, limit: usize) -> Option<u8> {
        let head = frame::message_head(opcode, false, payload.len());
        let len = self.bytes.len() + head.len() + payload.len();
        if len > BYTES_MAX.min(limit) || self.ends.len() == VERSES_MAX {
            return None;
        }
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
        self.ends.push(len);
        Some((self.ends.len() - 1) as u8)
    }

    /// Some verses as the wire has them.
    pub fn bytes(&self, verses: Verses) -> &[u8] {
        if verses.is_empty() {
            return &[];
        }
        &self.bytes[self.start(verses.from)..self.ends[usize::from(verses.to) - 1]]
    }

    /// Moves some verses to an outbox.
    pub fn hand_out(&self, verses: Verses, outbox: &mut Outbox) {
        for verse in verses.from..verses.to {
            outbox.add_frame(self.bytes(Verses { from: verse, to: verse + 1 }));
        }
    }

    /// To be called when no client has verses any more.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn start(&self, verse: u8) -> usize {
        verse.checked_sub(1).map_or(0, |before| self.ends[usize::from(before)])
    }
}

impl Connection {
    /// Takes a verse as its own; false if only an outbox keeps the order.
    pub fn hears(&mut self, verse: u8) -> bool {
        let plain = self.engine.variant().is_none();
        plain && !self.blocked && self.outbox.is_none() && self.verses.add(verse)
    }

    /// Whether a frame of `len` bytes finds no room for certain: the kernel takes no more, and
    /// so much waits.
    pub fn is_stuck(&self, len: usize, limit: usize) -> bool {
        let plain = self.engine.variant().is_none();
        let outbox = self.outbox.as_ref().filter(|_| plain && self.blocked);
        outbox.is_some_and(|outbox| !outbox.has_room(len, limit))
    }
}

impl Worker {
    /// The outbox of a connection, with its verses in it.
    #[inline]
    pub(super) fn outbox<'a>(&self, connection: &'a mut Connection) -> &'a mut Outbox {
        let verses = std::mem::take(&mut connection.verses);
        let outbox = connection.outbox.get_or_insert_with(|| self.spares.borrow_mut().take());
        if !verses.is_empty() {
            self.chorus.borrow().hand_out(verses, outbox);
        }
        outbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(chorus: &mut Chorus, text: &str) -> u8 {
        chorus.add(Opcode::Text, &Bytes::from(text.to_owned()), 1 << 20).unwrap()
    }

    #[test]
    fn a_client_hears_the_verses_that_are_its_own() {
        let (mut chorus, mut early, mut late) =
            (Chorus::default(), Verses::default(), Verses::default());
        for (n, text) in ["a", "bb", "ccc"].into_iter().enumerate() {
            let verse = add(&mut chorus, text);
            assert!(early.add(verse));
            assert!(n == 0 || late.add(verse));
        }
        assert_eq!(chorus.bytes(early), b"\x81\x01a\x81\x02bb\x81\x03ccc");
        assert_eq!((chorus.bytes(late), late.len()), (&b"\x81\x02bb\x81\x03ccc"[..], 2));
        assert_eq!(chorus.bytes(Verses::default()), b"");
    }

    #[test]
    fn verses_in_an_outbox_are_messages_of_their_own() {
        let (mut chorus, mut verses) = (Chorus::default(), Verses::default());
        for text in ["a", "bb", "ccc"] {
            assert!(verses.add(add(&mut chorus, text)));
        }
        let mut outbox = Outbox::default();
        chorus.hand_out(verses, &mut outbox);
        assert_eq!(outbox.took(3 + 2), 1);
        assert_eq!(outbox.messages(), 2);
    }

    #[test]
    fn a_client_that_missed_a_verse_hears_no_more_of_the_turn() {
        let mut verses = Verses { from: 2, to: 4 };
        assert!(!verses.add(5));
        assert!(verses.add(4));
        assert_eq!(verses, Verses { from: 2, to: 5 });
    }

    #[test]
    fn a_chorus_is_bounded_in_bytes_and_in_verses() {
        let mut chorus = Chorus::default();
        let big = Bytes::from(vec![b'x'; BYTES_MAX]);
        assert_eq!(chorus.add(Opcode::Text, &big, 1 << 20), None);
        assert_eq!(chorus.add(Opcode::Text, &big.slice(..100), 100), None);
        for _ in 0..VERSES_MAX {
            add(&mut chorus, "x");
        }
        assert_eq!(chorus.add(Opcode::Text, &big.slice(..1), 1 << 20), None);
        chorus.clear();
        assert_eq!(add(&mut chorus, "x"), 0);
    }
}
