//! The master's part in a reload: the new image and configuration are proved by a probe, their
//! listeners bound, their workers started as the manager asks, and the whole made current or
//! taken back. The manager's `reload` decides when.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::signal::Signal;

use super::child::{Birth, Child};
use super::log_file::LogFile;
use super::{Master, notify, trust};
use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::{Slot, WorkerId};
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::{Generation, MasterToManager, MasterToProbe, ProbeToMaster};
use crate::sys::{clock, process};

/// A probe says whether its image can serve within this time.
const PROBE_MS_MAX: u64 = 10_000;

/// What a generation runs: the file as it was when the generation began, wherever its name
/// points by now, so that a crash never mixes versions.
pub struct Image {
    /// The generation's number.
    pub generation: Generation,
    descriptor: OwnedFd,
}

impl Image {
    /// Opens the program that stands at `path` now.
    pub fn open(path: &Path, generation: Generation) -> Result<Image> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
            .open(path)
            .subject(|| format!("open the program {}", path.display()))?;
        Ok(Image { generation, descriptor: file.into() })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(generation: Generation, descriptor: OwnedFd) -> Image {
        Image { generation, descriptor }
    }

    /// The descriptor, for an upgrade.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The path by which it is executed.
    pub fn path(&self) -> CString {
        process::descriptor_path(self.descriptor.as_fd())
    }
}

struct Pending {
    image: Image,
    config: Config,
    made: Vec<(super::listen::Entry, u8)>,
    /// What its workers write to, and everybody once it serves.
    log_file: LogFile,
}

struct Probing {
    image: Image,
    child: Child,
    deadline_ms: u64,
}

/// Where a reload stands, as far as the master is concerned.
#[derive(Default)]
pub struct Reload {
    probing: Option<Probing>,
    pending: Option<Pending>,
    last_generation: Generation,
}

impl Reload {
    /// Goes on from where the image before this one stood.
    pub fn adopt(last_generation: Generation) -> Reload {
        Reload { last_generation, ..Reload::default() }
    }

    /// The highest number that was ever given to a generation.
    pub fn last_generation(&self) -> Generation {
        self.last_generation
    }

    /// Whether there is a generation that does not serve yet.
    pub fn is_under_way(&self) -> bool {
        self.probing.is_some() || self.pending.is_some()
    }

    /// The probe, while there is one.
    pub fn probe(&self) -> Option<&Child> {
        self.probing.as_ref().map(|probing| &probing.child)
    }

    /// When the probe's patience ends.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.probing.as_ref().map(|probing| probing.deadline_ms)
    }

    /// The image of the pending generation, if that is its number.
    pub fn pending_image(&self, generation: Generation) -> Option<&Image> {
        let image = self.pending.as_ref().map(|pending| &pending.image)?;
        (image.generation == generation).then_some(image)
    }

    /// The configuration of the pending generation, if that is its number.
    pub fn pending_config(&self, generation: Generation) -> Option<&Config> {
        let pending = self.pending.as_ref()?;
        (pending.image.generation == generation).then_some(&pending.config)
    }

    /// Whether the pending generation does without this slot.
    pub fn removes(&self, slot: Slot) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| usize::from(slot.0) >= pending.config.worker_num)
    }

    /// The log of the pending generation, if that is its number.
    pub fn pending_log(&self, generation: Generation) -> Option<&LogFile> {
        let pending = self.pending.as_ref()?;
        (pending.image.generation == generation).then_some(&pending.log_file)
    }

    /// The number of the pending generation.
    pub fn pending_generation(&self) -> Option<Generation> {
        self.pending.as_ref().map(|pending| pending.image.generation)
    }
}

impl Master {
    /// The manager asks for the next generation: a probe of the image that stands at the invoked
    /// path now is to resolve the configuration as it stands now.
    pub(super) fn prepare(&mut self) {
        if self.reload.probing.is_some() || self.reload.pending.is_some() {
            self.abort("another reload began");
        }
        if self.stopping.is_some() {
            return self.prepare_failed("the server is stopping".to_owned());
        }
        self.manager.reload_asked = true;
        notify::reloading();
        if let Err(error) = self.start_probe() {
            self.prepare_failed(error.to_string());
        }
    }

    fn start_probe(&mut self) -> Result<()> {
        trust::judge_files(&self.launch.sources, &self.launch.invoked, &self.config)?;
        let last = self.reload.last_generation.max(self.image.generation);
        let image = Image::open(&self.launch.invoked, last + 1)?;
        let sources = serde_json::to_string(&self.launch.sources)
            .map_err(|error| Error::new(format!("cannot send the sources: {error}")))?;
        let mut child = Child::start(&Birth {
            image: &image.path(),
            title: "wsd: probe",
            arguments: &self.arguments,
            stdout: None,
            stderr: self.log_file.for_child(),
        })
        .map_err(|error| {
            Error::new(format!("{} cannot be run: {error}", self.launch.invoked.display()))
        })?;
        let rights = self.config.manager_rights();
        child.send(&MasterToProbe::Boot { sources, rights }, Vec::new())?;
        self.reload.last_generation = image.generation;
        let deadline_ms = clock::monotonic_ms() + PROBE_MS_MAX;
        self.reload.probing = Some(Probing { image, child, deadline_ms });
        Ok(())
    }

    fn prepare_failed(&mut self, why: String) {
        tracing::error!(%why, "the reload was refused; nothing has changed");
        self.manager.reload_asked = false;
        if let Some(probing) = self.reload.probing.take() {
            self.discard_probe(probing);
        }
        notify::ready();
        self.tell_manager(&MasterToManager::PrepareFailed { why }, Vec::new());
    }

    /// Kills a probe; it is reaped like any child, and then is nobody's.
    fn discard_probe(&mut self, probing: Probing) {
        probing.child.signal(Signal::SIGKILL);
    }

    pub(super) fn read_probe(&mut self) {
        loop {
            let Some(probing) = &mut self.reload.probing else { return };
            match probing.child.receive::<ProbeToMaster>(&mut self.buffer) {
                Ok(Some((message, _))) => self.probe_said(message),
                Ok(None) => return,
                Err(_) => {
                    return self.prepare_failed(format!(
                        "{} is not a wsd server of this version: use `wsd upgrade`",
                        self.launch.invoked.display()
                    ));
                }
            }
        }
    }

    fn probe_said(&mut self, message: ProbeToMaster) {
        match message {
            ProbeToMaster::Hello(hello) if hello.ipc_version == IPC_VERSION => {}
            ProbeToMaster::Hello(hello) => self.prepare_failed(format!(
                "{} (version {}) speaks IPC version {}, this server {IPC_VERSION}: use \
                 `wsd upgrade`",
                self.launch.invoked.display(),
                hello.version,
                hello.ipc_version
            )),
            ProbeToMaster::Errors(errors) => self.prepare_failed(errors),
            ProbeToMaster::Config(config) => {
                if let Err(error) = self.accept_config(&config) {
                    self.prepare_failed(error.to_string());
                }
            }
        }
    }

    fn accept_config(&mut self, config: &str) -> Result<()> {
        let config: Config = serde_json::from_str(config)
            .map_err(|error| Error::new(format!("the probe's configuration: {error}")))?;
        let mut config = Config { daemonize: self.config.daemonize, ..config };
        if config.log_file.is_none() && config.daemonize {
            config.log_file = self.config.log_file.clone();
        }
        let refused = self.config.reload_refusals(&config);
        if !refused.is_empty() {
            return Err(Error::new(format!(
                "{} cannot change on reload; stop and start the server for that",
                refused.join(", ")
            )));
        }
        if let Some(note) = config.fit_descriptors(process::raise_descriptor_limit()) {
            tracing::warn!("{note}");
        }
        let log_file = LogFile::open(&config)?;
        let made = self.listeners.ensure(&config)?;
        let Some(probing) = self.reload.probing.take() else { return Ok(()) };
        self.reload.pending = Some(Pending { image: probing.image, config, made, log_file });
        self.manager.reload_asked = false;
        self.tell_prepared();
        Ok(())
    }

    /// Tells the manager of the pending generation; a successor has to know of it before it hears
    /// of that generation's workers.
    pub(super) fn tell_prepared(&mut self) {
        let Some(pending) = &self.reload.pending else { return };
        let prepared = MasterToManager::Prepared {
            generation: pending.image.generation,
            config: pending.config.for_child(false),
            worker_num: u16::try_from(pending.config.worker_num).unwrap_or(256),
        };
        self.tell_manager(&prepared, Vec::new());
    }

    pub(super) fn probe_died(&mut self, how: &str) {
        let path = self.launch.invoked.display().to_string();
        self.read_probe();
        if self.reload.probing.take().is_some() {
            self.prepare_failed(format!(
                "{path} ended without a word ({how}): it is not a wsd server, or does not call \
                 `run` or `start`"
            ));
        }
    }

    pub(super) fn tick_reloading(&mut self, now: u64) {
        if self.reload.next_deadline_ms().is_some_and(|deadline| deadline <= now) {
            let path = self.launch.invoked.display();
            self.prepare_failed(format!(
                "{path} did not say within {} s whether it can serve",
                PROBE_MS_MAX / 1000
            ));
        }
    }

    /// The manager asks for a worker of the pending generation.
    pub(super) fn spawn_pending(&mut self, slot: Slot) {
        let Some(pending) = &self.reload.pending else { return };
        let (generation, config) = (pending.image.generation, pending.config.clone());
        if let Err(error) = self.start_worker(slot, generation, &config) {
            let failed = MasterToManager::SpawnFailed { slot, why: error.to_string() };
            self.tell_manager(&failed, Vec::new());
        }
    }

    pub(super) fn worker_of_reload_died(
        &mut self,
        id: &WorkerId,
        generation: Generation,
        how: &str,
    ) {
        if self.reload.pending_generation() == Some(generation) {
            let why = format!("the new worker {} died: {how}", id.slot);
            self.tell_manager(&MasterToManager::SpawnFailed { slot: id.slot, why }, Vec::new());
        }
    }

    /// The pending generation serves: it is the one that crashes are replaced from.
    pub(super) fn commit(&mut self) {
        let Some(pending) = self.reload.pending.take() else { return };
        self.image = pending.image;
        self.config = pending.config;
        self.slots.resize(&self.config, None);
        self.listeners.retain(&self.config);
        let generation = self.image.generation;
        tracing::info!(generation, workers = self.config.worker_num, "the new generation serves");
        self.staff_places(generation);
        // The old ones have stopped accepting: what they had borrowed is lent anew, and the
        // listeners of removed slots need somebody.
        let olds = self.workers.iter().filter(|worker| worker.generation != generation);
        for id in olds.map(|worker| worker.id).collect::<Vec<_>>() {
            self.lend_elsewhere(id);
        }
        let removed: Vec<Slot> = self
            .slots
            .iter()
            .map(|(slot, _)| slot)
            .filter(|slot| !self.slots.serves(*slot))
            .collect();
        for slot in removed {
            let place = self.slots.at(slot);
            place.idle_since_ms.get_or_insert(0);
        }
        self.write_log_to(pending.log_file);
        notify::ready();
    }

    /// The pending generation is not wanted.
    pub(super) fn abort(&mut self, why: &str) {
        if let Some(probing) = self.reload.probing.take() {
            self.discard_probe(probing);
        }
        let Some(pending) = self.reload.pending.take() else { return };
        tracing::warn!(why, "the pending generation is taken back");
        for worker in self.workers.iter().filter(|w| w.generation == pending.image.generation) {
            worker.child.signal(Signal::SIGKILL);
        }
        self.listeners.remove(&pending.made);
        // What had left for it is needed after all.
        self.staff_places(self.image.generation);
        notify::ready();
    }

    /// Starts a worker in each slot that has none of this generation.
    fn staff_places(&mut self, generation: Generation) {
        let now = clock::monotonic_ms();
        for slot in self.slots.serving().collect::<Vec<_>>() {
            let alive = |worker: &super::WorkerHandle| {
                worker.id.slot == slot && worker.generation == generation
            };
            if !self.workers.iter().any(alive) {
                self.slots.at(slot).start_at_ms.get_or_insert(now);
            }
        }
    }
}
