//! What the answers of the control protocol say: the contract of `--json`. Fields may be added,
//! never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fd::{Fd, Slot};
use crate::ipc::messages::Generation;

/// The answer to `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The package version of the master's image.
    pub version: String,
    /// The master's pid.
    pub master_pid: i32,
    /// The manager's pid.
    pub manager_pid: i32,
    /// When the master was started, milliseconds since 1970.
    pub started_at: u64,
    /// How long ago that is, in milliseconds.
    pub uptime_ms: u64,
    /// The real addresses.
    pub listen: Vec<String>,
    /// The real addresses of the HTTP API.
    #[serde(default)]
    pub api: Vec<String>,
    /// The generation that serves.
    pub generation: Generation,
    /// How many slots serve.
    pub worker_num: u16,
    /// Open connections of all workers together.
    pub connections: u64,
    /// Every worker process, those that drain included, by slot and epoch.
    pub workers: Vec<WorkerReport>,
    /// Totals since the master was started, those of dead workers included.
    pub counters: BTreeMap<String, u64>,
    /// The reload that runs or ran last.
    pub reload: ReloadReport,
    /// Slots whose worker keeps dying young.
    pub throttled: Vec<Throttled>,
    /// What an operator should know of, as whole sentences.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Whether it drains: it is not ready, takes no new clients after a grace, and ends when the
    /// last is gone.
    #[serde(default)]
    pub draining: bool,
    /// For how long a stop lets running handlers go on, in milliseconds (`max_wait_time`).
    #[serde(default)]
    pub max_wait_ms: u64,
    /// The cluster, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReport>,
    /// Processes started again after a crash.
    pub restarts: Restarts,
    /// The manager itself.
    pub manager: ManagerReport,
    /// The courier, where there is a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub courier: Option<CourierReport>,
    /// Resident memory of the master in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Processor time of the master so far, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// What this node knows of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Which node this is.
    pub node: u8,
    /// Nodes that are there, this one among them.
    pub nodes: u64,
    /// Nodes that cannot be asked: they are silent, or have said nothing yet since the engine was
    /// back. Until they can, or are dead, nobody knows how many nodes a question has to reach.
    #[serde(default)]
    pub unheard: u64,
    /// Since when the engine is away, in milliseconds since 1970; `None`: it is there.
    pub away_since: Option<u64>,
    /// Why it is away.
    pub why: Option<String>,
    /// Rooms and users that this node has subscribed to.
    pub topics: u64,
    /// Messages to other nodes that the engine took.
    pub sent: u64,
    /// Messages of other nodes.
    pub received: u64,
    /// Messages that were not given to the engine, since it was away.
    pub unsent: u64,
    /// Messages of other nodes that were lost here, since nobody took them in time.
    pub dropped: u64,
    /// What came on the cluster's channels and was no envelope, and leases that no node has
    /// written, each time that they were read.
    pub garbled: u64,
    /// Times that messages may have been lost on their way here.
    pub gaps: u64,
    /// Connections to the engine that were made.
    pub connects: u64,
}

/// A node of the cluster, as `nodes` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which.
    pub node: u8,
    /// Whether it is the one that was asked.
    pub here: bool,
    /// What the one that was asked knows of it.
    #[serde(default)]
    pub state: NodeState,
    /// The name of its machine.
    pub host: String,
    /// The version of its image.
    pub version: String,
    /// When it was started, in milliseconds since 1970.
    pub since: u64,
    /// Its open connections.
    pub connections: u64,
    /// Rooms and users that it has members of.
    pub topics: u64,
    /// Microseconds from its last probe to the return of that, by the engine; 0: none yet.
    pub lag_us: u64,
    /// Times that messages may have been lost on their way to it.
    pub gaps: u64,
}

/// What a node knows of another, or of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It can be asked for its clients.
    Serves,
    /// It can, and is to have no more of them (`wsd drain`).
    Drains,
    /// It is not declared dead, and cannot be asked: no tally and no list is whole meanwhile.
    Silent,
    /// The node that was asked is itself cut off from the engine.
    #[default]
    Unknown,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its place.
    pub slot: Slot,
    /// Its process.
    pub pid: i32,
    /// The how many-th process of its place it is.
    pub epoch: u32,
    /// Which image and configuration it runs.
    pub generation: Generation,
    /// What it does.
    pub state: WorkerState,
    /// Open connections.
    pub connections: u64,
    /// How long a liveness check of the manager has been waiting for its answer, in milliseconds.
    pub silent_ms: u64,
    /// Bytes that wait in the manager on their way to it.
    pub lane_bytes: u64,
    /// What it counts.
    pub counters: BTreeMap<String, u64>,
    /// Resident memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Processor time so far, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Its application processes, as of at most a second ago.
    #[serde(default)]
    pub processes: Vec<ProcessReport>,
}

/// An application process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its place: 0 to `app.processes` - 1, and then those that do tasks.
    pub place: usize,
    /// Its process.
    pub pid: u32,
    /// Whether it does tasks alone.
    pub task: bool,
    /// Whether the application is loaded, so that the process takes events.
    pub ready: bool,
    /// Events that it handles, and that wait for it.
    pub events: u32,
    /// How many processes were started in that place before it, by this worker.
    pub restarts: u32,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Processor time so far, in milliseconds.
    pub cpu_ms: u64,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// Handing its connections over.
    Handing,
    /// Of an old generation; the last of its connections are to leave.
    Draining,
    /// Does not answer, and is being killed.
    Hung,
}

impl WorkerState {
    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Serving => "serving",
            WorkerState::Handing => "handing",
            WorkerState::Draining => "draining",
            WorkerState::Hung => "hung",
        }
    }
}

/// The reload that runs or ran last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Where it stands.
    pub state: ReloadState,
    /// Whether another was asked for meanwhile.
    pub waiting: bool,
    /// What came of the last one since this manager started.
    pub last: Option<ReloadVerdict>,
}

/// Where a reload stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadState {
    /// None runs.
    #[default]
    Idle,
    /// The master checks image and configuration.
    Preparing,
    /// New workers start.
    Spawning,
    /// Connections move.
    Handing,
}

impl ReloadState {
    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadState::Idle => "idle",
            ReloadState::Preparing => "preparing",
            ReloadState::Spawning => "spawning",
            ReloadState::Handing => "handing",
        }
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadVerdict {
    /// The generation that serves now.
    pub generation: Generation,
    /// Why nothing changed, or what went wrong: whole sentences, one a line.
    pub failure: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Every place that had connections to move.
    pub slots: Vec<SlotVerdict>,
}

impl ReloadVerdict {
    /// Whether all went as it should.
    pub fn is_ok(&self) -> bool {
        self.failure.is_none() && self.slots.iter().all(|slot| slot.failed.is_none())
    }
}

/// What came of a reload for one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotVerdict {
    /// The place.
    pub slot: Slot,
    /// The place that has its connections now.
    pub to: Slot,
    /// Connections that moved to the new worker.
    pub moved: u64,
    /// Connections that stayed on the old one, to be closed with 1012 in time.
    pub stayed: u64,
    /// What went wrong: a whole sentence.
    pub failed: Option<String>,
}

/// A slot whose worker keeps dying young.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttled {
    /// Which.
    pub slot: Slot,
    /// The delay before the next try, in milliseconds.
    pub retry_ms: u64,
}

/// Processes started again after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Workers.
    pub workers: u64,
    /// Managers.
    pub managers: u64,
}

/// The manager itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerReport {
    /// How many managers there were before it, plus one.
    pub epoch: u32,
    /// Messages it brought from one worker to another.
    pub relayed: u64,
    /// Messages it refused, since the lane to their worker was full.
    pub refused: u64,
    /// Messages to clients of workers that are no more.
    pub gone: u64,
    /// Bytes of messages that wait for a handover to end.
    pub held_bytes: u64,
    /// Control connections that are open.
    pub control_clients: u64,
    /// Resident memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Processor time so far, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// The courier, which speaks to the engine of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierReport {
    /// Its process; `None` while there is none.
    pub pid: Option<i32>,
    /// Couriers started again after a crash.
    pub restarts: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Processor time so far, in milliseconds.
    pub cpu_ms: u64,
}

/// An open connection, in the answer to `connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number.
    pub fd: Fd,
    /// The slot of the worker that serves it.
    pub worker: Slot,
    /// The epoch of that worker; left out where the worker is another node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// The other end of the TCP connection as `address:port`, or `unix:`.
    pub peer: String,
    /// When it was opened, milliseconds since 1970.
    pub connected_at: u64,
    /// How long nothing was received, in milliseconds.
    pub idle_ms: u64,
    /// The user that it is bound to.
    #[serde(default)]
    pub uid: Option<String>,
}

/// A room, as `rooms` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its name.
    pub room: String,
    /// How many members it has.
    pub members: u64,
}
