//! The decoder of one connection.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::deflate::{Codec, Variant};
use super::event::{Data, Event, Fault, Step};
use super::extension::Params;
use super::head::{self, Op, Parsed};
use super::mask;
use super::state::{Partial, Pending, Windows};
use super::whole::check_text;
use crate::api::Opcode;
use crate::close::code_may_be_sent;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Every frame that comes in must be masked (RFC 6455 section 5.1).
    Server,
    /// No frame that comes in may be masked.
    Client,
}

/// What a peer may ask of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes, after inflating. Swoole's `package_max_length`.
    pub message_bytes: usize,
    /// The most fragments of a message; empty ones count.
    pub fragments: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { message_bytes: 2 << 20, fragments: 4096 }
    }
}

/// The decoder of one connection: 24 bytes while nothing is half read.
///
/// It takes whatever was read and keeps what is unfinished, so nothing has to stay in the
/// receive buffer. What it keeps grows with the bytes received and never with a length that a
/// peer only declared.
#[derive(Debug)]
pub struct Engine {
    pub(super) role: Role,
    /// A close frame came or a rule was broken: what follows is swallowed.
    pub(super) done: bool,
    pub(super) params: Option<Params>,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) windows: Option<Box<Windows>>,
}

impl Engine {
    /// The engine of a connection right after its handshake. `params` is what was agreed about
    /// permessage-deflate.
    pub fn new(role: Role, params: Option<Params>) -> Engine {
        Engine { role, done: false, params, pending: None, windows: None }
    }

    /// True if nothing is half read: no frame, and no message between two frames.
    #[inline]
    pub fn is_quiescent(&self) -> bool {
        self.pending.is_none()
    }

    /// True if a message, or any frame, was begun and is not finished. The clock of the message
    /// timeout runs while this holds.
    #[inline]
    pub fn is_mid_message(&self) -> bool {
        !self.is_quiescent()
    }

    /// True after a close frame or a fault: what still comes is swallowed.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The bytes of heap that the engine holds for this connection.
    pub fn heap_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.heap_bytes())
            + self.windows.as_ref().map_or(0, |windows| windows.heap_bytes())
    }

    /// The bytes of heap that what is half read takes.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.heap_bytes())
    }

    /// Drops what is half read: what still comes is swallowed.
    pub fn give_up(&mut self) {
        self.done = true;
        self.pending = None;
    }

    /// What was agreed about permessage-deflate.
    pub fn params(&self) -> Option<Params> {
        self.params
    }

    /// How messages to this peer may be compressed; `None`: not at all. Connections of the same
    /// variant can be sent the same compressed bytes.
    #[inline]
    pub fn variant(&self) -> Option<Variant> {
        self.params.map(|params| Variant::new(params.compress.bits))
    }

    /// Takes the next event out of `buf`, the bytes that follow the ones already used.
    ///
    /// Unmasks in place. Call it again with the rest until `used` is all of it; `codec` is the
    /// worker's own and is used for compressed messages only.
    ///
    /// # Errors
    /// A [`Fault`] if the peer broke a rule of RFC 6455, RFC 7692 or `limits`. Every event before
    /// the fault was given out. From then on all bytes are swallowed.
    #[inline]
    pub fn next(
        &mut self,
        buf: &mut [u8],
        limits: &Limits,
        codec: &mut Codec,
    ) -> Result<Step, Fault> {
        let step = self.next_any(buf, limits, codec);
        if step.is_err() {
            self.done = true;
            self.pending = None;
        }
        step
    }

    fn next_any(
        &mut self,
        buf: &mut [u8],
        limits: &Limits,
        codec: &mut Codec,
    ) -> Result<Step, Fault> {
        if self.done {
            return Ok(Step { used: buf.len(), event: None });
        }
        let mut at = 0;
        loop {
            let part = match self.pending.as_mut().and_then(|pending| pending.frame.take()) {
                Some(part) => part,
                None => match self.head(buf, &mut at)? {
                    Some(head) => self.admit(head, limits)?,
                    None => return Ok(Step { used: at, event: None }),
                },
            };
            let take = part.left.min((buf.len() - at) as u64) as usize;
            let range = at..at + take;
            at += take;
            mask::apply(&mut buf[range.clone()], part.mask);
            let event = if part.op.is_control() {
                self.control(part, buf, range)?
            } else {
                self.data(part, buf, range, limits, codec)?
            };
            if event.is_some() || at == buf.len() {
                return Ok(Step { used: at, event });
            }
        }
    }

    /// Reads a head that begins or goes on at `at`. A cut one is kept.
    fn head(&mut self, buf: &[u8], at: &mut usize) -> Result<Option<Parsed>, Fault> {
        let masked = self.role == Role::Server;
        let rest = &buf[*at..];
        let mut kept = [0; head::HEAD_BYTES_MAX];
        let had = self.pending.as_ref().map_or(0, |pending| {
            let cut = pending.head();
            kept[..cut.len()].copy_from_slice(cut);
            cut.len()
        });
        let (bytes, had) = if had == 0 {
            (rest, 0)
        } else {
            let more = rest.len().min(kept.len() - had);
            kept[had..had + more].copy_from_slice(&rest[..more]);
            (&kept[..had + more], had)
        };
        let found = head::parse(bytes, masked)?;
        match found {
            Some((head, size)) => {
                *at += size - had;
                if let Some(pending) = &mut self.pending {
                    pending.keep_head(&[]);
                }
                Ok(Some(head))
            }
            None => {
                *at = buf.len();
                if !bytes.is_empty() {
                    self.pending.get_or_insert_default().keep_head(bytes);
                }
                Ok(None)
            }
        }
    }

    /// Checks a head against what came before it and against the limits.
    fn admit(&mut self, head: Parsed, limits: &Limits) -> Result<Partial, Fault> {
        if head.rsv1 && self.params.is_none() {
            return Err(Fault::protocol("reserved bit set"));
        }
        let message = self.pending.as_mut().and_then(|pending| pending.message.as_mut());
        match (head.op, message) {
            (Op::Continuation, None) => {
                return Err(Fault::protocol("continuation of nothing"));
            }
            (Op::Text | Op::Binary, Some(_)) => {
                return Err(Fault::protocol("new message inside a message"));
            }
            (Op::Continuation, Some(message)) => {
                message.fragments += 1;
                if message.fragments > limits.fragments {
                    return Err(Fault::fragments());
                }
                let room = wire_limit(limits, message.compressed)
                    .saturating_sub(message.data.len() as u64);
                if head.len > room {
                    return Err(Fault::too_big());
                }
            }
            (Op::Text | Op::Binary, None) => {
                if head.len > wire_limit(limits, head.rsv1) {
                    return Err(Fault::too_big());
                }
            }
            (Op::Close | Op::Ping | Op::Pong, _) => {}
        }
        let Parsed { op, fin, rsv1, len, mask } = head;
        Ok(Partial { op, fin, rsv1, left: len, mask: mask.unwrap_or_default() })
    }

    /// A piece of a data frame, unmasked, at `range`.
    fn data(
        &mut self,
        part: Partial,
        buf: &[u8],
        range: Range<usize>,
        limits: &Limits,
        codec: &mut Codec,
    ) -> Result<Option<Event>, Fault> {
        let whole = range.len() as u64 == part.left;
        let alone = self.pending.as_ref().is_none_or(|pending| pending.message.is_none());
        if whole && part.fin && alone {
            // A frame that is a message and lies in the buffer: nothing is copied.
            self.pending = None;
            let opcode = part.opcode();
            if part.rsv1 {
                let data = self.inflate(&buf[range], opcode, limits, codec)?;
                let data = Data::Own(data);
                return Ok(Some(Event::Message { opcode, data, compressed: true }));
            }
            check_text(opcode, &buf[range.clone()])?;
            let data = Data::Here(range);
            return Ok(Some(Event::Message { opcode, data, compressed: false }));
        }
        let pending = self.pending.get_or_insert_default();
        let message = pending.message.get_or_insert_with(|| part.begin());
        message.append(&buf[range.clone()], &part)?;
        if !whole {
            pending.frame = Some(part.after(range.len()));
            return Ok(None);
        }
        if !part.fin {
            return Ok(None);
        }
        let Some(message) = pending.message.take() else { return Ok(None) };
        self.pending = None;
        let (opcode, compressed) = (message.opcode, message.compressed);
        let data = if compressed {
            self.inflate(&message.data, opcode, limits, codec)?
        } else {
            message.finish()?
        };
        Ok(Some(Event::Message { opcode, data: Data::Own(data), compressed }))
    }

    /// A piece of a control frame, unmasked, at `range`.
    fn control(
        &mut self,
        part: Partial,
        buf: &[u8],
        range: Range<usize>,
    ) -> Result<Option<Event>, Fault> {
        let kept = self.pending.as_ref().is_some_and(|pending| !pending.control.is_empty());
        let data = if range.len() as u64 != part.left {
            let pending = self.pending.get_or_insert_default();
            pending.control.extend_from_slice(&buf[range.clone()]);
            pending.frame = Some(part.after(range.len()));
            return Ok(None);
        } else if kept && let Some(pending) = &mut self.pending {
            let mut data = std::mem::take(&mut pending.control);
            data.extend_from_slice(&buf[range]);
            Data::Own(data)
        } else {
            Data::Here(range)
        };
        if self.pending.as_ref().is_some_and(|pending| pending.message.is_none()) {
            self.pending = None;
        }
        Ok(Some(match part.op {
            Op::Ping => Event::Ping(data),
            Op::Pong => Event::Pong(data),
            _ => {
                let event = close(data.bytes(buf))?;
                self.done = true;
                self.pending = None;
                event
            }
        }))
    }

    fn inflate(
        &mut self,
        data: &[u8],
        opcode: Opcode,
        limits: &Limits,
        codec: &mut Codec,
    ) -> Result<Vec<u8>, Fault> {
        let Some(params) = self.params else {
            return Err(Fault::protocol("reserved bit set"));
        };
        let window = self.windows.as_ref().map_or(&[][..], |windows| &windows.incoming);
        let plain = codec.inflate(data, window, limits.message_bytes)?;
        check_text(opcode, &plain)?;
        if params.decompress.takeover {
            let windows = self.windows.get_or_insert_default();
            slide(&mut windows.incoming, &plain, params.decompress.window_bytes());
        }
        Ok(plain)
    }

    /// Compresses a message for this peer alone, with the context it has if one was agreed.
    /// `None`: send it plain, since it is short, or would not shrink, or nothing was agreed.
    pub fn compress(&mut self, data: &[u8], codec: &mut Codec) -> Option<Bytes> {
        let variant = self.variant()?;
        let window = self.windows.as_ref().map_or(&[][..], |windows| &windows.outgoing);
        let compressed = codec.compress_after(window, data, variant)?;
        self.sent_compressed(data);
        Some(compressed)
    }

    /// To be called for each peer of a message compressed once for all of a variant: `plain` is
    /// the message before it was compressed. It costs nothing unless our context is taken over.
    #[inline]
    pub fn sent_compressed(&mut self, plain: &[u8]) {
        if let Some(params) = self.params
            && params.compress.takeover
        {
            let windows = self.windows.get_or_insert_default();
            slide(&mut windows.outgoing, plain, params.compress.window_bytes());
        }
    }
}

/// The most bytes of a message on the wire. Deflate may add five bytes a block to what it cannot
/// shrink, so a compressed message gets a little more than it may inflate to.
fn wire_limit(limits: &Limits, compressed: bool) -> u64 {
    let plain = limits.message_bytes as u64;
    if compressed { plain.saturating_add(plain >> 6).saturating_add(64) } else { plain }
}

/// The payload of a close frame (RFC 6455 section 5.5.1).
fn close(payload: &[u8]) -> Result<Event, Fault> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok(Event::Close { code: None, reason: String::new() });
        }
        return Err(Fault::protocol("close frame of one byte"));
    };
    let code = u16::from_be_bytes(code);
    if !code_may_be_sent(code) {
        return Err(Fault::protocol("close code may not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Fault::text())?.to_owned();
    Ok(Event::Close { code: Some(code), reason })
}

/// Moves a window of the last `size` bytes of plaintext on by one message.
fn slide(window: &mut Vec<u8>, plain: &[u8], size: usize) {
    let plain = &plain[plain.len().saturating_sub(size)..];
    let keep = window.len().min(size - plain.len());
    window.drain(..window.len() - keep);
    window.extend_from_slice(plain);
}
