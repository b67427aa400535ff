//! Upgrade: the master executes a new image in place, with the same pid, and every process,
//! listener and link stays where it is.
//!
//! First the new image rehearses in a child: it is given the real table and every descriptor,
//! takes all of it over for show, and says whether it could. Then, with all signals blocked, the
//! master writes the table anew and executes the new image. Until that has adopted the server,
//! any error, panic, crash or hang of it executes the old image again (`sys::guard`). The reload
//! that follows is the new manager's business.
//!
//! - [`takeover`]: all that is written down. [`parts`]: how each part of the master is.
//! - [`leave`] writes the master down, and [`adopt`] makes a master of that.

mod adopt;
mod leave;
mod parts;
pub mod takeover;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

pub(super) use adopt::adopt;

use super::launch::Preface;
use super::password::engine_password;
use super::reload::Image;
use super::report::READY_LINE;
use super::{Launch, Master, notify, trust};
use crate::config::{Config, SECRET_VARIABLES, Sources};
use crate::error::{Error, Result, Subject};
use crate::ipc::control::UNDER_WAY;
use crate::ipc::messages::MasterToManager;
use crate::ipc::scoreboard::Fact;
use crate::sys::{clock, guard, process};

/// The rehearsal says within this time whether the new image could take over.
const REHEARSAL_MS_MAX: u64 = 10_000;

/// A rehearsal under way.
pub struct Rehearsal {
    image: Image,
    pid: Pid,
    verdict: File,
    deadline_ms: u64,
}

impl Rehearsal {
    /// Becomes readable when the verdict is there.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.verdict.as_fd()
    }

    /// When patience ends.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

impl Master {
    /// Somebody asks for an upgrade.
    pub(super) fn upgrade(&mut self) {
        if let Err(error) = self.start_rehearsal() {
            self.upgrade_failed(&error.to_string());
        }
    }

    fn upgrade_failed(&mut self, why: &str) {
        tracing::error!(why, "the upgrade failed; nothing has changed");
        notify::ready();
        let why = why.to_owned();
        self.tell_manager(&MasterToManager::UpgradeFailed { why }, Vec::new());
    }

    fn start_rehearsal(&mut self) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(format!("no upgrade now: {why}")));
        if self.stopping.is_some() || self.starting_until_ms.is_some() {
            return refuse("the server is starting or stopping");
        }
        if self.reload.is_under_way() || self.rehearsal.is_some() {
            return refuse(UNDER_WAY);
        }
        notify::reloading();
        trust::judge_files(&self.launch.sources, &self.launch.invoked, &self.config)?;
        if self.config.node().is_some() {
            // The next courier needs it: without, the node would be alone behind the upgrade.
            engine_password(&self.config)?;
        }
        let image = Image::open(&self.launch.invoked, self.image.generation)?;
        let (reader, writer) = std::io::pipe().subject(|| "pipe".to_owned())?;
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        let (launch, kept) = self.leave(Some(writer.as_fd()))?;
        let record = launch.write()?;
        let spawned = process::spawn(&process::Spawn {
            image: &image.path(),
            title: "wsd: rehearsal",
            arguments: &self.arguments,
            link: record.as_fd(),
            socket: None,
            stdout: None,
            stderr: self.log_file.for_child(),
            secrets: &SECRET_VARIABLES,
        });
        self.take_back(kept);
        let path = self.launch.invoked.display();
        let pid = spawned.map_err(|error| Error::new(format!("{path} cannot be run: {error}")))?;
        let deadline_ms = clock::monotonic_ms() + REHEARSAL_MS_MAX;
        let verdict = File::from(reader);
        self.rehearsal = Some(Rehearsal { image, pid, verdict, deadline_ms });
        Ok(())
    }

    /// The verdict of the rehearsal is there, or is not and never will be.
    pub(super) fn tick_rehearsing(&mut self, now: u64) {
        let Some(rehearsal) = &mut self.rehearsal else { return };
        let path = self.launch.invoked.display();
        let mut verdict = String::new();
        if is_readable(rehearsal.verdict.as_fd()) {
            // What cannot be read is no "ready", and that is all that counts.
            let _ = (&mut rehearsal.verdict).take(64 * 1024).read_to_string(&mut verdict);
        } else if now < rehearsal.deadline_ms {
            return;
        } else {
            verdict = format!("{path} did not finish its rehearsal in time");
        }
        let Some(rehearsal) = self.rehearsal.take() else { return };
        match verdict.as_str() {
            READY_LINE => self.execute(&rehearsal.image),
            why => {
                // It may hang. Whether or not, it is reaped like any child.
                let _ = nix::sys::signal::kill(rehearsal.pid, Signal::SIGKILL);
                let ended = format!(
                    "{path} ended its rehearsal without a word: it is not a wsd server, or \
                     does not call `run` or `start`"
                );
                let why = if why.is_empty() { ended } else { why.to_owned() };
                self.upgrade_failed(&why);
            }
        }
    }

    /// Becomes the new image. Returns only if that failed.
    fn execute(&mut self, image: &Image) {
        tracing::info!(path = %self.launch.invoked.display(), "executing the new image");
        let mut old_mask = SigSet::empty();
        let blocked =
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old_mask));
        let error = match blocked.subject(|| "block signals".to_owned()) {
            Ok(()) => self.try_execute(image),
            Err(error) => error,
        };
        guard::stop_clock();
        // Restoring what sigprocmask itself gave cannot fail.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old_mask), None);
        self.upgrade_failed(&error.to_string());
    }

    fn try_execute(&mut self, image: &Image) -> Error {
        let prepared = self.leave(None).and_then(|(launch, kept)| Ok((launch.write()?, kept)));
        let (record, kept) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return error,
        };
        let placed = File::open("/proc/self/exe")
            .subject(|| "open the old image".to_owned())
            .and_then(|old| process::place(old.into(), guard::OLD_IMAGE_RAW_FD))
            .and_then(|()| process::place_link(record));
        let error = match placed {
            Ok(()) => {
                guard::start_clock();
                // Nobody can map it for writing any more; the next image makes another.
                self.summary.tell(Fact::Superseded, 1);
                process::exec(&image.path(), "wsd: master", &self.arguments)
            }
            Err(error) => error,
        };
        self.summary.tell(Fact::Superseded, 0);
        self.take_back(kept);
        match process::reserve(guard::OLD_IMAGE_RAW_FD) {
            Ok(()) => error,
            Err(reserve) => Error::new(format!("{error}; {reserve}")),
        }
    }
}

/// Takes everything over for show: the descriptors are copies, and nothing is signalled, reaped
/// or told. What would fail in earnest fails here.
pub fn rehearse(record: OwnedFd, base: Config) -> Result<()> {
    let report = Preface::read(&record)?.report;
    let report = report.map(process::adopt_descriptor).map(File::from);
    let verdict = Launch::read(&record).and_then(|launch| rehearse_launch(launch, base));
    let text = match &verdict {
        Ok(()) => READY_LINE.to_owned(),
        Err(error) => error.to_string(),
    };
    let Some(mut report) = report else { return verdict };
    std::io::Write::write_all(&mut report, text.as_bytes())
        .subject(|| "tell the verdict".to_owned())?;
    verdict
}

fn rehearse_launch(launch: Launch, base: Config) -> Result<()> {
    // The file may be root's to read alone; the rest of the rehearsal needs no right.
    let sources: &Sources = &launch.sources.read_now();
    launch.config.manager_rights().take()?;
    let config = Config::load(base, sources).map_err(|errors| Error::new(errors.to_string()))?;
    let refused = launch.config.reload_refusals(&config);
    if !refused.is_empty() {
        return Err(Error::new(format!("{} cannot change on upgrade", refused.join(", "))));
    }
    let Some(left) = launch.takeover else {
        return Err(Error::new("there is nothing to take over"));
    };
    for worker in left.workers {
        worker.check()?;
    }
    Ok(())
}

/// Writes down why this image goes back to the one before it, and goes.
pub fn give_up(written_to: RawFd, why: &str) -> Error {
    if let Ok(file) = process::duplicate_number(written_to) {
        // Without a reason the old image says that there was none.
        let _ = std::io::Write::write_all(&mut File::from(file), why.as_bytes());
    }
    guard::go_back();
    Error::new(format!("{why}; and the old image could not be executed again"))
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
