//! The courier as the master sees it: only with `cluster.engine`, started, asked for signs of
//! life, replaced at once. Until the courier has said that the node may have its number, a start
//! serves nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};

use super::Master;
use super::child::{Birth, Child, duplicate};
use super::password::engine_password;
use super::supervised::{Due, Supervised};
use crate::error::Result;
use crate::ipc::cluster::messages::{CourierBoot, CourierToMaster, MasterToCourier};
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{CourierState, LEASE_SERIALS, MasterToManager};
use crate::ipc::scoreboard::Fact;
use crate::sys::{clock, packet};

/// Packets of the courier that are read in one turn.
const PACKETS_PER_TURN: usize = 64;
/// How far the engine is ahead of what was granted: more than a worker is granted until the engine
/// has heard of it.
const AHEAD_SERIALS: u64 = 4 * LEASE_SERIALS;

/// The place of the courier.
pub struct CourierPlace {
    pub(super) process: Supervised,
    /// The manager's end of the courier's link, kept for the next manager.
    pub(super) manager_end: Option<OwnedFd>,
    /// Which run of the node this is; 0: none was drawn yet.
    pub(super) boot: u64,
    /// Whether it may start its workers: the node has its number, or does without the engine.
    pub(super) may_serve: bool,
    /// Whether it was told to leave.
    pub(super) leaves: bool,
    /// What an operator should know of, as a whole sentence.
    pub(super) trouble: Option<String>,
    /// The numbers of clients that this courier was told of.
    pub(super) serials_told: BTreeMap<u8, u64>,
}

impl CourierPlace {
    /// The place, with the process in it or empty.
    pub fn new(process: Supervised) -> CourierPlace {
        CourierPlace {
            process,
            manager_end: None,
            boot: 0,
            may_serve: false,
            leaves: false,
            trouble: None,
            serials_told: BTreeMap::new(),
        }
    }

    /// The image is new: the old courier leaves the number to the next, which is of the same run.
    pub fn upgraded(&mut self) {
        self.process.replace();
        self.process.kill();
    }

    /// What an operator should know of.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    /// Has it write its log here from now on.
    pub fn reopen(&mut self, log: OwnedFd) {
        self.process.send(&MasterToCourier::Reopen, vec![log]);
    }

    /// Whether it was told to leave, or is not there.
    pub fn has_taken_leave(&self) -> bool {
        self.leaves || self.process.child().is_none()
    }

    /// Has it say good-bye to the engine and end.
    pub fn take_leave(&mut self) {
        self.leaves = true;
        self.process.send(&MasterToCourier::Leave, Vec::new());
    }
}

impl Master {
    /// Whether workers have to wait for the node's number.
    pub(super) fn waits_for_number(&self) -> bool {
        self.config.node().is_some() && !self.courier.may_serve
    }

    /// What `status` shows of it.
    pub(super) fn courier_state(&self) -> Option<CourierState> {
        let pid = self.courier.process.child().map_or(0, |child| child.pid.as_raw());
        let restarts = self.summary.told(Fact::CourierRestarts);
        self.config.node().map(|_| CourierState { pid, restarts })
    }

    pub(super) fn tick_courier(&mut self, now: u64) {
        if self.config.node().is_none() {
            return;
        }
        self.tell_serials();
        let timeout = self.config.worker_timeout.as_millis() as u64;
        match self.courier.process.due(now, timeout, self.stopping.is_some()) {
            Due::Start => self.start_courier(now),
            Due::Check(number) => {
                let check = MasterToCourier::LivenessCheck(number);
                self.courier.process.send(&check, Vec::new());
            }
            Due::Nothing => {}
        }
    }

    /// Tells the courier which numbers of clients may be given before it hears the next time.
    fn tell_serials(&mut self) {
        let next = self.serials.next();
        if self.courier.process.child().is_none() || *next == self.courier.serials_told {
            return;
        }
        let ahead = next.iter().map(|(slot, next)| (*slot, next + AHEAD_SERIALS)).collect();
        self.courier.serials_told = next.clone();
        self.courier.process.send(&MasterToCourier::Serials { next: ahead }, Vec::new());
    }

    fn start_courier(&mut self, now: u64) {
        match self.try_start_courier(now) {
            Ok(()) => self.courier.trouble = None,
            Err(error) => {
                tracing::error!(%error, "cannot start the courier");
                self.courier.trouble = Some(format!("the courier does not start: {error}"));
                self.fail_start(error.to_string());
                self.courier.process.not_started(now);
            }
        }
    }

    fn try_start_courier(&mut self, now: u64) -> Result<()> {
        let Some(node) = self.config.node() else { return Ok(()) };
        let epoch = self.courier.process.begin();
        let password = engine_password(&self.config)?;
        let (manager_end, courier_end) = packet::pair()?;
        let courier = &mut self.courier;
        while courier.boot == 0 {
            courier.boot = RandomState::new().hash_one((std::process::id(), now));
        }
        let boot = CourierBoot {
            epoch,
            id: NodeId { node, boot: courier.boot },
            since: self.started_at,
            config: self.config.for_child(false),
            password,
        };
        let child = Child::start(&Birth {
            image: &self.image.path(),
            title: "wsd: courier",
            arguments: &self.arguments,
            stdout: None,
            stderr: self.log_file.for_child(),
        })?;
        courier.process.started(child, now);
        courier.manager_end = Some(manager_end);
        courier.serials_told.clear();
        courier.process.send(&MasterToCourier::Boot(boot), vec![courier_end]);
        if self.drain.is_some() {
            self.tell_courier_drains(true);
        }
        self.attach_courier();
        Ok(())
    }

    /// Has the courier tell the other nodes whether this one drains.
    pub(super) fn tell_courier_drains(&mut self, drains: bool) {
        self.courier.process.send(&MasterToCourier::Drains(drains), Vec::new());
    }

    /// Tells the manager of the courier, with the descriptor that leads there.
    pub(super) fn attach_courier(&mut self) {
        let (Some(node), Some(end)) = (self.config.node(), &self.courier.manager_end) else {
            return;
        };
        let id = NodeId { node, boot: self.courier.boot };
        let attach = MasterToManager::Courier { epoch: self.courier.process.epoch(), id };
        match duplicate(end.as_fd()) {
            Ok(end) => self.tell_manager(&attach, vec![end]),
            Err(error) => tracing::error!(%error, "the manager was not told of the courier"),
        }
    }

    pub(super) fn read_courier(&mut self) {
        let now = clock::monotonic_ms();
        for _ in 0..PACKETS_PER_TURN {
            let said = self.courier.process.receive(&mut self.buffer, now);
            let Some(message) = said else { return };
            self.courier_said(message, now);
        }
    }

    fn courier_said(&mut self, message: CourierToMaster, now: u64) {
        match message {
            CourierToMaster::Hello(hello) => {
                self.courier.process.serves_since(now);
                self.courier.process.hello(&hello);
            }
            CourierToMaster::Joined => {
                self.courier.may_serve = true;
                self.courier.trouble = None;
            }
            CourierToMaster::Alone { why } => self.start_alone(&why),
            CourierToMaster::Refused { why } => {
                if self.courier.may_serve {
                    tracing::error!(why, "this node is not part of the cluster any more");
                    self.courier.trouble =
                        Some(format!("{why}; this node serves its own clients alone"));
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
            self.report.note(&format!("the engine is away ({why}): the node starts alone"));
            self.courier.may_serve = true;
        } else {
            self.courier.trouble = Some(format!("the engine is away: {why}"));
        }
    }

    pub(super) fn courier_died(&mut self, how: &str, clean: bool) {
        self.courier.manager_end = None;
        let wished = self.stopping.is_some() && clean;
        if !self.courier.process.ended(how, wished, clock::monotonic_ms()) {
            return;
        }
        self.summary.bump(Fact::CourierRestarts);
        if !self.courier.may_serve {
            self.fail_start(format!("the courier died at its start: {how}"));
        }
    }
}
