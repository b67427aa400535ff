//! How a start goes: told to the launcher that waits for a daemon, or to the terminal.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;

use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Sources};
use crate::sys::process;

/// The answer of an image that can take a server over.
pub const READY_LINE: &str = "ready\n";

/// A word of the master to the launcher: a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The start goes on; what is to be known of it, such as what it waits for.
    Note(String),
    /// Every worker serves; what to tell whoever started the server.
    Serves(String),
    /// The start failed, and why.
    Failed(String),
}

impl Word {
    /// As the line that it is written as.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads such a line.
    pub fn read(line: &str) -> Option<Word> {
        serde_json::from_str(line).ok()
    }
}

/// Who is told how the start goes. Its end is told once.
#[derive(Default)]
pub struct Report {
    pipe: Option<File>,
    /// The standard error of whoever started the server, which the log takes over.
    terminal: Option<File>,
    /// Where the log is.
    log: Option<PathBuf>,
    told: bool,
    /// What was told last of a start that goes on.
    note: String,
}

impl Report {
    /// For a launcher that waits at the other end of descriptor `pipe`, or for a terminal.
    pub fn new(pipe: Option<RawFd>) -> Report {
        let pipe = pipe.map(|raw| File::from(process::adopt_descriptor(raw)));
        Report { pipe, ..Report::default() }
    }

    /// Keeps what the log is about to take over, once no number of a descriptor is reserved any
    /// more, and where the log is, which whoever reads of a failure wants to know.
    pub fn before_log(self, config: &Config) -> Report {
        let terminal = || std::io::stderr().as_fd().try_clone_to_owned().map(File::from).ok();
        let terminal = if self.pipe.is_some() { None } else { terminal() };
        Report { terminal, log: config.log_file.clone(), ..self }
    }

    /// For a server that serves already.
    pub fn told() -> Report {
        Report { told: true, ..Report::default() }
    }

    /// What is to be known of a start that is not over; told again only where it is something else.
    pub fn note(&mut self, what: &str) {
        if self.told || self.note == what {
            return;
        }
        what.clone_into(&mut self.note);
        let word = Word::Note(what.to_owned());
        match &mut self.pipe {
            // The launcher may have been killed meanwhile; nobody is left to be told.
            Some(pipe) => drop(pipe.write_all(word.line().as_bytes())),
            None => self.say(&format!("wsd: {what}")),
        }
    }

    /// Says something in the log, and on the terminal where the log is elsewhere.
    fn say(&mut self, text: &str) {
        crate::log::say(text);
        let Some(terminal) = &mut self.terminal else { return };
        let place = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino, stat.st_rdev);
        if fstat(&*terminal).ok().map(place) != fstat(std::io::stderr()).ok().map(place) {
            // The terminal may be gone.
            let _ = writeln!(terminal, "{text}");
        }
    }

    /// Every worker serves.
    pub fn ready(&mut self, config: &Config, sources: &Sources, addresses: &[String]) {
        let banner = banner(config, sources, addresses);
        self.end(Word::Serves(banner.clone()), &banner);
    }

    /// The start failed, and why. Not told again once it had succeeded.
    pub fn failed(&mut self, why: &str) {
        let log = self.log.as_ref();
        let log =
            log.map_or_else(String::new, |log| format!("\nwsd: the log is {}", log.display()));
        self.end(Word::Failed(why.to_owned()), &format!("wsd: {why}{log}"));
    }

    fn end(&mut self, word: Word, text: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        match self.pipe.take() {
            Some(mut pipe) => drop(pipe.write_all(word.line().as_bytes())),
            None => self.say(text),
        }
        self.terminal = None;
    }

    /// Moves it to whoever tells next.
    pub fn take(&mut self) -> Report {
        std::mem::take(self)
    }
}

fn banner(config: &Config, sources: &Sources, addresses: &[String]) -> String {
    let workers = config.worker_num;
    let plural = if workers == 1 { "" } else { "s" };
    let pages: Vec<String> = addresses
        .iter()
        .map(|address| match address.starts_with("unix:") {
            true => address.clone(),
            false => format!("http://{address}/"),
        })
        .collect();
    let place = config.runtime_dir.display();
    let end = match config.daemonize {
        false => "Ctrl-C stops the server".to_owned(),
        true if config.is_in_usual_place(sources) => "`wsd stop` stops the server".to_owned(),
        true => format!("`wsd stop --set runtime_dir={place}` stops the server"),
    };
    let log = config
        .log_file
        .as_ref()
        .map_or_else(String::new, |log| format!("; the log is {}", log.display()));
    format!(
        "wsd {} serves {} with {workers} worker{plural}. {end}{log}.",
        env!("CARGO_PKG_VERSION"),
        pages.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_told_with_the_command_that_finds_the_server() {
        let sources = Sources::default();
        let told = |place: &str| {
            let runtime_dir = PathBuf::from(place);
            let config = Config { daemonize: true, runtime_dir, ..Config::default() };
            banner(&config, &sources, &[])
        };
        assert!(told("/run/wsd").contains("`wsd stop` stops"), "{}", told("/run/wsd"));
        let other = told("/srv/run");
        assert!(other.contains("`wsd stop --set runtime_dir=/srv/run` stops"), "{other}");
    }

    #[test]
    fn a_word_is_one_line_whatever_it_says() {
        for word in [
            Word::Note("worker 0".to_owned()),
            Word::Serves("serves".to_owned()),
            Word::Failed("first\n  \"second\"".to_owned()),
        ] {
            let line = word.line();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(Word::read(&line), Some(word));
        }
    }
}
