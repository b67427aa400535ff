//! `push`, `broadcast` and `close`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{ExitStatus, complain, connect, print, print_json, verdict};
use crate::api::Verdict;
use crate::fd::Fd;
use crate::ipc::control::{Answer, BodyKind, ControlError, Request};

/// For whom a push is.
pub(crate) enum To {
    Client(Fd),
    User(String),
}

/// For whom a push is, and its text: with a user the one word is the text.
pub(crate) fn whom(
    words: Vec<OsString>,
    uid: Option<String>,
) -> Result<(To, OsString), ExitStatus> {
    let mut words = words.into_iter();
    let wrong = match (uid, words.next(), words.next()) {
        (Some(uid), Some(text), None) => return Ok((To::User(uid), text)),
        (None, Some(first), Some(text)) => {
            match first.to_str().and_then(|number| number.parse().ok()) {
                Some(fd) => return Ok((To::Client(fd), text)),
                None => {
                    let first = first.to_string_lossy();
                    format!("{first:?} is no client's number: see `wsd connections`")
                }
            }
        }
        (Some(_), None, _) => "the message is missing: write push --uid UID TEXT".to_owned(),
        (Some(_), Some(_), Some(_)) => "--uid names whom to push to: write no FD".to_owned(),
        (None, ..) => "write push FD TEXT, or push --uid UID TEXT".to_owned(),
    };
    crate::log::say(format_args!("wsd: {wrong}"));
    Err(ExitStatus::Usage)
}

/// Pushes to a client, and tells what became of it.
pub(crate) fn push(
    runtime_dir: &Path,
    fd: Fd,
    opcode: BodyKind,
    body: &[u8],
    json: bool,
) -> ExitStatus {
    let request = Request::Push { fd, opcode, bytes: body.len() };
    told(runtime_dir, &request, body, json, |_| format!("queued for client {fd}\n"))
}

/// The message of an argument; `-` reads standard input.
pub(crate) fn message(text: OsString) -> Result<Vec<u8>, ExitStatus> {
    if text != "-" {
        return Ok(text.into_vec());
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            crate::log::say(format_args!(
                "wsd: cannot read the message from standard input: {error}"
            ));
            Err(ExitStatus::Failed)
        }
    }
}

/// Pushes to every client.
pub(crate) fn broadcast(
    runtime_dir: &Path,
    opcode: BodyKind,
    (except, here): (Option<Fd>, bool),
    body: &[u8],
    json: bool,
) -> ExitStatus {
    let request = Request::Broadcast { opcode, bytes: body.len(), except, here };
    told(runtime_dir, &request, body, json, |answer| {
        let workers = answer.more.get("workers").and_then(|n| n.as_u64()).unwrap_or_default();
        let s = if workers == 1 { "" } else { "s" };
        let where_else = match answer.verdict {
            Some(Verdict::LocalOnly) => " of this node alone: the engine is away",
            Some(_) => " of this node, and to the other nodes",
            None => "",
        };
        format!("sent to the clients of {workers} worker{s}{where_else}\n")
    })
}

/// Closes a client's connection.
pub(crate) fn close(
    runtime_dir: &Path,
    fd: Fd,
    code: u16,
    reason: &str,
    json: bool,
) -> ExitStatus {
    let request = Request::Close { fd, code, reason: reason.to_owned() };
    told(runtime_dir, &request, b"", json, |_| format!("client {fd} is being closed\n"))
}

pub(super) fn told(
    runtime_dir: &Path,
    request: &Request,
    body: &[u8],
    json: bool,
    done: impl FnOnce(&Answer) -> String,
) -> ExitStatus {
    // Asked once: after a broken connection nobody knows whether it was done.
    let asked = connect(runtime_dir).map(|mut control| control.ask(request, body));
    conclude(asked, json, done)
}

/// Shows the answer to a request, `done` where that was done.
pub(super) fn conclude(
    asked: Result<Result<Answer, ControlError>, ExitStatus>,
    json: bool,
    done: impl FnOnce(&Answer) -> String,
) -> ExitStatus {
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return complain(&error),
        Err(status) => return status,
    };
    if json {
        verdict(&answer);
        return print_json(&answer);
    }
    if answer.ok {
        // It was done, whether or not anybody reads so.
        let _ = print(&done(&answer));
    }
    verdict(&answer)
}
