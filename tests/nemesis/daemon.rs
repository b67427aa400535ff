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

use crate::wire::PRESENCE;

/// A command that takes longer is a violation.
const COMMAND: Duration = Duration::from_secs(120);
const STATUS: Duration = Duration::from_secs(30);

pub struct Daemon {
    directory: TempDir,
    broken: Option<String>,
    user: Option<String>,
    pub address: String,
}

impl Daemon {
    /// Starts the program beside this one.
    pub async fn start(
        broken: Option<String>,
        user: Option<String>,
        worker_num: u64,
    ) -> Result<Daemon, String> {
        let directory = tempfile::Builder::new().prefix("wsd-nemesis-").tempdir();
        let directory = directory.map_err(|error| error.to_string())?;
        let mut daemon = Daemon { directory, broken, user, address: String::new() };
        daemon.open_to_workers().map_err(|error| error.to_string())?;
        daemon.make_images().map_err(|error| format!("copy the server: {error}"))?;
        daemon.configure(worker_num).map_err(|error| error.to_string())?;
        daemon.command(&["start", "-d"]).await?;
        let status = daemon.status().await.ok_or("no status after the start")?;
        daemon.address = status.listen.first().cloned().ok_or("no address")?;
        Ok(daemon)
    }

    /// Lets handlers note what they see whoever they run as.
    fn open_to_workers(&self) -> std::io::Result<()> {
        let history = self.path().join("history");
        fs::write(&history, "")?;
        fs::set_permissions(&history, fs::Permissions::from_mode(0o666))?;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o711))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn program(&self) -> PathBuf {
        self.path().join("server")
    }

    pub fn history(&self) -> String {
        fs::read_to_string(self.path().join("history")).unwrap_or_default()
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
        let user = self.user.as_deref().unwrap_or_default();
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nworker_num = {worker_num}\nruntime_dir = \"run\"\n\
             buffer_policy = \"drop\"\nbuffer_output_size = \"256KiB\"\n\
             websocket_compression = true\ncompression_threshold = 128\n\
             compression_context_takeover = true\n\
             ping_interval = \"3s\"\npong_timeout = \"30s\"\nworker_timeout = \"8s\"\n\
             max_wait_time = \"20s\"\nreload_jitter = \"1s\"\nlog_level = \"debug\"\n\
             log_file = \"log\"\nuser = {user:?}\nrooms_presence = [{PRESENCE:?}]\n"
        );
        let fresh = self.path().join("wsd.toml.new");
        fs::write(&fresh, config)?;
        fs::rename(fresh, self.path().join("wsd.toml"))
    }

    /// Runs a command of the command line to its end; what it said, as the error where it failed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program());
        command.args(arguments).arg("-c").arg(self.path().join("wsd.toml"));
        command.env("NEMESIS_HISTORY", self.path().join("history"));
        if let Some(broken) = &self.broken {
            command.env("NEMESIS_BREAK", broken);
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

    /// What the manager says, once there is one.
    pub async fn status(&self) -> Option<Status> {
        let socket = self.path().join("run");
        let deadline = Instant::now() + STATUS;
        while Instant::now() < deadline {
            let socket = socket.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let mut control = Control::connect(&socket, STATUS).ok()?;
                control.ask(&Request::Status {}, b"").ok()?.read::<Status>().ok()
            });
            if let Ok(Some(status)) = asked.await {
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

/// Sends a signal to a process of the server; whether there was one.
pub fn signal(pid: i32, signal: Signal) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), signal).is_ok()
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has died; only its parent has not asked yet.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
