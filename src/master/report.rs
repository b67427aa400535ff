//! The verdict of a start: to the launcher that waits for a daemon, or to the terminal.

use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;

use crate::config::Config;
use crate::sys::process;

/// The line that tells a launcher that all is well.
pub const READY_LINE: &str = "ready\n";

/// Who is told how the start went. Told once.
#[derive(Default)]
pub struct Report {
    pipe: Option<File>,
    told: bool,
}

impl Report {
    /// For a launcher that waits at the other end of descriptor `pipe`, or for a terminal.
    pub fn new(pipe: Option<RawFd>) -> Report {
        Report { pipe: pipe.map(|raw| File::from(process::adopt_descriptor(raw))), told: false }
    }

    /// For a server that serves already.
    pub fn told() -> Report {
        Report { pipe: None, told: true }
    }

    /// Every worker serves.
    pub fn ready(&mut self, config: &Config, addresses: &[String]) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        match self.pipe.take() {
            // The launcher may have been killed meanwhile; nobody is left to be told.
            Some(mut pipe) => drop(pipe.write_all(READY_LINE.as_bytes())),
            None => eprintln!("{}", banner(config, addresses)),
        }
    }

    /// The start failed, and why. Not told again once it had succeeded.
    pub fn failed(&mut self, why: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        match self.pipe.take() {
            Some(mut pipe) => drop(pipe.write_all(why.as_bytes())),
            None => eprintln!("wsd: {why}"),
        }
    }

    /// Moves it to whoever tells next.
    pub fn take(&mut self) -> Report {
        std::mem::take(self)
    }
}

fn banner(config: &Config, addresses: &[String]) -> String {
    let workers = config.worker_num;
    let plural = if workers == 1 { "" } else { "s" };
    let pages: Vec<String> = addresses
        .iter()
        .map(|address| match address.starts_with("unix:") {
            true => address.clone(),
            false => format!("http://{address}/"),
        })
        .collect();
    format!(
        "wsd {} serves {} with {workers} worker{plural}. Ctrl-C stops it.",
        env!("CARGO_PKG_VERSION"),
        pages.join(" and ")
    )
}
