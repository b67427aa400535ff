//! The log file, held by the master as its descriptor 2 and given to every child as theirs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;

use super::Master;
use super::trusted_path::TrustedPath;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipc::messages::{MasterToManager, MasterToWorker};
use crate::sys::path_walk::Missing;
use crate::sys::process;

/// Who may read the log: the server's user and group.
const FILE_MODE: u32 = 0o640;
/// Who may look into a log directory that the master makes.
const DIR_MODE: u32 = 0o750;

/// Where the log goes: a file, or whatever our standard error is.
pub struct LogFile {
    file: Option<File>,
    daemon: bool,
}

fn log_path(config: &Config) -> Result<Option<TrustedPath>> {
    let path = config.log_file.as_deref();
    path.map(|path| TrustedPath::new("log_file", path, Missing::Make(DIR_MODE), config))
        .transpose()
}

impl LogFile {
    /// Opens what the configuration names. Nothing is redirected yet, so that the errors of a
    /// start still reach the terminal.
    ///
    /// # Errors
    /// When the file cannot be opened, or is nothing that may be written to.
    pub fn open(config: &Config) -> Result<LogFile> {
        let file = log_path(config)?.map(|path| path.append(FILE_MODE)).transpose();
        let file = file.map_err(|error| Error::new(format!("log_file: {error}")))?;
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

    /// What a child gets as its standard error, where it is not ours anyway.
    pub fn for_child(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// A duplicate to send to a child that runs.
    fn duplicate(&self) -> Option<OwnedFd> {
        self.file.as_ref().and_then(|file| file.try_clone().ok()).map(OwnedFd::from)
    }

    /// Whether the file has as many bytes as it may have.
    fn is_full(&self, bytes_max: u64) -> bool {
        let size = self.file.as_ref().and_then(|file| fstat(file).ok()).map(|stat| stat.st_size);
        bytes_max > 0 && size.and_then(|size| u64::try_from(size).ok()) >= Some(bytes_max)
    }
}

impl Master {
    /// Opens the log file anew, after a rotation, in every process.
    pub(super) fn reopen_log(&mut self) {
        match LogFile::open(&self.config) {
            Ok(log) => {
                self.write_log_to(log);
                tracing::info!("log file reopened");
            }
            Err(error) => tracing::error!(%error, "the log file stays as it was"),
        }
    }

    /// From here on every process writes to this log.
    pub(super) fn write_log_to(&mut self, log: LogFile) {
        if let Err(error) = log.take_over() {
            return tracing::error!(%error, "the log file stays as it was");
        }
        self.log_file = log;
        for worker in &mut self.workers {
            if let Some(log) = self.log_file.duplicate() {
                worker.send(&MasterToWorker::Reopen, vec![log]);
            }
        }
        if let Some(log) = self.log_file.duplicate() {
            self.tell_manager(&MasterToManager::Reopen, vec![log]);
        }
        if let Some(log) = self.log_file.duplicate() {
            self.courier.reopen(log);
        }
    }

    /// Puts a log aside that has grown to its limit, and begins a new one.
    pub(super) fn tick_log(&mut self) {
        if !self.log_file.is_full(self.config.log_size_max) {
            return;
        }
        match log_path(&self.config).and_then(|path| path.map(|path| path.put_aside()).transpose())
        {
            Ok(_) => {
                self.log_stuck = false;
                self.reopen_log();
            }
            Err(error) if !self.log_stuck => {
                self.log_stuck = true;
                tracing::error!(%error, "the log has reached log_size_max and cannot be put aside");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_opened_is_told_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("wsd.log");
        std::os::unix::fs::symlink(dir.path().join("other"), &link).unwrap();
        let config = Config { log_file: Some(link), ..Config::default() };
        let error = LogFile::open(&config).err().unwrap().to_string();
        assert!(error.starts_with("log_file: ") && error.contains("is a link"), "{error}");
    }
}
