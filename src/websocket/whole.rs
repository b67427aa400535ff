//! The short way through the engine.

use bytes::Bytes;

use super::engine::{Engine, Limits, Role};
use super::event::Fault;
use super::mask;
use crate::api::Opcode;

/// A payload this long is unmasked while it is copied; for a shorter one the copy is quicker.
const COPY_BYTES_MIN: usize = 1024;

/// An unfragmented, uncompressed message below 64 KiB that lies whole at the start of the buffer:
/// nearly all that ever comes. Whatever this does not know goes the long way.
pub(super) struct Whole {
    opcode: Opcode,
    key: Option<[u8; 4]>,
    /// Where the payload begins.
    at: usize,
    len: usize,
}

impl Whole {
    /// Looks at the head only.
    #[inline]
    fn of(buf: &[u8], role: Role) -> Option<Whole> {
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

    /// How many bytes of the buffer it is.
    #[inline]
    fn used(&self) -> usize {
        self.at + self.len
    }

    /// Checks what [`Whole::of`] saw in the same `buf` and gives it out in memory of its own.
    #[inline]
    fn take(&self, buf: &[u8]) -> Result<Vec<u8>, Fault> {
        let payload = &buf[self.at..self.used()];
        match self.key {
            Some(key) if self.len >= COPY_BYTES_MIN => {
                let data = mask::copy(payload, key);
                check_text(self.opcode, &data)?;
                Ok(data)
            }
            key => {
                let mut data = payload.to_vec();
                let is_ascii = mask::apply(&mut data, key.unwrap_or_default());
                if !is_ascii {
                    check_text(self.opcode, &data)?;
                }
                Ok(data)
            }
        }
    }
}

impl Engine {
    /// The short way: a message that lies whole at the start of `buf`, in memory of its own, and
    /// how many bytes of `buf` it is. `None` wherever [`next`](Self::next) has to look.
    #[inline]
    pub fn next_whole(
        &mut self,
        buf: &[u8],
        limits: &Limits,
    ) -> Option<Result<(usize, Opcode, Bytes), Fault>> {
        if self.pending.is_some() || self.done {
            return None;
        }
        let whole = Whole::of(buf, self.role).filter(|whole| whole.len <= limits.message_bytes)?;
        Some(match whole.take(buf) {
            Ok(data) => Ok((whole.used(), whole.opcode, Bytes::from(data))),
            Err(fault) => {
                self.done = true;
                Err(fault)
            }
        })
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
