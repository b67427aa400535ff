//! What clients and handlers say to each other: numbered, addressed and checksummed packets.
//!
//! A client *asks*, counting its asks from 1. Each ask is answered once, in order: an echo by
//! itself, all others by a verdict. A push or broadcast reaches its targets as a packet with the
//! asker's fd and the number of the ask, so a target can tell who sent what, and in which order.
//!
//! `to` names a client, or one of a few rooms or uids by its number.

use wsd::api::{Frame, Message, Opcode, Verdict};

use crate::rng::Rng;

const MAGIC: u8 = 0x4e;
const HEAD_BYTES: usize = 2 + 5 * 8;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The server's first word: `to` is the client's fd.
    Hello = 1,
    Echo,
    /// A push whose verdict is only its worker's.
    Push,
    /// A push with the verdict of the worker that owns the target.
    Confirmed,
    Broadcast,
    /// The answer to all asks but echoes and joins.
    Verdict,
    /// The asker joins a room, confirmed.
    Join,
    /// The answer to a join; the body has the uids of those who are present, a byte for each.
    Joined,
    /// The asker leaves a room.
    Leave,
    /// A publish to a room.
    Publish,
    /// A publish whose verdict is the tally of all workers.
    Tallied,
    /// The asker is bound to a uid, confirmed.
    Bind,
    /// A publish to a uid.
    PushUid,
    /// The target is put into the room `extra`, and this goes to the room right behind.
    Enlist,
    /// The user `from` has come into the room `to`, if `extra` is 1, or else left.
    Presence,
}

const KINDS: [Kind; 15] = [
    Kind::Hello,
    Kind::Echo,
    Kind::Push,
    Kind::Confirmed,
    Kind::Broadcast,
    Kind::Verdict,
    Kind::Join,
    Kind::Joined,
    Kind::Leave,
    Kind::Publish,
    Kind::Tallied,
    Kind::Bind,
    Kind::PushUid,
    Kind::Enlist,
    Kind::Presence,
];

const VERDICTS: [Verdict; 8] = [
    Verdict::Queued,
    Verdict::Relayed,
    Verdict::Full,
    Verdict::Gone,
    Verdict::TooBig,
    Verdict::Unknown,
    Verdict::NoUser,
    Verdict::LocalOnly,
];

/// Rooms in all, and how many of these have presence: the first.
pub const ROOMS: u64 = 6;
pub const PRESENCE_ROOMS: u64 = 2;
/// Users that clients are bound to in turns.
pub const UIDS: u64 = 8;
/// Users in all: with those that stay, one for each node at most.
pub const UIDS_ALL: u64 = UIDS + 8;

/// What the rooms with presence begin with.
pub const PRESENCE: &str = "presence-";

/// The name of a room.
pub fn room(number: u64) -> String {
    match number < PRESENCE_ROOMS {
        true => format!("{PRESENCE}{number}"),
        false => format!("room-{number}"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub kind: Kind,
    /// The number of the ask.
    pub n: u64,
    /// The asker's fd.
    pub from: u64,
    /// The target's fd, 0 for everybody, or the number of a room or uid.
    pub to: u64,
    /// The pid of the worker that answers, and above its 32 bits the verdict; or what the kind
    /// says.
    pub extra: u64,
    pub body: Vec<u8>,
}

impl Packet {
    pub fn new(kind: Kind, n: u64, from: u64, to: u64) -> Packet {
        Packet { kind, n, from, to, extra: 0, body: Vec::new() }
    }

    /// With the body that belongs to its sender and number, and to no other.
    pub fn filled(mut self, len: usize) -> Packet {
        self.body = body(self.from, self.n, len);
        self
    }

    pub fn with(mut self, pid: u32, verdict: Verdict) -> Packet {
        let code = VERDICTS.iter().position(|known| *known == verdict).unwrap_or(0);
        self.extra = u64::from(pid) | (code as u64) << 32;
        self
    }

    pub fn pid(&self) -> i32 {
        self.extra as u32 as i32
    }

    pub fn verdict(&self) -> Option<Verdict> {
        VERDICTS.get((self.extra >> 32) as usize).copied()
    }

    /// Whether its body is the one its sender gave it.
    pub fn is_whole(&self) -> bool {
        let is_the_servers = matches!(self.kind, Kind::Hello | Kind::Joined | Kind::Presence);
        is_the_servers || self.body == body(self.from, self.n, self.body.len())
    }

    /// As it goes over the wire; as text it is hexadecimal.
    pub fn encode(&self, opcode: Opcode) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.body.len());
        bytes.extend([MAGIC, self.kind as u8]);
        for word in [self.n, self.from, self.to, self.extra] {
            bytes.extend(word.to_be_bytes());
        }
        let sum = fnv(&bytes) ^ fnv(&self.body).rotate_left(1);
        bytes.extend(sum.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        match opcode {
            Opcode::Binary => bytes,
            _ => data_encoding::HEXLOWER.encode(&bytes).into_bytes(),
        }
    }

    pub fn message(&self, opcode: Opcode) -> Message<'static> {
        Message { opcode, data: self.encode(opcode).into() }
    }

    /// `None` for anything that is not a whole packet with the right sum.
    pub fn decode(opcode: Opcode, data: &[u8]) -> Option<Packet> {
        let text;
        let data = match opcode {
            Opcode::Binary => data,
            _ => {
                text = data_encoding::HEXLOWER.decode(data).ok()?;
                &text
            }
        };
        let (head, body) = data.split_at_checked(HEAD_BYTES)?;
        let word = |index: usize| {
            let bytes = head[2 + index * 8..].first_chunk::<8>().copied().unwrap_or_default();
            u64::from_be_bytes(bytes)
        };
        let sum = fnv(&head[..HEAD_BYTES - 8]) ^ fnv(body).rotate_left(1);
        if head[0] != MAGIC || sum != word(4) {
            return None;
        }
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == head[1])?;
        let [n, from, to, extra] = [0, 1, 2, 3].map(word);
        Some(Packet { kind, n, from, to, extra, body: body.to_vec() })
    }

    pub fn of(frame: &Frame) -> Option<Packet> {
        Packet::decode(frame.opcode, &frame.data)
    }
}

fn body(from: u64, n: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::of(from, n);
    let mut body = Vec::with_capacity(len + 16);
    while body.len() < len {
        let mut word = rng.next();
        // Sixteen letters: it shrinks by half when it is compressed.
        for _ in 0..16 {
            body.push(b'a' + (word & 15) as u8);
            word >>= 4;
        }
    }
    body.truncate(len);
    body
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
