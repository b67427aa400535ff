//! `reload` and `upgrade`: they wait for the verdict and print it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::style::{Style, Table, Tone, duration, number, safe};
use super::{ExitStatus, RETRY, ask_again, complain, connect, print, print_json, verdict};
use crate::ipc::control::{
    Answer, Control, ControlError, NONE_UNDER_WAY, ReloadVerdict, Request, Status, UNDER_WAY,
};

/// The longest a reload may take: preparing, starting, and the handover of 256 slots.
const RELOAD_PATIENCE: Duration = Duration::from_secs(600);
/// For an upgraded master to have its new manager.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(30);

/// Reloads, and tells what moved, stayed and failed.
pub(crate) fn reload(runtime_dir: &Path, json: bool) -> ExitStatus {
    let mut control = match connect(runtime_dir) {
        Ok(control) => control,
        Err(status) => return status,
    };
    let answer = control
        .set_patience(RELOAD_PATIENCE)
        .and_then(|()| control.ask(&Request::Reload {}, b""))
        .or_else(|error| match error {
            // The manager died; its successor goes on with the reload it finds.
            ControlError::Ended => wait_anew(runtime_dir),
            error => Err(error),
        });
    match answer {
        Ok(answer) => tell(&answer, json),
        Err(error) => complain(&error),
    }
}

/// Upgrades: the master becomes the image now installed, and then reloads.
pub(crate) fn upgrade(runtime_dir: &Path, json: bool) -> ExitStatus {
    let mut control = match connect(runtime_dir) {
        Ok(control) => control,
        Err(status) => return status,
    };
    let before = status(runtime_dir, &mut control);
    let answer = match ask_to_upgrade(runtime_dir, control) {
        Ok(answer) => answer,
        Err(error) => return complain(&error),
    };
    if let (true, false, Ok(mut control)) = (answer.ok, json, connect(runtime_dir))
        && let (Some(before), Some(now)) = (before, status(runtime_dir, &mut control))
    {
        let (before, now) = (safe(&before.version), safe(&now.version));
        // It was done, whether or not anybody reads so.
        let _ = print(&format!("upgraded from {before} to {now}\n"));
    }
    tell(&answer, json)
}

/// Asks until the master has become the new image, or tells why not. A connection that ends says
/// that the manager is gone: with the old image, or because it died, perhaps before the master knew
/// of this.
fn ask_to_upgrade(runtime_dir: &Path, mut control: Control) -> Result<Answer, ControlError> {
    let mut is_asked = false;
    loop {
        control.set_patience(RELOAD_PATIENCE)?;
        match control.ask(&Request::Upgrade {}, b"") {
            Err(ControlError::Ended) => is_asked = true,
            // The master knew of it, and is at it.
            Ok(answer) if is_asked && answer.says(UNDER_WAY) => std::thread::sleep(RETRY),
            other => return other,
        }
        let wait = |mut control: Control| control.ask(&Request::Wait { upgrade: true }, b"");
        match anew(runtime_dir, wait)? {
            answer if answer.says(NONE_UNDER_WAY) => control = anew(runtime_dir, Ok)?,
            answer => return Ok(answer),
        }
    }
}

fn status(runtime_dir: &Path, control: &mut Control) -> Option<Status> {
    ask_again(runtime_dir, control, &Request::Status {}).ok()?.read().ok()
}

/// Waits for the next manager's verdict.
fn wait_anew(runtime_dir: &Path) -> Result<Answer, ControlError> {
    anew(runtime_dir, |mut control| control.ask(&Request::Wait { upgrade: false }, b""))
}

/// Connects to the next manager, as soon as there is one, and asks.
fn anew<T>(
    runtime_dir: &Path,
    ask: impl Fn(Control) -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let deadline = Instant::now() + UPGRADE_PATIENCE;
    loop {
        match Control::connect(runtime_dir, RELOAD_PATIENCE).and_then(&ask) {
            Err(ControlError::Ended | ControlError::NotRunning(_))
                if Instant::now() < deadline =>
            {
                std::thread::sleep(RETRY);
            }
            other => return other,
        }
    }
}

fn tell(answer: &Answer, json: bool) -> ExitStatus {
    if json {
        verdict(answer);
        return print_json(answer);
    }
    if let Ok(reloaded) = answer.read::<ReloadVerdict>() {
        // It was done, whether or not anybody reads so.
        let _ = print(&render(&reloaded, Style::for_stdout()));
    }
    verdict(answer)
}

fn render(verdict: &ReloadVerdict, style: Style) -> String {
    let took = duration(verdict.took_ms);
    let generation = verdict.generation;
    if verdict.failure.is_some() {
        let text = format!("reload failed after {took}: generation {generation} still serves");
        return style.text(Tone::Bad, &text) + "\n";
    }
    let tone = if verdict.is_ok() { Tone::Good } else { Tone::Odd };
    let text = format!("generation {generation} serves after {took}");
    let mut text = style.text(tone, &text) + "\n";
    if verdict.slots.is_empty() {
        return text;
    }
    let mut table = Table::new(&["slot", "to", ">moved", ">stayed", "failed"]);
    for slot in &verdict.slots {
        let failed = slot.failed.as_deref().map_or_else(|| "-".to_owned(), safe);
        table.row(vec![
            (slot.slot.to_string(), Tone::Plain),
            (slot.to.to_string(), Tone::Plain),
            (number(slot.moved), Tone::Plain),
            (number(slot.stayed), if slot.stayed > 0 { Tone::Odd } else { Tone::Plain }),
            (failed, if slot.failed.is_some() { Tone::Bad } else { Tone::Faint }),
        ]);
    }
    text.push_str(&table.lines(style));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use crate::ipc::control::SlotVerdict;

    #[test]
    fn a_verdict_names_what_moved_stayed_and_failed() {
        let slot = |slot, failed: Option<&str>| SlotVerdict {
            slot: Slot(slot),
            to: Slot(0),
            moved: 1500,
            stayed: 2,
            failed: failed.map(str::to_owned),
        };
        let verdict = ReloadVerdict {
            generation: 3,
            failure: None,
            took_ms: 212,
            slots: vec![slot(0, None), slot(1, Some("It died."))],
        };
        let text = "generation 3 serves after 212 ms\n  \
                    slot  to  moved  stayed  failed\n  \
                    0     0   1,500       2  -\n  \
                    1     0   1,500       2  It died.\n";
        assert_eq!(render(&verdict, Style::none()), text);
    }
}
