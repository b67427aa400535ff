//! What goes over the wire between a page and its worker: JSON, so that a person with any
//! WebSocket client can join.

use serde::{Deserialize, Serialize};

use crate::fd::{Fd, Slot};

/// The longest nick and the longest name of a room, in characters.
pub(super) const NAME_CHARS_MAX: usize = 32;
/// The longest text of one message, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// How many users a page is told of by name. The count it is told covers all.
pub(super) const LIST_MAX: usize = 200;

/// From a page to its worker.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request {
    /// To be shown to everyone in the room.
    Say { text: String },
    /// The sender wants another nick.
    Rename { nick: String },
    /// The sender wants to be in another room.
    Enter { room: String },
    /// The sender wants to know who is in the room, as after a time of not reading.
    Who,
}

/// Somebody who is in the room, as a page sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub nick: String,
    /// The worker of the first of the user's connections.
    pub worker: Option<Slot>,
}

/// What presence keeps of a user.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seat {
    pub worker: Slot,
}

/// From a worker to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event {
    /// Who the page's user is, in which room, and who serves it. The first message of each
    /// connection; it comes again in another room and with another process.
    Welcome { fd: Fd, nick: String, room: String, worker: Slot, epoch: u32 },
    /// Who is in the room: replaces what the page knew. At most [`LIST_MAX`] users of `count`.
    Users { room: String, count: usize, users: Vec<User> },
    /// Who came into the room (`here`) or left it (`gone`) since.
    Change { room: String, here: Vec<User>, gone: Vec<String> },
    /// A user goes by another nick: the page will hear that the one has left and the other come.
    Renamed { room: String, from: String, to: String },
    /// Somebody said something. `at` is milliseconds since 1970.
    Said { fd: Fd, nick: String, room: String, worker: Slot, text: String, at: u64 },
    /// The page's last message was not taken. `code` is for programs, `text` for people.
    Error { code: &'static str, text: &'static str },
}

/// Writes a message as JSON.
pub(super) fn encode(value: &impl Serialize) -> Option<String> {
    // None of the types above can fail: no maps with odd keys, no floats.
    serde_json::to_string(value).ok()
}

/// A name fit to be shown: control characters and such as turn the direction of writing are
/// dropped, spaces run together. `None` where nothing is left.
pub(super) fn clean_name(name: &str) -> Option<String> {
    let visible: String = name.chars().filter(|&c| c.is_whitespace() || !is_unseen(c)).collect();
    let name = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

fn is_unseen(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
    c.is_control() || turns || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_fit_to_be_shown() {
        assert_eq!(clean_name("  Ada \n\t Lovelace ").as_deref(), Some("Ada Lovelace"));
        assert_eq!(clean_name("\u{202e}eve\u{0}\u{200b}").as_deref(), Some("eve"));
        assert_eq!(clean_name("<b>日本</b>").as_deref(), Some("<b>日本</b>"));
        assert_eq!(clean_name(" \u{200f} "), None);
    }
}
