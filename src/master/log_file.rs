//! The log file, held by the master as its descriptor 2 and given to every child as theirs.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::Config;
use crate::error::{Result, Subject};
use crate::sys::process;

/// Where the log goes: a file, or whatever our standard error is.
pub struct LogFile {
    file: Option<File>,
    daemon: bool,
}

impl LogFile {
    /// Opens what the configuration names. Nothing is redirected yet, so that the errors of a
    /// start still reach the terminal.
    pub fn open(config: &Config) -> Result<LogFile> {
        let file = config.log_file.as_deref().map(append_to).transpose()?;
        Ok(LogFile { file, daemon: config.daemonize })
    }

    /// Makes the file the standard error, and in a daemon the standard output too.
    pub fn take_over(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        process::redirect(file.as_fd(), 2)?;
        if self.daemon {
            process::redirect(file.as_fd(), 1)?;
        }
        Ok(())
    }

    /// Opens the path anew, after a rotation.
    pub fn reopen(&mut self, config: &Config) -> Result<()> {
        self.file = config.log_file.as_deref().map(append_to).transpose()?;
        self.take_over()
    }

    /// What a child gets as its standard error, where it is not ours anyway.
    pub fn for_child(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// A duplicate to send to a child that runs.
    pub fn duplicate(&self) -> Option<OwnedFd> {
        self.file.as_ref().and_then(|file| file.try_clone().ok()).map(OwnedFd::from)
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .subject(|| format!("open the log file {}", path.display()))
}
