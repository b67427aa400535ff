//! Filling the keys that choose for themselves.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::keys::{ClusterConfig, Config, HandlerName};
use super::sources::Sources;

/// The most connections that are allowed without being asked for.
const MAX_CONNECTION_DEFAULT: u64 = 1_000_000;

/// Descriptors a worker needs besides listeners and clients: its links and lifeline, epoll sets,
/// the log, pipes and sockets of the application, and some air.
const DESCRIPTORS_RESERVED: u64 = 32;

/// Connections of a batch that moves, at the most; a packet carries up to 128 descriptors.
const HANDOVER_DESCRIPTORS: u64 = 64;

/// How many connections of a worker with `limit` descriptors move in one batch: each has a second
/// descriptor meanwhile, which the worker keeps free for that.
pub fn batch_max(limit: u64) -> u64 {
    (limit / 8).clamp(1, HANDOVER_DESCRIPTORS)
}

/// How many refused clients of a worker with `limit` descriptors may take their time to read the
/// answer.
pub fn lingering_max(limit: u64) -> u64 {
    (limit / 16).clamp(4, 256)
}

impl Config {
    pub(super) fn resolve(&mut self, sources: &Sources) {
        if self.worker_num == 0 {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            self.worker_num = cores.min(256);
        }
        if self.runtime_dir.as_os_str().is_empty() {
            // A variable may name a relative path.
            self.runtime_dir = sources.dir.join(runtime_dir(sources));
        }
        if self.pid_file.as_os_str().is_empty() {
            self.pid_file = self.runtime_dir.join("wsd.pid");
        }
        if self.daemonize && self.log_file.is_none() {
            self.log_file = Some(sources.dir.join(log_file(sources, &self.runtime_dir)));
            if self.log_size_max == 0 {
                self.log_size_max = LOG_BYTES_DEFAULT;
            }
        }
        if self.upload_tmp_dir.as_os_str().is_empty() {
            self.upload_tmp_dir = sources.dir.join(sources.var("TMPDIR").unwrap_or("/tmp"));
        }
        if self.app.cwd.as_os_str().is_empty() {
            self.app.cwd = sources.file_dir();
        }
        for name in &mut self.keep_headers {
            name.make_ascii_lowercase();
        }
    }

    /// Whether a command without `-c` and `--set` finds the server of this configuration.
    pub(crate) fn is_in_usual_place(&self, sources: &Sources) -> bool {
        self.runtime_dir == sources.dir.join(runtime_dir(sources))
    }

    /// How many clients a worker with `limit` descriptors has room for: all but a reserve, so
    /// that refused clients and a full house keep no process, link or handover from its own.
    pub fn clients_of_worker(&self, limit: u64) -> u64 {
        let workers = self.worker_num.max(1) as u64;
        // A worker may have to take over the listeners of every other slot.
        let listeners = workers * self.listen.len() as u64;
        // Direct links, to and from each other.
        let links = 2 * (workers - 1);
        let apps = match self.handler {
            HandlerName::App => 2 * self.app.processes as u64,
            _ => 0,
        };
        let api = match self.api.listen.len() as u64 {
            0 => 0,
            listeners => listeners + self.api.connections_max as u64,
        };
        let own = DESCRIPTORS_RESERVED + listeners + links + apps + api + batch_max(limit);
        limit.saturating_sub(own + lingering_max(limit)).max(1)
    }

    /// Sentences for the log and for `check` about what is allowed and hardly meant.
    pub fn doubts(&self) -> Vec<String> {
        let everybody = self.trusted_proxies.iter().filter(|net| net.is_everybody());
        let doubt = |net| {
            format!(
                "trusted_proxies has {net}: everybody may say whose connection it is; name your \
                 proxies alone"
            )
        };
        everybody.map(doubt).chain(self.lonely()).collect()
    }

    /// A node that names no engine serves as if there were no cluster, and nobody would notice
    /// before two clients miss each other.
    fn lonely(&self) -> Option<String> {
        (self.cluster.engine.is_none() && self.cluster != ClusterConfig::default()).then(|| {
            "[cluster] names no engine, so that this server is alone; write engine = \
             \"redis://host:6379\" there"
                .to_owned()
        })
    }

    /// Sets `max_connection` where it was left at 0, and lowers it to what a descriptor limit of
    /// `limit` for each process can hold. Returns a sentence for the log where it had to lower.
    pub fn fit_descriptors(&mut self, limit: u64) -> Option<String> {
        let workers = self.worker_num.max(1) as u64;
        let each = self.clients_of_worker(limit);
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

/// What the log of a daemon may hold unless told.
const LOG_BYTES_DEFAULT: u64 = 64 << 20;

/// Where the log of a daemon is unless told: systemd's directory, root's, the user's own, or a
/// private one among the temporary files. Never the runtime directory, which is memory mostly, and
/// which a server has to be able to write to. A runtime directory of another place has a log of
/// its own, so that two servers do not share one.
fn log_file(sources: &Sources, runtime: &Path) -> PathBuf {
    let name = match *runtime == sources.dir.join(runtime_dir(sources)) {
        true => "wsd".to_owned(),
        false => runtime.to_string_lossy().trim_matches('/').replace('/', "-"),
    };
    let name = format!("{}.log", name.get(..200).unwrap_or(&name));
    if let Some(dirs) = sources.var("LOGS_DIRECTORY") {
        return Path::new(dirs.split(':').next().unwrap_or(dirs)).join(name);
    }
    if sources.uid == 0 {
        return Path::new("/var/log/wsd").join(name);
    }
    if let Some(state) = sources.var("XDG_STATE_HOME") {
        return Path::new(state).join("wsd").join(name);
    }
    // Accounts of services have a home that is not theirs.
    let owner = |home: &&str| std::fs::metadata(home).is_ok_and(|it| it.uid() == sources.uid);
    if let Some(home) = sources.var("HOME").filter(owner) {
        return Path::new(home).join(".local/state/wsd").join(name);
    }
    let temp = sources.var("TMPDIR").unwrap_or("/tmp");
    Path::new(temp).join(format!("wsd-{}-log", sources.uid)).join(name)
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
