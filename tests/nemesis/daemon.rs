//! The server under torment: a directory of its own, two images that take turns, the commands.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::Command;
use wsd::ipc::control::{Control, Request, Status, WorkerState};

use crate::clock::Clock;
use crate::wire::PRESENCE;

/// A command that takes longer is a violation.
const COMMAND: Duration = Duration::from_secs(120);
const STATUS: Duration = Duration::from_secs(30);
/// `cluster.lease_ttl`.
pub const LEASE: Duration = Duration::from_secs(3);

/// What a node of a cluster is told of it.
pub struct Host {
    pub node: u64,
    /// `cluster.engine`.
    pub engine: String,
    /// Its wall clock, where that can be moved.
    pub clock: Option<Clock>,
}

/// How servers are started.
#[derive(Clone)]
pub struct Manner {
    pub broken: Option<String>,
    pub user: Option<String>,
    /// Where the handlers of all note what they see.
    pub history: PathBuf,
}

pub struct Daemon {
    directory: TempDir,
    manner: Manner,
    host: Option<Host>,
}

impl Daemon {
    /// Starts the program beside this one.
    pub async fn start(
        manner: Manner,
        host: Option<Host>,
        worker_num: u64,
    ) -> Result<Daemon, String> {
        let directory = directory()?;
        let daemon = Daemon { directory, manner, host };
        let rights = fs::Permissions::from_mode(0o711);
        fs::set_permissions(daemon.path(), rights).map_err(|error| error.to_string())?;
        daemon.make_images().map_err(|error| format!("copy the server: {error}"))?;
        daemon.configure(worker_num).map_err(|error| error.to_string())?;
        daemon.command(&["start", "-d"]).await?;
        Ok(daemon)
    }

    /// Where it listens: the kernel chooses, at each start.
    pub async fn find_address(&self) -> Result<String, String> {
        let status = self.status().await.ok_or("no status after the start")?;
        status.listen.first().cloned().ok_or("no address".to_owned())
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The wall clock of its host, where that can be moved.
    pub fn clock(&self) -> Option<&Clock> {
        self.host.as_ref()?.clock.as_ref()
    }

    fn program(&self) -> PathBuf {
        self.path().join("server")
    }

    pub fn history(&self) -> String {
        fs::read_to_string(&self.manner.history).unwrap_or_default()
    }

    /// Notes something beside what the handlers do.
    pub fn note(&self, line: &str) -> std::io::Result<()> {
        let mut history = fs::OpenOptions::new().append(true).open(&self.manner.history)?;
        history.write_all(format!("{line}\n").as_bytes())
    }

    /// Keeps the directory for whoever wants to look.
    pub fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.path().to_owned()
    }

    /// Two copies that differ in their last eight bytes; `server` leads to the first.
    fn make_images(&self) -> std::io::Result<()> {
        let here = std::env::current_exe()?;
        let server = here.with_file_name("nemesis_server");
        for name in ["a", "b"] {
            let image = self.path().join(format!("server-{name}"));
            let mut bytes = fs::read(&server)?;
            bytes.extend_from_slice(format!("\nimage {name}").as_bytes());
            fs::File::create(&image)?.write_all(&bytes)?;
            fs::set_permissions(&image, fs::Permissions::from_mode(0o755))?;
        }
        symlink("server-a", self.program())
    }

    /// Installs an image as a package would: at once.
    pub fn install(&self, image: &str) -> std::io::Result<()> {
        let fresh = self.path().join("server.new");
        symlink(format!("server-{image}"), &fresh)?;
        fs::rename(fresh, self.program())
    }

    /// Which image the master runs.
    pub fn image(&self, master: i32) -> String {
        let image = fs::read_link(format!("/proc/{master}/exe")).unwrap_or_default();
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_start_matches("server-").to_owned()
    }

    pub fn configure(&self, worker_num: u64) -> std::io::Result<()> {
        self.write("wsd.toml", "run", worker_num)
    }

    fn write(&self, file: &str, run: &str, worker_num: u64) -> std::io::Result<()> {
        let user = self.manner.user.as_deref().unwrap_or_default();
        let cluster = self.host.as_ref().map_or_else(String::new, |host| {
            let Host { node, engine, .. } = host;
            let lease = LEASE.as_millis();
            format!("[cluster]\nengine = {engine:?}\nnode = {node}\nlease_ttl = \"{lease} ms\"\n")
        });
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nworker_num = {worker_num}\nruntime_dir = {run:?}\n\
             buffer_policy = \"drop\"\nbuffer_output_size = \"256KiB\"\n\
             websocket_compression = true\ncompression_threshold = 128\n\
             compression_context_takeover = true\n\
             ping_interval = \"3s\"\npong_timeout = \"30s\"\nworker_timeout = \"8s\"\n\
             max_wait_time = \"20s\"\nreload_jitter = \"1s\"\nlog_level = \"debug\"\n\
             log_file = \"log\"\nuser = {user:?}\nrooms_presence = [{PRESENCE:?}]\n{cluster}"
        );
        let fresh = self.path().join("wsd.toml.new");
        fs::write(&fresh, config)?;
        fs::rename(fresh, self.path().join(file))
    }

    /// Starts another server with this one's number in the cluster; what that said. No error: it
    /// serves.
    pub async fn start_twin(&self) -> Result<String, String> {
        self.write("twin.toml", "twin", 1).map_err(|error| error.to_string())?;
        self.run_command("twin.toml", &["start", "-d"]).await
    }

    /// Runs a command of the command line to its end; what it said, as the error where it failed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_command("wsd.toml", arguments).await
    }

    async fn run_command(&self, file: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program());
        command.args(arguments).arg("-c").arg(self.path().join(file));
        command.env("NEMESIS_HISTORY", &self.manner.history);
        if let Some(broken) = &self.manner.broken {
            command.env("NEMESIS_BREAK", broken);
        }
        if let Some(clock) = self.clock() {
            command.envs(clock.environment());
        }
        let command = command.stdin(Stdio::null()).kill_on_drop(true);
        let what = arguments.join(" ");
        match tokio::time::timeout(COMMAND, command.output()).await {
            Err(_) => Err(format!("{what}: not done after {COMMAND:?}")),
            Ok(Err(error)) => Err(format!("{what}: {error}")),
            Ok(Ok(output)) => {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                let ok = output.status.success();
                if ok { Ok(said) } else { Err(format!("{what}: {}: {said}", output.status)) }
            }
        }
    }

    /// `runtime_dir`.
    pub fn runtime(&self) -> PathBuf {
        self.path().join("run")
    }

    /// What the manager says, once there is one.
    pub async fn status(&self) -> Option<Status> {
        let deadline = Instant::now() + STATUS;
        while Instant::now() < deadline {
            if let Some(status) = status_at(self.runtime()).await {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Whether every slot is served again, and when it was seen.
    pub async fn recovers(&self, patience: Duration) -> Option<Status> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status().await?;
            let serving = status.workers.iter().filter(|w| w.state == WorkerState::Serving);
            let slots: std::collections::BTreeSet<_> = serving.map(|w| w.slot).collect();
            if slots.len() >= usize::from(status.worker_num) {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A directory that is gone with the run.
pub fn directory() -> Result<TempDir, String> {
    let directory = tempfile::Builder::new().prefix("wsd-nemesis-").tempdir();
    directory.map_err(|error| error.to_string())
}

/// Makes the file in which handlers note what they see, whoever they run as.
pub fn make_history(directory: &Path) -> std::io::Result<PathBuf> {
    let history = directory.join("history");
    fs::write(&history, "")?;
    fs::set_permissions(&history, fs::Permissions::from_mode(0o666))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
    Ok(history)
}

/// What a manager says, if there is one.
pub async fn status_at(runtime: PathBuf) -> Option<Status> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut control = Control::connect(&runtime, STATUS).ok()?;
        control.ask(&Request::Status {}, b"").ok()?.read::<Status>().ok()
    });
    asked.await.ok()?
}

/// The processes that a master has started.
pub fn children(master: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// What the kernel shows a process as.
pub fn title(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// Sends a signal to a process of the server; whether there was one.
pub fn signal(pid: i32, signal: Signal) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), signal).is_ok()
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has died; its parent has not asked yet, or does so now.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
