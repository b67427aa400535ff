//! Bytes to frames of the app protocol (`docs/app-protocol.md`) and back. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of the protocol spoken here.
pub const VERSION: u16 = 2;
/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 20;
/// The most bytes KEEP may carry.
pub const KEEP_BYTES_MAX: usize = 65_535;

/// Flag of an event that was sent before, to a process that died.
pub const AGAIN: u8 = 128;
/// Flag of OPEN: ACCEPT or REFUSE is waited for.
pub const ANSWER: u8 = 1;
/// Flag of MESSAGE: the client had compressed it.
pub const COMPRESSED: u8 = 2;
/// Flag of DONE: every event sent before is done as well.
pub const ALL: u8 = 1;
/// Flag of DONE: the answer to this request comes later.
pub const LATER: u8 = 2;
/// Flag of END: the process could not take in what it was sent next.
pub const UNTAKEN: u8 = 1;
/// Flag of PUSH, DISCONNECT, PROTECT, SEND and what changes a client's rooms: VERDICT is waited
/// for; of PUBLISH, TALLY.
pub const VERDICT: u8 = 1;
/// Flag of SEND: to a process that does tasks.
pub const TASK: u8 = 2;
/// Flag of SEND with TASK: to the one with the least to do.
pub const ANY: u8 = 4;
/// Flag of SEND: as a NOTE, which is no event and waits behind none.
pub const NOTE: u8 = 8;
/// Flag of SEND: to a process that runs a function of its own.
pub const USER: u8 = 16;
/// Flag of REQUEST: the request that follows may be begun before DONE of this one is sent.
pub const TOGETHER: u8 = 4;
/// Flag of RESPONSE and BODY: the body goes on.
pub const MORE: u8 = 1;
/// Flag of REQUEST: the worker holds the body, and its payload has the body's length.
pub const HELD: u8 = 1;
/// Flag of RESPONSE: the body is a range of the file whose descriptor comes with the frame.
pub const FILE: u8 = 2;

/// Bytes of an answer's body that a process may send before the client has taken any.
pub const BODY_WINDOW: usize = 1 << 20;

/// What a process wants to be told, the flags of READY.
pub mod wants {
    /// OPEN that waits for its answer.
    pub const HANDSHAKE: u8 = 1;
    /// OPEN of clients that are in already.
    pub const OPEN: u8 = 2;
    /// MESSAGE.
    pub const MESSAGE: u8 = 4;
    /// CLOSE.
    pub const CLOSE: u8 = 8;
    /// REQUEST.
    pub const REQUEST: u8 = 16;
    /// ATTACH.
    pub const ATTACH: u8 = 32;
    /// Not a wish but a promise: one event is handled after the other.
    pub const IN_ORDER: u8 = 64;
    /// MESSAGE with the opcodes 9 and 10: pings and pongs, which the worker then does not answer.
    pub const CONTROL: u8 = 128;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The kind of a frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind of that number.
            pub fn from_number(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Facts a process starts with.
    Hello = 1,
    /// A client came.
    Open = 2,
    /// A client sent a message.
    Message = 3,
    /// A client is gone.
    Close = 4,
    /// A plain HTTP request.
    Request = 5,
    /// A client was taken over.
    Attach = 6,
    /// A period is over.
    Tick = 7,
    /// Another worker's application sent something.
    Pipe = 8,
    /// Finish and exit.
    Shutdown = 9,
    /// A user has come into a room that has presence, or has left it.
    Presence = 10,
    /// The application is loaded.
    Ready = 32,
    /// An event was handled.
    Done = 33,
    /// A message for one client.
    Push = 34,
    /// A message for all clients.
    Broadcast = 35,
    /// Close a client's connection.
    Disconnect = 36,
    /// Let a client in.
    Accept = 37,
    /// Keep a client out.
    Refuse = 38,
    /// The answer to a plain HTTP request.
    Response = 39,
    /// Ask what is known of a client.
    Info = 40,
    /// Ask whether a client is there.
    Exists = 41,
    /// Ask for the clients.
    List = 42,
    /// Keep bytes for the next process of a client.
    Keep = 43,
    /// Ask for ticks.
    Every = 44,
    /// Send bytes to another worker's application.
    Send = 45,
    /// Ask for counts.
    Stats = 46,
    /// The process ends by itself and begins no further event.
    End = 47,
    /// A part of an answer's body.
    Body = 48,
    /// Ask for a part of a request's body that the worker holds.
    Read = 49,
    /// Put a client into a room.
    Join = 50,
    /// Take a client out of a room.
    Leave = 51,
    /// Make a client a user's, or nobody's.
    Bind = 52,
    /// Keep something with a client's connection, as JSON.
    Session = 53,
    /// A message for the members of rooms, or for users.
    Publish = 54,
    /// Ask for the members of a room, or for the connections of a user.
    Members = 55,
    /// Leave a client alone when the idle are swept.
    Protect = 56,
    /// Close all connections of a user.
    CloseUser = 57,
    /// Close a client's connection at a time.
    Expire = 58,
    /// What became of a push or a disconnect.
    Verdict = 64,
    /// The answer to `Info`.
    InfoAnswer = 65,
    /// The answer to `Exists`.
    ExistsAnswer = 66,
    /// The answer to `List`.
    ListAnswer = 67,
    /// The answer to `Stats`.
    StatsAnswer = 68,
    /// What the client took of an answer's body.
    Taken = 69,
    /// What SEND sent as a note.
    Note = 70,
    /// A process that stood by has a place from now on.
    Place = 71,
    /// The answer to `Read`.
    Part = 72,
    /// What became of a publish.
    Tally = 73,
    /// The answer to `Members`.
    MembersAnswer = 74,
}

/// One frame. Which fields mean something depends on the kind; the others are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub kind: Kind,
    /// Bits.
    pub flags: u8,
    /// An opcode, a close code, a status.
    pub code: u16,
    /// Ties an answer to its question; not 0 for events.
    pub id: u32,
    /// The client, or 0; in PIPE and SEND a number of the sender's.
    pub fd: u64,
    /// The payload.
    pub body: Bytes,
}

impl Packet {
    /// A packet of that kind with everything else 0.
    pub fn new(kind: Kind) -> Packet {
        Packet { kind, flags: 0, code: 0, id: 0, fd: 0, body: Bytes::new() }
    }

    /// The same frame without its payload.
    pub fn head(&self) -> Packet {
        Packet {
            flags: self.flags,
            code: self.code,
            id: self.id,
            fd: self.fd,
            ..Packet::new(self.kind)
        }
    }

    /// The client that an event is of, if it is one's. The number of PIPE may be that of a client
    /// that has nothing to do with it.
    pub fn client(&self) -> Option<u64> {
        (self.kind != Kind::Pipe && self.fd != 0).then_some(self.fd)
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + self.body.len());
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        debug_assert_eq!(length as usize, self.body.len(), "payloads are limited long before");
        out.put_u32_le(length);
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags);
        out.put_u16_le(self.code);
        out.put_u32_le(self.id);
        out.put_u64_le(self.fd);
        out.put_slice(&self.body);
    }

    /// Bytes the frame takes on the socket.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// What is wrong with bytes from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// No frame has that kind.
    Kind(u8),
    /// The payload is longer than `frame_max`.
    Length(u32),
    /// The payload ends inside a string or a list of fields.
    Payload(Kind),
    /// A field of the header, or the payload, has a value that makes no sense for this kind.
    Value(Kind),
    /// The other side must not send this, or not now.
    Unexpected(Kind),
    /// READY chose this version, which is not spoken here.
    Version(u16),
    /// An answer that HTTP cannot carry, as the text says.
    Answer(String),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Kind(number) => write!(f, "a frame of unknown kind {number}"),
            Broken::Length(bytes) => write!(f, "a frame with {bytes} bytes, over the limit"),
            Broken::Payload(kind) => write!(f, "a {kind:?} whose payload ends too early"),
            Broken::Value(kind) => write!(f, "a {kind:?} with a value out of range"),
            Broken::Unexpected(kind) => write!(f, "a {kind:?} that has no place here"),
            Broken::Version(version) => write!(
                f,
                "the application speaks version {version} of the app protocol, and this server \
                 {VERSION}: install the client library of the same release"
            ),
            Broken::Answer(what) => write!(f, "an answer that cannot be sent: {what}"),
        }
    }
}

impl std::error::Error for Broken {}

/// Takes the first whole frame off `input`; `None` when more bytes are needed.
pub fn decode(input: &mut BytesMut, payload_max: usize) -> Result<Option<Packet>, Broken> {
    let Some(mut header) = input.get(..HEADER_BYTES) else { return Ok(None) };
    let length = header.get_u32_le();
    let number = header.get_u8();
    let kind = Kind::from_number(number).ok_or(Broken::Kind(number))?;
    if length as usize > payload_max {
        return Err(Broken::Length(length));
    }
    let (flags, code, id, fd) =
        (header.get_u8(), header.get_u16_le(), header.get_u32_le(), header.get_u64_le());
    let whole = HEADER_BYTES + length as usize;
    if input.len() < whole {
        input.reserve(whole - input.len());
        return Ok(None);
    }
    let mut frame = input.split_to(whole);
    frame.advance(HEADER_BYTES);
    Ok(Some(Packet { kind, flags, code, id, fd, body: frame.freeze() }))
}

/// Takes the header of a frame that [`decode`] found too long off `input`: the frame without its
/// payload, and how many bytes of payload are to be skipped.
pub fn decode_too_long(input: &mut BytesMut) -> Option<(Packet, usize)> {
    let mut header = input.get(..HEADER_BYTES)?;
    let length = header.get_u32_le() as usize;
    let kind = Kind::from_number(header.get_u8())?;
    let (flags, code, id, fd) =
        (header.get_u8(), header.get_u16_le(), header.get_u32_le(), header.get_u64_le());
    input.advance(HEADER_BYTES);
    Some((Packet { kind, flags, code, id, fd, body: Bytes::new() }, length))
}

/// Header fields: names and values.
pub type Fields = Vec<(Bytes, Bytes)>;

/// Appends a string.
pub fn put_string(out: &mut BytesMut, text: &[u8]) {
    out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text);
}

/// Appends fields.
pub fn put_fields<'a>(
    out: &mut BytesMut,
    fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
) {
    out.put_u32_le(u32::try_from(fields.len()).unwrap_or(u32::MAX));
    for (name, value) in fields {
        put_string(out, name);
        put_string(out, value);
    }
}

/// Takes a string off the front; `None` where it is cut short.
pub fn take_string(body: &mut Bytes) -> Option<Bytes> {
    let length = take_u32(body)? as usize;
    (length <= body.len()).then(|| body.split_to(length))
}

/// Takes fields off the front; `None` where they are cut short.
pub fn take_fields(body: &mut Bytes) -> Option<Fields> {
    let count = take_u32(body)? as usize;
    // Eight bytes is the least a field takes, so a lying count reserves no more than there is.
    let mut fields = Vec::with_capacity(count.min(body.len() / 8));
    for _ in 0..count {
        fields.push((take_string(body)?, take_string(body)?));
    }
    Some(fields)
}

fn take_u32(body: &mut Bytes) -> Option<u32> {
    (body.len() >= 4).then(|| body.get_u32_le())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
