//! Frames as a client sends and receives them, with nothing allocated per message.
//!
//! The library's own engine is not used on purpose: a generator built on the code under test
//! would share its faults, and all that is needed here is to count and to compare.

use std::ops::Range;

/// A template is repeated up to this many bytes, so that one write carries a whole pipeline.
const TEMPLATE_BYTES: usize = 128 << 10;
/// Any key but zero costs a server the same.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The longest head of a frame that a server sends.
const HEAD_MAX: usize = 10;

/// One message as frames, ready for the wire, repeated.
pub struct Template {
    bytes: Vec<u8>,
    period: usize,
}

/// How a message is put on the wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Binary instead of text.
    pub binary: bool,
    /// The first frame says that the payload is compressed.
    pub packed: bool,
    /// Bytes of each fragment; the whole message in one where `None`.
    pub fragment: Option<usize>,
}

impl Template {
    /// `copies` messages at least can go out in one write, within reason.
    pub fn new(payload: &[u8], shape: Shape, copies: usize) -> Template {
        let mut one = Vec::new();
        let step = shape.fragment.unwrap_or(payload.len()).max(1);
        let mut rest = payload;
        let mut first = true;
        loop {
            let (piece, after) = rest.split_at(step.min(rest.len()));
            let opcode = match (first, shape.binary) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            };
            let rsv1 = if shape.packed && first { 0x40 } else { 0 };
            let fin = if after.is_empty() { 0x80 } else { 0 };
            put_masked(&mut one, fin | rsv1 | opcode, piece);
            (rest, first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
        let period = one.len();
        let times = (TEMPLATE_BYTES / period).min(copies).max(1);
        Template { bytes: one.repeat(times), period }
    }

    /// Bytes of one message.
    pub fn period(&self) -> usize {
        self.period
    }

    /// What to write next, `phase` bytes into a message, when `owed` bytes are to go.
    pub fn slice(&self, phase: usize, owed: usize) -> &[u8] {
        let range: Range<usize> = phase..self.bytes.len().min(phase.saturating_add(owed));
        &self.bytes[range]
    }
}

/// Appends a masked frame.
pub fn put_masked(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// What a message from the server should be.
#[derive(Debug, Clone, Copy)]
pub enum Expect<'a> {
    /// These very bytes; a compressed message is taken on trust.
    Exactly(&'a [u8]),
    /// Whatever it is.
    Anything,
}

/// What the server did wrong, or that it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It closed, with this code and reason.
    Closed(u16, String),
    /// Not what WebSocket allows.
    Protocol(&'static str),
    /// Not what was sent, or not as long.
    Answer { want: usize, got: u64 },
}

/// Takes a server's byte stream apart, in pieces of any size.
#[derive(Default)]
pub struct Reader {
    head: [u8; HEAD_MAX],
    have: usize,
    in_payload: bool,
    first: u8,
    left: u64,
    /// Bytes of the message before this frame's rest, over all its fragments.
    at: u64,
    packed: bool,
    control: Vec<u8>,
    /// Frames to answer with, for the one who asks after each `feed`.
    pub answers: Vec<u8>,
    /// Keeps the payload of the last message instead of comparing it, where that is wanted.
    pub keep: Option<Vec<u8>>,
}

impl Reader {
    /// Reads on; returns how many messages came to their end.
    pub fn feed(&mut self, mut bytes: &[u8], expect: Expect) -> Result<u64, Wrong> {
        let mut messages = 0;
        while !bytes.is_empty() {
            if !self.in_payload {
                let Some(rest) = self.head(bytes)? else { break };
                bytes = rest;
            }
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(now);
            bytes = rest;
            self.left -= now as u64;
            if self.first & 0x08 == 0 {
                self.compare(piece, expect)?;
            } else {
                self.control.extend_from_slice(piece);
            }
            if self.left == 0 {
                self.in_payload = false;
                messages += self.end_frame(expect)?;
            }
        }
        Ok(messages)
    }

    /// The head of a frame. `None`: not all of it is here.
    fn head<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Wrong> {
        if self.have == 0 && bytes.len() >= HEAD_MAX {
            // Nearly always the head is whole, and needs no copy.
            let used = self.begin_frame(bytes)?;
            return Ok(Some(&bytes[used..]));
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.head[self.have] = *byte;
            self.have += 1;
            if self.have >= 2 && self.have == head_len(self.head[1]) {
                let head = self.head;
                self.begin_frame(&head)?;
                self.have = 0;
                // A frame without payload ends here, even if nothing follows.
                return Ok(Some(&bytes[index + 1..]));
            }
        }
        Ok(None)
    }

    fn begin_frame(&mut self, head: &[u8]) -> Result<usize, Wrong> {
        let [first, second, ..] = *head else { return Err(Wrong::Protocol("half a head")) };
        if second & 0x80 != 0 {
            return Err(Wrong::Protocol("a masked frame from a server"));
        }
        let len = head_len(second);
        self.left = match len {
            2 => u64::from(second),
            4 => u64::from(u16::from_be_bytes([head[2], head[3]])),
            _ => head[2..10].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        match first & 0x0f {
            0 => {}
            1 | 2 => (self.at, self.packed) = (0, first & 0x40 != 0),
            8..=10 => self.control.clear(),
            _ => return Err(Wrong::Protocol("an unknown opcode")),
        }
        if let (Some(keep), 1 | 2) = (&mut self.keep, first & 0x0f) {
            keep.clear();
        }
        (self.first, self.in_payload) = (first, true);
        Ok(len)
    }

    fn compare(&mut self, piece: &[u8], expect: Expect) -> Result<(), Wrong> {
        let from = self.at;
        self.at += piece.len() as u64;
        if let Some(keep) = &mut self.keep {
            keep.extend_from_slice(piece);
            return Ok(());
        }
        let Expect::Exactly(want) = expect else { return Ok(()) };
        let at = usize::try_from(from).unwrap_or(usize::MAX);
        let same = want.get(at..).is_some_and(|rest| rest.starts_with(piece));
        match same || self.packed {
            true => Ok(()),
            false => Err(Wrong::Answer { want: want.len(), got: self.at + self.left }),
        }
    }

    fn trusted(&self) -> bool {
        self.packed || self.keep.is_some()
    }

    fn end_frame(&mut self, expect: Expect) -> Result<u64, Wrong> {
        match self.first & 0x0f {
            9 => put_masked(&mut self.answers, 0x8a, &self.control),
            10 => {}
            8 => {
                let code = match self.control[..] {
                    [high, low, ..] => u16::from_be_bytes([high, low]),
                    _ => 1005,
                };
                let reason = self.control.get(2..).unwrap_or_default();
                return Err(Wrong::Closed(code, String::from_utf8_lossy(reason).into_owned()));
            }
            _ if self.first & 0x80 == 0 => {}
            _ => match expect {
                Expect::Exactly(want) if !self.trusted() && want.len() as u64 != self.at => {
                    return Err(Wrong::Answer { want: want.len(), got: self.at });
                }
                _ => return Ok(1),
            },
        }
        Ok(0)
    }
}

fn head_len(second: u8) -> usize {
    match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(len as u8),
            len => {
                out.push(126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        let payload = vec![b'x'; 300];
        let ping = frame(0x89, b"hello");
        let halves = [frame(0x01, &payload[..100]), ping, frame(0x80, &payload[100..])].concat();
        let stream = [frame(0x81, &payload), halves, frame(0x82, &payload)].concat();
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let all = stream
                .chunks(size)
                .map(|piece| reader.feed(piece, Expect::Exactly(&payload)).unwrap());
            assert_eq!(all.sum::<u64>(), 3, "cut in {size}");
            assert_eq!(reader.answers.len(), 2 + 4 + 5, "one pong");
        }
    }

    #[test]
    fn an_empty_message_counts_even_where_nothing_follows() {
        let mut reader = Reader::default();
        assert_eq!(reader.feed(&[0x81, 0x00], Expect::Exactly(b"")), Ok(1));
    }

    #[test]
    fn another_answer_is_told_from_an_echo() {
        for answer in [&b"this is server"[..], b"pinG", b"pin", b""] {
            let mut reader = Reader::default();
            let fed = reader.feed(&frame(0x81, answer), Expect::Exactly(b"ping"));
            assert!(matches!(fed, Err(Wrong::Answer { want: 4, .. })), "{answer:?}");
        }
    }

    #[test]
    fn a_close_is_told_with_its_code() {
        let mut reader = Reader::default();
        let fed = reader.feed(&frame(0x88, b"\x03\xf5full"), Expect::Anything);
        assert_eq!(fed, Err(Wrong::Closed(1013, "full".to_owned())));
    }

    #[test]
    fn a_template_repeats_a_message_and_its_fragments() {
        let whole = Template::new(b"abcd", Shape::default(), 3);
        assert_eq!(whole.period(), 2 + 4 + 4);
        assert_eq!(whole.slice(0, 1000).len(), 30);
        assert_eq!(whole.slice(5, 7).len(), 7);
        let shape = Shape { fragment: Some(1), binary: true, packed: false };
        let pieces = Template::new(b"abcd", shape, 1);
        assert_eq!(pieces.period(), 4 * (2 + 4 + 1));
        let firsts: Vec<u8> = pieces.slice(0, 28).chunks(7).map(|frame| frame[0]).collect();
        assert_eq!(firsts, [0x02, 0x00, 0x00, 0x80]);
    }
}
