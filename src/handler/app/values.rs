//! Values in commands and in their answers.

use super::codec::{Broken, Packet};
use crate::api::{Message, Opcode, Verdict};

/// The code of VERDICT for text that is not UTF-8, after those of [`Verdict`].
pub const INVALID_TEXT: u16 = 6;

/// The code of VERDICT.
pub fn verdict_code(verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Queued => 0,
        Verdict::Relayed => 1,
        Verdict::Full => 2,
        Verdict::Gone => 3,
        Verdict::TooBig => 4,
        Verdict::Unknown => 5,
        Verdict::NoUser => 8,
        Verdict::LocalOnly => 9,
    }
}

/// The message that a command carries; `None` where its text is no UTF-8.
pub fn message(packet: &Packet) -> Result<Option<Message<'static>>, Broken> {
    let opcode = match packet.code {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Broken::Value(packet.kind)),
    };
    let valid = opcode != Opcode::Text || std::str::from_utf8(&packet.body).is_ok();
    Ok(valid.then(|| Message { opcode, data: packet.body.clone().into() }))
}
