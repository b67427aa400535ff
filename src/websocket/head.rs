//! The head of a frame (RFC 6455 section 5.2): parsed strictly, and built.

use serde::{Deserialize, Serialize};

use super::event::Fault;
use crate::api::Opcode;

/// The longest head: two bytes, eight of length, four of mask.
pub(super) const HEAD_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The kind of a frame. The numbers are the wire's (RFC 6455 section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Op {
    /// More of a message.
    Continuation = 0,
    /// A text message begins.
    Text = 1,
    /// A binary message begins.
    Binary = 2,
    /// The connection ends.
    Close = 8,
    /// Are you there?
    Ping = 9,
    /// I am.
    Pong = 10,
}

impl Op {
    /// True for close, ping and pong, which may stand between the fragments of a message.
    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }

    fn parse(number: u8) -> Option<Op> {
        Some(match number {
            0 => Op::Continuation,
            1 => Op::Text,
            2 => Op::Binary,
            8 => Op::Close,
            9 => Op::Ping,
            10 => Op::Pong,
            _ => return None,
        })
    }
}

impl From<Opcode> for Op {
    fn from(opcode: Opcode) -> Op {
        match opcode {
            Opcode::Text => Op::Text,
            Opcode::Binary => Op::Binary,
            Opcode::Ping => Op::Ping,
            Opcode::Pong => Op::Pong,
        }
    }
}

/// The head of a frame as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed {
    pub op: Op,
    pub fin: bool,
    pub rsv1: bool,
    pub len: u64,
    pub mask: Option<[u8; 4]>,
}

/// Reads a head from the start of `bytes`: the head and its size, or `None` if it is cut. A rule
/// is checked as soon as the bytes it needs are there, so a hostile peer cannot make us wait.
pub(super) fn parse(bytes: &[u8], masked: bool) -> Result<Option<(Parsed, usize)>, Fault> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first & 0x30 != 0 {
        return Err(Fault::protocol("reserved bit set"));
    }
    let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
    let op = Op::parse(first & 0x0f).ok_or_else(|| Fault::protocol("reserved opcode"))?;
    if op.is_control() && !fin {
        return Err(Fault::protocol("fragmented control frame"));
    }
    if rsv1 && !matches!(op, Op::Text | Op::Binary) {
        return Err(Fault::protocol("reserved bit set"));
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if (second & 0x80 != 0) != masked {
        let text = if masked { "frame is not masked" } else { "frame is masked" };
        return Err(Fault::protocol(text));
    }
    let short = second & 0x7f;
    if op.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Fault::protocol("control frame too long"));
    }
    let Some((len, at)) = parse_len(bytes, short)? else { return Ok(None) };
    if !masked {
        return Ok(Some((Parsed { op, fin, rsv1, len, mask: None }, at)));
    }
    let Some(&key) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    Ok(Some((Parsed { op, fin, rsv1, len, mask: Some(key) }, at + 4)))
}

/// The length of the payload, and where in `bytes` the rest of the head begins.
fn parse_len(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Fault> {
    let (len, at, least) = match short {
        126 => match bytes.get(2..).and_then(<[u8]>::first_chunk) {
            None => return Ok(None),
            Some(&len) => (u64::from(u16::from_be_bytes(len)), 4, 126),
        },
        127 => match bytes.get(2..).and_then(<[u8]>::first_chunk) {
            None => return Ok(None),
            Some(&len) => (u64::from_be_bytes(len), 10, 1 << 16),
        },
        short => (u64::from(short), 2, 0),
    };
    if len < least {
        return Err(Fault::protocol("length not minimal"));
    }
    if len >> 63 != 0 {
        return Err(Fault::protocol("length above 2^63"));
    }
    Ok(Some((len, at)))
}

/// The head of a frame, ready to send.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; size_of::<u128>()],
    len: u8,
}

impl Head {
    /// Builds a head. `rsv1` says that the message is compressed (RFC 7692 section 6). `mask` is
    /// for clients: a server never masks.
    #[inline]
    pub fn new(op: Op, fin: bool, rsv1: bool, len: u64, mask: Option<[u8; 4]>) -> Head {
        let first = u8::from(fin) << 7 | u8::from(rsv1) << 6 | op as u8;
        let masked = u8::from(mask.is_some()) << 7;
        // As one number, its lowest byte first: bytes that were stored one by one and are then
        // copied together stall the processor.
        let (second, long, mut len) = match len {
            0..126 => (len as u8, 0, 2),
            126..0x1_0000 => (126, u64::from((len as u16).swap_bytes()), 4),
            _ => (127, len.swap_bytes(), 10),
        };
        let mut word =
            u128::from(first) | u128::from(masked | second) << 8 | u128::from(long) << 16;
        if let Some(key) = mask {
            word |= u128::from(u32::from_le_bytes(key)) << (8 * len);
            len += 4;
        }
        Head { bytes: word.to_le_bytes(), len }
    }

    /// Appends it, and makes room for `more` bytes. A copy of the whole array that is cut
    /// afterwards needs no call, as one of a length that is known only now would.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, more: usize) {
        out.reserve(self.bytes.len() + more);
        let len = out.len() + usize::from(self.len);
        out.extend_from_slice(&self.bytes);
        out.truncate(len);
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::Cause;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_that_was_built_parses_to_itself_and_never_before_its_last_byte(
            op in prop_oneof![Just(Op::Text), Just(Op::Binary), Just(Op::Continuation)],
            fin: bool,
            len in prop_oneof![0u64..300, 65_000u64..66_000, 0u64..(1 << 63)],
            mask: Option<[u8; 4]>,
        ) {
            let head = Head::new(op, fin, false, len, mask);
            let parsed = Parsed { op, fin, rsv1: false, len, mask };
            prop_assert_eq!(parse(&head, mask.is_some()), Ok(Some((parsed, head.len()))));
            let mut out = vec![7];
            head.put(&mut out, 0);
            prop_assert_eq!(&out[1..], &*head);
            for cut in 0..head.len() {
                prop_assert_eq!(parse(&head[..cut], mask.is_some()), Ok(None));
            }
        }
    }

    #[test]
    fn heads_that_break_a_rule_are_refused_with_1002() {
        let cases: [(&[u8], &str); 13] = [
            (&[0xa1], "reserved bit set"),
            (&[0x91], "reserved bit set"),
            (&[0xc0], "reserved bit set"),
            (&[0xc9], "reserved bit set"),
            (&[0x83], "reserved opcode"),
            (&[0x87], "reserved opcode"),
            (&[0x8f], "reserved opcode"),
            (&[0x09], "fragmented control frame"),
            (&[0x81, 0x05], "frame is not masked"),
            (&[0x89, 0xfe], "control frame too long"),
            (&[0x82, 0xfe, 0, 125], "length not minimal"),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "length not minimal"),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "length above 2^63"),
        ];
        for (bytes, text) in cases {
            let fault = parse(bytes, true).unwrap_err();
            assert_eq!((fault.cause, fault.text), (Cause::ProtocolError, text), "{bytes:x?}");
        }
        assert_eq!(parse(&[0x81, 0x85], false).unwrap_err().text, "frame is masked");
    }
}
