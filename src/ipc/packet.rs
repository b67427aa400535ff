//! How frames share a datagram.
//!
//! ```text
//! packet  = version:u8 zero:u8 slot:u8 zero:u8 epoch:u32   then frames
//! frame   = message_len:u16 flags:u16 body_len:u32         then message, then body
//! ```
//!
//! All numbers little-endian. Every packet names the worker it concerns, so that one of a dead
//! epoch can be told. Flag 1: the body stands in a sealed memfd, the packet's last descriptor,
//! and not behind the message.

use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BODY_BYTES_MAX, INLINE_BYTES_MAX, IPC_VERSION, codec};
use crate::error::{Error, Result};
use crate::fd::{Slot, WorkerId};
use crate::sys::memory;

const PACKET_HEADER_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 8;
const FLAG_MEMFD: u16 = 1;

/// A packet being filled, or waiting to be sent.
#[derive(Debug)]
pub struct Packet {
    /// What goes into the datagram.
    pub bytes: Vec<u8>,
    /// What goes beside it.
    pub fds: Vec<OwnedFd>,
    /// Bytes in memfds beside it, which count against a lane as well.
    pub beside: usize,
}

impl Packet {
    /// An empty packet about `id`.
    pub fn new(id: WorkerId) -> Packet {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[IPC_VERSION, 0, id.slot.0, 0]);
        bytes.extend_from_slice(&id.epoch.to_le_bytes());
        Packet { bytes, fds: Vec::new(), beside: 0 }
    }

    /// Adds a frame whose body stands in it.
    pub fn add<T: Serialize>(&mut self, message: &T, body: &[u8]) -> Result<()> {
        self.add_frame(message, body.len(), 0)?;
        self.bytes.extend_from_slice(body);
        Ok(())
    }

    /// Adds the only frame of a packet, its body in `memfd`.
    pub fn add_beside<T: Serialize>(
        &mut self,
        message: &T,
        memfd: OwnedFd,
        len: usize,
    ) -> Result<()> {
        self.add_frame(message, len, FLAG_MEMFD)?;
        self.fds.push(memfd);
        self.beside += len;
        Ok(())
    }

    fn add_frame<T: Serialize>(&mut self, message: &T, body_len: usize, flags: u16) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let message_len = match codec::encode(message, &mut self.bytes) {
            Ok(len) => u16::try_from(len),
            Err(error) => {
                self.bytes.truncate(start);
                return Err(error);
            }
        };
        let (Ok(message_len), Ok(body_len)) = (message_len, u32::try_from(body_len)) else {
            self.bytes.truncate(start);
            return Err(Error::new("an IPC message or body is too long for its frame"));
        };
        let header = &mut self.bytes[start..start + FRAME_HEADER_BYTES];
        header[..2].copy_from_slice(&message_len.to_le_bytes());
        header[2..4].copy_from_slice(&flags.to_le_bytes());
        header[4..].copy_from_slice(&body_len.to_le_bytes());
        Ok(())
    }

    /// What it weighs in a lane.
    pub fn weight(&self) -> usize {
        self.bytes.len() + self.beside
    }
}

/// A received frame's body.
#[derive(Debug)]
pub enum Body<'a> {
    /// In the packet.
    Inline(&'a [u8]),
    /// In a sealed memfd of that many bytes.
    Beside(OwnedFd, usize),
}

impl Body<'_> {
    /// The bytes, wherever they are.
    pub fn into_bytes(self) -> Result<Bytes> {
        match self {
            Body::Inline(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Body::Beside(memfd, len) => memory::read_sealed(memfd, len),
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Body::Inline(bytes) => bytes.len(),
            Body::Beside(_, len) => *len,
        }
    }

    /// Whether there are none.
    #[cfg(feature = "internals")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One received frame.
#[derive(Debug)]
pub struct Received<'a, T> {
    /// The message.
    pub message: T,
    /// Its body.
    pub body: Body<'a>,
}

/// Reads the frames of a received packet.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    /// Whom the packet concerns.
    pub id: WorkerId,
}

impl<'a> Frames<'a> {
    /// Checks the packet's own header.
    pub fn new(packet: &'a [u8]) -> Result<Frames<'a>> {
        let Some((header, rest)) = packet.split_first_chunk::<PACKET_HEADER_BYTES>() else {
            return Err(Error::new("an IPC packet is shorter than its header"));
        };
        let [version, _, slot, _, e0, e1, e2, e3] = *header;
        if version != IPC_VERSION {
            return Err(Error::new(format!(
                "an IPC packet of version {version}; this process speaks {IPC_VERSION}"
            )));
        }
        let epoch = u32::from_le_bytes([e0, e1, e2, e3]);
        Ok(Frames { rest, id: WorkerId { slot: Slot(slot), epoch } })
    }

    /// The next frame. `fds` are the packet's descriptors, of which a body in a memfd takes the
    /// last.
    ///
    /// # Errors
    /// When the bytes are no frame, or the body is not sealed memory of the length that is told.
    pub fn next<T: DeserializeOwned>(
        &mut self,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Option<Received<'a, T>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let short = || Error::new("an IPC frame is cut short");
        let (header, rest) =
            self.rest.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(short)?;
        let [m0, m1, f0, f1, b0, b1, b2, b3] = *header;
        let message_len = usize::from(u16::from_le_bytes([m0, m1]));
        let flags = u16::from_le_bytes([f0, f1]);
        let body_len = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        let (message, rest) = rest.split_at_checked(message_len).ok_or_else(short)?;
        let (body, rest) = match flags {
            0 => {
                let (body, rest) = rest.split_at_checked(body_len).ok_or_else(short)?;
                (Body::Inline(body), rest)
            }
            FLAG_MEMFD => (beside(fds.pop().ok_or_else(short)?, body_len)?, rest),
            other => return Err(Error::new(format!("an IPC frame has unknown flags {other:#x}"))),
        };
        self.rest = rest;
        Ok(Some(Received { message: codec::decode(message)?, body }))
    }
}

fn beside(memfd: OwnedFd, len: usize) -> Result<Body<'static>> {
    // A short one beside would cost its receiver a descriptor for next to nothing.
    if !(INLINE_BYTES_MAX + 1..=BODY_BYTES_MAX).contains(&len) {
        return Err(Error::new(format!("a body of {len} bytes does not stand beside its packet")));
    }
    memory::check_sealed(memfd.as_fd(), len)?;
    Ok(Body::Beside(memfd, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Opcode;
    use crate::ipc::messages::WorkerToManager;

    const ID: WorkerId = WorkerId { slot: Slot(3), epoch: 258 };

    fn push(fd: u64) -> WorkerToManager {
        WorkerToManager::Push { id: 9, fd, opcode: Opcode::Text }
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut packet = Packet::new(ID);
        packet.add(&push(7), b"hello").unwrap();
        packet.add(&WorkerToManager::Drained, b"").unwrap();
        let mut frames = Frames::new(&packet.bytes).unwrap();
        assert_eq!(frames.id, ID);
        let first = frames.next::<WorkerToManager>(&mut Vec::new()).unwrap().unwrap();
        assert!(matches!(first.message, WorkerToManager::Push { id: 9, fd: 7, .. }));
        assert!(matches!(first.body, Body::Inline(b"hello")));
        let second = frames.next::<WorkerToManager>(&mut Vec::new()).unwrap().unwrap();
        assert!(matches!(second.message, WorkerToManager::Drained));
        assert!(frames.next::<WorkerToManager>(&mut Vec::new()).unwrap().is_none());
    }

    #[test]
    fn the_bytes_on_the_wire_stay_what_they_are() {
        let mut packet = Packet::new(ID);
        packet.add(&push(0x0102), b"hi").unwrap();
        let golden = [
            1, 0, 3, 0, 2, 1, 0, 0, // packet: version, slot, epoch
            24, 0, 0, 0, 2, 0, 0, 0, // frame: message and body lengths
            2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, // Push, id
            2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // fd, opcode
            b'h', b'i',
        ];
        assert_eq!(packet.bytes, golden);
    }

    #[test]
    fn a_body_that_is_not_sealed_memory_of_its_length_is_no_frame() {
        let len = INLINE_BYTES_MAX + 1;
        let sealed = |len| memory::write_sealed("test", &vec![7; len]).unwrap();
        let open = memory::open_memfd("test").unwrap();
        nix::unistd::ftruncate(&open, len as i64).unwrap();
        let good = (sealed(len), len);
        let bad = [(sealed(len), len + 1), (sealed(len), 3 << 30), (open, len), (sealed(5), 5)];
        for (index, (memfd, len)) in std::iter::once(good).chain(bad).enumerate() {
            let mut packet = Packet::new(ID);
            packet.add_beside(&push(7), memfd, len).unwrap();
            let mut frames = Frames::new(&packet.bytes).unwrap();
            let frame = frames.next::<WorkerToManager>(&mut packet.fds);
            assert_eq!(frame.is_ok(), index == 0, "{len} bytes");
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_an_error_and_never_a_panic() {
        let mut packet = Packet::new(ID);
        packet.add(&push(7), b"hello").unwrap();
        for len in 0..packet.bytes.len() {
            let read = Frames::new(&packet.bytes[..len]).and_then(|mut frames| {
                let frame = frames.next::<WorkerToManager>(&mut Vec::new())?;
                Ok(frame.is_some())
            });
            // Exactly a header is a packet with no frames.
            assert_eq!(read.ok(), (len == PACKET_HEADER_BYTES).then_some(false), "{len}");
        }
    }
}
