//! Frames to send. A server's frame is a [`Head`] and the payload as it is, so an outbox that
//! gathers its writes needs only the head; the functions here are for all other uses.

use bytes::{BufMut, Bytes, BytesMut};

use super::head::{CONTROL_BYTES_MAX, Head, Op};
use super::mask;
use crate::api::Opcode;
use crate::close::{REASON_BYTES_MAX, code_may_be_sent};

/// The head of a server's data frame that is a whole message. `compressed` sets RSV1, and `len`
/// is then the compressed size.
#[inline]
pub fn message_head(opcode: Opcode, compressed: bool, len: usize) -> Head {
    Head::new(opcode.into(), true, compressed, len as u64, None)
}

/// Appends a whole message as one frame of a server.
#[inline]
pub fn put_message(out: &mut impl BufMut, opcode: Opcode, compressed: bool, payload: &[u8]) {
    out.put_slice(&message_head(opcode, compressed, payload.len()));
    out.put_slice(payload);
}

/// A whole message as one frame of a server, to be shared by all who receive it.
pub fn message(opcode: Opcode, compressed: bool, payload: &[u8]) -> Bytes {
    let head = message_head(opcode, compressed, payload.len());
    let mut out = BytesMut::with_capacity(head.len() + payload.len());
    out.put_slice(&head);
    out.put_slice(payload);
    out.freeze()
}

/// Appends a ping of a server. `payload` is cut to 125 bytes.
pub fn put_ping(out: &mut impl BufMut, payload: &[u8]) {
    put_control(out, Op::Ping, payload);
}

/// Appends a pong of a server. `payload` is cut to 125 bytes.
pub fn put_pong(out: &mut impl BufMut, payload: &[u8]) {
    put_control(out, Op::Pong, payload);
}

/// Appends a close frame of a server: see [`close_payload`].
pub fn put_close(out: &mut impl BufMut, code: Option<u16>, reason: &str) {
    put_control(out, Op::Close, &close_payload(code, reason));
}

/// The payload of a close frame (RFC 6455 section 5.5.1). The reason is cut to 123 bytes at the
/// border of a character. A code that may not be sent, as 1005 and 1006, gives the empty payload.
pub fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code.filter(|&code| code_may_be_sent(code)) else { return Vec::new() };
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// Appends a frame of a client, masked with `key` (RFC 6455 section 5.3 wants it random; a load
/// generator need not care).
pub fn put_masked<B>(out: &mut B, op: Op, fin: bool, rsv1: bool, payload: &[u8], key: [u8; 4])
where
    B: BufMut + AsMut<[u8]>,
{
    out.put_slice(&Head::new(op, fin, rsv1, payload.len() as u64, Some(key)));
    out.put_slice(payload);
    let written = out.as_mut();
    let body = written.len() - payload.len();
    mask::apply(&mut written[body..], key);
}

fn put_control(out: &mut impl BufMut, op: Op, payload: &[u8]) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    out.put_slice(&Head::new(op, true, false, payload.len() as u64, None));
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_the_border_of_a_character() {
        let reason = "x".repeat(122) + "é";
        let payload = close_payload(Some(1001), &reason);
        assert_eq!(payload.len(), 2 + 122);
        assert_eq!(&payload[2..], "x".repeat(122).as_bytes());
    }

    #[test]
    fn a_code_that_may_not_be_sent_gives_an_empty_close() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert!(close_payload(Some(code), "gone").is_empty(), "{code}");
        }
        assert!(close_payload(None, "gone").is_empty());
    }

    #[test]
    fn frames_are_what_the_rfc_shows() {
        // RFC 6455 section 5.7.
        let hello = message(Opcode::Text, false, b"Hello");
        assert_eq!(&hello[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        let mut masked = Vec::new();
        put_masked(&mut masked, Op::Text, true, false, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        let want = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(masked, want);
        let mut ping = BytesMut::new();
        put_ping(&mut ping, b"Hello");
        assert_eq!(&ping[..], [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    }
}
