//! What the master looks after once a second: that the runtime directory and the log are as they
//! should be, whatever became of the file system meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::SFlag;

use super::Master;
use super::child::duplicate;
use super::runtime_dir::RuntimeDir;
use super::trusted_path::TrustedPath;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipc::messages::MasterToManager;
use crate::sys::path_walk::Missing;

/// How often.
const LOOK_MS: u64 = 1_000;
/// The pid file is for everybody to read.
const PID_MODE: u32 = 0o644;

/// When to look, and what was wrong the last time.
#[derive(Default)]
pub struct FileChecks {
    next_ms: u64,
    trouble: Option<String>,
}

impl FileChecks {
    /// What is wrong with the runtime directory, as a whole sentence.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }
}

/// The name of the pid file, where it is in the runtime directory.
fn own_pid_file(config: &Config) -> Option<&OsStr> {
    let inside = config.pid_file.parent() == Some(&config.runtime_dir);
    config.pid_file.file_name().filter(|_| inside)
}

fn pid_path(config: &Config) -> Result<TrustedPath> {
    TrustedPath::new("pid_file", &config.pid_file, Missing::Fail, config)
}

/// Writes the pid file: a new file put in the place of whatever was there, so that a symbolic
/// link is replaced and not followed.
pub fn write_pid_file(runtime_dir: &RuntimeDir, config: &Config) -> Result<()> {
    let text = format!("{}\n", std::process::id());
    let written = match own_pid_file(config) {
        Some(name) => runtime_dir.dir().replace(name, text.as_bytes(), PID_MODE),
        None => pid_path(config)?.replace(text.as_bytes(), PID_MODE),
    };
    written.map_err(|error| Error::new(format!("pid_file: {error}")))
}

/// Removes the pid file, if it is there still.
pub fn remove_pid_file(runtime_dir: &RuntimeDir, config: &Config) -> Result<()> {
    match own_pid_file(config) {
        Some(name) => runtime_dir.dir().remove(name),
        None => pid_path(config)?.remove(SFlag::S_IFREG),
    }
}

impl Master {
    /// Looks whether all is as it should be, and makes it so where that is possible.
    pub(super) fn tick_files(&mut self, now: u64) {
        if now < self.file_checks.next_ms || self.stopping.is_some() {
            return;
        }
        self.file_checks.next_ms = now + LOOK_MS;
        self.tick_log();
        let kept = self.runtime_dir.repair().and_then(|socket| match socket {
            Some(socket) => self.moved_to(socket),
            None => Ok(()),
        });
        let trouble = kept.err().map(|error| error.to_string());
        let what = "commands do not reach the server, which goes on without its runtime directory";
        match (&self.file_checks.trouble, &trouble) {
            (None, Some(error)) => tracing::error!(%error, "{what}"),
            (Some(_), None) => tracing::info!("the runtime directory is whole again"),
            _ => {}
        }
        self.file_checks.trouble = trouble;
    }

    /// The runtime directory was made anew: what belongs into it is put there.
    fn moved_to(&mut self, socket: OwnedFd) -> Result<()> {
        tracing::warn!("the removed files of the runtime directory were made anew");
        self.control = socket;
        let control = duplicate(self.control.as_fd())?;
        self.tell_manager(&MasterToManager::Control, vec![control]);
        if own_pid_file(&self.config).is_some() {
            write_pid_file(&self.runtime_dir, &self.config)?;
        }
        self.serials.move_to(self.runtime_dir.dir().try_clone()?)
    }
}
