//! What a crash-proof worker leaves: its shadow, which holds its descriptors, and its ledger. The
//! master keeps both for the replacement, and sees that no shadow outlives what it is for.
//!
//! A shadow is a child of ours that the worker made. It leaves when our end of its socket is
//! closed, which is when its worker has ended by itself, or when an heir has said what it took.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Master;
use super::child::duplicate;
use super::places::Estate;
use super::throttle::YOUNG_MS;
use super::upgrade::Leaving;
use super::worker_handle::WorkerHandle;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::ledger::Ledger;
use crate::ipc::messages::{MasterToManager, MasterToWorker};
use crate::ipc::registry::Registry;
use crate::ipc::shadow;
use crate::sys::{clock, packet, process};

/// A shadow that was told to leave is killed after this time.
const LEAVE_MS: u64 = 1_000;
/// The least time that clients of a dead worker are kept for an heir; `max_wait_time` if longer.
const KEEP_MS_MIN: u64 = 2_000;

/// What makes a worker crash-proof.
pub struct Proof {
    socket: OwnedFd,
    /// Known once the shadow has said it.
    pid: Option<Pid>,
    /// The shadow died before its worker.
    lost: bool,
    ledger: OwnedFd,
}

/// As one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProofLeft {
    socket: RawFd,
    pid: Option<i32>,
    lost: bool,
    ledger: RawFd,
}

impl Proof {
    /// Makes what a worker needs for it, and what stays here.
    pub fn create(entries: usize) -> Result<(Proof, [OwnedFd; 2])> {
        let (socket, theirs) = packet::pair()?;
        let (_, ledger) = Ledger::create(entries)?;
        let given = [theirs, duplicate(ledger.as_fd())?];
        Ok((Proof { socket, pid: None, lost: false, ledger }, given))
    }

    /// Writes down what the next image needs.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<ProofLeft> {
        Ok(ProofLeft {
            socket: leaving.lend(self.socket.as_fd())?,
            pid: self.pid.map(Pid::as_raw),
            lost: self.lost,
            ledger: leaving.lend(self.ledger.as_fd())?,
        })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(left: ProofLeft) -> Result<Proof> {
        Ok(Proof {
            socket: process::duplicate_number(left.socket)?,
            pid: left.pid.map(Pid::from_raw),
            lost: left.lost,
            ledger: process::duplicate_number(left.ledger)?,
        })
    }

    /// Reads its shadow's greeting, if it has come.
    fn greet(&mut self) {
        if self.pid.is_none() && !self.lost {
            self.pid = shadow::pid(self.socket.as_fd()).map(Pid::from_raw);
        }
    }

    /// Whether it was this shadow that died.
    fn lose(&mut self, pid: Pid) -> bool {
        let its = self.pid.take_if(|its| *its == pid).is_some();
        self.lost |= its;
        its
    }
}

/// The proof of a worker that is dead.
pub struct Legacy {
    proof: Proof,
    /// When its clients have waited for too long.
    pub until_ms: u64,
}

/// What an estate is besides its registry, as one image leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct EstateLeft {
    dead: WorkerId,
    heir: Option<WorkerId>,
    legacy: Option<(ProofLeft, u64)>,
}

impl EstateLeft {
    /// Writes it down.
    pub fn of(estate: &Estate, leaving: &mut Leaving) -> Result<EstateLeft> {
        let legacy = estate.legacy.as_ref();
        let legacy = legacy.map(|it| Ok((it.proof.leave(leaving)?, it.until_ms)));
        Ok(EstateLeft { dead: estate.dead, heir: estate.heir, legacy: legacy.transpose()? })
    }

    /// The estates of a slot again. An older image knew only their registries.
    pub fn adopt(
        slot: Slot,
        registries: Vec<OwnedFd>,
        left: Vec<EstateLeft>,
    ) -> Result<Vec<Estate>> {
        let mut left = left.into_iter();
        let estates = registries.into_iter().map(|registry| {
            let dead = WorkerId { slot, epoch: 0 };
            let more = left.next().unwrap_or(EstateLeft { dead, heir: None, legacy: None });
            let legacy = more.legacy.map(|(proof, until_ms)| {
                Proof::adopt(proof).map(|proof| Legacy { proof, until_ms })
            });
            Ok(Estate { dead: more.dead, registry, heir: more.heir, legacy: legacy.transpose()? })
        });
        estates.collect()
    }
}

/// Shadows that were told to leave: pids, and when each is killed. They are not reaped yet, so the
/// pids are their own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Shadows {
    leaving: Vec<(i32, u64)>,
}

impl Shadows {
    /// Whether all are reaped.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// When the next one has had its time.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.leaving.iter().map(|(_, at)| *at).min()
    }

    /// Tells one to leave.
    fn dismiss(&mut self, mut proof: Proof) {
        proof.greet();
        if let Some(pid) = proof.pid {
            self.leaving.push((pid.as_raw(), clock::monotonic_ms() + LEAVE_MS));
        }
    }
}

impl Master {
    /// Gives a new worker its own proof, and what dead workers of its slot have left.
    pub(super) fn bequeath(&mut self, worker: &mut WorkerHandle, of_proof: [OwnedFd; 2]) {
        let mut legacies = Vec::new();
        let serves = worker.generation == self.image.generation;
        for estate in self.places.at(worker.id.slot).estates.iter_mut().filter(|_| serves) {
            let Some(legacy) = &estate.legacy else { continue };
            let proof = &legacy.proof;
            let fds = [&estate.registry, &proof.ledger, &proof.socket];
            match fds.map(|fd| duplicate(fd.as_fd())).into_iter().collect::<Result<Vec<_>>>() {
                Ok(fds) => legacies.push((estate.dead, fds)),
                // Its time will be over, and then its clients are mourned.
                Err(error) => {
                    tracing::error!(dead = %estate.dead, %error, "cannot be inherited");
                    continue;
                }
            }
            estate.heir = Some(worker.id);
            let until = legacy.until_ms.min(worker.inherits_until_ms.unwrap_or(u64::MAX));
            worker.inherits_until_ms = Some(until);
        }
        worker.inherits = !legacies.is_empty();
        let shadow = MasterToWorker::Shadow { legacies: legacies.len() as u32 };
        worker.send(&shadow, of_proof.into());
        for (from, fds) in legacies {
            worker.send(&MasterToWorker::Inherit { from }, fds);
        }
    }

    /// Tells the manager whose clients a worker takes over.
    pub(super) fn tell_inheritance(&mut self, index: usize) {
        let WorkerHandle { id: heir, ready_ms, .. } = self.workers[index];
        let estates = self.places.at(heir.slot).estates.iter();
        let given = estates.filter(|it| it.heir == Some(heir) && ready_ms.is_none());
        for from in given.map(|estate| estate.dead).collect::<Vec<_>>() {
            self.tell_manager(&MasterToManager::Inherits { heir, from }, Vec::new());
        }
    }

    /// Tells a new manager of the clients that nobody has taken over yet.
    pub(super) fn tell_orphans(&mut self) {
        let estates = self.places.iter().flat_map(|(_, place)| &place.estates);
        let waiting = estates.filter(|it| it.heir.is_none() && it.legacy.is_some());
        for dead in waiting.map(|estate| estate.dead).collect::<Vec<_>>() {
            self.tell_manager(&MasterToManager::Orphaned(dead), Vec::new());
        }
    }

    /// A worker has what it could inherit: the others' connections end, and they are mourned.
    pub(super) fn inherited(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.inherits = false;
        let heir = worker.id;
        for estate in &mut self.places.at(heir.slot).estates {
            if let Some(legacy) = estate.legacy.take_if(|_| estate.heir == Some(heir)) {
                self.shadows.dismiss(legacy.proof);
            }
        }
        self.mourn(heir.slot);
    }

    /// What a dead worker had begun to take over is its own or was never, as its ledger says. The
    /// answer is whether its own registry counts: before, it had nothing but that.
    pub(super) fn resolve_inheritance(&mut self, dead: &WorkerHandle) -> bool {
        if !dead.inherits {
            return true;
        }
        let ledger = dead.proof.as_ref().map(|proof| Ledger::open(proof.ledger.as_fd()));
        let settled = matches!(ledger, Some(Ok(ledger)) if ledger.has_settled());
        for estate in &mut self.places.at(dead.id.slot).estates {
            if estate.heir.take_if(|heir| *heir == dead.id).is_none() {
                continue;
            }
            match Registry::open(estate.registry.as_fd()) {
                Ok(registry) => registry.resolve(settled),
                Err(error) => tracing::error!(dead = %estate.dead, %error, "not resolved"),
            }
        }
        settled
    }

    /// The legacy of a dead worker, if somebody is to have it; else its shadow leaves.
    pub(super) fn legacy_of(&mut self, dead: &mut WorkerHandle, wanted: bool) -> Option<Legacy> {
        let mut proof = dead.proof.take()?;
        if !wanted || proof.lost {
            self.shadows.dismiss(proof);
            return None;
        }
        proof.greet();
        let now = clock::monotonic_ms();
        let patience = (self.config.max_wait_time.as_millis() as u64).max(KEEP_MS_MIN);
        // However often its heirs die young, its clients do not wait for longer than that.
        let young = dead.ready_ms.is_none_or(|ready| now - ready < YOUNG_MS);
        let until_ms = dead.inherits_until_ms.filter(|_| young).unwrap_or(now + patience);
        self.tell_manager(&MasterToManager::Orphaned(dead.id), Vec::new());
        Some(Legacy { proof, until_ms })
    }

    /// Ends legacies that nobody will have, or that have waited for too long, and shadows that do
    /// not leave.
    pub(super) fn keep_legacies(&mut self, now: u64) {
        let stopping = self.stopping.is_some();
        let mut disowned = Vec::new();
        for (slot, place) in self.places.iter_mut() {
            let starts = place.start_at_ms.is_some() && !stopping;
            for estate in &mut place.estates {
                let Some(legacy) = &estate.legacy else { continue };
                let late = now >= legacy.until_ms;
                if !late && (estate.heir.is_some() || starts) {
                    continue;
                }
                if let Some(legacy) = estate.legacy.take() {
                    disowned.push((slot, estate.dead, estate.heir, legacy));
                }
            }
        }
        for (slot, dead, heir, legacy) in disowned {
            tracing::warn!(%dead, late = now >= legacy.until_ms, "nobody took its clients over");
            self.shadows.dismiss(legacy.proof);
            self.tell_manager(&MasterToManager::Disowned(dead), Vec::new());
            // It is stuck with half of them. When it is dead, they are as they were.
            let stuck = |worker: &&WorkerHandle| Some(worker.id) == heir && worker.inherits;
            if let Some(heir) = self.workers.iter().find(stuck) {
                heir.child.signal(Signal::SIGKILL);
            } else {
                self.mourn(slot);
            }
        }
        for (pid, kill_at_ms) in &mut self.shadows.leaving {
            if *kill_at_ms <= now {
                *kill_at_ms = now + LEAVE_MS;
                signal(Pid::from_raw(*pid));
            }
        }
    }

    pub(super) fn read_shadows(&mut self) {
        self.workers.iter_mut().filter_map(|it| it.proof.as_mut()).for_each(Proof::greet);
    }

    /// If that pid was a shadow, it is none any more.
    pub(super) fn shadow_died(&mut self, pid: Pid, how: &str) -> bool {
        let leaving = &mut self.shadows.leaving;
        if let Some(index) = leaving.iter().position(|(known, _)| *known == pid.as_raw()) {
            leaving.swap_remove(index);
            return true;
        }
        // It has said who it is before it died.
        self.read_shadows();
        for worker in &mut self.workers {
            if worker.proof.as_mut().is_some_and(|proof| proof.lose(pid)) {
                tracing::error!(
                    worker = %worker.id,
                    how,
                    "its shadow died: it is not crash-proof until it is replaced"
                );
                return true;
            }
        }
        // Whoever asks a dead worker's will find that it is gone.
        let estates = self.places.iter_mut().flat_map(|(_, place)| &mut place.estates);
        estates.filter_map(|it| it.legacy.as_mut()).any(|legacy| legacy.proof.lose(pid))
    }

    pub(super) fn kill_all_shadows(&mut self) {
        let leaving = self.shadows.leaving.iter().map(|(pid, _)| Pid::from_raw(*pid));
        let serving = self.workers.iter().filter_map(|it| it.proof.as_ref()?.pid);
        leaving.chain(serving).for_each(signal);
    }
}

fn signal(pid: Pid) {
    // It is not reaped yet, so its pid is its own; ESRCH means it is dead already.
    let _ = kill(pid, Signal::SIGKILL);
}
