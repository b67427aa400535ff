//! The short way through the engine.

use super::engine::Role;
use super::event::{Data, Event, Fault, Step};
use super::mask;
use crate::api::Opcode;

/// A payload this long is unmasked into memory of its own, which whoever keeps it needs anyway.
const COPY_BYTES_MIN: usize = 1024;

/// An unfragmented, uncompressed message below 64 KiB that lies whole at the start of the buffer:
/// nearly all that ever comes. Whatever this does not know goes the long way.
pub(super) struct Whole {
    opcode: Opcode,
    key: Option<[u8; 4]>,
    /// Where the payload begins.
    at: usize,
    pub len: usize,
}

impl Whole {
    /// Looks at the head only.
    #[inline]
    pub fn of(buf: &[u8], role: Role) -> Option<Whole> {
        let &[first, second] = buf.first_chunk()?;
        let opcode = match first {
            0x81 => Opcode::Text,
            0x82 => Opcode::Binary,
            _ => return None,
        };
        let masked = role == Role::Server;
        // A mask bit that is not as it must be makes a number above 127.
        let (len, at) = match second ^ (u8::from(masked) << 7) {
            short @ 0..126 => (usize::from(short), 2),
            126 => match u16::from_be_bytes(*buf[2..].first_chunk()?) {
                0..126 => return None,
                len => (usize::from(len), 4),
            },
            _ => return None,
        };
        let (key, at) =
            if masked { (Some(*buf[at..].first_chunk()?), at + 4) } else { (None, at) };
        (buf.len() - at >= len).then_some(Whole { opcode, key, at, len })
    }

    /// Unmasks, checks and gives out what [`Whole::of`] saw in the same `buf`.
    #[inline]
    pub fn take(self, buf: &mut [u8]) -> Result<Step, Fault> {
        let used = self.at + self.len;
        let payload = &mut buf[self.at..used];
        let data = match self.key {
            Some(key) if self.len >= COPY_BYTES_MIN => {
                let data = mask::copy(payload, key);
                check_text(self.opcode, &data)?;
                Data::Own(data)
            }
            key => {
                if let Some(key) = key {
                    mask::apply(payload, key);
                }
                check_text(self.opcode, payload)?;
                Data::Here(self.at..used)
            }
        };
        Ok(Step { used, event: Some(Event::Message { opcode: self.opcode, data }) })
    }
}

/// Text must be UTF-8 (RFC 6455 section 8.1).
#[inline]
pub(super) fn check_text(opcode: Opcode, data: &[u8]) -> Result<(), Fault> {
    // Most text is ASCII, which is seen with less ado than the checker needs to begin.
    if opcode == Opcode::Text && !data.is_ascii() && simdutf8::basic::from_utf8(data).is_err() {
        return Err(Fault::text());
    }
    Ok(())
}
