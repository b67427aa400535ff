//! `rooms`, `members`, `publish` and `push --uid`.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::push::told;
use super::style::{Style, Table, Tone, number, safe, safe_json};
use super::{ExitStatus, complain, connect, print, verdict};
use crate::api::Verdict;
use crate::api::rooms::{Member, Tally};
use crate::fd::Fd;
use crate::ipc::control::{Answer, BodyKind, Request, Room, Rooms};

/// Lists the rooms that have members.
pub(crate) fn rooms(runtime_dir: &Path, here: bool, json: bool) -> ExitStatus {
    let mut table = Table::new(&["room", ">members"]);
    list(runtime_dir, &Request::Rooms { here }, json, "room", |rooms: Vec<Room>| {
        for room in rooms {
            let members = (number(room.members), Tone::Plain);
            table.row(vec![(safe(&room.room), Tone::Plain), members]);
        }
        table
    })
}

/// Lists the members of a room.
pub(crate) fn members(runtime_dir: &Path, room: &str, here: bool, json: bool) -> ExitStatus {
    let request = Request::Members { room: Some(room.to_owned()), uid: None, here };
    let mut table = Table::new(&["fd", "uid"]);
    list(runtime_dir, &request, json, "member", |members: Vec<Member>| {
        for member in members {
            let uid = member.uid.as_deref().map_or(String::new(), safe);
            table.row(vec![(member.fd.to_string(), Tone::Plain), (uid, Tone::Plain)]);
        }
        table
    })
}

/// Asks for a list: as a table for people, or as one JSON array.
pub(super) fn list<T: DeserializeOwned>(
    runtime_dir: &Path,
    request: &Request,
    json: bool,
    what: &str,
    rows: impl FnOnce(Vec<T>) -> Table,
) -> ExitStatus {
    let mut lines = Vec::new();
    let asked = connect(runtime_dir).map(|mut control| {
        control.ask_list(request, b"", |item| {
            lines.push(item.to_owned());
            Ok(())
        })
    });
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return complain(&error),
        Err(status) => return status,
    };
    if json {
        let lines: Vec<String> =
            lines.iter().map(|line| format!("  {}", safe_json(line.trim_end()))).collect();
        let array = if lines.is_empty() {
            "[]\n".to_owned()
        } else {
            format!("[\n{}\n]\n", lines.join(",\n"))
        };
        // `print` fails only where nobody reads.
        let _ = print(&array);
        return verdict(&answer);
    }
    // What is known is shown, also where that is not all.
    if answer.ok || answer.verdict == Some(Verdict::Unknown) {
        let items = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let style = Style::for_stdout();
        let s = if lines.len() == 1 { "" } else { "s" };
        let total = style.text(Tone::Bold, &format!("{} {what}{s}", number(lines.len() as u64)));
        let table = if lines.is_empty() { String::new() } else { rows(items).lines(style) };
        let _ = print(&format!("{table}{total}\n"));
    }
    verdict(&answer)
}

/// Sends to the members of a room.
pub(crate) fn publish(
    runtime_dir: &Path,
    room: &str,
    (except, here): (Option<Fd>, bool),
    (opcode, body): (BodyKind, &[u8]),
    json: bool,
) -> ExitStatus {
    let bytes = body.len();
    let room = Some(Rooms::One(room.to_owned()));
    let request = Request::Publish { room, uid: None, opcode, bytes, except, here };
    told(runtime_dir, &request, body, json, words)
}

/// Sends to every connection of a user.
pub(crate) fn push_uid(
    runtime_dir: &Path,
    uid: &str,
    here: bool,
    (opcode, body): (BodyKind, &[u8]),
    json: bool,
) -> ExitStatus {
    let bytes = body.len();
    let uid = Some(uid.to_owned());
    let request = Request::Publish { room: None, uid, opcode, bytes, except: None, here };
    told(runtime_dir, &request, body, json, words)
}

/// A tally for people.
fn words(answer: &Answer) -> String {
    match answer.read::<Tally>() {
        Ok(tally) if tally.verdict() == Verdict::Gone => "nobody is there\n".to_owned(),
        Ok(tally) => format!("{tally}\n"),
        Err(error) => format!("the tally cannot be read: {error}\n"),
    }
}
