//! Rooms, users and sessions: what they are called, what is asked of them, what is answered.
//!
//! - here: the names and values that workers, the manager and handlers share.
//! - `context`: the calls of [`Context`](super::Context).
//! - `handle`: the same calls of [`Handle`](super::Handle), for other threads.

mod context;
mod handle;
mod presence;
mod publish;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::presence::missing;
pub use self::presence::{PresenceEvent, PresenceList, Present};
pub use self::publish::Publish;
use super::{Opcode, Verdict};
use crate::fd::Fd;

/// The most topics that one publish may name.
pub const TOPICS_MAX: usize = 128;
/// How many members a worker lists at most in one answer; [`Context::count`] has no such limit.
///
/// [`Context::count`]: super::Context::count
pub const MEMBERS_MAX: usize = 16_384;

/// Bytes of the longest name of a room and of the longest uid that any configuration allows.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Bytes of the longest info of a member that any configuration allows.
pub(crate) const INFO_BYTES_MAX: usize = 64 * 1024;

/// What clients can be reached by together: a room, or a user, who is whatever connections the
/// same uid was bound to. The two never meet: a room may have the name of a user.
///
/// Ordered and compared as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(Box<str>);

impl Topic {
    const ROOM: char = '#';
    const USER: char = '@';

    /// A room.
    pub fn room(name: &str) -> Topic {
        Topic::of(Topic::ROOM, name)
    }

    /// A user.
    pub fn user(uid: &str) -> Topic {
        Topic::of(Topic::USER, uid)
    }

    fn of(kind: char, name: &str) -> Topic {
        let mut topic = String::with_capacity(1 + name.len());
        topic.push(kind);
        topic.push_str(name);
        Topic(topic.into_boxed_str())
    }

    /// Whether it is a user.
    pub fn is_user(&self) -> bool {
        self.0.starts_with(Topic::USER)
    }

    /// The room's name, or the user's uid.
    pub fn name(&self) -> &str {
        self.0.get(1..).unwrap_or_default()
    }

    /// Bytes that it takes in a map.
    pub(crate) fn weight(&self) -> usize {
        self.0.len() + 64
    }

    /// Whether no configuration allows a name that is so long.
    pub(crate) fn is_too_long(&self) -> bool {
        self.name().len() > NAME_BYTES_MAX
    }

    /// The name with the character in front that tells rooms and users apart.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is changed of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Change {
    /// It joins a room.
    Join {
        /// Its name.
        room: String,
        /// What presence shows of the member there, as JSON.
        info: Option<String>,
    },
    /// It leaves a room.
    Leave {
        /// Its name.
        room: String,
    },
    /// It is a user's from here on, and no other's.
    Bind {
        /// Whose.
        uid: String,
    },
    /// It is nobody's any more.
    Unbind,
    /// What the application keeps of it, as JSON; `None`: nothing.
    Session(Option<String>),
    /// It is closed then, in milliseconds since 1970; `None`: it is not.
    ExpireAt(Option<u64>),
}

impl Change {
    /// A join of which presence shows something; `None`, with a line in the log, where that is no
    /// JSON.
    fn join_with(fd: Fd, room: &str, info: &impl Serialize) -> Option<Change> {
        match serde_json::to_string(info) {
            Ok(info) => Some(Change::Join { room: room.to_owned(), info: Some(info) }),
            Err(error) => {
                tracing::error!(fd = fd.as_u64(), %error, "the info of a join is no JSON");
                None
            }
        }
    }

    /// The topic that the connection is in from here on.
    pub fn joins(&self) -> Option<Topic> {
        match self {
            Change::Join { room, .. } => Some(Topic::room(room)),
            Change::Bind { uid } => Some(Topic::user(uid)),
            _ => None,
        }
    }

    /// Bytes of what is written in it.
    pub fn weight(&self) -> usize {
        match self {
            Change::Join { room, info } => room.len() + info.as_ref().map_or(0, String::len),
            Change::Leave { room } => room.len(),
            Change::Bind { uid } => uid.len(),
            Change::Session(json) => json.as_ref().map_or(0, String::len),
            Change::Unbind | Change::ExpireAt(_) => 0,
        }
    }
}

/// What is asked of all members of some topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Of these; who is in several is asked once.
    pub topics: Vec<Topic>,
    /// A client to leave out; 0: none.
    pub except: u64,
    /// What.
    pub act: Act,
}

impl Call {
    /// Bytes of the topics that it names.
    pub fn weight(&self) -> usize {
        self.topics.iter().map(|topic| topic.as_str().len() + size_of::<Topic>()).sum()
    }
}

/// What becomes of each member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Act {
    /// It is sent a message.
    Publish(Opcode),
    /// It is closed.
    Close {
        /// With this code.
        code: u16,
        /// Whether an operator asked (else a handler).
        operator: bool,
    },
    /// It is counted.
    Count,
    /// It is listed, if it is a member of all of the topics; of no topic, each connection that
    /// has a user is. Each worker lists those with the smallest numbers above one.
    List {
        /// The number below the first.
        after: u64,
        /// How many at most of each worker.
        limit: u32,
    },
    /// The rooms are listed, with how many members each has: of each worker those with the
    /// smallest names above the topic that is the body; an empty body is below all.
    Rooms {
        /// How many at most of each worker.
        limit: u32,
    },
}

/// What became of a publish that was confirmed: the sum of what the workers say, each of its own
/// members. Nothing in it is a guess: who did not answer within 5 seconds is told as that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tally {
    /// Members in whose queue the message is.
    pub queued: u64,
    /// Members whose queue was full, or who were on their way to another worker.
    pub full: u64,
    /// Workers that may have members, the caller's own among them.
    pub workers: u32,
    /// How many of these have answered.
    pub answered: u32,
    /// How many of these could not be asked, since what waits for them is at its limit.
    pub refused: u32,
    /// The other nodes of the cluster; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// Whether the cluster's engine carried the question; `None` without a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineWord>,
}

/// The other nodes, in a [`Tally`] or a [`PresenceList`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Nodes {
    /// How many have subscribed and so were asked, by the engine's word; `None` where nobody
    /// knows.
    pub asked: Option<u32>,
    /// How many of these have answered for all of their workers.
    pub answered: u32,
}

/// Whether the engine of a cluster was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineWord {
    /// It took what was sent.
    Ok,
    /// It did not: only this node was asked.
    Away,
}

impl Tally {
    /// Whether every worker that may have members has answered, on every node.
    pub fn is_whole(&self) -> bool {
        let nodes = self.nodes.is_none_or(|nodes| nodes.asked == Some(nodes.answered));
        self.answered == self.workers && nodes
    }

    /// For people: who has not answered, or was not asked; empty where the tally is whole.
    pub(crate) fn missing(&self) -> String {
        let mut missing = Vec::new();
        if self.refused > 0 {
            missing.push(format!("{} could not be asked", workers(self.refused)));
        }
        let silent = self.workers.saturating_sub(self.answered + self.refused);
        if silent > 0 {
            missing.push(format!("{silent} of {} did not answer", workers(self.workers)));
        }
        match (self.engine, self.nodes) {
            (Some(EngineWord::Away), _) => {
                missing.push("other nodes were not asked: the engine is away".to_owned());
            }
            (_, Some(Nodes { asked: None, .. })) => {
                missing.push("nobody knows of other nodes".to_owned());
            }
            (_, Some(Nodes { asked: Some(asked), answered })) if answered < asked => {
                missing.push(format!("{} of {asked} nodes did not answer", asked - answered));
            }
            _ => {}
        }
        missing.join(", ")
    }

    /// The tally as a verdict: `Gone` if nobody was there.
    pub fn verdict(&self) -> Verdict {
        match self {
            Tally { queued: 1.., .. } => Verdict::Queued,
            Tally { full: 1.., .. } | Tally { refused: 1.., .. } => Verdict::Full,
            tally if tally.is_whole() => Verdict::Gone,
            _ => Verdict::Unknown,
        }
    }
}

/// For people: how many got it, and what is not known.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queued for {}", self.queued)?;
        if self.full > 0 {
            write!(f, ", refused by {} whose queue is full", self.full)?;
        }
        match self.missing() {
            nobody if nobody.is_empty() => Ok(()),
            missing => write!(f, ", {missing}"),
        }
    }
}

fn workers(count: u32) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The client.
    pub fd: Fd,
    /// Whose connection it is, if it was bound.
    pub uid: Option<String>,
}

impl Member {
    /// A member.
    pub fn new(fd: Fd, uid: Option<String>) -> Member {
        Member { fd, uid }
    }

    /// Bytes that it takes in a list that grows.
    pub(crate) fn weight(&self) -> usize {
        2 * size_of::<Member>() + self.uid.as_ref().map_or(0, |uid| uid.len() + 16)
    }
}

/// What a connection has besides its request: on the worker that has the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Belongings {
    /// The rooms it is in, in the order of their joins where none was left.
    pub rooms: Vec<String>,
    /// The user it is bound to.
    pub uid: Option<String>,
    /// What the application keeps of it, as JSON.
    pub session: Option<String>,
}

/// Why a session cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// This worker has no such client.
    NotHere,
    /// What is kept is not what was asked for, and why: another version of the application kept
    /// it. It is still there, and the connection lives.
    Unreadable(String),
    /// It cannot be written as JSON, and why.
    Unwritable(String),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::NotHere => f.write_str("this worker has no such client"),
            SessionError::Unreadable(why) => write!(f, "the session cannot be read: {why}"),
            SessionError::Unwritable(why) => write!(f, "the session cannot be written: {why}"),
        }
    }
}

impl std::error::Error for SessionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_and_a_user_of_one_name_are_two() {
        let (room, user) = (Topic::room("7"), Topic::user("7"));
        assert_ne!(room, user);
        assert_eq!((room.name(), user.name()), ("7", "7"));
        assert!(user.is_user() && !room.is_user());
        assert_eq!(Topic::room("").name(), "");
        assert_eq!(Topic::room("\u{e9}t\u{e9}").name(), "\u{e9}t\u{e9}");
    }

    #[test]
    fn a_tally_says_what_is_known() {
        let tally = |queued, full, workers, answered, refused| Tally {
            queued,
            full,
            workers,
            answered,
            refused,
            ..Tally::default()
        };
        assert_eq!(tally(3, 0, 2, 2, 0).to_string(), "queued for 3");
        assert_eq!(
            tally(3, 1, 4, 2, 1).to_string(),
            "queued for 3, refused by 1 whose queue is full, 1 worker could not be asked, \
             1 of 4 workers did not answer"
        );
        assert_eq!(tally(0, 0, 1, 1, 0).verdict(), Verdict::Gone);
        assert_eq!(tally(0, 0, 2, 1, 0).verdict(), Verdict::Unknown);
        assert_eq!(tally(0, 2, 1, 1, 0).verdict(), Verdict::Full);
        assert_eq!(tally(1, 2, 3, 1, 0).verdict(), Verdict::Queued);
    }
}
