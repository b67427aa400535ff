//! What is sent to the members of rooms.

use bytes::Bytes;

use super::Topic;
use crate::api::{Message, Opcode};
use crate::fd::Fd;

/// A message to all members of some topics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// Whose members; at most [`TOPICS_MAX`](super::TOPICS_MAX).
    pub topics: Vec<Topic>,
    /// A client to leave out.
    pub except: Option<Fd>,
    /// What.
    pub opcode: Opcode,
    /// The payload.
    pub data: Bytes,
}

impl Publish {
    /// A message to the members of these.
    pub fn new(topics: Vec<Topic>, message: Message<'_>) -> Publish {
        let Message { opcode, data } = message;
        Publish { topics, except: None, opcode, data: data.into_bytes() }
    }

    /// Not to this client.
    pub fn except(mut self, fd: Fd) -> Publish {
        self.except = Some(fd);
        self
    }
}
