//! The master: one thread, no tokio, for the whole life of the server.
//!
//! It holds everything that must outlive a process: the lock, every listening socket, the
//! control socket, the serials, the scoreboard, and a duplicate of every link. It starts the
//! manager and the workers, reaps and replaces them, and ends when the last is gone. It decides
//! nothing about connections.
//!
//! The files, by what they are about:
//! - starting and ending: [`launch`] (what the launcher leaves), [`report`] (the verdict of a
//!   start), [`signals`], [`stop`], [`notify`] (systemd).
//! - processes: [`child`]; [`supervised`] is one of which there is always one, as the manager is
//!   and the [`courier`]; [`manager`] and [`workers`] live, [`manager_handle`] and
//!   [`worker_handle`] are what the master has of them; [`worker_start`], [`apps`], [`slots`],
//!   [`throttle`], [`protocol`] (what a worker may say), [`password`] (the courier's).
//! - what outlives a process: [`listen`] and [`bind`], [`lent_listeners`], [`serials`], [`lease`],
//!   [`pages`] (the counters) and [`summary`], [`runtime_dir`], [`log_file`], [`file_checks`].
//! - change: [`reload`], [`upgrade`], [`drain`].
//! - whose files are believed: [`trust`], [`trusted_path`].

mod apps;
mod bind;
mod child;
mod courier;
mod drain;
mod file_checks;
mod launch;
mod lease;
mod lent_listeners;
mod listen;
mod log_file;
mod manager;
mod manager_handle;
mod notify;
mod pages;
mod password;
mod protocol;
mod reload;
mod report;
mod runtime_dir;
mod serials;
mod signals;
mod slots;
mod start;
mod stop;
mod summary;
mod supervised;
mod throttle;
mod trust;
mod trusted_path;
pub mod upgrade;
mod worker_handle;
mod worker_start;
mod workers;

/// What only fuzz targets see.
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    /// The file of serials.
    pub mod serials {
        pub use crate::master::serials::{block, parse, render};
    }
}

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub use apps::become_app;
pub use launch::Launch;
pub use password::engine_password;
pub use report::Word;
pub use serials::FILE as SERIALS_FILE;
pub use trust::doubts;
#[cfg(feature = "cli")]
pub use trust::{doubted_file, judge_lead};
pub use upgrade::rehearse;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipc::messages::{MasterState, MasterToManager, Purpose, StopMode};
use crate::ipc::scoreboard::{Board, Summary};
use crate::log;
use crate::sys::{clock, ending, guard, process};
use apps::App;
use child::Child;
use courier::CourierPlace;
use file_checks::{FileChecks, remove_pid_file, write_pid_file};
use listen::Listeners;
use log_file::LogFile;
use manager_handle::ManagerPlace;
use reload::{Image, Reload};
use report::Report;
use runtime_dir::RuntimeDir;
use serials::Serials;
use signals::{Request, Signals};
use slots::Slots;
use stop::Stopping;
use supervised::Supervised;
use upgrade::Rehearsal;
use worker_handle::WorkerHandle;

/// How often the manager is asked for a sign of life.
const CHECK_MS: u64 = 1_000;

/// How long to wait before a send that was refused for such a reason.
const RETRY_MS: u64 = 10;

/// The master's whole state.
struct Master {
    launch: Launch,
    config: Config,
    arguments: Vec<CString>,
    started_at: u64,
    runtime_dir: RuntimeDir,
    file_checks: FileChecks,
    log_file: LogFile,
    /// Whether it was told that a full log could not be put aside.
    log_stuck: bool,
    report: Report,
    signals: Signals,
    serials: Serials,
    listeners: Listeners,
    control: OwnedFd,
    /// What the workers count.
    board: Board,
    /// The sum of it, as every worker tells it.
    summary: Summary,
    /// When these are looked at again.
    counts_at_ms: u64,
    /// What the serving generation runs.
    image: Image,
    reload: Reload,
    rehearsal: Option<Rehearsal>,
    slots: Slots,
    /// Every worker that is not reaped yet, of every generation.
    workers: Vec<WorkerHandle>,
    apps: Vec<App>,
    /// For what children say.
    buffer: Vec<u8>,
    worker_restarts: u64,
    manager: ManagerPlace,
    courier: CourierPlace,
    stopping: Option<Stopping>,
    /// How far a drain is, while there is one.
    drain: Option<drain::Drain>,
    /// Until every slot has served once, any failure ends the start.
    starting_until_ms: Option<u64>,
    /// What the manager was told last, so that it is told only of changes.
    state_told: MasterState,
    /// Keeps descriptor 3 taken for life, so that nothing long-lived stands where the next
    /// image's launch record will be put.
    _record: OwnedFd,
}

/// Lives the master's life. The launcher has put the launch record at descriptor 3.
pub fn run(record: OwnedFd) -> ExitCode {
    let launch = match Launch::read(&record) {
        Ok(launch) => launch,
        Err(error) => {
            crate::log::say(format_args!("wsd: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Some(takeover) = &launch.takeover {
        let why = takeover.why();
        return take_over(launch, record, why);
    }
    let mut report = Report::new(launch.report);
    let Config { log_level, log_format, .. } = launch.config;
    if let Err(error) = log::init("master", log_level, log_format, log::Output::Direct) {
        report.failed(&error.to_string());
        return ExitCode::FAILURE;
    }
    match Master::set_up(launch, record, &mut report) {
        Ok(master) => master.live(),
        Err(error) => {
            report.failed(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Goes on where the image before this one stood, or back to it.
fn take_over(launch: Launch, record: OwnedFd, why: std::os::fd::RawFd) -> ExitCode {
    let Config { log_level, log_format, .. } = launch.config;
    let adopted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        log::init("master", log_level, log_format, log::Output::Direct)?;
        upgrade::adopt(launch, record)
    }));
    let error = match adopted {
        Ok(Ok(master)) => {
            guard::disarm();
            if let Err(error) = process::reserve(guard::OLD_IMAGE_RAW_FD) {
                tracing::error!(%error, "the next upgrade may fail");
            }
            // The old image had blocked them all for the exec.
            let none = nix::sys::signal::SigSet::empty();
            let how = nix::sys::signal::SigmaskHow::SIG_SETMASK;
            if let Err(errno) = nix::sys::signal::sigprocmask(how, Some(&none), None) {
                tracing::error!(%errno, "signals stay blocked");
            }
            return master.live();
        }
        Ok(Err(error)) => error,
        Err(_) => Error::new("the new image panicked while it adopted the server"),
    };
    let error = upgrade::give_up(why, &error.to_string());
    crate::log::say(format_args!("wsd: {error}"));
    ExitCode::FAILURE
}

impl Master {
    fn set_up(launch: Launch, record: OwnedFd, report: &mut Report) -> Result<Master> {
        process::reserve(guard::OLD_IMAGE_RAW_FD)?;
        ending::adopt_strays()?;
        let config = launch.config.clone();
        trust::judge_files(&launch.sources, &launch.invoked, &config)?;
        let mut runtime_dir = RuntimeDir::take(&config)?;
        let signals = Signals::install()?;
        let mut listeners = Listeners::default();
        listeners.ensure(&config)?;
        write_pid_file(&runtime_dir, &config)?;
        let log_file = LogFile::open(&config)?;
        let image = Image::open(&launch.invoked, 1)?;
        let serials = Serials::open(runtime_dir.dir().try_clone()?, &config)?;
        Ok(Master {
            arguments: process::arguments(),
            started_at: clock::unix_ms(),
            log_file,
            log_stuck: false,
            file_checks: FileChecks::default(),
            report: report.take().before_log(&config),
            signals,
            serials,
            listeners,
            control: runtime_dir.control_socket()?,
            runtime_dir,
            board: Board::default(),
            summary: Summary::create()?,
            counts_at_ms: 0,
            image,
            reload: Reload::default(),
            slots: Slots::new(&config),
            workers: Vec::new(),
            apps: Vec::new(),
            buffer: vec![0; child::MESSAGE_BYTES_MAX],
            worker_restarts: 0,
            manager: ManagerPlace::new(),
            courier: CourierPlace::new(Supervised::new("courier")),
            stopping: None,
            drain: None,
            starting_until_ms: Some(clock::monotonic_ms() + start::MS_MAX),
            state_told: MasterState::default(),
            rehearsal: None,
            _record: record,
            launch,
            config,
        })
    }

    /// The loop: wait, collect what happened, act on it in one written order.
    fn live(mut self) -> ExitCode {
        if let Err(error) = self.log_file.take_over() {
            self.report.failed(&error.to_string());
            return ExitCode::FAILURE;
        }
        self.tell_doubts();
        tracing::info!(
            pid = std::process::id(),
            workers = self.config.worker_num,
            listen = self.listeners.addresses(Purpose::Clients).join(" "),
            api = self.listeners.addresses(Purpose::Api).join(" "),
            "started"
        );
        if let Some(warning) = self.config.root_warning() {
            tracing::warn!("{warning}");
        }
        self.act(Vec::new());
        while !self.is_over() {
            self.wait();
            let signals = self.signals.take();
            self.act(signals);
        }
        self.tear_down()
    }

    /// The terminal was told too, but nobody may have read there.
    fn tell_doubts(&self) {
        let doubts = trust::doubts(&self.launch.sources, &self.launch.invoked, &self.config);
        for doubt in doubts.unwrap_or_default() {
            tracing::warn!("{doubt}");
        }
    }

    /// What happened last comes last: the dead are known before anybody is asked to do anything,
    /// and what was asked is known before the clock is looked at.
    fn act(&mut self, signals: Vec<(Request, usize)>) {
        self.reap();
        self.read_workers();
        self.read_manager();
        self.read_courier();
        self.read_probe();
        for (request, count) in signals {
            self.answer_signal(request, count);
        }
        let now = clock::monotonic_ms();
        self.tick_stopping(now);
        self.tick_manager(now);
        self.tick_courier(now);
        self.tick_workers(now);
        self.tick_leases(now);
        self.tick_counts(now);
        self.tick_lending(now);
        self.tick_draining(now);
        self.tick_starting(now);
        self.tick_reloading(now);
        self.tick_rehearsing(now);
        self.tick_files(now);
        self.tell_state();
    }

    fn wait(&mut self) {
        let now = clock::monotonic_ms();
        let timeout = self.next_deadline_ms(now).saturating_sub(now).min(CHECK_MS);
        let timeout = PollTimeout::try_from(timeout as i32).unwrap_or(PollTimeout::ZERO);
        let mut descriptors = vec![PollFd::new(self.signals.descriptor(), PollFlags::POLLIN)];
        let children = self.workers.iter().map(|worker| &worker.child);
        let children = children.chain(self.supervised()).chain(self.reload.probe());
        for child in children {
            let backed_up =
                if child.is_backed_up() { PollFlags::POLLOUT } else { PollFlags::empty() };
            descriptors.push(PollFd::new(child.link(), PollFlags::POLLIN | backed_up));
        }
        let verdict = self.rehearsal.as_ref().map(Rehearsal::descriptor);
        descriptors.extend(verdict.map(|verdict| PollFd::new(verdict, PollFlags::POLLIN)));
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => tracing::error!(%errno, "poll failed"),
        }
        for worker in &mut self.workers {
            worker.child.flush();
        }
        let supervised = [&mut self.manager.process, &mut self.courier.process];
        for child in supervised.into_iter().filter_map(Supervised::child_mut) {
            child.flush();
        }
    }

    fn next_deadline_ms(&self, now: u64) -> u64 {
        let deadlines = [
            Some(now + CHECK_MS),
            self.slots.next_deadline_ms(),
            self.manager.process.next_deadline_ms(),
            self.courier.process.next_deadline_ms(),
            self.reload.next_deadline_ms(),
            self.stopping.as_ref().map(Stopping::deadline_ms),
            self.rehearsal.as_ref().map(Rehearsal::deadline_ms),
            self.starting_until_ms,
            self.workers.iter().filter_map(|worker| worker.child.kill_at_ms).min(),
            self.workers.iter().filter_map(|worker| worker.lease.due_ms()).min(),
            self.retry_at_ms(now),
            self.lend_deadline_ms(),
            self.drain_deadline_ms(),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now).max(now)
    }

    /// When to send again what a child's link has refused for a reason of which nobody tells when
    /// it is over.
    fn retry_at_ms(&self, now: u64) -> Option<u64> {
        let workers = self.workers.iter().map(|worker| &worker.child);
        workers.chain(self.supervised()).any(Child::is_refused).then_some(now + RETRY_MS)
    }

    fn answer_signal(&mut self, request: Request, count: usize) {
        match request {
            Request::Reap => {}
            Request::Kill => self.stop_at_once(),
            Request::Quick => self.stop(StopMode::Quick, count),
            Request::Graceful => self.stop(StopMode::Graceful, count),
            Request::Reload => {
                self.manager.reload_asked = true;
                self.tell_manager(&MasterToManager::ReloadRequested, Vec::new());
            }
            Request::Upgrade => self.upgrade(),
            Request::Reopen => self.reopen_log(),
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, how, clean) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, 0)) => (pid, "exit status 0".to_owned(), true),
                Ok(WaitStatus::Exited(pid, status)) => {
                    (pid, format!("exit status {status}"), false)
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, format!("signal {signal}"), false)
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => return tracing::error!(%errno, "waitpid failed"),
            };
            self.reaped(pid, &how, clean);
        }
    }

    fn reaped(&mut self, pid: Pid, how: &str, clean: bool) {
        if self.manager.process.is(pid) {
            self.manager_died(how, clean);
        } else if self.courier.process.is(pid) {
            self.courier_died(how, clean);
        } else if self.reload.probe().is_some_and(|probe| probe.pid == pid) {
            self.probe_died(how);
        } else if let Some(index) = self.workers.iter().position(|worker| worker.child.pid == pid)
        {
            let mut worker = self.workers.swap_remove(index);
            self.hear_last_words(&mut worker);
            self.worker_died(worker, how, clean);
        } else {
            self.app_died(pid, how);
        }
    }

    fn state(&self) -> MasterState {
        MasterState {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            listen: self.listeners.addresses(Purpose::Clients),
            api: self.listeners.addresses(Purpose::Api),
            generation: self.image.generation,
            worker_num: self.worker_num(),
            worker_restarts: self.worker_restarts,
            manager_restarts: self.manager.restarts,
            throttled: self.slots.throttled(),
            troubles: self.troubles(),
            draining: self.drain.is_some(),
            courier: self.courier_state(),
        }
    }

    fn tell_state(&mut self) {
        let state = self.state();
        if state != self.state_told {
            self.tell_manager(&MasterToManager::State(state.clone()), Vec::new());
            self.state_told = state;
        }
    }

    /// What an operator should know of, as whole sentences.
    fn troubles(&self) -> Vec<String> {
        let troubles = self.file_checks.trouble().into_iter().chain(self.serials.trouble());
        troubles.chain(self.courier.trouble()).cloned().collect()
    }

    /// How many slots the serving generation has.
    fn worker_num(&self) -> u16 {
        u16::try_from(self.config.worker_num).unwrap_or(u16::from(u8::MAX))
    }

    fn is_over(&self) -> bool {
        let gone = self.workers.is_empty() && self.apps.is_empty();
        self.stopping.is_some() && gone && self.supervised().next().is_none()
    }

    fn tear_down(self) -> ExitCode {
        ending::end_strays();
        self.listeners.unlink_paths(&self.config);
        // Somebody may have removed it already.
        let _ = remove_pid_file(&self.runtime_dir, &self.config);
        self.runtime_dir.leave_nothing();
        let failed = self.stopping.as_ref().is_some_and(Stopping::is_failure);
        tracing::info!("stopped");
        drop(self.runtime_dir);
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
