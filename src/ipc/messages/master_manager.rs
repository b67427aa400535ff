//! Between master and manager.

use serde::{Deserialize, Serialize};

use super::{Generation, Hello, StopMode};
use crate::fd::{Slot, WorkerId};
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::scoreboard::Totals;

/// Master to manager, over the manager's descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToManager {
    /// The first packet. + fds: the control socket, the manager's page of the scoreboard.
    Boot(ManagerBoot),
    /// Answer with the same number.
    LivenessCheck(u64),
    /// A worker was started, or the manager was. + fds: the manager's end of its link, its
    /// registry, its page of the scoreboard.
    Attach(WorkerRecord),
    /// A block of numbers was leased to a worker: its first and its last. Sent behind `Attach` for
    /// each block that the worker has. Nobody else's word makes a block a worker's.
    Leased {
        /// Whose.
        id: WorkerId,
        /// The first serial.
        first: u64,
        /// The last serial.
        last: u64,
    },
    /// A worker has said `Ready` to the master.
    WorkerReady(WorkerId),
    /// A worker ended. If it was its slot's newest, another follows after `respawn_ms`.
    Exited {
        /// Which.
        id: WorkerId,
        /// How, as a phrase: `exit status 1`, `signal SIGKILL`.
        how: String,
        /// How long the master waits before it starts the next, in milliseconds; `None` when
        /// there will be none.
        respawn_ms: Option<u64>,
        /// All it had counted.
        last: Totals,
    },
    /// The answer to `Prepare`: the new generation stands ready to be spawned.
    Prepared {
        /// Its number.
        generation: Generation,
        /// Its resolved configuration, as JSON.
        config: String,
        /// How many slots it has.
        worker_num: u16,
    },
    /// The answer to `Prepare`: nothing changes, and why.
    PrepareFailed {
        /// Whole sentences, one a line.
        why: String,
    },
    /// A new worker of the pending generation died or spoke another version.
    SpawnFailed {
        /// Which slot.
        slot: Slot,
        /// A whole sentence.
        why: String,
    },
    /// A signal asked for a reload.
    ReloadRequested,
    /// The state of the master, whenever it changes.
    State(MasterState),
    /// The server stops.
    Stopping(StopMode),
    /// The log file was reopened. + fds: the new one.
    Reopen,
    /// Leave now: every worker is gone, or the manager is being replaced.
    Leave,
    /// The answer to `Upgrade` where it failed.
    UpgradeFailed {
        /// Whole sentences, one a line.
        why: String,
    },
    /// The control socket was made anew. + fds: the new one.
    Control,
    /// A courier was started, or the manager was. + fd: the manager's end of its link.
    Courier {
        /// How many couriers there were before it, plus one.
        epoch: u32,
        /// Which run of which node it serves.
        id: NodeId,
    },
}

/// Everything the manager needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManagerBoot {
    /// How many managers there were before it, plus one.
    pub epoch: u32,
    /// The resolved configuration, as JSON.
    pub config: String,
    /// The generation that serves.
    pub generation: Generation,
    /// A generation whose reload the last manager left unfinished.
    pub pending: Option<Generation>,
    /// Whether the image is new: begin with a reload, and keep its verdict for whoever asked for
    /// the upgrade.
    pub begin_with_reload: bool,
    /// The state of the master.
    pub state: MasterState,
    /// What workers have counted that ended before.
    pub departed: Totals,
}

/// A worker process, as the master tells the manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Which.
    pub id: WorkerId,
    /// Of which generation.
    pub generation: Generation,
    /// Its process.
    pub pid: i32,
    /// Whether it has said `Ready` already.
    pub ready: bool,
}

/// What `status` shows of the master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterState {
    /// Its pid.
    pub pid: i32,
    /// The package version of its image.
    pub version: String,
    /// When it was started, milliseconds since 1970.
    pub started_at: u64,
    /// The real addresses.
    pub listen: Vec<String>,
    /// The real addresses of the HTTP API.
    pub api: Vec<String>,
    /// The generation that serves.
    pub generation: Generation,
    /// How many slots serve.
    pub worker_num: u16,
    /// Worker processes started again after a crash.
    pub worker_restarts: u64,
    /// Managers started again after a crash.
    pub manager_restarts: u64,
    /// Slots whose worker keeps dying young, with the delay before the next try in
    /// milliseconds.
    pub throttled: Vec<(Slot, u64)>,
    /// What an operator should know of, as whole sentences.
    pub troubles: Vec<String>,
    /// Whether the server drains.
    pub draining: bool,
    /// The courier, where there is a cluster.
    pub courier: Option<CourierState>,
}

/// What `status` shows of the courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierState {
    /// Its pid; 0 while there is none.
    pub pid: i32,
    /// Couriers started again after a crash.
    pub restarts: u64,
}

/// Manager to master, over its descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum ManagerToMaster {
    /// The answer to `Boot`.
    Hello(Hello),
    /// The control socket is served and the links are read.
    Ready,
    /// The answer to a liveness check, with its number.
    Alive(u64),
    /// A worker does not answer: first ABRT, then KILL after 2 s.
    KillHung(WorkerId),
    /// An old worker outlived its deadline: KILL.
    Kill(WorkerId),
    /// Check the image and the configuration for a reload.
    Prepare,
    /// Start a worker of the pending generation in this slot.
    Spawn(Slot),
    /// The pending generation serves: make it current; workers of older ones are not replaced.
    Commit,
    /// The pending generation is not wanted: KILL its workers, close what was bound for it.
    Abort,
    /// Stop the server.
    Stop(StopMode),
    /// Re-execute the master from the path it was invoked by.
    Upgrade,
    /// Reopen the log file.
    Reopen,
    /// Drain: take no new clients after a grace, and end without clients. Or do not.
    Drain {
        /// Whether.
        on: bool,
    },
}
