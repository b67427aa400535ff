//! A link: the SEQPACKET socket between the manager and one worker, with two lanes.
//!
//! Sending never waits. What the kernel does not take at once stands in one of two lanes:
//! control, which has room for all but answers that nobody reads, and data, which answers `full`
//! beyond [`DATA_LANE_BYTES_MAX`]. Control goes first; within a lane the order is kept. Small
//! frames share a packet until the flusher gets to run, which is once in each turn of the reactor,
//! or until the end of a turn that was announced.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::packet::{Body, Packet};
use super::{
    ANSWERS_BYTES_MAX, BROADCASTS_BYTES_MAX, CONTROL_LANE_BYTES_MAX, DATA_LANE_BYTES_MAX,
    INLINE_BYTES_MAX, PACKET_BYTES_MAX,
};
use crate::error::{Error, Result, Subject};
use crate::fd::WorkerId;
use crate::sys::packet::Datagram;
use crate::sys::watch::watch;
use crate::sys::{memory, packet};

/// Until a send is tried again of which nobody tells when it will succeed.
const PAUSE: Duration = Duration::from_millis(5);

/// What a receive says that brings nothing.
const NOTHING: [ErrorKind; 2] = [ErrorKind::WouldBlock, ErrorKind::ConnectionReset];

/// Which of the two lanes a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Few and small. Only answers are ever refused.
    Control,
    /// Bounded, in order.
    Data,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It will go out, unless the peer dies.
    Queued,
    /// The data lane is full. Nothing was queued.
    Full,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
}

/// A received packet.
#[derive(Debug)]
pub struct Arrival {
    /// How many bytes of the buffer it fills.
    pub len: usize,
    /// The descriptors beside it.
    pub fds: Vec<OwnedFd>,
    /// Whether it was waited for. Then it is best sent on before the kernel is asked for more,
    /// since mostly there is none, and to hear that is a call on its way.
    pub waited: bool,
}

/// A link, for the roles that run tokio.
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    /// Stamped on every packet: the worker at either end of this link.
    id: WorkerId,
    control: RefCell<Queue>,
    data: RefCell<Queue>,
    wake: Notify,
    /// Told when a lane has room again.
    emptier: Notify,
    /// Whether what is queued need not wake the flusher.
    in_turn: Cell<bool>,
    /// Whether the kernel refused something and is waited for.
    blocked: Cell<bool>,
    /// Whether the data lane has refused something since the kernel took a packet.
    full: Cell<bool>,
}

impl Link {
    /// Takes one end of a link to or from the worker `id`.
    pub fn new(socket: OwnedFd, id: WorkerId) -> Result<Link> {
        // Not for writing: that would wake us each time the peer has read something.
        let socket = watch(socket, Interest::READABLE)
            .subject(|| format!("watch the link of worker {id}"))?;
        Ok(Link {
            socket,
            id,
            control: RefCell::default(),
            data: RefCell::default(),
            wake: Notify::new(),
            emptier: Notify::new(),
            in_turn: Cell::new(false),
            blocked: Cell::new(false),
            full: Cell::new(false),
        })
    }

    /// The worker this link belongs to.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Queues a message without a body in the control lane.
    pub fn control<T: Serialize>(&self, message: &T) -> Result<()> {
        self.send(Lane::Control, message, Body::Inline(&[]), Vec::new()).map(|_| ())
    }

    /// Queues the answer to a question of the peer's, also in the control lane. False if a peer
    /// that does not read has so many waiting that this one is dropped: whoever asked learns from
    /// the deadline of the question that nobody knows.
    pub fn answer<T: Serialize>(&self, message: &T) -> Result<bool> {
        if self.control.borrow().bytes > ANSWERS_BYTES_MAX {
            return Ok(false);
        }
        self.control(message).map(|()| true)
    }

    /// Waits until the control lane holds no more than [`CONTROL_LANE_BYTES_MAX`], and the data
    /// lane no more than that beyond what it takes. A peer is not read before, so that one that
    /// asks and does not read the answers has to wait for itself.
    pub async fn room(&self) {
        loop {
            let emptier = self.emptier.notified();
            if !self.is_crowded() {
                return;
            }
            emptier.await;
        }
    }

    fn is_crowded(&self) -> bool {
        self.control.borrow().bytes > CONTROL_LANE_BYTES_MAX
            || self.data.borrow().bytes > DATA_LANE_BYTES_MAX + CONTROL_LANE_BYTES_MAX
    }

    /// Queues a message, its body, and descriptors that travel beside it.
    pub fn send<T: Serialize>(
        &self,
        lane: Lane,
        message: &T,
        body: Body<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<Sent> {
        if lane == Lane::Data && !self.has_room(body.len()) {
            return Ok(Sent::Full);
        }
        self.queue_up((lane, PACKET_BYTES_MAX), message, body, fds).map(|()| Sent::Queued)
    }

    /// Queues a message to all clients of the receiver in the data lane.
    pub fn send_to_all<T: Serialize>(&self, message: &T, body: Body<'_>) -> Result<Sent> {
        if !self.has_room(body.len()) {
            return Ok(Sent::Full);
        }
        let place = (Lane::Data, BROADCASTS_BYTES_MAX);
        self.queue_up(place, message, body, Vec::new()).map(|()| Sent::Queued)
    }

    /// Whether the data lane takes a body of `len` bytes.
    fn has_room(&self, len: usize) -> bool {
        let waiting = self.data_bytes();
        let has_room = waiting == 0 || waiting + len <= DATA_LANE_BYTES_MAX;
        if !has_room {
            self.full.set(true);
        }
        has_room
    }

    /// Whether the data lane has refused something and the kernel has taken nothing since: what
    /// takes long to make is not made then.
    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// Queues a message in the data lane, in its order there, also beyond the limit: for what
    /// may not be lost and is bounded elsewhere, such as connections that move.
    pub fn insist<T: Serialize>(
        &self,
        message: &T,
        body: Body<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        self.queue_up((Lane::Data, PACKET_BYTES_MAX), message, body, fds)
    }

    /// Queues it in a lane, in a packet of at most so many bytes if there are others in it.
    fn queue_up<T: Serialize>(
        &self,
        (lane, packet_bytes): (Lane, usize),
        message: &T,
        body: Body<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let packed =
            self.queue(lane).borrow_mut().pack((self.id, packet_bytes), message, body, fds);
        if !self.in_turn.get() {
            self.wake.notify_one();
        }
        packed
    }

    /// Bytes that wait in the data lane.
    pub fn data_bytes(&self) -> usize {
        self.data.borrow().bytes
    }

    /// Whether everything was given to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.control.borrow().packets.is_empty() && self.data.borrow().packets.is_empty()
    }

    /// Waits until everything that is queued was given to the kernel.
    pub async fn flushed(&self) {
        loop {
            let emptier = self.emptier.notified();
            if self.is_flushed() {
                return;
            }
            emptier.await;
        }
    }

    /// Takes back what the kernel has not taken of the data lane.
    pub fn take_unsent(&self) -> VecDeque<Packet> {
        std::mem::take(&mut *self.data.borrow_mut()).packets
    }

    fn queue(&self, lane: Lane) -> &RefCell<Queue> {
        match lane {
            Lane::Control => &self.control,
            Lane::Data => &self.data,
        }
    }

    /// Sends what is queued, for ever. Run it as a task of its own; it ends with an error when
    /// the peer is gone.
    pub async fn flush_forever(&self) -> Error {
        loop {
            self.wake.notified().await;
            if let Err(error) = self.flush().await {
                return error;
            }
        }
    }

    /// Sends what is queued, and returns when all of it is with the kernel. Safe to cancel.
    pub async fn flush(&self) -> Result<()> {
        self.blocked.set(false);
        if self.flush_now()? {
            return Ok(());
        }
        self.blocked.set(true);
        let flushed = self.flush_blocked().await;
        self.blocked.set(false);
        flushed
    }

    /// Announces that [`end_turn`](Self::end_turn) will be called before anybody waits: until then
    /// nothing that is queued wakes the flusher, which would find it sent.
    pub fn begin_turn(&self) {
        self.in_turn.set(true);
    }

    /// Sends what the kernel takes now. The rest, and what fails, is the flusher's business.
    pub fn end_turn(&self) {
        self.in_turn.set(false);
        if !matches!(self.flush_now(), Ok(true)) {
            self.wake.notify_one();
        }
    }

    /// Sends what the kernel takes now, also amid a turn. The rest, and what fails, is the
    /// flusher's business.
    pub fn hurry(&self) {
        let _ = self.flush_now();
    }

    /// Sends what the kernel takes now; whether that was all.
    fn flush_now(&self) -> Result<bool> {
        if self.blocked.get() {
            // `flush` waits for the kernel, and would only be told the same.
            return Ok(false);
        }
        match self.send_all(self.socket.get_ref().as_fd()) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(error) if packet::is_passing(error) => Ok(false),
            Err(error) => Err(error).subject(|| self.subject()),
        }
    }

    /// Sends all, as the kernel comes to take it.
    async fn flush_blocked(&self) -> Result<()> {
        let mut told = false;
        loop {
            match self.send_all(self.socket.get_ref().as_fd()) {
                Ok(()) => return Ok(()),
                Err(Errno::EAGAIN) => self.writable().await,
                Err(error) if packet::is_passing(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(worker = %self.id, %error, "a link waits for the kernel");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error).subject(|| self.subject()),
            }
        }
    }

    /// Waits by a duplicate that is watched for writing only so long, or for a moment where no
    /// descriptor is left for one.
    async fn writable(&self) {
        let duplicate = self.socket.get_ref().try_clone();
        match duplicate.and_then(|socket| watch(socket, Interest::WRITABLE)) {
            Ok(watched) => drop(watched.writable().await),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }

    fn subject(&self) -> String {
        format!("send to the link of worker {}", self.id)
    }

    fn send_all(&self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        loop {
            let control_first = !self.control.borrow().packets.is_empty();
            let lane = if control_first { Lane::Control } else { Lane::Data };
            let mut queue = self.queue(lane).borrow_mut();
            let Some(packet) = queue.packets.front() else { return Ok(()) };
            let fds: Vec<_> = packet.fds.iter().map(AsFd::as_fd).collect();
            packet::send(socket, &packet.bytes, &fds)?;
            queue.bytes -= packet.weight();
            queue.packets.pop_front();
            drop(queue);
            self.full.set(false);
            self.emptier.notify_waiters();
        }
    }

    /// Takes a packet that is there already. `None` when there is none or the peer is gone.
    pub fn try_receive(&self, buffer: &mut [u8]) -> Result<Option<Arrival>> {
        self.arrived(read(self.socket.get_ref(), buffer), false)
    }

    /// Takes one more. As [`try_receive`](Self::try_receive), but the kernel is not asked again
    /// when it has said that there is none: the next one is [`receive`](Self::receive)'s.
    pub fn receive_more(&self, buffer: &mut [u8]) -> Result<Option<Arrival>> {
        let got = self.socket.try_io(Interest::READABLE, |socket| read(socket, buffer));
        self.arrived(got, false)
    }

    /// Whether the other end was closed.
    pub fn peer_is_gone(&self) -> bool {
        let mut polled = [PollFd::new(self.socket.get_ref().as_fd(), PollFlags::empty())];
        // An error here would be a bad descriptor, which this is not.
        let _ = poll(&mut polled, PollTimeout::ZERO);
        polled[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
    }

    /// Waits for the next packet. `None` when the peer is gone.
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<Option<Arrival>> {
        if let Some(arrival) = self.receive_more(buffer)? {
            return Ok(Some(arrival));
        }
        let read = |socket: &OwnedFd| read(socket, buffer);
        self.arrived(self.socket.async_io(Interest::READABLE, read).await, true)
    }

    fn arrived(&self, got: io::Result<Datagram>, waited: bool) -> Result<Option<Arrival>> {
        match got {
            Ok(Datagram { len: 0, .. }) => Ok(None),
            Ok(Datagram { len, fds }) => Ok(Some(Arrival { len, fds, waited })),
            Err(error) if NOTHING.contains(&error.kind()) => Ok(None),
            Err(error) => {
                Err(Error::io(format!("receive from the link of worker {}", self.id), error))
            }
        }
    }
}

fn read(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    Ok(packet::receive(socket.as_fd(), buffer)?)
}

impl Queue {
    fn pack<T: Serialize>(
        &mut self,
        (id, packet_bytes): (WorkerId, usize),
        message: &T,
        body: Body<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let body = match body {
            Body::Inline(bytes) if bytes.len() > INLINE_BYTES_MAX => {
                Body::Beside(memory::write_sealed("wsd-body", bytes)?, bytes.len())
            }
            body => body,
        };
        let alone = !fds.is_empty() || matches!(body, Body::Beside(..));
        let room = packet_bytes.saturating_sub(body.len() + 512);
        let shared = self
            .packets
            .back_mut()
            .filter(|last| !alone && last.fds.is_empty() && last.bytes.len() < room);
        if let (Some(last), Body::Inline(bytes)) = (shared, &body) {
            let before = last.weight();
            last.add(message, bytes)?;
            self.bytes += last.weight() - before;
            return Ok(());
        }
        let mut packet = Packet::new(id);
        packet.fds = fds;
        match body {
            Body::Inline(bytes) => packet.add(message, bytes)?,
            Body::Beside(memfd, len) => packet.add_beside(message, memfd, len)?,
        }
        self.bytes += packet.weight();
        self.packets.push_back(packet);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Opcode;
    use crate::fd::Slot;
    use crate::ipc::messages::WorkerToManager;
    use crate::ipc::packet::Frames;

    const ID: WorkerId = WorkerId { slot: Slot(1), epoch: 1 };

    fn pair() -> (Link, Link) {
        let (ours, theirs) = packet::pair().unwrap();
        (Link::new(ours, ID).unwrap(), Link::new(theirs, ID).unwrap())
    }

    fn push(fd: u64) -> WorkerToManager {
        WorkerToManager::Push { id: 0, fd, opcode: Opcode::Binary }
    }

    async fn drain(link: &Link, want: usize) -> Vec<(u64, bytes::Bytes)> {
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        let mut got = Vec::new();
        while got.len() < want {
            let mut arrival = link.receive(&mut buffer).await.unwrap().unwrap();
            let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
            while let Some(frame) = frames.next(&mut arrival.fds).unwrap() {
                match frame.message {
                    WorkerToManager::Push { fd, .. } => {
                        got.push((fd, frame.body.into_bytes().unwrap()));
                    }
                    WorkerToManager::Drained => got.push((0, bytes::Bytes::new())),
                    other => panic!("{other:?}"),
                }
            }
        }
        got
    }

    #[tokio::test]
    async fn bodies_of_every_size_arrive_in_order() {
        let (ours, theirs) = pair();
        let sizes = [0, 1, 100, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3_000_000, 5];
        for (fd, size) in sizes.iter().enumerate() {
            let body = vec![fd as u8; *size];
            let sent = ours.send(Lane::Data, &push(fd as u64), Body::Inline(&body), vec![]);
            assert_eq!(sent.unwrap(), Sent::Queued);
        }
        let (flushed, got) = tokio::join!(ours.flush(), drain(&theirs, sizes.len()));
        flushed.unwrap();
        for (fd, size) in sizes.iter().enumerate() {
            assert_eq!(got[fd], (fd as u64, vec![fd as u8; *size].into()));
        }
        assert_eq!(ours.data_bytes(), 0);
    }

    #[tokio::test]
    async fn what_is_in_a_hurry_does_not_wait_for_the_end_of_a_turn() {
        let (ours, theirs) = pair();
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        ours.begin_turn();
        ours.control(&WorkerToManager::Drained).unwrap();
        assert!(theirs.try_receive(&mut buffer).unwrap().is_none());
        ours.hurry();
        assert!(theirs.try_receive(&mut buffer).unwrap().is_some());
        assert!(ours.is_flushed());
        ours.end_turn();
    }

    #[tokio::test]
    async fn of_broadcasts_few_share_a_packet_and_of_others_many() {
        let (ours, theirs) = pair();
        let (mut lens, mut buffer) = (Vec::new(), vec![0; PACKET_BYTES_MAX * 2]);
        for len in [3000, 3000, 3000, 20_000] {
            let sent = ours.send_to_all(&push(1), Body::Inline(&vec![0; len]));
            assert_eq!(sent.unwrap(), Sent::Queued);
        }
        for _ in 0..3 {
            let sent = ours.send(Lane::Data, &push(1), Body::Inline(&[0; 3000]), vec![]);
            assert_eq!(sent.unwrap(), Sent::Queued);
        }
        ours.flush().await.unwrap();
        while let Some(arrival) = theirs.try_receive(&mut buffer).unwrap() {
            lens.push(arrival.len / 1000);
        }
        assert_eq!(lens, [6, 3, 29]);
    }

    #[tokio::test]
    async fn a_full_data_lane_says_so_and_control_overtakes_it() {
        let (ours, theirs) = pair();
        let body = vec![0; 30_000];
        let mut queued = 0;
        while ours.send(Lane::Data, &push(1), Body::Inline(&body), vec![]).unwrap() == Sent::Queued
        {
            queued += 1;
        }
        assert!(queued * 30_000 <= DATA_LANE_BYTES_MAX);
        assert!(ours.is_full());
        ours.control(&WorkerToManager::Drained).unwrap();
        let (_, got) = tokio::join!(ours.flush(), drain(&theirs, queued + 1));
        assert_eq!(got[0].0, 0);
        assert!(!ours.is_full());
    }

    #[tokio::test]
    async fn answers_to_a_peer_that_does_not_read_are_bounded_and_make_it_wait() {
        let (ours, theirs) = pair();
        let answer = WorkerToManager::Owns { manager: 1, ranges: vec![(1, 2); 2_000], last: true };
        let mut taken = 0;
        while ours.answer(&answer).unwrap() {
            taken += 1;
        }
        assert!((1..ANSWERS_BYTES_MAX / 32_000 + 8).contains(&taken), "{taken}");
        // What the peer did not ask for is told all the same.
        ours.control(&WorkerToManager::Drained).unwrap();
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        let room = ours.room();
        let read = async { while theirs.receive(&mut buffer).await.unwrap().is_some() {} };
        tokio::select! {
            () = room => {}
            error = ours.flush_forever() => panic!("{error}"),
            () = read => panic!("the peer is gone"),
        }
        assert!(ours.answer(&answer).unwrap());
    }
}
