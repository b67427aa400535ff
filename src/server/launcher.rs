//! Starting: everything is checked while there is still a terminal to complain on, then this
//! process becomes the master, in the foreground or as a daemon.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;

use super::Server;
use super::obstacles::obstacles;
use crate::config::{Config, ConfigErrors, Sources};
use crate::error::{Error, Subject};
#[cfg(feature = "cli")]
use crate::master::judge_lead;
use crate::master::{Launch, Word, doubts};
use crate::sys::process;

/// The umask of a daemon.
const DAEMON_UMASK: u32 = 0o027;

/// Serves in the foreground with the program's own configuration, environment included.
pub fn start_in_foreground(server: Server) -> ExitCode {
    let sources = Sources::here(None, Vec::new());
    match load(&server, &sources, true) {
        Ok(config) => start(sources, Config { daemonize: false, ..config }),
        Err(errors) => {
            crate::log::say(format_args!("{errors}"));
            ExitCode::FAILURE
        }
    }
}

/// The configuration from its sources. Unless `strict`, faults are passed over that do not
/// concern where the server is.
///
/// # Errors
/// Every fault.
pub fn load(server: &Server, sources: &Sources, strict: bool) -> Result<Config, ConfigErrors> {
    let base = server.base.clone();
    match strict {
        true => Config::load(base, sources),
        false => Config::load_to_find(base, sources),
    }
}

/// Refuses a server that somebody else's file leads to, and that is not theirs.
///
/// # Errors
/// As [`judge_lead`], or every fault of the other sources.
#[cfg(feature = "cli")]
pub fn check_lead(server: &Server, sources: &Sources, config: &Config) -> Result<(), Error> {
    let others = Sources { file: None, ..sources.clone() };
    let elsewhere = load(server, &others, false).map(|others| others.runtime_dir);
    match elsewhere.is_ok_and(|dir| dir == config.runtime_dir) {
        // The file does not lead there, or not by itself.
        true => Ok(()),
        false => judge_lead(sources, &config.runtime_dir),
    }
}

/// Tells of everything that a start would fail on.
pub fn find_obstacles(sources: &Sources, config: &Config) -> Result<(), ExitCode> {
    let found = obstacles(sources, &invoked_path(), config);
    found.iter().for_each(|obstacle| crate::log::say(format_args!("wsd: {obstacle}")));
    if found.is_empty() { Ok(()) } else { Err(ExitCode::FAILURE) }
}

/// Becomes the master. Returns only in the launcher of a daemon, or if that failed.
pub fn start(sources: Sources, mut config: Config) -> ExitCode {
    if let Err(code) = find_obstacles(&sources, &config) {
        return code;
    }
    // A server in the foreground logs to the terminal anyway.
    if let Some(warning) = config.root_warning().filter(|_| config.daemonize) {
        crate::log::say(format_args!("wsd: {warning}"));
    }
    match doubts(&sources, &invoked_path(), &config) {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| crate::log::say(format_args!("wsd: {warning}")))
        }
        Err(error) => {
            crate::log::say(format_args!("wsd: {error}"));
            return ExitCode::FAILURE;
        }
    }
    if let Some(note) = config.fit_descriptors(process::raise_descriptor_limit()) {
        crate::log::say(format_args!("wsd: {note}"));
    }
    for doubt in config.doubts() {
        crate::log::say(format_args!("wsd: {doubt}"));
    }
    let launched = match config.daemonize {
        true => daemonize(sources, config),
        false => Err(become_master(sources, config, None)),
    };
    launched.unwrap_or_else(|error| {
        crate::log::say(format_args!("wsd: {error}"));
        ExitCode::FAILURE
    })
}

fn become_master(sources: Sources, config: Config, report: Option<File>) -> Error {
    process::close_inherited_on_exec();
    let kept = report.as_ref().map(|pipe| process::keep_over_exec(pipe.as_fd())).transpose();
    let launch = kept.map(|report| Launch {
        invoked: invoked_path(),
        sources,
        config,
        report,
        takeover: None,
    });
    // Descriptor 3 is the record's: the pipe has to be out of its way.
    match launch.and_then(|launch| launch.write()).and_then(process::place_link) {
        Ok(()) => process::exec(c"/proc/self/exe", "wsd: master", &process::arguments()),
        Err(error) => error,
    }
}

/// Leaves the terminal twice over, so that the daemon can never get one again, and waits for
/// its word. In the daemon itself this returns only if it could not become the master.
fn daemonize(sources: Sources, config: Config) -> Result<ExitCode, Error> {
    let (reader, writer) = std::io::pipe().subject(|| "pipe".to_owned())?;
    if let Some(child) = process::fork_away()? {
        drop(writer);
        // It leaves at once, and its own child is the daemon.
        let _ = waitpid(child, None);
        return Ok(await_verdict(File::from(std::os::fd::OwnedFd::from(reader)), &config));
    }
    if process::fork_away()?.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    drop(reader);
    let mut writer = away_from_link(File::from(std::os::fd::OwnedFd::from(writer)))?;
    let told = away_from_link(writer.try_clone().subject(|| "duplicate the pipe".to_owned())?)?;
    let become_daemon = || -> Result<(), Error> {
        std::env::set_current_dir("/").subject(|| "chdir /".to_owned())?;
        // What a daemon and its application make is nobody else's to change, or a stranger's to
        // read. The files of the server itself have modes of their own.
        umask(Mode::from_bits_truncate(DAEMON_UMASK));
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.subject(|| "open /dev/null".to_owned())?;
        (0..3).try_for_each(|number| process::redirect(null.as_fd(), number))
    };
    let error = match become_daemon() {
        Ok(()) => become_master(sources, config, Some(told)),
        Err(error) => error,
    };
    // The launcher may be gone already; there is nobody else to tell.
    let _ = writer.write_all(Word::Failed(error.to_string()).line().as_bytes());
    Ok(ExitCode::FAILURE)
}

/// Moves a pipe off descriptor 3, where the launch record is about to go.
fn away_from_link(pipe: File) -> Result<File, Error> {
    if pipe.as_raw_fd() > 9 {
        return Ok(pipe);
    }
    let moved = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10))
        .subject(|| "move the pipe".to_owned())?;
    Ok(File::from(process::adopt_descriptor(moved)))
}

/// Passes on what the master says of the start, until it is over.
fn await_verdict(pipe: File, config: &Config) -> ExitCode {
    for line in BufReader::new(pipe).lines() {
        match line.map(|line| Word::read(&line)) {
            Ok(Some(Word::Note(what))) => crate::log::say(format_args!("wsd: {what}")),
            Ok(Some(Word::Serves(banner))) => {
                crate::log::say(format_args!("{banner}"));
                return ExitCode::SUCCESS;
            }
            Ok(Some(Word::Failed(why))) => return failed(&why, config),
            Ok(None) => {}
            Err(error) => return failed(&format!("cannot hear from the master: {error}"), config),
        }
    }
    failed("the master died at its start and gave no reason", config)
}

fn failed(why: &str, config: &Config) -> ExitCode {
    crate::log::say(format_args!("wsd: {why}"));
    // A start that failed before the log was opened has nothing there.
    if let Some(log) = config.log_file.as_ref().filter(|log| log.exists()) {
        crate::log::say(format_args!("wsd: the log is {}", log.display()));
    }
    ExitCode::FAILURE
}

/// The path this program was invoked by, absolute, symbolic links and all: a deployment that
/// turns a link is followed by the next reload.
pub fn invoked_path() -> PathBuf {
    let name = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let by_name = match name.components().count() {
        0 => None,
        1 if !name.is_absolute() => on_path(&name),
        _ => std::env::current_dir().ok().map(|directory| directory.join(&name)),
    };
    let known = by_name.filter(|path| path.is_file());
    known.or_else(|| std::env::current_exe().ok()).unwrap_or(name)
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}
