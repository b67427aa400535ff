//! `drain`: no new clients, and the end without clients.

use std::path::Path;

use super::{ExitStatus, RETRY, ask_again, complain, connect, print, safe_json, told};
use crate::ipc::control::{Control, ControlError, Request, Status};

/// Waits until the master has done it: whoever asks behind this command is told so.
fn await_state(
    runtime_dir: &Path,
    control: &mut Control,
    draining: bool,
) -> Result<(), ControlError> {
    loop {
        match ask_again(runtime_dir, control, &Request::Status {}) {
            Ok(answer) => {
                let status = answer.read::<Status>();
                let status = status.map_err(|error| ControlError::Failed(error.to_string()))?;
                if status.draining == draining {
                    return Ok(());
                }
            }
            // It had nobody, and has ended.
            Err(ControlError::NotRunning(_)) if draining => return Ok(()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(RETRY);
    }
}

/// Has the server drain, or not any more. With `wait` it returns when the server has ended.
pub(crate) fn drain(runtime_dir: &Path, undo: bool, wait: bool, json: bool) -> ExitStatus {
    let mut control = match connect(runtime_dir) {
        Ok(control) => control,
        Err(status) => return status,
    };
    let answer = match ask_again(runtime_dir, &mut control, &Request::Drain { undo }) {
        Ok(answer) => answer,
        Err(error) => return complain(&error),
    };
    if !answer.ok {
        return told(&answer, json);
    }
    if let Err(error) = await_state(runtime_dir, &mut control, !undo) {
        return complain(&error);
    }
    drop(control);
    let said = match undo {
        true => "the server takes new clients\n",
        false => "the server drains; after `wsd drain --undo` the server takes clients again\n",
    };
    // It was done, whether or not anybody reads so.
    let _ = match json {
        true => print(&safe_json(&answer.and("draining", !undo).line())),
        false => print(said),
    };
    let is_there = || {
        let connected = Control::connect(runtime_dir, super::PATIENCE);
        !matches!(connected, Err(ControlError::NotRunning(_)))
    };
    while wait && is_there() {
        std::thread::sleep(RETRY);
    }
    ExitStatus::Done
}
