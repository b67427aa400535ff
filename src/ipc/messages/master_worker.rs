//! Between master and worker.

use serde::{Deserialize, Serialize};

use super::{Generation, Hello, StopMode};
use crate::api::ProcessId;
use crate::fd::{Slot, WorkerId};
use crate::ipc::scoreboard::Totals;

/// Master to worker, over the worker's descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToWorker {
    /// The first packet. + fds: link, page of the scoreboard, registry, one for each of
    /// `listeners`.
    Boot(WorkerBoot),
    /// The next block of serials: `first` to `first + LEASE_SERIALS - 1`.
    Lease {
        /// The first serial of the block.
        first: u64,
    },
    /// Accept on these as well, for a slot that has no ready worker or was removed. + fds, one
    /// for each of `listeners`.
    LendListeners {
        /// Whose they are.
        slot: Slot,
        /// What they are.
        listeners: Vec<Listener>,
    },
    /// Stop accepting on what was lent for `slot`: it has a worker again.
    TakeBackListeners {
        /// Whose they are.
        slot: Slot,
    },
    /// Leave. The answer is the end of the process.
    Stop(StopMode),
    /// The log file was reopened. + fds: the new one, to become descriptor 2, and in a daemon 1.
    Reopen,
    /// A worker of your slot was killed: run `on_close` for what its registry holds open, and
    /// answer `LostClosed`. + fds: that registry. Entries that are *closing* had their `on_close`
    /// begun already; mark those you take as closing before you call.
    CloseLost,
    /// The application process you asked for runs.
    AppStarted {
        /// Which.
        id: ProcessId,
        /// Its process.
        pid: i32,
    },
    /// An application process ended, or could not be started.
    AppExited {
        /// Which.
        id: ProcessId,
        /// How, as a phrase.
        how: String,
    },
    /// Another worker counts on this page. + fd: the page, only to be read.
    Page {
        /// Whose it is.
        of: WorkerId,
    },
    /// Another worker ended, whether its page was told or not.
    PageEnded {
        /// Which.
        of: WorkerId,
        /// All it had counted.
        last: Totals,
    },
    /// The master's summary of all pages, in the place of any before. + fd: the page, only to be
    /// read.
    Summary,
    /// Take new clients, or do so no more: the server drains. The API is served all the same.
    AcceptClients {
        /// Whether they are taken.
        on: bool,
    },
}

/// Worker to master, over its descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerToMaster {
    /// The answer to `Boot`, before anything else is done with it.
    Hello(Hello),
    /// `on_worker_start` is done and the listeners are accepting.
    Ready,
    /// The current block of serials is half used.
    NeedLease,
    /// Why this process is about to exit.
    Fatal {
        /// The whole sentence.
        why: String,
    },
    /// The oldest unanswered `CloseLost` is done.
    LostClosed,
    /// Start an application process. + fds: its socket, its standard error, and its standard
    /// output unless that is the server's own.
    StartApp {
        /// Which it will be.
        id: ProcessId,
    },
    /// KILL an application process.
    KillApp {
        /// Which.
        id: ProcessId,
    },
    /// The start of this worker takes a while: what it waits for. Sent where that changes.
    Waits {
        /// The end of the sentence "waits for".
        what: String,
    },
}

/// Serials in one lease.
pub const LEASE_SERIALS: u64 = 65_536;

/// Everything a worker needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerBoot {
    /// Which worker it is.
    pub id: WorkerId,
    /// Of which generation.
    pub generation: Generation,
    /// The resolved configuration, as JSON.
    pub config: String,
    /// How many slots serve.
    pub worker_num: u16,
    /// What workers have counted that ended before.
    pub departed: Totals,
    /// How many `Page` follow.
    pub pages: u16,
    /// The first serial of its first lease.
    pub lease: u64,
    /// The listeners of its slot.
    pub listeners: Vec<Listener>,
}

/// A listening socket as it travels between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The entry of `listen` it was made for, as written.
    pub entry: String,
    /// The real address: `127.0.0.1:8000`, `[::1]:8000` or `unix:/path`.
    pub address: String,
    /// Who is let in there.
    #[serde(default)]
    pub purpose: Purpose,
}

/// Who is let in at a listening socket.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Purpose {
    /// Clients: an address of `listen`.
    #[default]
    Clients,
    /// Who uses the HTTP API: an address of `api.listen`, one socket for all slots.
    Api,
}
