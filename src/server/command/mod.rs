//! What the command line asks of a running server, over its control socket: each command is one
//! function that prints its answer and says with which status to exit.
//!
//! A file has the name of its command, but for `list` (`connections`, `info`), `push` (with
//! `broadcast` and `close`), `rooms` (with `members`, `publish` and `push --uid`) and `reload`
//! (with `upgrade`). `style` is how answers look. `connect` and `token` ask no running server.

mod connect;
mod drain;
mod exit;
mod list;
mod nodes;
mod push;
mod reload;
mod rooms;
mod status;
mod style;
mod token;

pub(crate) use connect::connect_to;
pub(crate) use drain::drain;
pub(crate) use exit::ExitStatus;
pub(crate) use list::{connections, info, slow};
pub(crate) use nodes::nodes;
pub(crate) use push::{To, broadcast, close, message, push, whom};
pub(crate) use reload::{reload, upgrade};
pub(crate) use rooms::{members, publish, push_uid, rooms};
pub(crate) use status::{reopen, status};
use style::{safe, safe_json};
pub(crate) use token::token;

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ipc::control::{Answer, Control, ControlError, Request};

/// For the manager to answer; one that was killed is back well before.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to connect again.
const RETRY: Duration = Duration::from_millis(50);

/// Connects to the server whose runtime directory this is.
pub(crate) fn connect(runtime_dir: &Path) -> Result<Control, ExitStatus> {
    Control::connect(runtime_dir, PATIENCE).map_err(|error| complain(&error))
}

/// Asks for something that may be asked twice: where the manager dies meanwhile, its successor
/// is asked again.
fn ask_again(
    runtime_dir: &Path,
    control: &mut Control,
    request: &Request,
) -> Result<Answer, ControlError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match control.ask(request, b"") {
            Err(ControlError::Ended) if Instant::now() < deadline => {
                std::thread::sleep(RETRY);
                *control = Control::connect(runtime_dir, PATIENCE)?;
            }
            other => return other,
        }
    }
}

/// What is told where no server runs: the one that is meant may run elsewhere.
pub(crate) const ELSEWHERE: &str =
    "`wsd start` starts one, and -c FILE or --set runtime_dir=DIR names the place of another";

/// Says on stderr why there is no answer.
fn complain(error: &ControlError) -> ExitStatus {
    match error {
        ControlError::NotRunning(what) => {
            say_wrong(&format!("the server does not run ({what}); {ELSEWHERE}"));
            ExitStatus::NotRunning
        }
        ControlError::TimedOut(what) => {
            say_wrong(what);
            ExitStatus::TimedOut
        }
        ControlError::Ended | ControlError::Failed(_) => {
            say_wrong(&error.to_string());
            ExitStatus::Failed
        }
    }
}

/// Says on stderr what an answer complains of; its status says the kind.
fn verdict(answer: &Answer) -> ExitStatus {
    if !answer.ok {
        say_wrong(answer.error.as_deref().unwrap_or("the manager refused without a reason"));
    }
    ExitStatus::of(answer)
}

/// As [`verdict`]; with `json` the answer is printed as well.
fn told(answer: &Answer, json: bool) -> ExitStatus {
    let status = verdict(answer);
    if json {
        print_json(answer);
    }
    status
}

fn say_wrong(what: &str) {
    for line in what.lines() {
        crate::log::say(format_args!("wsd: {}", safe(line)));
    }
}

/// Prints to stdout; a reader that has gone away is no failure of ours to speak of.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints an answer as JSON, as it came.
fn print_json(answer: &Answer) -> ExitStatus {
    // `print` fails only where nobody reads.
    let _ = print(&safe_json(&answer.line()));
    ExitStatus::of(answer)
}
