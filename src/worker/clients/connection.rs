//! One client: an entry of the table, small while it is idle.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::EpollFlags;

use super::admission::CountsAs;
use super::broadcast_buffer::FrameRange;
use super::outbox::Outbox;
use super::rooms::personal::Personal;
use super::rooms::table::Memberships;
use crate::api::Info;
use crate::api::rooms::Topic;
use crate::close::Close;
use crate::fd::{Fd, Slot};
use crate::sys::socket;
use crate::websocket::{Engine, Role};
use crate::worker::base::ticks::{NEVER, Tick};
use crate::worker::head::{KeptRequest, Reader};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Stage {
    /// The head of its request is being read.
    Head,
    /// `on_handshake` is at work.
    Handshaking,
    /// It is a WebSocket.
    Open,
    /// We sent a close frame and wait for the client's.
    Closing,
    /// Nothing more is to come from either side but what the outbox holds.
    Parting,
    /// Our last bytes go out; what still comes is thrown away. Closing at once would reset the
    /// connection, and the client might lose what we said.
    Lingering,
    /// It is on its way to another process, which has not said yet that it has it.
    Moving,
    /// It has ended: the socket is closed, and `on_close` runs or is about to.
    Ended,
}

/// A connection.
pub(in crate::worker) struct Connection {
    pub socket: Option<OwnedFd>,
    /// Which use of its place in the table it is.
    pub version: u32,
    pub stage: Stage,
    /// A handler of it has not ended: no other event of it is delivered.
    pub busy: bool,
    /// It is to move once its handler has ended: until then it is not read.
    pub held: bool,
    /// It counts as a pending handshake.
    pub pending: bool,
    /// Whom it counts for.
    pub counts_as: CountsAs,
    /// It is in the list of those that are flushed at the end of the turn.
    pub dirty: bool,
    /// The kernel takes no more of its bytes for now; the epoll set tells when it does.
    pub blocked: bool,
    /// The epoll set does not tell that there is something to read.
    pub paused: bool,
    /// It has sent more than it may for now, and is not read.
    pub slowed: bool,
    /// It is not in the epoll set.
    pub deaf: bool,
    /// `on_open` was called, here or where it came from, so `on_close` will be.
    pub opened: bool,
    /// It came over, and the manager has not said yet that it is ours: what our own handlers
    /// send to it is deferred.
    pub arriving: bool,
    /// It came over: the process it came from may still have a duplicate of the socket.
    pub adopted: bool,
    /// It is left alone when the idle are swept.
    pub protected: bool,
    /// Its number; it gets one when its request was read.
    pub fd: Option<Fd>,
    pub engine: Engine,
    pub kept: Option<KeptRequest>,
    pub outbox: Option<Box<Outbox>>,
    /// What it is sent of the turn's broadcasts; none if it has an outbox.
    pub frames: FrameRange,
    pub extra: Option<Box<Extra>>,
    /// The rooms it is in, its user among them.
    pub memberships: Memberships,
    /// Its session and what else few have.
    pub personal: Option<Box<Personal>>,
    /// Bytes of it that `client_memory` knows of, but for the outbox.
    pub counted: u32,
    /// Milliseconds since 1970.
    pub opened_at: u64,
    /// When the client last sent something, the answer to a ping of ours left out: milliseconds of
    /// the monotonic clock.
    pub received_at: u64,
    pub bytes_in: u64,
    /// Begins below 0 by the size of the answer to the handshake, which does not count.
    pub bytes_out: i64,
    /// When the wheel looks at it next.
    pub look_at: Tick,
    /// When its stage must have ended: the handshake's or the close's deadline, or its age.
    pub deadline: Tick,
    pub ping_at: Tick,
    /// When the answer to a ping must be there.
    pub pong_by: Tick,
    /// When a message that was begun must be whole.
    pub message_by: Tick,
}

/// What few connections have, and none for long.
#[derive(Default)]
pub(in crate::worker) struct Extra {
    /// Bytes that were read and wait for a handler to end.
    pub tail: Vec<u8>,
    /// How it ends, once that is decided.
    pub close: Option<Close>,
    /// Its request, before it is open.
    pub opening: Option<Opening>,
    /// Until when it is lingered for at most, once it is.
    pub lingers_until: Tick,
    /// The answer to a client that was refused before it sent anything.
    pub kept_back: Vec<u8>,
}

/// A connection before it is open.
pub(in crate::worker) struct Opening {
    pub reader: Reader,
    pub bytes: Vec<u8>,
    pub peer: Option<SocketAddr>,
    /// Whether it came to a loopback listener.
    pub to_loopback: bool,
    /// The address at this end, if it is known.
    pub local: Option<SocketAddr>,
    /// The client that a trusted proxy has named, once the head was read.
    pub client: Option<IpAddr>,
    /// How long the head was that the handler decides about.
    pub head_bytes: usize,
}

impl Opening {
    /// The bytes that it takes. A whole head is there twice: as the request that the handler has,
    /// and as the event that an application is sent.
    fn holds(&self) -> usize {
        self.bytes.len() + 2 * self.head_bytes
    }
}

impl Connection {
    /// A client that was just accepted.
    pub fn accepted(socket: OwnedFd, peer: Option<SocketAddr>, version: u32, now_ms: u64) -> Self {
        let opening = Opening {
            reader: Reader::new(),
            bytes: Vec::new(),
            peer,
            to_loopback: false,
            local: None,
            client: None,
            head_bytes: 0,
        };
        let extra = Extra { opening: Some(opening), ..Extra::default() };
        Connection {
            socket: Some(socket),
            version,
            stage: Stage::Head,
            busy: false,
            held: false,
            pending: false,
            counts_as: CountsAs::None,
            dirty: false,
            blocked: false,
            paused: false,
            slowed: false,
            deaf: true,
            opened: false,
            arriving: false,
            adopted: false,
            protected: false,
            fd: None,
            engine: Engine::new(Role::Server, None),
            kept: None,
            outbox: None,
            frames: FrameRange::default(),
            extra: Some(Box::new(extra)),
            memberships: Memberships::default(),
            personal: None,
            counted: 0,
            opened_at: 0,
            received_at: now_ms,
            bytes_in: 0,
            bytes_out: 0,
            look_at: NEVER,
            deadline: NEVER,
            ping_at: NEVER,
            pong_by: NEVER,
            message_by: NEVER,
        }
    }

    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// What there is only until the connection is open.
    pub fn opening(&self) -> Option<&Opening> {
        self.extra.as_ref()?.opening.as_ref()
    }

    /// The other end of the TCP connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        match (self.opening(), &self.kept) {
            (Some(opening), _) => opening.peer,
            (None, kept) => kept.as_ref().and_then(KeptRequest::peer),
        }
    }

    /// Whether the client has sent the beginning of a request.
    pub fn has_begun(&self) -> bool {
        self.opening().is_some_and(|opening| opening.reader.has_begun(&opening.bytes))
    }

    /// The client that a trusted proxy has named.
    pub fn client(&self) -> Option<IpAddr> {
        match (self.opening(), &self.kept) {
            (Some(opening), _) => opening.client,
            (None, kept) => kept.as_ref().and_then(KeptRequest::client),
        }
    }

    /// The bytes that it takes besides its outbox and what every connection takes.
    pub fn holds(&self) -> u32 {
        let opening = |extra: &Extra| extra.opening.as_ref().map_or(0, Opening::holds);
        let extra = self.extra.as_ref().map_or(0, |extra| extra.tail.len() + opening(extra));
        let kept = self.kept.as_ref().map_or(0, |kept| kept.as_bytes().len());
        let personal = self.personal.as_ref().map_or(0, |personal| personal.bytes());
        let holds = self.engine.pending_bytes() + extra + kept + personal;
        u32::try_from(holds).unwrap_or(u32::MAX)
    }

    /// Whether a message may be pushed to it.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// What the epoll set is to tell of it.
    pub fn interest(&self) -> EpollFlags {
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !self.paused);
        interest.set(EpollFlags::EPOLLOUT, self.blocked);
        interest
    }

    /// The earliest moment at which something may be due.
    pub fn next_look(&self) -> Tick {
        let expires_at = if self.is_open() { self.expires_at() } else { NEVER };
        let soonest = self.deadline.min(self.ping_at).min(self.pong_by).min(self.message_by);
        soonest.min(expires_at)
    }

    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Decides how it ends, unless that was decided before.
    pub fn decide(&mut self, close: Close) {
        self.extra().close.get_or_insert(close);
    }

    /// Bytes that were read and wait.
    pub fn take_tail(&mut self) -> Vec<u8> {
        let tail = self.extra.as_mut().map(|extra| std::mem::take(&mut extra.tail));
        self.drop_empty_extra();
        tail.unwrap_or_default()
    }

    /// About how many bytes its state has.
    pub fn state_bytes(&self) -> usize {
        let unsent = self.outbox.as_ref().map_or(0, |outbox| outbox.bytes());
        // What is half read counts among what it holds.
        let windows = self.engine.heap_bytes() - self.engine.pending_bytes();
        unsent + self.holds() as usize + windows
    }

    /// Gives memory back that nothing needs.
    pub fn drop_empty_extra(&mut self) {
        let needed = self.extra.as_ref().is_some_and(|extra| {
            !extra.tail.is_empty()
                || extra.close.is_some()
                || extra.opening.is_some()
                || extra.lingers_until != 0
        });
        if !needed {
            self.extra = None;
        }
    }

    /// With what waits for it, and how the kernel sees its connection.
    fn waiting(&self, info: Info, now_ms: u64) -> Info {
        let tcp = self.socket().and_then(socket::tcp_state);
        let outbox = self.outbox.as_ref().filter(|_| self.blocked);
        let since = outbox.map_or(now_ms, |outbox| outbox.blocked_at_ms);
        Info {
            queued_bytes: outbox.map_or(0, |outbox| outbox.bytes() as u64),
            queued_ms: now_ms.saturating_sub(since),
            rtt_us: tcp.map(|tcp| tcp.rtt_us),
            unacked: tcp.map(|tcp| tcp.unacked),
            retransmits: tcp.map(|tcp| tcp.retransmits),
            ..info
        }
    }

    /// What is known of it; `None` unless it is open.
    pub fn info(&self, worker: Slot, now_ms: u64) -> Option<Info> {
        let fd = self.fd.filter(|_| self.is_open())?;
        let kept = self.kept.as_ref()?;
        let peer = kept.peer().map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        Some(Info {
            fd,
            worker,
            peer,
            client: kept.client(),
            connected_at: self.opened_at,
            idle_ms: now_ms.saturating_sub(self.received_at),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out.max(0) as u64,
            plain: false,
            process: None,
            path: kept.request(fd).path().to_owned(),
            ..self.waiting(Info::new(fd, worker), now_ms)
        })
    }

    /// Takes a frame as its own; false if only an outbox keeps the order.
    pub fn accepts_frame(&mut self, frame: u8) -> bool {
        let plain = self.engine.variant().is_none();
        plain && !self.blocked && self.outbox.is_none() && self.frames.add(frame)
    }

    /// Whether a frame of `len` bytes finds no room for certain: the kernel takes no more, and
    /// so much waits.
    pub fn is_stuck(&self, len: usize, limit: usize) -> bool {
        let plain = self.engine.variant().is_none();
        let outbox = self.outbox.as_ref().filter(|_| plain && self.blocked);
        outbox.is_some_and(|outbox| !outbox.has_room(len, limit))
    }

    pub fn personal(&mut self) -> &mut Personal {
        self.personal.get_or_insert_default()
    }

    /// What presence shows of it in a room.
    pub fn info_in(&self, topic: &Topic) -> Option<String> {
        let infos = &self.personal.as_ref()?.infos;
        let info = infos.iter().find(|(of, _)| of == topic);
        info.map(|(_, info)| info.to_string())
    }

    pub fn set_info(&mut self, topic: &Topic, info: Option<String>) {
        if info.is_none() && self.personal.is_none() {
            return;
        }
        let infos = &mut self.personal().infos;
        infos.retain(|(of, _)| of != topic);
        infos.extend(info.map(|info| (topic.clone(), info.into_boxed_str())));
        self.drop_needless_personal();
    }

    pub fn drop_needless_personal(&mut self) {
        if self.personal.as_ref().is_some_and(|it| !it.is_needed()) {
            self.personal = None;
        }
    }

    /// Takes what it had in the process it came from.
    pub fn take_personal(&mut self, session: Option<String>, expires_at: Tick) {
        if session.is_some() || expires_at != NEVER {
            let personal = self.personal();
            personal.session = session.map(String::into_boxed_str);
            personal.expires_at = expires_at;
        }
    }

    /// When a handler wants it closed.
    pub fn expires_at(&self) -> Tick {
        self.personal.as_ref().map_or(NEVER, |it| it.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 160, "{}", size_of::<Connection>());
    }
}
