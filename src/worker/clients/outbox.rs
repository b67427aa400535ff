//! What waits to be sent to one client.
//!
//! A connection has an outbox only while something waits; an empty one goes back to the worker's
//! pool with its memory, so that an echo allocates nothing. Small frames share one buffer, large
//! payloads are shared with whoever else is sent them.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::api::Payload;
use crate::sys::socket;
use crate::websocket::Head;

/// Pieces in one write; the kernel takes up to 1024.
const GATHER_MAX: usize = 64;
/// A payload up to this is copied into the shared buffer, a larger one is referred to: of a
/// broadcast to many who do not read there is then one copy, and no time goes into more.
const COPY_BYTES_MAX: usize = 1024;
/// The size at which a new buffer is begun.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Pongs that wait beside each other. More answer only the newest ping (RFC 6455 section 5.5.3),
/// so that a flood of pings is not a flood of pongs.
const PONGS_MAX: u8 = 16;
/// A spare buffer larger than this is not kept.
const SPARE_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// Bytes that wait in all outboxes of this worker, which is one thread.
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that wait in all outboxes of this worker, a payload that several share once for each.
pub(in crate::worker) fn waiting() -> usize {
    WAITING.get()
}

fn grew(bytes: usize) {
    WAITING.set(WAITING.get().wrapping_add(bytes));
}

fn shrank(bytes: usize) {
    WAITING.set(WAITING.get().wrapping_sub(bytes));
}

enum Piece {
    /// Frames, and what else is small.
    Own(Vec<u8>),
    /// One frame, with a payload that others may have too.
    Frame(Head, Bytes),
}

impl Piece {
    /// Its bytes: those that are its own, and those that are shared.
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Piece::Own(bytes) => [bytes, &[]],
            Piece::Frame(head, payload) => [head, payload],
        }
    }

    fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// One frame, or other bytes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Unit {
    /// Bytes of it that the kernel does not have yet.
    left: u32,
    /// Whether it is a message of the handler's, which is counted when it is sent or lost.
    message: bool,
}

/// The queue of one client.
#[derive(Default)]
pub(in crate::worker) struct Outbox {
    pieces: VecDeque<Piece>,
    /// What small frames are appended to; it comes after the pieces.
    tail: Vec<u8>,
    /// Bytes of the first piece, or of the tail if there is none, that the kernel has.
    sent: usize,
    /// Bytes that the kernel does not have.
    bytes: usize,
    units: VecDeque<Unit>,
    /// How many of the units are messages.
    messages: usize,
    /// Whether the kernel has the beginning of the first unit.
    begun: bool,
    /// Pongs that were queued since it was last empty.
    pongs: u8,
    /// Since when the kernel takes no more, in milliseconds of the monotonic clock.
    pub blocked_at_ms: u64,
    /// The newest pong, while the client does not read or pings too much: it replaces older ones.
    pong: Option<Box<[u8]>>,
}

/// What a write brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Flushed {
    /// Bytes the kernel took.
    pub bytes: usize,
    /// Messages whose last byte it took.
    pub messages: usize,
    /// Whether something is left: the kernel takes no more now.
    pub blocked: bool,
}

/// An outbox on its way to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::worker) struct Unsent {
    bytes: Vec<u8>,
    units: Vec<Unit>,
    begun: bool,
    pong: Option<Vec<u8>>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether a message of `len` bytes may be queued: what waits behind the frame being sent
    /// stays within `limit`.
    #[inline]
    pub fn has_room(&self, len: usize, limit: usize) -> bool {
        let Some(first) = self.units.front() else { return true };
        self.bytes - first.left as usize + len <= limit
    }

    /// How many bytes more may wait behind the frame being sent.
    pub fn room(&self, limit: usize) -> usize {
        let behind = self.bytes - self.units.front().map_or(0, |first| first.left as usize);
        limit.saturating_sub(behind)
    }

    /// Queues a message as one frame. Whether there is room is the caller's to ask.
    #[inline]
    pub fn add_message(&mut self, head: &Head, payload: &Payload<'_>) {
        let len = head.len() + payload.len();
        if payload.len() <= COPY_BYTES_MAX {
            let tail = self.tail(len);
            head.put(tail, payload.len());
            tail.extend_from_slice(payload);
        } else {
            self.seal();
            self.pieces.push_back(Piece::Frame(*head, payload.to_bytes()));
        }
        self.count(len, true);
    }

    /// Queues a frame that is a message, or is the rest of one.
    pub fn add_frame(&mut self, frame: &[u8]) {
        self.tail(frame.len()).extend_from_slice(frame);
        self.count(frame.len(), true);
    }

    /// Queues a control frame, or the answer to a handshake. These have room always: there are
    /// few of them.
    pub fn add_control(&mut self, bytes: &[u8]) {
        // Nothing may follow a close frame.
        self.place_pong();
        self.append(bytes);
    }

    /// Queues a pong, or keeps it in the place of the last one while the client does not read or
    /// many wait.
    pub fn add_pong(&mut self, frame: &[u8], blocked: bool) {
        if blocked || self.pongs == PONGS_MAX {
            self.pong = Some(frame.into());
        } else {
            self.pongs += 1;
            self.append(frame);
        }
    }

    /// Gives the kernel as much as it takes.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> nix::Result<Flushed> {
        let mut flushed = Flushed::default();
        self.place_pong();
        while self.bytes > 0 {
            let (wrote, wanted) = match self.write(socket) {
                Ok(result) => result,
                Err(Errno::EAGAIN) => (0, 1),
                Err(error) => return Err(error),
            };
            flushed.bytes += wrote;
            flushed.messages += self.took(wrote);
            if wrote < wanted {
                flushed.blocked = true;
                break;
            }
        }
        Ok(flushed)
    }

    fn write(&self, socket: BorrowedFd<'_>) -> nix::Result<(usize, usize)> {
        if self.pieces.is_empty() {
            let rest = &self.tail[self.sent..];
            return Ok((socket::write(socket, &[IoSlice::new(rest)])?, rest.len()));
        }
        let mut slices = [IoSlice::new(&[]); GATHER_MAX];
        let (mut count, mut wanted) = (0, 0);
        for (slice, bytes) in slices.iter_mut().zip(self.unsent()) {
            *slice = IoSlice::new(bytes);
            wanted += slice.len();
            count += 1;
        }
        Ok((socket::write(socket, &slices[..count])?, wanted))
    }

    /// Forgets `n` bytes that the kernel took; the answer is how many messages that ended.
    pub fn took(&mut self, n: usize) -> usize {
        shrank(n);
        if n == self.bytes {
            return self.took_all();
        }
        self.seal();
        self.bytes -= n;
        self.sent += n;
        while let Some(piece) = self.pieces.front() {
            let len = piece.len();
            if len > self.sent {
                break;
            }
            self.sent -= len;
            self.drop_piece();
        }
        let (mut left, before) = (n as u64, self.messages);
        while let Some(unit) = self.units.front_mut() {
            if u64::from(unit.left) > left {
                unit.left -= left as u32;
                self.begun |= left > 0;
                break;
            }
            left -= u64::from(unit.left);
            self.messages -= usize::from(unit.message);
            self.begun = false;
            self.units.pop_front();
        }
        before - self.messages
    }

    fn took_all(&mut self) -> usize {
        let messages = std::mem::take(&mut self.messages);
        (self.bytes, self.sent, self.begun, self.pongs) = (0, 0, false, 0);
        self.units.clear();
        if self.tail.capacity() > SPARE_BYTES_MAX {
            self.tail = Vec::new();
        }
        self.tail.clear();
        while !self.pieces.is_empty() {
            self.drop_piece();
        }
        messages
    }

    /// Drops all but the frame being sent, so that a close frame may follow it at once; the
    /// answer is how many messages were lost.
    pub fn cut(&mut self) -> usize {
        self.seal();
        let keep = if self.begun { self.units.front().copied() } else { None };
        let kept = usize::from(keep.is_some_and(|unit| unit.message));
        let lost = std::mem::replace(&mut self.messages, kept) - kept;
        let mut room = keep.map_or(0, |unit| unit.left as usize);
        shrank(self.bytes - room);
        self.bytes = room;
        self.units.truncate(usize::from(keep.is_some()));
        self.pong = None;
        let mut skip = self.sent;
        self.pieces.retain_mut(|piece| {
            let take = room.min(piece.len() - skip);
            // A piece that is one frame is kept whole or not at all.
            if let Piece::Own(bytes) = piece {
                bytes.truncate(skip + take);
            }
            room -= take;
            skip = 0;
            take > 0
        });
        if self.pieces.is_empty() {
            self.sent = 0;
        }
        lost
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages wait, the one being sent included.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// The memory that an empty one holds.
    pub fn spare_bytes(&self) -> usize {
        size_of::<Outbox>()
            + self.tail.capacity()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.units.capacity() * size_of::<Unit>()
    }

    /// Takes everything out, to be put into another process's outbox.
    pub fn freeze(&self) -> Unsent {
        let mut bytes = Vec::with_capacity(self.bytes);
        self.unsent().for_each(|part| bytes.extend_from_slice(part));
        let units = self.units.iter().copied().collect();
        let pong = self.pong.as_ref().map(|pong| pong.to_vec());
        Unsent { bytes, units, begun: self.begun, pong }
    }

    /// Puts back what [`freeze`](Self::freeze) took out. `None` if the numbers do not fit.
    pub fn thaw(unsent: Unsent) -> Option<Outbox> {
        let total: u64 = unsent.units.iter().map(|unit| u64::from(unit.left)).sum();
        if total != unsent.bytes.len() as u64 {
            return None;
        }
        grew(unsent.bytes.len());
        let mut outbox = Outbox::default();
        outbox.bytes = unsent.bytes.len();
        outbox.tail = unsent.bytes;
        outbox.messages = unsent.units.iter().filter(|unit| unit.message).count();
        outbox.units = unsent.units.into();
        outbox.begun = unsent.begun;
        outbox.pong = unsent.pong.map(Vec::into_boxed_slice);
        Some(outbox)
    }

    /// The memory of what waits, but for payloads that were seen before.
    pub fn memory(&self, seen: &mut HashSet<*const u8>) -> usize {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Own(bytes) => bytes.len(),
            Piece::Frame(_, payload) if !seen.insert(payload.as_ptr()) => 0,
            Piece::Frame(_, payload) => payload.len(),
        });
        pieces.sum::<usize>() + self.tail.len()
    }

    /// The buffer to append `len` bytes to.
    #[inline]
    fn tail(&mut self, len: usize) -> &mut Vec<u8> {
        if self.tail.len() + len > BUFFER_BYTES_MAX {
            self.seal();
        }
        &mut self.tail
    }

    fn append(&mut self, bytes: &[u8]) {
        self.tail(bytes.len()).extend_from_slice(bytes);
        self.count(bytes.len(), false);
    }

    fn place_pong(&mut self) {
        if let Some(pong) = self.pong.take() {
            self.append(&pong);
        }
    }

    /// Makes the tail a piece like the others.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Own(std::mem::take(&mut self.tail)));
        }
    }

    /// All that the kernel does not have, from the first piece to the tail.
    fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let mut sent = self.sent;
        let parts = self.pieces.iter().flat_map(Piece::parts).chain([&self.tail[..]]);
        parts.filter_map(move |part| {
            let skip = sent.min(part.len());
            sent -= skip;
            (skip < part.len()).then(|| &part[skip..])
        })
    }

    #[inline]
    fn count(&mut self, len: usize, message: bool) {
        grew(len);
        self.bytes += len;
        self.messages += usize::from(message);
        // A frame is at most package_max_length (1 GiB) and a head.
        self.units.push_back(Unit { left: len as u32, message });
    }

    /// Drops the first piece; its memory becomes the tail's if that has none.
    fn drop_piece(&mut self) {
        if let Some(Piece::Own(mut buffer)) = self.pieces.pop_front()
            && self.tail.capacity() == 0
            && buffer.capacity() <= SPARE_BYTES_MAX
        {
            buffer.clear();
            self.tail = buffer;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        shrank(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Opcode;
    use crate::websocket::frame;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::{AsFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap()
    }

    fn read_all(socket: &OwnedFd) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(n) = socket::read(socket.as_fd(), &mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }

    fn head(len: usize) -> Head {
        frame::message_head(Opcode::Binary, false, len)
    }

    fn payload(n: usize, len: usize) -> Payload<'static> {
        Payload::from(vec![n as u8; len])
    }

    #[test]
    fn small_and_large_messages_leave_in_order_and_are_counted_once() {
        let (ours, theirs) = pair();
        let mut outbox = Outbox::default();
        let (mut want, mut got, mut messages) = (Vec::new(), Vec::new(), 0);
        for n in 0..200 {
            let payload = payload(n, if n % 3 == 0 { 9_000 } else { n });
            outbox.add_message(&head(payload.len()), &payload);
            want.extend_from_slice(&head(payload.len()));
            want.extend_from_slice(&payload);
        }
        while !outbox.is_empty() {
            messages += outbox.flush(ours.as_fd()).unwrap().messages;
            got.extend(read_all(&theirs));
        }
        assert!(got == want);
        assert_eq!((messages, outbox.messages()), (200, 0));
    }

    #[test]
    fn the_limit_is_for_what_waits_behind_the_message_being_sent() {
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(1_000, 10), "nothing is sent yet, so nothing waits");
        outbox.add_message(&head(1_000), &payload(0, 1_000));
        assert!(outbox.has_room(10, 10));
        outbox.add_message(&head(4), &payload(1, 4));
        assert!(outbox.has_room(4, 10));
        assert!(!outbox.has_room(5, 10));
    }

    #[test]
    fn a_cut_keeps_exactly_the_frame_that_was_begun() {
        let (ours, theirs) = pair();
        let mut outbox = Outbox::default();
        for n in 0..50 {
            outbox.add_message(&head(20_000), &payload(n, 20_000));
        }
        let flushed = outbox.flush(ours.as_fd()).unwrap();
        assert!(flushed.blocked);
        let whole = flushed.messages + usize::from(flushed.bytes % 20_004 > 0);
        assert_eq!(outbox.cut(), 50 - whole);
        outbox.add_control(b"close");
        let mut got = read_all(&theirs);
        while !outbox.is_empty() {
            outbox.flush(ours.as_fd()).unwrap();
            got.extend(read_all(&theirs));
        }
        assert_eq!(got.len(), whole * 20_004 + 5);
        assert!(got.ends_with(b"close"));
    }

    #[test]
    fn an_outbox_frozen_mid_frame_goes_on_elsewhere() {
        let (ours, theirs) = pair();
        let mut outbox = Outbox::default();
        for n in 0..50 {
            outbox.add_message(&head(20_000), &payload(n, 20_000));
        }
        let sent = outbox.flush(ours.as_fd()).unwrap();
        let unsent = outbox.freeze();
        let mut other = Outbox::thaw(unsent.clone()).unwrap();
        assert_eq!(other.freeze(), unsent);
        let (mut got, mut messages) = (read_all(&theirs), sent.messages);
        while !other.is_empty() {
            messages += other.flush(ours.as_fd()).unwrap().messages;
            got.extend(read_all(&theirs));
        }
        assert_eq!((got.len(), messages), (50 * 20_004, 50));
        assert!(Outbox::thaw(Unsent { bytes: vec![1], ..Unsent::default() }).is_none());
    }

    #[test]
    fn what_waits_is_counted_whatever_becomes_of_it() {
        let (before, shared) = (waiting(), payload(1, 9_000));
        let mut outboxes: Vec<Outbox> = (0..3).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.add_message(&head(9_000), &shared);
            outbox.add_control(b"12");
        }
        assert_eq!(waiting() - before, 3 * 9_006);
        let mut seen = HashSet::new();
        let memory: usize = outboxes.iter().map(|outbox| outbox.memory(&mut seen)).sum();
        assert_eq!(memory, 9_000 + 3 * 2);
        outboxes[0].took(10);
        outboxes[1].took(9_006);
        assert_eq!(outboxes[0].cut(), 0);
        assert_eq!(waiting() - before, 8_994 + 9_006);
        let thawed = Outbox::thaw(outboxes[0].freeze());
        assert_eq!(waiting() - before, 2 * 8_994 + 9_006);
        drop((outboxes, thawed));
        assert_eq!(waiting(), before);
    }

    #[test]
    fn of_the_pongs_that_wait_only_the_newest_is_sent() {
        let (ours, theirs) = pair();
        let mut outbox = Outbox::default();
        outbox.add_pong(b"a", false);
        outbox.add_pong(b"b", true);
        outbox.add_pong(b"c", true);
        outbox.flush(ours.as_fd()).unwrap();
        assert_eq!(read_all(&theirs), b"ac");
    }

    #[test]
    fn a_flood_of_pings_is_answered_by_few_pongs_and_none_follows_a_close() {
        let (ours, theirs) = pair();
        let mut outbox = Outbox::default();
        for ping in 0..100 {
            outbox.add_pong(&[ping], false);
        }
        outbox.add_control(b"close");
        outbox.flush(ours.as_fd()).unwrap();
        let few: Vec<u8> = (0..PONGS_MAX).chain([99]).collect();
        assert_eq!(read_all(&theirs), [&few[..], b"close"].concat());
        outbox.add_pong(b"b", false);
        outbox.add_pong(b"c", false);
        outbox.flush(ours.as_fd()).unwrap();
        assert_eq!(read_all(&theirs), b"bc");
    }
}
