//! Application processes: a worker asks for them, and they are this process's children, so that
//! they are reaped, and so that they can be ended when their worker is gone.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Master;
use crate::api::ProcessId;
use crate::config::{Config, SECRET_VARIABLES};
use crate::error::{Error, Result, Subject};
use crate::fd::WorkerId;
use crate::ipc::messages::MasterToWorker;
use crate::ipc::scoreboard::Fact;
use crate::sys::rights::Rights;
use crate::sys::{clock, ending, memory, process};

/// An application process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Whose it is.
    worker: WorkerId,
    /// Which of its.
    id: ProcessId,
    pid: i32,
}

/// What the small role that becomes the application finds at descriptor 3; its socket stands at
/// descriptor 4.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppLaunch {
    command: Vec<String>,
    environment: Vec<(String, String)>,
    directory: String,
    rights: Rights,
    parent: i32,
}

/// Where the application finds its socket, and what tells it so.
const APP_SOCKET: (&str, i32) = ("WSD_APP_FD", 3);
/// Which process it is, as `worker/process`: others find it by that.
const APP_PLACE: &str = "WSD_APP_PLACE";

/// Application processes of one place that run at the same time.
const RUNNING_PER_PLACE: usize = 2;
/// Application processes that may be started within a second for each place of a worker. The
/// worker itself waits between early ends; this is for one that does not.
const STARTS_PER_SECOND: usize = 8;
/// Its socket, its standard error and its standard output.
const APP_FDS_MAX: usize = 3;

impl Master {
    /// A worker asks for an application process. Beside it: its socket, its standard error, and
    /// its standard output unless that is to be ours.
    ///
    /// # Errors
    /// When no worker asks for that process.
    pub(super) fn start_app(
        &mut self,
        worker: WorkerId,
        id: ProcessId,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let started = match self.may_start(worker, id)? {
            true => self.try_start_app(worker, id, fds),
            false => Err(Error::new(
                "too many processes of this place run, or were started within a second",
            )),
        };
        let answer = match started {
            Ok(pid) => MasterToWorker::AppStarted { id, pid: pid.as_raw() },
            Err(error) => {
                tracing::error!(%worker, app = %id, %error, "cannot start an application process");
                MasterToWorker::AppExited { id, how: error.to_string() }
            }
        };
        if let Some(worker) = self.workers.iter_mut().find(|found| found.id == worker) {
            worker.send(&answer, Vec::new());
        }
        Ok(())
    }

    /// Whether a worker may have one more application process now. A place has one that serves,
    /// and one that still works off what it began.
    fn may_start(&mut self, worker: WorkerId, id: ProcessId) -> Result<bool> {
        let Some(found) = self.workers.iter_mut().find(|found| found.id == worker) else {
            return Ok(false);
        };
        let generation = found.generation;
        let now = clock::monotonic_ms();
        let starts = found.app_starts.one_more(now);
        let app = &self.config_of(generation).app;
        let places = app.processes.max(1) + app.task_processes + app.user_processes;
        if app.command.0.is_empty() || usize::from(id.place) >= places {
            return Err(Error::new(format!("StartApp for {id}, which is none of its processes")));
        }
        let starts_max = STARTS_PER_SECOND * places;
        let here = self.apps.iter().filter(|app| app.worker == worker && app.id.place == id.place);
        let running = here.map(|app| app.id.epoch);
        if running.clone().any(|epoch| epoch >= id.epoch) {
            return Err(Error::new(format!("StartApp for {id} for the second time")));
        }
        Ok(running.count() < RUNNING_PER_PLACE && starts <= starts_max)
    }

    fn try_start_app(
        &mut self,
        worker: WorkerId,
        id: ProcessId,
        fds: Vec<OwnedFd>,
    ) -> Result<Pid> {
        if fds.len() > APP_FDS_MAX {
            return Err(Error::new("a worker asked for a process with too many descriptors"));
        }
        let mut fds = fds.into_iter();
        let missing = || Error::new("a worker asked for a process without its descriptors");
        let socket = fds.next().ok_or_else(missing)?;
        let stderr = fds.next().ok_or_else(missing)?;
        let stdout = fds.next();
        let found = self.workers.iter().find(|found| found.id == worker).ok_or_else(missing)?;
        let generation = found.generation;
        let place = format!("{}/{}", worker.slot, id.place);
        let record = AppLaunch::of(self.config_of(generation), &place).write()?;
        let image = self.image_of(generation);
        let pid = process::spawn(&process::Spawn {
            image: &image.path(),
            title: &format!("wsd: app {place}"),
            arguments: &self.arguments,
            link: record.as_fd(),
            socket: Some(socket.as_fd()),
            stdout: stdout.as_ref().map(AsFd::as_fd),
            stderr: Some(stderr.as_fd()),
            secrets: &SECRET_VARIABLES,
        })?;
        self.apps.push(App { worker, id, pid: pid.as_raw() });
        self.summary.bump(Fact::AppStarts);
        Ok(pid)
    }

    /// A worker wants one of its application processes gone.
    pub(super) fn kill_app(&mut self, worker: WorkerId, id: ProcessId) {
        let found = self.apps.iter().find(|app| app.worker == worker && app.id == id);
        if let Some(app) = found {
            signal(app, Signal::SIGKILL);
        }
    }

    /// A worker is gone: nobody talks to its application processes any more.
    pub(super) fn kill_apps_of(&mut self, worker: WorkerId) {
        self.apps.iter().filter(|app| app.worker == worker).for_each(|app| {
            signal(app, Signal::SIGKILL);
        });
    }

    /// If that pid was an application process, its worker is told.
    pub(super) fn app_died(&mut self, pid: Pid, how: &str) -> bool {
        let Some(index) = self.apps.iter().position(|app| app.pid == pid.as_raw()) else {
            return false;
        };
        let app = self.apps.swap_remove(index);
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == app.worker) {
            let how = how.to_owned();
            worker.send(&MasterToWorker::AppExited { id: app.id, how }, Vec::new());
        }
        true
    }

    pub(super) fn kill_all_apps(&self) {
        self.apps.iter().for_each(|app| signal(app, Signal::SIGKILL));
    }
}

/// Signals a process with what it has started: it leads a group.
fn signal(app: &App, signal: Signal) {
    // It is not reaped yet, so its pid is its own; ESRCH means it is dead already, or has no
    // group any more.
    let pid = Pid::from_raw(app.pid);
    let _ = kill(pid, signal);
    let _ = killpg(pid, signal);
}

impl AppLaunch {
    fn of(config: &Config, place: &str) -> AppLaunch {
        let place = (APP_PLACE.to_owned(), place.to_owned());
        AppLaunch {
            command: config.app.command.0.clone(),
            environment: config.app.env.clone().into_iter().chain([place]).collect(),
            directory: config.app.cwd.to_string_lossy().into_owned(),
            rights: config.app_rights(),
            parent: std::process::id() as i32,
        }
    }

    fn write(&self) -> Result<OwnedFd> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::new(format!("cannot write an app's launch: {error}")))?;
        memory::write_sealed("wsd-app", &bytes)
    }
}

/// Becomes the application. Returns only if that failed.
pub fn become_app(record: OwnedFd) -> Error {
    match try_become_app(record) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_become_app(record: OwnedFd) -> Result<std::convert::Infallible> {
    let bytes = memory::read_sealed_whole(record)?;
    let launch: AppLaunch = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("not an app's launch record: {error}")))?;
    let socket = process::adopt_descriptor(process::APP_SOCKET_RAW_FD);
    ending::before_the_master();
    launch.rights.take()?;
    process::kill_with_parent(Pid::from_raw(launch.parent))?;
    std::env::set_current_dir(&launch.directory)
        .subject(|| format!("app.cwd: chdir to {}", launch.directory))?;
    let null = std::fs::File::open("/dev/null").subject(|| "open /dev/null".to_owned())?;
    process::redirect(null.as_fd(), 0)?;
    let (program, arguments) = launch
        .command
        .split_first()
        .ok_or_else(|| Error::new("app.command is empty; it names the application to run"))?;
    process::place(socket, APP_SOCKET.1)?;
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(program);
    for secret in SECRET_VARIABLES {
        command.env_remove(secret);
    }
    let error = command
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .envs(launch.environment)
        .env(APP_SOCKET.0, APP_SOCKET.1.to_string())
        .exec();
    Err(Error::io(format!("app.command: run {program}"), error))
}
