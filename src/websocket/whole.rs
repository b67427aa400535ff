//! The short way through the engine.

use super::engine::{Engine, Limits, Role};
use super::event::Fault;
use super::mask;
use crate::api::{Opcode, Payload};

/// A payload this long is unmasked while it is copied, since an outbox refers to it; a shorter one
/// is unmasked where it lies, since an outbox copies it.
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

    /// Checks what [`Whole::of`] saw, which is all of `buf`, and gives it out: a short one as it
    /// lies there, a long one in memory of its own, since who passes it on keeps it.
    #[inline]
    fn take<'a>(&self, buf: &'a mut [u8]) -> Result<Payload<'a>, Fault> {
        let payload = &mut buf[self.at..];
        match self.key {
            Some(key) if self.len >= COPY_BYTES_MIN => {
                let data = mask::copy(payload, key);
                check_text(self.opcode, &data)?;
                Ok(data.into())
            }
            key => {
                let is_ascii = key.is_some_and(|key| mask::apply(payload, key));
                if !is_ascii {
                    check_text(self.opcode, payload)?;
                }
                Ok(Payload::from(&*payload))
            }
        }
    }
}

impl Engine {
    /// The short way: a message that lies whole at the start of `buf`, which goes on behind the
    /// message from then on. `None` wherever [`next`](Self::next) has to look.
    #[inline]
    pub fn next_whole<'a>(
        &mut self,
        buf: &mut &'a mut [u8],
        limits: &Limits,
    ) -> Option<Result<(Opcode, Payload<'a>), Fault>> {
        if self.pending.is_some() || self.done {
            return None;
        }
        let whole = Whole::of(buf, self.role).filter(|whole| whole.len <= limits.message_bytes)?;
        let (message, rest) = std::mem::take(buf).split_at_mut(whole.used());
        *buf = rest;
        Some(match whole.take(message) {
            Ok(data) => Ok((whole.opcode, data)),
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
