//! The courier as the master sees it: only with `cluster.engine`, started, asked for signs of
//! life, replaced at once. Until the courier has said that the node may have its number, a start
//! serves nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::child::{ABORT_MS, Birth, Child, duplicate};
use super::password::engine_password;
use super::throttle::{Throttle, YOUNG_MS};
use super::{CHECK_MS, Master};
use crate::error::Result;
use crate::ipc::IPC_VERSION;
use crate::ipc::cluster::messages::{CourierBoot, CourierToMaster, MasterToCourier};
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{LEASE_SERIALS, MasterToManager};
use crate::sys::{clock, packet};

/// Packets of the courier that are read in one turn.
const PACKETS_PER_TURN: usize = 64;
/// How far the engine is ahead of what was granted: more than a worker is granted until the engine
/// has heard of it.
const AHEAD_SERIALS: u64 = 4 * LEASE_SERIALS;
/// The shortest wait before a courier is started that could not be.
const AGAIN_MS: u64 = 1_000;

/// The place of the courier.
#[derive(Default)]
pub struct CourierPlace {
    pub(super) child: Option<Child>,
    /// The manager's end of the courier's link, kept for the next manager.
    pub(super) manager_end: Option<OwnedFd>,
    pub(super) epoch: u32,
    /// Which run of the node this is; 0: none was drawn yet.
    pub(super) boot: u64,
    pub(super) started_ms: u64,
    pub(super) throttle: Throttle,
    pub(super) start_at_ms: Option<u64>,
    pub(super) checks: u64,
    pub(super) next_check_ms: u64,
    pub(super) answered_ms: u64,
    /// Whether it may start its workers: the node has its number, or does without the engine.
    pub(super) may_serve: bool,
    /// Whether it was told to leave.
    pub(super) leaves: bool,
    /// Whether the living one is on its way out, for a new image's.
    pub(super) replaced: bool,
    /// What an operator should know of, as a whole sentence.
    pub(super) trouble: Option<String>,
    /// The numbers of clients that this courier was told of.
    pub(super) serials_told: BTreeMap<u8, u64>,
}

impl CourierPlace {
    /// The image is new: the old courier leaves the number to the next, which is of the same run.
    pub fn upgraded(&mut self) {
        if let Some(child) = &mut self.child {
            self.replaced = true;
            child.signal(Signal::SIGKILL);
        }
    }

    /// Its process, if it lives.
    pub fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Its process, if it lives.
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// Whether this is its pid.
    pub fn is(&self, pid: Pid) -> bool {
        self.child.as_ref().is_some_and(|child| child.pid == pid)
    }

    /// When it has to be looked at again.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let kill = self.child.as_ref().and_then(|child| child.kill_at_ms);
        let check = self.child.as_ref().map(|_| self.next_check_ms);
        [self.start_at_ms, kill, check].into_iter().flatten().min()
    }

    /// What an operator should know of.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    fn send(&mut self, message: &MasterToCourier, fds: Vec<OwnedFd>) {
        let Some(child) = &mut self.child else { return };
        if let Err(error) = child.send(message, fds) {
            tracing::warn!(%error, "a message to the courier was not sent");
        }
    }

    /// Has it write its log here from now on.
    pub fn reopen(&mut self, log: OwnedFd) {
        self.send(&MasterToCourier::Reopen, vec![log]);
    }

    /// Whether it was told to leave, or is not there.
    pub fn has_taken_leave(&self) -> bool {
        self.leaves || self.child.is_none()
    }

    /// Has it say good-bye to the engine and end.
    pub fn take_leave(&mut self) {
        self.leaves = true;
        self.send(&MasterToCourier::Leave, Vec::new());
    }
}

impl Master {
    /// Whether workers have to wait for the node's number.
    pub(super) fn waits_for_number(&self) -> bool {
        self.config.node().is_some() && !self.courier.may_serve
    }

    pub(super) fn tick_courier(&mut self, now: u64) {
        if self.config.node().is_none() {
            return;
        }
        self.tell_serials();
        let timeout = self.config.worker_timeout.as_millis() as u64;
        let courier = &mut self.courier;
        let Some(child) = courier.child.as_mut() else {
            let due = courier.start_at_ms.unwrap_or(now) <= now;
            if due && self.stopping.is_none() {
                self.start_courier(now);
            }
            return;
        };
        if child.kill_at_ms.is_some_and(|at| at <= now) {
            child.kill_at_ms = None;
            child.signal(Signal::SIGKILL);
        }
        if now < courier.next_check_ms {
            return;
        }
        courier.next_check_ms = now + CHECK_MS;
        if child.kill_at_ms.is_none() && now.saturating_sub(courier.answered_ms) > timeout {
            tracing::error!(timeout_ms = timeout, "the courier does not answer: killed");
            child.signal(Signal::SIGABRT);
            child.kill_at_ms = Some(now + ABORT_MS);
        }
        courier.checks += 1;
        let check = MasterToCourier::LivenessCheck(courier.checks);
        courier.send(&check, Vec::new());
    }

    /// Tells the courier which numbers of clients may be given before it hears the next time.
    fn tell_serials(&mut self) {
        let next = self.serials.next();
        if self.courier.child.is_none() || *next == self.courier.serials_told {
            return;
        }
        let ahead = next.iter().map(|(slot, next)| (*slot, next + AHEAD_SERIALS)).collect();
        self.courier.serials_told = next.clone();
        self.courier.send(&MasterToCourier::Serials { next: ahead }, Vec::new());
    }

    fn start_courier(&mut self, now: u64) {
        self.courier.start_at_ms = None;
        if let Err(error) = self.try_start_courier(now) {
            tracing::error!(%error, "cannot start the courier");
            self.fail_start(error.to_string());
            let delay = self.courier.throttle.died(true).max(AGAIN_MS);
            self.courier.start_at_ms = Some(now + delay);
        }
    }

    fn try_start_courier(&mut self, now: u64) -> Result<()> {
        let Some(node) = self.config.node() else { return Ok(()) };
        let password = engine_password(&self.config)?;
        let (manager_end, courier_end) = packet::pair()?;
        let courier = &mut self.courier;
        courier.epoch += 1;
        while courier.boot == 0 {
            courier.boot = RandomState::new().hash_one((std::process::id(), now));
        }
        let boot = CourierBoot {
            epoch: courier.epoch,
            id: NodeId { node, boot: courier.boot },
            since: self.started_at,
            config: serde_json::to_string(&self.config).unwrap_or_default(),
            password,
        };
        let child = Child::start(&Birth {
            image: &self.image.path(),
            title: "wsd: courier",
            arguments: &self.arguments,
            stdout: None,
            stderr: self.log_file.for_child(),
        })?;
        tracing::info!(pid = child.pid.as_raw(), node, "courier started");
        courier.child = Some(child);
        courier.manager_end = Some(manager_end);
        (courier.started_ms, courier.answered_ms) = (now, now);
        courier.next_check_ms = now + CHECK_MS;
        courier.serials_told.clear();
        courier.send(&MasterToCourier::Boot(boot), vec![courier_end]);
        self.attach_courier();
        Ok(())
    }

    /// Tells the manager of the courier, with the descriptor that leads there.
    pub(super) fn attach_courier(&mut self) {
        let (Some(node), Some(end)) = (self.config.node(), &self.courier.manager_end) else {
            return;
        };
        let id = NodeId { node, boot: self.courier.boot };
        let attach = MasterToManager::Courier { epoch: self.courier.epoch, id };
        match duplicate(end.as_fd()) {
            Ok(end) => self.tell_manager(&attach, vec![end]),
            Err(error) => tracing::error!(%error, "the manager was not told of the courier"),
        }
    }

    pub(super) fn read_courier(&mut self) {
        for _ in 0..PACKETS_PER_TURN {
            let Some(child) = self.courier.child_mut() else { return };
            match child.receive(&mut self.buffer) {
                Ok(Some((message, _))) => self.courier_said(message),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the courier broke the protocol: killed");
                    return child.signal(Signal::SIGKILL);
                }
            }
        }
    }

    fn courier_said(&mut self, message: CourierToMaster) {
        self.courier.answered_ms = clock::monotonic_ms();
        match message {
            CourierToMaster::Hello(hello) if hello.ipc_version == IPC_VERSION => {}
            CourierToMaster::Hello(hello) => {
                tracing::error!(
                    version = hello.version,
                    "the courier speaks another IPC version: killed"
                );
                if let Some(child) = self.courier.child() {
                    child.signal(Signal::SIGKILL);
                }
            }
            CourierToMaster::Joined => {
                self.courier.may_serve = true;
                self.courier.trouble = None;
            }
            CourierToMaster::Alone { why } => self.start_alone(&why),
            CourierToMaster::Refused { why } => {
                if self.courier.may_serve {
                    tracing::error!(why, "this node is not part of the cluster any more");
                    self.courier.trouble = Some(format!("{why}; it serves its own clients alone"));
                } else {
                    self.fail_start(why);
                }
            }
            CourierToMaster::Alive(_) => {}
            CourierToMaster::Serials { next } => self.serials.learn(&next),
        }
    }

    /// The engine cannot be reached. A node that knows which numbers of clients it has used may
    /// do without; one that does not would have to guess.
    fn start_alone(&mut self, why: &str) {
        if self.courier.may_serve {
            return;
        }
        if self.serials.began_with_file() {
            tracing::warn!(why, "the engine is away: the node starts alone");
            self.courier.may_serve = true;
        } else {
            self.courier.trouble = Some(format!("the engine is away: {why}"));
        }
    }

    pub(super) fn courier_died(&mut self, how: &str, clean: bool) {
        let now = clock::monotonic_ms();
        self.courier.child = None;
        self.courier.manager_end = None;
        if std::mem::take(&mut self.courier.replaced) {
            self.courier.start_at_ms = Some(now);
            return tracing::info!(how, "the old image's courier ended");
        }
        if self.stopping.is_some() && clean {
            return tracing::info!(how, "courier ended");
        }
        tracing::error!(how, "courier died");
        if !self.courier.may_serve {
            self.fail_start(format!("the courier died at its start: {how}"));
        }
        let young = now.saturating_sub(self.courier.started_ms) < YOUNG_MS;
        let delay = self.courier.throttle.died(young);
        self.courier.start_at_ms = Some(now + delay);
    }
}
