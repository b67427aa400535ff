//! The format between nodes: a header, a message, and a body.
//!
//! ```text
//! envelope = "wsd" version:u8 node:u8 zero:u8 message_len:u16 boot:u64   then message, then body
//! ```
//!
//! All numbers little-endian. The header says which run of which node sent it; the message is one
//! of [`NodeMessage`]; the body is a user's bytes. `tests/golden/envelope-1` has the bytes of every
//! message as they were released: nodes of different versions serve beside each other while a
//! cluster is upgraded, so that a message is only ever added, at the end.

use serde::{Deserialize, Serialize};

use super::nodes::NodeId;
use crate::api::rooms::{Call, Change, Member, Topic};
use crate::api::{Info, Opcode, Verdict};
use crate::error::{Error, Result};
use crate::ipc::codec;

/// The version of the format. Nodes that speak different ones do not share a cluster.
pub const ENVELOPE_VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of the largest body that travels between nodes.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

const MAGIC: [u8; 3] = *b"wsd";

/// What one node says to another.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// A message for one of your clients. Body: the payload.
    Push {
        /// 0: no verdict wanted.
        id: u64,
        /// The client.
        fd: u64,
        /// What it is.
        opcode: Opcode,
    },
    /// Close one of your clients. Body: the reason.
    Close {
        /// 0: no verdict wanted.
        id: u64,
        /// The client.
        fd: u64,
        /// The close code.
        code: u16,
        /// Whether an operator asked (else a handler).
        operator: bool,
    },
    /// What do you know of this client?
    Info {
        /// Which question.
        id: u64,
        /// The client.
        fd: u64,
    },
    /// Leave one of your clients alone when the idle are swept, or do so no more.
    Protect {
        /// 0: no verdict wanted.
        id: u64,
        /// The client.
        fd: u64,
        /// Whether it is left alone.
        on: bool,
    },
    /// Change something of one of your clients.
    Change {
        /// 0: no verdict wanted.
        id: u64,
        /// The client.
        fd: u64,
        /// What.
        change: Change,
    },
    /// What became of your message to a client.
    Verdict {
        /// Which.
        id: u64,
        /// What.
        verdict: Verdict,
    },
    /// The answer to your `Info`.
    InfoAnswer {
        /// Which question.
        id: u64,
        /// `None`: gone.
        info: Option<Info>,
    },
    /// A message for your members of some topics, or a question about them. Body: the payload, or
    /// the reason of a close.
    Call {
        /// 0: no tally wanted.
        id: u64,
        /// What.
        call: Call,
    },
    /// A message for all of your clients. Body: the payload.
    Broadcast {
        /// What it is.
        opcode: Opcode,
        /// A client to leave out; 0: none.
        except: u64,
    },
    /// What became of your `Call` here: the end of the answer.
    Tally {
        /// Which.
        id: u64,
        /// Members that were reached.
        queued: u64,
        /// Members that were not.
        full: u64,
        /// Whether every worker here has answered.
        whole: bool,
    },
    /// A part of the answer to a `Call` for a list; its `Tally` follows.
    Members {
        /// Which.
        id: u64,
        /// Some members.
        part: Vec<Member>,
    },
    /// A part of the answer to a `Call` for the rooms; its `Tally` follows.
    Rooms {
        /// Which.
        id: u64,
        /// Some rooms, and how many members each has here.
        part: Vec<(Topic, u64)>,
    },
    /// To oneself, to see whether what is published comes back.
    Probe {
        /// Which.
        number: u64,
    },
    /// This run of the node leaves.
    Leaving,
    /// So many connections of a user are in a room here that has presence. Body: what the user
    /// gave as info.
    Present {
        /// The room.
        room: Topic,
        /// Who.
        uid: String,
        /// How many; 0: none any more.
        count: u32,
    },
    /// Who is present in this room by your clients?
    PresenceAsk {
        /// Which question.
        id: u64,
        /// The room.
        room: Topic,
    },
    /// Who is present in a room by clients here, all of them. Body: the list.
    PresenceList {
        /// The question that it answers; 0: none.
        id: u64,
        /// The room.
        room: Topic,
    },
    /// In which rooms somebody is present by clients here; in no other is anybody. Body: the list.
    PresenceRooms {
        /// Whether it answers yours. One that does not is answered with yours.
        is_answer: bool,
    },
}

/// The header of an envelope that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub from: NodeId,
    message_len: usize,
}

impl Header {
    /// Whether the message has no fields, as [`NodeMessage::Leaving`].
    pub fn is_bare(&self) -> bool {
        self.message_len == size_of::<u32>()
    }
}

/// Writes an envelope.
///
/// # Errors
/// When the message is larger than one may be.
pub fn write(from: NodeId, message: &NodeMessage, body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 64 + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[ENVELOPE_VERSION, from.node, 0, 0, 0]);
    bytes.extend_from_slice(&from.boot.to_le_bytes());
    let len = codec::encode(message, &mut bytes)?;
    let len = u16::try_from(len)
        .map_err(|_| Error::new("a message to another node is too long for its envelope"))?;
    bytes[6..8].copy_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Reads the header alone: who sent it.
///
/// # Errors
/// When the bytes are no envelope, or one of another version.
pub fn read_header(bytes: &[u8]) -> Result<Header> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Error::new("an envelope is shorter than its header"));
    };
    let [m0, m1, m2, version, node, _, l0, l1, boot @ ..] = *header;
    if [m0, m1, m2] != MAGIC {
        return Err(Error::new("what came on a channel of the cluster is no envelope"));
    }
    if version != ENVELOPE_VERSION {
        let ours = ENVELOPE_VERSION;
        return Err(Error::new(format!("an envelope of version {version}; ours is {ours}")));
    }
    let message_len = usize::from(u16::from_le_bytes([l0, l1]));
    if message_len > rest.len() || rest.len() - message_len > BODY_BYTES_MAX {
        return Err(Error::new("an envelope is cut short, or too long"));
    }
    let from = NodeId { node, boot: u64::from_le_bytes(boot) };
    Ok(Header { from, message_len })
}

/// Reads an envelope: who sent it, what, and the body.
///
/// # Errors
/// When the bytes are no envelope of this version.
pub fn read(bytes: &[u8]) -> Result<(NodeId, NodeMessage, &[u8])> {
    let header = read_header(bytes)?;
    let (message, body) = bytes[HEADER_BYTES..].split_at(header.message_len);
    Ok((header.from, codec::decode(message)?, body))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use data_encoding::HEXLOWER;

    use super::*;
    use crate::api::rooms::Act;
    use crate::ipc::golden::lines;

    const RELEASED: &str = include_str!("../../../tests/golden/envelope-1");
    const FROM: NodeId = NodeId { node: 5, boot: 0x0102_0304_0506_0708 };

    fn samples() -> Vec<(NodeMessage, &'static [u8])> {
        let call = Call {
            topics: vec![Topic::room("r\u{e9}"), Topic::user("u")],
            except: 9,
            act: Act::Publish(Opcode::Text),
        };
        let fd = (6 << 47) | 7;
        let client = crate::fd::Fd::try_from(fd).unwrap();
        vec![
            (NodeMessage::Push { id: 1, fd, opcode: Opcode::Binary }, b"hello"),
            (NodeMessage::Close { id: 2, fd, code: 4000, operator: true }, b"bye"),
            (NodeMessage::Info { id: 3, fd }, b""),
            (NodeMessage::Protect { id: 4, fd, on: true }, b""),
            (
                NodeMessage::Change {
                    id: 5,
                    fd,
                    change: Change::Join { room: "r".to_owned(), info: Some("{}".to_owned()) },
                },
                b"",
            ),
            (NodeMessage::Verdict { id: 6, verdict: Verdict::Gone }, b""),
            (NodeMessage::InfoAnswer { id: 7, info: Some(crate::ipc::golden::info()) }, b""),
            (NodeMessage::Call { id: 8, call }, b"hello"),
            (NodeMessage::Broadcast { opcode: Opcode::Text, except: 9 }, b"hello"),
            (NodeMessage::Tally { id: 10, queued: 2, full: 1, whole: true }, b""),
            (
                NodeMessage::Members {
                    id: 11,
                    part: vec![Member::new(client, Some("u".to_owned()))],
                },
                b"",
            ),
            (NodeMessage::Rooms { id: 12, part: vec![(Topic::room("r"), 3)] }, b""),
            (NodeMessage::Probe { number: 13 }, b""),
            (NodeMessage::Leaving, b""),
            (
                NodeMessage::Present { room: Topic::room("r"), uid: "u".to_owned(), count: 2 },
                b"{}",
            ),
            (NodeMessage::PresenceAsk { id: 14, room: Topic::room("r") }, b""),
            (NodeMessage::PresenceList { id: 14, room: Topic::room("r") }, b""),
            (NodeMessage::PresenceRooms { is_answer: true }, b""),
        ]
    }

    #[test]
    fn every_message_between_nodes_stays_as_it_was_released() {
        let released = lines(RELEASED);
        let (mut missing, mut seen) = (String::new(), BTreeSet::new());
        for (index, (message, body)) in samples().into_iter().enumerate() {
            let bytes = write(FROM, &message, body).unwrap();
            let place = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
            assert_eq!(place, index as u32, "a message was not added at the end");
            let said = format!("{message:?}");
            let name = said.split([' ', '{']).next().unwrap_or_default().to_owned();
            match released.get(&name) {
                Some(golden) => assert_eq!(&bytes, golden, "{name} has changed"),
                None => missing += &format!("{name} {}\n", HEXLOWER.encode(&bytes)),
            }
            let (from, read, rest) = read(&bytes).unwrap();
            assert_eq!((from, format!("{read:?}"), rest), (FROM, said, body));
            seen.insert(name);
        }
        assert!(missing.is_empty(), "to be added to tests/golden/envelope-1:\n{missing}");
        let gone: Vec<_> = released.keys().filter(|name| !seen.contains(*name)).collect();
        assert!(gone.is_empty(), "released and gone: {gone:?}");
    }

    #[test]
    fn what_is_no_envelope_of_ours_is_an_error() {
        let good = write(FROM, &NodeMessage::Probe { number: 1 }, b"x").unwrap();
        for cut in 0..good.len() - 1 {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = good.clone();
        other[3] = 2;
        assert!(read(&other).unwrap_err().to_string().contains("version 2"));
        let mut other = good.clone();
        other[0] = b'x';
        assert!(read(&other).is_err());
        let mut other = good;
        other[16..20].copy_from_slice(&1_000_u32.to_le_bytes());
        assert!(read(&other).is_err());
    }
}
