//! Upgrade: the master executes a new image in place, with the same pid, and every process,
//! listener and link stays where it is.
//!
//! First the new image rehearses in a child: it is given the real table and every descriptor,
//! takes all of it over for show, and says whether it could. Then, with all signals blocked, the
//! master writes the table anew and executes the new image. Until that has adopted the server,
//! any error, panic, crash or hang of it executes the old image again (`sys::guard`). The reload
//! that follows is the new manager's business.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::apps::App;
use super::child::Child;
use super::courier_handle::CourierLeft;
use super::launch::Preface;
use super::log_file::LogFile;
use super::manager_handle::ManagerLeft;
use super::reload::Image;
use super::report::{READY_LINE, Report};
use super::runtime_dir::{RuntimeDir, RuntimeDirLeft};
use super::worker_left::WorkerLeft;
use super::{Launch, Master, Signals, notify, trust};
use crate::config::{Config, Sources};
use crate::error::{Error, Result, Subject};
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::{Generation, Listener, MasterToManager};
use crate::ipc::scoreboard::{Board, Fact, MANAGER, Summary, Totals};
use crate::sys::{clock, ending, guard, process};

/// The rehearsal says within this time whether the new image could take over.
const REHEARSAL_MS_MAX: u64 = 10_000;

/// What one image of the master leaves to the next. Every number is a descriptor's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// The version of the image that wrote this.
    pub from: String,
    /// What that image and the workers it left speak.
    ipc_version: u8,
    /// All of the numbers below.
    all: Vec<RawFd>,
    /// Where the new image writes why it goes back.
    why: RawFd,
    started_at: u64,
    runtime_dir: RuntimeDirLeft,
    control: RawFd,
    departed: Totals,
    /// The summary of all counters.
    #[serde(default)]
    summary: Option<RawFd>,
    image: RawFd,
    generation: Generation,
    last_generation: Generation,
    worker_restarts: u64,
    /// How far a drain is.
    #[serde(default)]
    drain: Option<super::drain::Drain>,
    serials: BTreeMap<u8, u64>,
    listeners: Vec<(u8, Listener, RawFd)>,
    slots: Vec<SlotLeft>,
    workers: Vec<WorkerLeft>,
    apps: Vec<App>,
    manager: ManagerLeft,
    #[serde(default)]
    courier: Option<CourierLeft>,
}

/// A slot, as it is left.
#[derive(Debug, Serialize, Deserialize)]
struct SlotLeft {
    slot: u8,
    epoch: u32,
    closing_lost: Vec<RawFd>,
}

/// A rehearsal under way.
pub struct Rehearsal {
    image: Image,
    pid: Pid,
    verdict: File,
    deadline_ms: u64,
}

impl Rehearsal {
    /// Becomes readable when the verdict is there.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.verdict.as_fd()
    }

    /// When patience ends.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

impl Master {
    /// Somebody asks for an upgrade.
    pub(super) fn upgrade(&mut self) {
        if let Err(error) = self.start_rehearsal() {
            self.upgrade_failed(&error.to_string());
        }
    }

    fn upgrade_failed(&mut self, why: &str) {
        tracing::error!(why, "the upgrade failed; nothing has changed");
        notify::ready();
        let why = why.to_owned();
        self.tell_manager(&MasterToManager::UpgradeFailed { why }, Vec::new());
    }

    fn start_rehearsal(&mut self) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(format!("no upgrade now: {why}")));
        if self.stopping.is_some() || self.starting_until_ms.is_some() {
            return refuse("the server is starting or stopping");
        }
        if self.reload.is_under_way() || self.rehearsal.is_some() {
            return refuse("a reload or an upgrade is under way");
        }
        notify::reloading();
        trust::judge_files(&self.launch.sources, &self.launch.invoked, &self.config)?;
        let image = Image::open(&self.launch.invoked, self.image.generation)?;
        let (reader, writer) = std::io::pipe().subject(|| "pipe".to_owned())?;
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        let (launch, kept) = self.leave(Some(writer.as_fd()))?;
        let record = launch.write()?;
        let spawned = process::spawn(&process::Spawn {
            image: &image.path(),
            title: "wsd: rehearsal",
            arguments: &self.arguments,
            link: record.as_fd(),
            socket: None,
            stdout: None,
            stderr: self.log_file.for_child(),
        });
        self.take_back(kept);
        let path = self.launch.invoked.display();
        let pid = spawned.map_err(|error| Error::new(format!("{path} cannot be run: {error}")))?;
        let deadline_ms = clock::monotonic_ms() + REHEARSAL_MS_MAX;
        let verdict = File::from(reader);
        self.rehearsal = Some(Rehearsal { image, pid, verdict, deadline_ms });
        Ok(())
    }

    /// The verdict of the rehearsal is there, or is not and never will be.
    pub(super) fn tick_rehearsing(&mut self, now: u64) {
        let Some(rehearsal) = &mut self.rehearsal else { return };
        let path = self.launch.invoked.display();
        let mut verdict = String::new();
        if is_readable(rehearsal.verdict.as_fd()) {
            // What cannot be read is no "ready", and that is all that counts.
            let _ = (&mut rehearsal.verdict).take(64 * 1024).read_to_string(&mut verdict);
        } else if now < rehearsal.deadline_ms {
            return;
        } else {
            verdict = format!("{path} did not finish its rehearsal in time");
        }
        let Some(rehearsal) = self.rehearsal.take() else { return };
        match verdict.as_str() {
            READY_LINE => self.execute(&rehearsal.image),
            why => {
                // It may hang. Whether or not, it is reaped like any child.
                let _ = nix::sys::signal::kill(rehearsal.pid, Signal::SIGKILL);
                let ended = format!(
                    "{path} ended its rehearsal without a word: it is not a wsd server, or \
                     does not call `run` or `start`"
                );
                let why = if why.is_empty() { ended } else { why.to_owned() };
                self.upgrade_failed(&why);
            }
        }
    }

    /// Becomes the new image. Returns only if that failed.
    fn execute(&mut self, image: &Image) {
        tracing::info!(path = %self.launch.invoked.display(), "executing the new image");
        let mut old_mask = SigSet::empty();
        let blocked =
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old_mask));
        let error = match blocked.subject(|| "block signals".to_owned()) {
            Ok(()) => self.try_execute(image),
            Err(error) => error,
        };
        guard::stop_clock();
        // Restoring what sigprocmask itself gave cannot fail.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old_mask), None);
        self.upgrade_failed(&error.to_string());
    }

    fn try_execute(&mut self, image: &Image) -> Error {
        let prepared = self.leave(None).and_then(|(launch, kept)| Ok((launch.write()?, kept)));
        let (record, kept) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return error,
        };
        let placed = File::open("/proc/self/exe")
            .subject(|| "open the old image".to_owned())
            .and_then(|old| process::place(old.into(), guard::OLD_IMAGE_RAW_FD))
            .and_then(|()| process::place_link(record));
        let error = match placed {
            Ok(()) => {
                guard::start_clock();
                // Nobody can map it for writing any more; the next image makes another.
                self.summary.tell(Fact::Superseded, 1);
                process::exec(&image.path(), "wsd: master", &self.arguments)
            }
            Err(error) => error,
        };
        self.summary.tell(Fact::Superseded, 0);
        self.take_back(kept);
        match process::reserve(guard::OLD_IMAGE_RAW_FD) {
            Ok(()) => error,
            Err(reserve) => Error::new(format!("{error}; {reserve}")),
        }
    }

    /// Writes down everything for the next image, and lets its descriptors outlive an exec.
    fn leave(&self, report: Option<BorrowedFd<'_>>) -> Result<(Launch, Vec<OwnedFd>)> {
        let mut leaving = Leaving::default();
        let why = leaving.give(crate::sys::memory::open_memfd("wsd-why")?)?;
        let report = report.map(|pipe| leaving.pass_on(pipe)).transpose()?;
        let mut takeover = Takeover {
            all: Vec::new(),
            from: env!("CARGO_PKG_VERSION").to_owned(),
            ipc_version: IPC_VERSION,
            why,
            started_at: self.started_at,
            runtime_dir: self.runtime_dir.leave(&mut leaving)?,
            control: leaving.pass_on(self.control.as_fd())?,
            departed: self.board.departed().clone(),
            summary: Some(leaving.pass_on(self.summary.memfd().as_fd())?),
            image: leaving.pass_on(self.image.descriptor())?,
            generation: self.image.generation,
            last_generation: self.reload.last_generation(),
            worker_restarts: self.worker_restarts,
            drain: self.drain,
            serials: self.serials.next().clone(),
            listeners: self
                .listeners
                .all()
                .map(|(slot, listener, socket)| {
                    Ok((slot, listener.clone(), leaving.pass_on(socket)?))
                })
                .collect::<Result<_>>()?,
            slots: self
                .slots
                .iter()
                .map(|(slot, place)| {
                    let closing_lost = place.owed.iter().map(|it| leaving.pass_on(it.as_fd()));
                    let closing_lost = closing_lost.collect::<Result<_>>()?;
                    Ok(SlotLeft { slot: slot.0, epoch: place.epoch, closing_lost })
                })
                .collect::<Result<_>>()?,
            workers: self
                .workers
                .iter()
                .map(|worker| worker.leave(&mut leaving))
                .collect::<Result<_>>()?,
            apps: self.apps.clone(),
            manager: self.manager.leave(&mut leaving)?,
            courier: Some(self.courier.leave(&mut leaving)?),
        };
        takeover.all = leaving.passed.iter().map(AsRawFd::as_raw_fd).collect();
        let launch = Launch {
            sources: self.launch.sources.clone(),
            config: self.config.clone(),
            invoked: self.launch.invoked.clone(),
            report,
            takeover: Some(takeover),
        };
        Ok((launch, leaving.passed))
    }

    /// The exec is over or did not happen: our own children are not to inherit anything.
    fn take_back(&self, passed: Vec<OwnedFd>) {
        drop(passed);
        process::close_inherited_on_exec();
    }
}

/// Collects descriptors that are to outlive an exec.
#[derive(Default)]
pub struct Leaving {
    passed: Vec<OwnedFd>,
}

impl Leaving {
    /// A duplicate that outlives the exec; the original stays as it is.
    pub fn pass_on(&mut self, descriptor: BorrowedFd<'_>) -> Result<RawFd> {
        self.give(super::child::duplicate(descriptor)?)
    }

    fn give(&mut self, descriptor: OwnedFd) -> Result<RawFd> {
        let number = process::keep_over_exec(descriptor.as_fd())?;
        self.passed.push(descriptor);
        Ok(number)
    }
}

/// Takes the server over from the image before this one. Everything is taken as a duplicate: if
/// this fails, the originals are there for the image that is gone back to.
pub(super) fn adopt(mut launch: Launch, record: OwnedFd) -> Result<Master> {
    let Some(left) = launch.takeover.take() else {
        return Err(Error::new("there is nothing to take over"));
    };
    ending::adopt_strays()?;
    let take = process::duplicate_number;
    let why = File::from(take(left.why)?);
    let control = take(left.control)?;
    let slots = adopt_slots(left.slots, &launch.config)?;
    let mut listeners = super::Listeners::default();
    for (slot, listener, socket) in left.listeners {
        listeners.adopt(slot, listener, take(socket)?);
    }
    let runtime_dir = RuntimeDir::adopt(left.runtime_dir, &launch.config)?;
    let workers = left.workers.into_iter().map(super::WorkerHandle::adopt);
    let workers = workers.collect::<Result<Vec<_>>>()?;
    let manager = super::ManagerPlace::adopt(left.manager)?;
    let board = adopt_board(left.departed, &workers, &manager)?;
    let summary = match left.summary.map(take).transpose()? {
        Some(before) => Summary::continuing(before.as_fd())?,
        None => Summary::create()?,
    };
    let mut master = Master {
        arguments: process::arguments(),
        started_at: left.started_at,
        log_file: LogFile::open(&launch.config)?,
        log_stuck: false,
        file_checks: Default::default(),
        report: Report::told(),
        signals: Signals::install()?,
        serials: super::Serials::adopt(
            runtime_dir.dir().try_clone()?,
            left.serials,
            &launch.config,
        ),
        runtime_dir,
        listeners,
        control,
        board,
        summary,
        counts_at_ms: 0,
        image: Image::adopt(left.generation, take(left.image)?),
        reload: super::Reload::adopt(left.last_generation),
        rehearsal: None,
        slots,
        workers,
        apps: left.apps,
        buffer: vec![0; super::child::MESSAGE_BYTES_MAX],
        worker_restarts: left.worker_restarts,
        manager,
        courier: super::CourierPlace::adopt(left.courier)?,
        stopping: None,
        drain: left.drain,
        starting_until_ms: None,
        state_told: Default::default(),
        config: launch.config.clone(),
        _record: record,
        launch,
    };
    master.fill_places();
    master.show_summary_to_all();
    left.all.into_iter().for_each(process::close_number);
    master.came_back(why);
    Ok(master)
}

fn adopt_slots(left: Vec<SlotLeft>, config: &Config) -> Result<super::Slots> {
    let mut slots = super::Slots::new(config);
    for place in left {
        let at = slots.at(crate::fd::Slot(place.slot));
        at.epoch = place.epoch;
        let owed = place.closing_lost.into_iter().map(process::duplicate_number);
        at.owed = owed.collect::<Result<_>>()?;
        at.start_at_ms = None;
        at.idle_since_ms = None;
    }
    Ok(slots)
}

/// The counters of every process that lives, and of those that do not.
fn adopt_board(
    departed: Totals,
    workers: &[super::WorkerHandle],
    manager: &super::ManagerPlace,
) -> Result<Board> {
    let mut board = Board::new(departed);
    for worker in workers {
        board.opened(worker.id, worker.page.as_fd())?;
    }
    if let Some(page) = manager.page() {
        board.opened(MANAGER, page)?;
    }
    Ok(board)
}

impl Master {
    /// What could have happened to a slot while nobody looked: nothing, or it is empty now.
    fn fill_places(&mut self) {
        let now = clock::monotonic_ms();
        for slot in self.slots.serving() {
            let alive = self.workers.iter().any(|worker| worker.id.slot == slot);
            let place = self.slots.at(slot);
            if !alive && place.start_at_ms.is_none() {
                place.start_at_ms = Some(now);
                place.idle_since_ms = Some(now);
            }
        }
        let removed = self.slots.iter().map(|(slot, _)| slot);
        let removed: Vec<_> = removed.filter(|slot| !self.slots.serves(*slot)).collect();
        for slot in removed {
            self.slots.at(slot).idle_since_ms = Some(0);
        }
    }

    /// A new image starts a new manager; an old one that was come back to tells its own why.
    fn came_back(&mut self, mut why: File) {
        if guard::is_armed() {
            self.manager.upgraded();
            self.courier.upgraded();
            return;
        }
        let mut text = String::new();
        let rewound = std::io::Seek::rewind(&mut why);
        // No reason given is a reason too.
        let _ = rewound.and_then(|()| why.read_to_string(&mut text));
        if text.is_empty() {
            text = format!(
                "{} died, or did not adopt the server within {} s, after it was executed",
                self.launch.invoked.display(),
                guard::ADOPT_SECONDS
            );
        }
        self.upgrade_failed(&text);
    }
}

/// Takes everything over for show: the descriptors are copies, and nothing is signalled, reaped
/// or told. What would fail in earnest fails here.
pub fn rehearse(record: OwnedFd, base: Config) -> Result<()> {
    let report = Preface::read(&record)?.report;
    let report = report.map(process::adopt_descriptor).map(File::from);
    let verdict = Launch::read(&record).and_then(|launch| rehearse_launch(launch, base));
    let text = match &verdict {
        Ok(()) => READY_LINE.to_owned(),
        Err(error) => error.to_string(),
    };
    let Some(mut report) = report else { return verdict };
    std::io::Write::write_all(&mut report, text.as_bytes())
        .subject(|| "tell the verdict".to_owned())?;
    verdict
}

fn rehearse_launch(launch: Launch, base: Config) -> Result<()> {
    // The file may be root's to read alone; the rest of the rehearsal needs no right.
    let sources: &Sources = &launch.sources.read_now();
    launch.config.manager_rights().take()?;
    let config = Config::load(base, sources).map_err(|errors| Error::new(errors.to_string()))?;
    let refused = launch.config.reload_refusals(&config);
    if !refused.is_empty() {
        return Err(Error::new(format!("{} cannot change on upgrade", refused.join(", "))));
    }
    let Some(left) = launch.takeover else {
        return Err(Error::new("there is nothing to take over"));
    };
    for worker in left.workers {
        worker.check()?;
    }
    Ok(())
}

/// Writes down why this image goes back to the one before it, and goes.
pub fn give_up(written_to: RawFd, why: &str) -> Error {
    if let Ok(file) = process::duplicate_number(written_to) {
        // Without a reason the old image says that there was none.
        let _ = std::io::Write::write_all(&mut File::from(file), why.as_bytes());
    }
    guard::go_back();
    Error::new(format!("{why}; and the old image could not be executed again"))
}

impl Takeover {
    /// Where to write why this image goes back.
    pub fn why(&self) -> RawFd {
        self.why
    }
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Whether a child's link is still what it says.
pub fn check_link(raw: RawFd) -> Result<()> {
    let link = process::duplicate_number(raw)?;
    nix::sys::socket::getsockopt(&link, nix::sys::socket::sockopt::SockType)
        .map(|_| ())
        .subject(|| "look at a worker's link".to_owned())
}

/// Takes a child over.
pub fn adopt_child(pid: i32, started_ms: u64, link: RawFd) -> Result<Child> {
    Ok(Child::adopt(Pid::from_raw(pid), started_ms, process::duplicate_number(link)?))
}
