//! The control protocol: what the command line, or any program in any language, says to the
//! manager over the control socket.
//!
//! A request is one JSON object on a line; `push` and `broadcast` are followed by exactly `bytes`
//! bytes of body. The answer is one JSON object on a line that has `ok`; a list sends its objects
//! first, one a line, none of which has `ok`. A connection may carry any number of requests, one
//! after the other. `docs/ipc.md` shows it in use.

mod answer;
mod client;
mod report;
mod running_server;

pub use answer::Answer;
pub use client::{Control, ControlError};
pub use report::{
    ClusterReport, Connection, CourierReport, ManagerReport, NodeReport, NodeState, ProcessReport,
    ReloadReport, ReloadState, ReloadVerdict, Restarts, Room, SlotVerdict, Status, Throttled,
    WorkerReport, WorkerState,
};
pub use running_server::{Holder, LOCK_FILE, Master, RunningServer, whole_file};

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::messages::StopMode;
use crate::api::Opcode;
use crate::api::rooms::Topic;
use crate::fd::Fd;

/// The control socket's name in `runtime_dir`.
pub const CONTROL_SOCKET: &str = "wsd.sock";
/// How the refusal of an upgrade ends while there is one, or a reload.
pub const UNDER_WAY: &str = "a reload or an upgrade is under way";
/// The answer to who waits for an upgrade that this manager knows nothing of.
pub const NONE_UNDER_WAY: &str = "no upgrade is under way";
/// Bytes of a request line, its end included: the longest names of as many rooms as a publish may
/// name fit.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a body.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum Request {
    /// Is anybody there? Answers with `pid` and `version` of the manager.
    Ping {},
    /// Everything in [`Status`].
    Status {},
    /// Streams a [`Connection`] for each open connection of this node, or for each of the cluster
    /// that is in a room or is a user's, then `ok` with their `count`.
    Connections {
        /// Of this room alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// Of this user alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
        /// On this node alone, as without a room and a user.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Streams an [`Info`](crate::api::Info) for each client that does not read, the one with the
    /// most bytes that wait first, at most 100; then `ok` with their `count`, and how many workers
    /// did not answer within a second (`silent_workers`).
    Slow {},
    /// Pushes the body to a client. Answers with the owner's `verdict`.
    Push {
        /// To whom.
        fd: Fd,
        /// As what.
        #[serde(default)]
        opcode: BodyKind,
        /// How long the body is.
        bytes: usize,
    },
    /// Pushes the body to every client. Answers with the number of `workers` it went to, and in a
    /// cluster with the verdict `relayed` or, where no other node has it, `local_only`.
    Broadcast {
        /// As what.
        #[serde(default)]
        opcode: BodyKind,
        /// How long the body is.
        bytes: usize,
        /// A client to leave out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        except: Option<Fd>,
        /// On this node alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Streams a [`NodeReport`] for each node of the cluster, then `ok` with their `count`.
    Nodes {},
    /// Streams a [`Room`] for each room with members, then `ok` with their `count`.
    Rooms {
        /// On this node alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Streams a [`Member`](crate::api::rooms::Member) for each member of a room or each
    /// connection of a user, then `ok` with their `count`.
    Members {
        /// Of this room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// Of this user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
        /// On this node alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Sends the body to the members of a room, or of several, or to a user. Answers with the
    /// [`Tally`](crate::api::rooms::Tally).
    Publish {
        /// To this room, or to each member of these rooms once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<Rooms>,
        /// To this user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
        /// As what.
        #[serde(default)]
        opcode: BodyKind,
        /// How long the body is.
        bytes: usize,
        /// A client to leave out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        except: Option<Fd>,
        /// On this node alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Closes every connection of a user. Answers with the [`Tally`](crate::api::rooms::Tally).
    CloseUser {
        /// Whose.
        uid: String,
        /// The close code (RFC 6455 section 7.4).
        #[serde(default = "normal_close")]
        code: u16,
        /// The reason, at most 123 bytes.
        #[serde(default)]
        reason: String,
        /// On this node alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        here: bool,
    },
    /// Puts a client into a room. Answers with the `verdict`, when every publish finds the member.
    Join {
        /// Whom.
        fd: Fd,
        /// Where.
        room: String,
        /// What presence shows of the client there; left out, what it shows already or nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        info: Option<serde_json::Value>,
    },
    /// Takes a client out of a room. Answers with the owner's `verdict`.
    Leave {
        /// Whom.
        fd: Fd,
        /// Where.
        room: String,
    },
    /// Makes a client a user's, or nobody's. Answers as `join`.
    Bind {
        /// Whom.
        fd: Fd,
        /// Whose; left out, nobody's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
    /// Keeps the body, which is JSON, with a client's connection. Answers with the owner's
    /// `verdict`. `info` shows what is kept.
    Session {
        /// Whose.
        fd: Fd,
        /// How long the body is; 0: nothing is kept any more.
        bytes: usize,
    },
    /// Closes a client's connection. Answers with the owner's `verdict`.
    Close {
        /// Whose.
        fd: Fd,
        /// The close code (RFC 6455 section 7.4).
        #[serde(default = "normal_close")]
        code: u16,
        /// The reason, at most 123 bytes.
        #[serde(default)]
        reason: String,
    },
    /// What the owner knows of a client, as `info`.
    Info {
        /// Whom.
        fd: Fd,
    },
    /// Reloads and answers with the [`ReloadVerdict`] when the new generation serves.
    Reload {},
    /// Answers with the verdict of the reload or upgrade that runs, or else with the last one,
    /// or else with the next one.
    Wait {
        /// Whether an upgrade was asked for: then not with the next one, for the request may have
        /// died with the manager before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        upgrade: bool,
    },
    /// Stops the server. Answers as soon as the master was asked.
    Stop {
        /// How.
        #[serde(default)]
        mode: StopKind,
    },
    /// Opens the log file anew.
    Reopen {},
    /// Takes no new clients after a grace, and ends without clients; with `undo` no more.
    Drain {
        /// Whether a drain is taken back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undo: bool,
    },
    /// Asks the master to become the image now installed. A failure is the answer; on success
    /// the connection ends with the old manager, and `wait` on a new one tells the rest.
    Upgrade {},
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Request::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Request, D::Error> {
        deserializer.deserialize_map(AnObject)
    }
}

/// Takes nothing but an object: what serde derives takes the list of its values as well.
struct AnObject;

impl<'de> Visitor<'de> for AnObject {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `cmd`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Request, A::Error> {
        Request::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The rooms of a publish: the name of one, or a list of at most
/// [`TOPICS_MAX`](crate::api::rooms::TOPICS_MAX).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rooms {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Rooms {
    /// The rooms as the core knows them.
    pub fn topics(&self) -> Vec<Topic> {
        match self {
            Rooms::One(room) => vec![Topic::room(room)],
            Rooms::Several(rooms) => rooms.iter().map(|room| Topic::room(room)).collect(),
        }
    }
}

/// Text or binary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// UTF-8, which is checked.
    #[default]
    Text,
    /// Bytes.
    Binary,
}

impl From<BodyKind> for Opcode {
    fn from(kind: BodyKind) -> Opcode {
        match kind {
            BodyKind::Text => Opcode::Text,
            BodyKind::Binary => Opcode::Binary,
        }
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// As TERM.
    #[default]
    Graceful,
    /// As INT.
    Quick,
}

impl From<StopKind> for StopMode {
    fn from(kind: StopKind) -> StopMode {
        match kind {
            StopKind::Graceful => StopMode::Graceful,
            StopKind::Quick => StopMode::Quick,
        }
    }
}

fn normal_close() -> u16 {
    1000
}

/// A value as a JSON line, its end included.
pub fn line(value: &impl Serialize) -> String {
    // Nothing in this protocol has keys that are not text, the one thing JSON cannot hold.
    let mut line = serde_json::to_string(value)
        .unwrap_or_else(|error| format!(r#"{{"ok":false,"error":"{error}"}}"#));
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Verdict;
    use crate::fd::Slot;

    fn fd(number: u64) -> Fd {
        Fd::try_from(number).unwrap()
    }

    fn stay<'a>(golden: impl IntoIterator<Item = (&'a str, Request)>) {
        for (text, request) in golden {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request, "{text}");
        }
    }

    #[test]
    fn requests_stay_what_they_are_on_the_wire() {
        let golden = [
            (r#"{"cmd":"ping"}"#, Request::Ping {}),
            (r#"{"cmd":"status"}"#, Request::Status {}),
            (r#"{"cmd":"slow"}"#, Request::Slow {}),
            (
                r#"{"cmd":"connections"}"#,
                Request::Connections { room: None, uid: None, here: false },
            ),
            (
                r#"{"cmd":"connections","room":"r"}"#,
                Request::Connections { room: Some("r".to_owned()), uid: None, here: false },
            ),
            (
                r#"{"cmd":"join","fd":123,"room":"r"}"#,
                Request::Join { fd: fd(123), room: "r".to_owned(), info: None },
            ),
            (
                r#"{"cmd":"join","fd":123,"room":"r","info":{"x":1}}"#,
                Request::Join {
                    fd: fd(123),
                    room: "r".to_owned(),
                    info: Some(serde_json::json!({"x": 1})),
                },
            ),
            (r#"{"cmd":"bind","fd":123}"#, Request::Bind { fd: fd(123), uid: None }),
            (
                r#"{"cmd":"session","fd":123,"bytes":2}"#,
                Request::Session { fd: fd(123), bytes: 2 },
            ),
            (
                r#"{"cmd":"push","fd":123,"opcode":"text","bytes":5}"#,
                Request::Push { fd: fd(123), opcode: BodyKind::Text, bytes: 5 },
            ),
            (
                r#"{"cmd":"broadcast","opcode":"binary","bytes":2,"except":9}"#,
                Request::Broadcast {
                    opcode: BodyKind::Binary,
                    bytes: 2,
                    except: Some(fd(9)),
                    here: false,
                },
            ),
            (
                r#"{"cmd":"close","fd":123,"code":4000,"reason":"bye"}"#,
                Request::Close { fd: fd(123), code: 4000, reason: "bye".to_owned() },
            ),
            (r#"{"cmd":"info","fd":123}"#, Request::Info { fd: fd(123) }),
            (r#"{"cmd":"reload"}"#, Request::Reload {}),
            (r#"{"cmd":"wait"}"#, Request::Wait { upgrade: false }),
            (r#"{"cmd":"wait","upgrade":true}"#, Request::Wait { upgrade: true }),
            (r#"{"cmd":"stop","mode":"quick"}"#, Request::Stop { mode: StopKind::Quick }),
            (r#"{"cmd":"reopen"}"#, Request::Reopen {}),
            (r#"{"cmd":"drain"}"#, Request::Drain { undo: false }),
            (r#"{"cmd":"drain","undo":true}"#, Request::Drain { undo: true }),
            (r#"{"cmd":"upgrade"}"#, Request::Upgrade {}),
        ];
        stay(golden);
    }

    #[test]
    fn requests_about_all_nodes_stay_what_they_are_on_the_wire() {
        stay([
            (r#"{"cmd":"nodes"}"#, Request::Nodes {}),
            (r#"{"cmd":"rooms"}"#, Request::Rooms { here: false }),
            (r#"{"cmd":"rooms","here":true}"#, Request::Rooms { here: true }),
            (
                r#"{"cmd":"members","room":"r"}"#,
                Request::Members { room: Some("r".to_owned()), uid: None, here: false },
            ),
            (
                r#"{"cmd":"publish","uid":"u","opcode":"text","bytes":5}"#,
                Request::Publish {
                    room: None,
                    uid: Some("u".to_owned()),
                    opcode: BodyKind::Text,
                    bytes: 5,
                    except: None,
                    here: false,
                },
            ),
            (
                r#"{"cmd":"publish","room":["a","b"],"opcode":"binary","bytes":5,"except":9}"#,
                Request::Publish {
                    room: Some(Rooms::Several(vec!["a".to_owned(), "b".to_owned()])),
                    uid: None,
                    opcode: BodyKind::Binary,
                    bytes: 5,
                    except: Some(fd(9)),
                    here: false,
                },
            ),
            (
                r#"{"cmd":"close_user","uid":"u","code":4000,"reason":"bye"}"#,
                Request::CloseUser {
                    uid: "u".to_owned(),
                    code: 4000,
                    reason: "bye".to_owned(),
                    here: false,
                },
            ),
        ]);
    }

    #[test]
    fn what_is_left_out_of_a_request_has_a_default() {
        let close: Request = serde_json::from_str(r#"{"cmd":"close","fd":1}"#).unwrap();
        assert_eq!(close, Request::Close { fd: fd(1), code: 1000, reason: String::new() });
        let push: Request = serde_json::from_str(r#"{"cmd":"push","fd":1,"bytes":0}"#).unwrap();
        assert_eq!(push, Request::Push { fd: fd(1), opcode: BodyKind::Text, bytes: 0 });
    }

    #[test]
    fn wrong_requests_are_errors() {
        for text in [
            "",
            "{}",
            r#"{"cmd":"dance"}"#,
            r#"{"cmd":"push","fd":0,"bytes":1}"#,
            r#"{"cmd":"push","fd":1,"bytes":-1}"#,
            r#"{"cmd":"status","fd":1}"#,
            r#"["ping"]"#,
            r#"["push", 1, "text", 0]"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn answers_stay_what_they_are_on_the_wire() {
        let client = Fd::new(0, Slot(0), 5).unwrap();
        let golden = [
            (Answer::ok(), "{\"ok\":true}\n"),
            (Answer::ok().and("count", 3), "{\"ok\":true,\"count\":3}\n"),
            (Answer::verdict(client, Verdict::Queued), "{\"ok\":true,\"verdict\":\"queued\"}\n"),
            (
                Answer::verdict(client, Verdict::Gone),
                "{\"ok\":false,\"error\":\"there is no client 5\",\"verdict\":\"gone\"}\n",
            ),
            (Answer::failed("no"), "{\"ok\":false,\"error\":\"no\"}\n"),
        ];
        for (answer, line) in golden {
            assert_eq!(answer.line(), line);
            assert_eq!(serde_json::from_str::<Answer>(line).unwrap(), answer);
        }
    }
}
