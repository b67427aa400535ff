//! Processes of the application, which a worker owns and the master starts.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One application process: the `epoch`th that was started for `place` of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// 0 to `app.processes` - 1.
    pub place: u16,
    /// Counts the processes of a place from 1.
    pub epoch: u32,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {}.{}", self.place, self.epoch)
    }
}

/// What `status` shows of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessState {
    /// Its pid.
    pub pid: u32,
    /// Whether the application is loaded.
    pub ready: bool,
    /// Whether it does tasks alone.
    pub task: bool,
    /// How many were started in its place before it.
    pub restarts: u32,
    /// Events that it handles, and that wait for it.
    pub events: u32,
}

/// What became of a process that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It runs.
    Started {
        /// Which.
        id: ProcessId,
        /// Its pid.
        pid: u32,
    },
    /// It ended, or could not be started.
    Exited {
        /// Which.
        id: ProcessId,
        /// How, as a phrase.
        how: String,
    },
}

/// What a handler tells of its application processes, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppReport {
    /// A process has finished events.
    Finished {
        /// How many.
        events: u32,
        /// How long they took together.
        took: Duration,
    },
    /// How all of them are now.
    Now {
        /// Processes that are at work.
        busy: u64,
        /// Events that wait or are handled.
        events: u64,
        /// What the processes hold in memory, in bytes.
        memory_bytes: u64,
    },
}
