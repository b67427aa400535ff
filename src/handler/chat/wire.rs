//! What goes over the wire: between a page and its worker, and among the workers. All of it is
//! JSON, so that a person with any WebSocket client can join.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fd::{Fd, Slot};

/// The longest nick, in characters.
pub(super) const NICK_CHARS_MAX: usize = 32;
/// The longest text of one message, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// How many users a page is told of by name. The count it is told covers all.
pub(super) const LIST_MAX: usize = 200;

/// From a page to its worker.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request {
    /// To be shown to everyone.
    Say { text: String },
    /// The sender wants another nick.
    Rename { nick: String },
}

/// Somebody who is here, as a page sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub fd: Fd,
    pub nick: String,
    pub worker: Slot,
}

/// From a worker to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event {
    /// Who the page's user is, who serves it, and who is here. The first message of each
    /// connection; it comes again when the connection moved to another process.
    Welcome { fd: Fd, nick: String, worker: Slot, epoch: u32, count: usize, users: Vec<User> },
    /// Who is here: replaces what the page knew. At most [`LIST_MAX`] users of `count`.
    Users { count: usize, users: Vec<User> },
    /// Who came, was renamed (`here`) or left (`gone`) since.
    Change { count: usize, here: Vec<User>, gone: Vec<Fd> },
    /// Somebody said something. `at` is milliseconds since 1970.
    Said { fd: Fd, nick: String, worker: Slot, text: String, at: u64 },
    /// The page's last message was not taken. `code` is for programs, `text` for people.
    Error { code: &'static str, text: &'static str },
}

/// From worker to worker. The sender's slot comes with the packet, its epoch with the note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub epoch: u32,
    pub word: Word,
}

/// A user of the worker that sends the note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub fd: Fd,
    pub nick: String,
}

/// What a note says. A version counts the changes a worker told of, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Word {
    /// "Who are your users?", to the process of that epoch, or to any.
    Ask { epoch: Option<u32> },
    /// The change that makes `version`. `gone` may name users of a process that was killed.
    Change { version: u64, here: Vec<Named>, gone: Vec<Fd> },
    /// A part of all the users of the sender as of `version`; parts count from 0.
    All { version: u64, part: u32, last: bool, users: Vec<Named> },
    /// "I live, and am at `version`."
    Version { version: u64 },
}

/// Writes a message as JSON.
pub(super) fn encode(value: &impl Serialize) -> Option<String> {
    // None of the types above can fail: no maps with odd keys, no floats.
    serde_json::to_string(value).ok()
}

/// Reads a worker's note; `None` for one of a version that is not spoken here.
pub(super) fn decode_note(data: &Bytes) -> Option<Note> {
    serde_json::from_slice(data).ok()
}

/// A nick fit to be shown: control characters and such as turn the direction of writing are
/// dropped, spaces run together. `None` where nothing is left.
pub(super) fn clean_nick(nick: &str) -> Option<String> {
    let visible: String = nick.chars().filter(|&c| c.is_whitespace() || !is_unseen(c)).collect();
    let nick = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    (!nick.is_empty()).then_some(nick)
}

fn is_unseen(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
    c.is_control() || turns || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nick_is_made_fit_to_be_shown() {
        assert_eq!(clean_nick("  Ada \n\t Lovelace ").as_deref(), Some("Ada Lovelace"));
        assert_eq!(clean_nick("\u{202e}eve\u{0}\u{200b}").as_deref(), Some("eve"));
        assert_eq!(clean_nick("<b>日本</b>").as_deref(), Some("<b>日本</b>"));
        assert_eq!(clean_nick(" \u{200f} "), None);
    }

    #[test]
    fn notes_come_back_out() {
        let users = vec![Named { fd: Fd::new(0, Slot(1), 5).unwrap(), nick: "ada".into() }];
        let note = Note { epoch: 3, word: Word::All { version: 1, part: 0, last: true, users } };
        let data = Bytes::from(encode(&note).unwrap());
        assert_eq!(decode_note(&data), Some(note));
        assert_eq!(decode_note(&Bytes::from_static(b"{\"epoch\":1}")), None);
    }
}
