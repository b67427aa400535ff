//! Filling the keys that choose for themselves.

use std::path::{Path, PathBuf};

use super::keys::Config;
use super::load::Sources;

/// The most connections that are allowed without being asked for.
const MAX_CONNECTION_DEFAULT: u64 = 1_000_000;

/// Descriptors a worker needs besides listeners and clients: its links and lifeline, epoll sets,
/// the log, pipes and sockets of the application, and some air.
const DESCRIPTORS_RESERVED: u64 = 32;

impl Config {
    pub(super) fn resolve(&mut self, sources: &Sources) {
        if self.worker_num == 0 {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            self.worker_num = cores.min(256);
        }
        if self.runtime_dir.as_os_str().is_empty() {
            self.runtime_dir = runtime_dir(sources);
        }
        if self.pid_file.as_os_str().is_empty() {
            self.pid_file = self.runtime_dir.join("wsd.pid");
        }
        if self.daemonize && self.log_file.is_none() {
            self.log_file = Some(self.runtime_dir.join("wsd.log"));
        }
        if self.app.cwd.as_os_str().is_empty() {
            self.app.cwd = sources.file_dir();
        }
        for name in &mut self.keep_headers {
            name.make_ascii_lowercase();
        }
    }

    /// Sets `max_connection` where it was left at 0, and lowers it to what a descriptor limit of
    /// `limit` for each process can hold. Returns a sentence for the log where it had to lower.
    pub fn fit_descriptors(&mut self, limit: u64) -> Option<String> {
        let workers = self.worker_num.max(1) as u64;
        // A worker may have to take over the listeners of every other slot.
        let listeners = workers * self.listen.len() as u64;
        // Direct links, to and from each other.
        let links = 2 * (workers - 1);
        let each = limit.saturating_sub(DESCRIPTORS_RESERVED + listeners + links).max(1);
        let ceiling = usize::try_from(each.saturating_mul(workers)).unwrap_or(usize::MAX);
        let asked = self.max_connection;
        match asked {
            0 => {
                self.max_connection = ceiling.min(MAX_CONNECTION_DEFAULT as usize);
                None
            }
            _ if asked <= ceiling => None,
            _ => {
                self.max_connection = ceiling;
                Some(format!(
                    "max_connection lowered from {asked} to {ceiling}: {workers} workers with \
                     {limit} descriptors each (ulimit -n) can hold no more"
                ))
            }
        }
    }
}

/// Where the control socket lives unless told: systemd's directory, root's, the user's own, or a
/// private one among the temporary files.
fn runtime_dir(sources: &Sources) -> PathBuf {
    if let Some(dirs) = sources.var("RUNTIME_DIRECTORY") {
        return PathBuf::from(dirs.split(':').next().unwrap_or(dirs));
    }
    if sources.uid == 0 {
        return PathBuf::from("/run/wsd");
    }
    if let Some(dir) = sources.var("XDG_RUNTIME_DIR") {
        return Path::new(dir).join("wsd");
    }
    let temp = sources.var("TMPDIR").unwrap_or("/tmp");
    Path::new(temp).join(format!("wsd-{}", sources.uid))
}
