//! Every message between the processes: one enum for each direction.
//!
//! - [`master_worker`]: how a worker begins and ends, its numbers, listeners and processes.
//! - [`master_manager`]: which processes there are, and the steps of a reload.
//! - [`to_worker`] and [`to_manager`]: what a worker and the manager say to each other.
//! - [`worker_worker`]: what goes over a direct link.
//! - [`probe`]: whether a new image can serve.
//!
//! The variants' order is the wire format: add at the end, and raise
//! [`IPC_VERSION`](super::IPC_VERSION) for any other change. Descriptors travel beside a message
//! and are named in its comment as `+ fds`; bytes of users travel behind it as its body.

mod master_manager;
mod master_worker;
mod probe;
mod to_manager;
mod to_worker;
mod worker_worker;

use serde::{Deserialize, Serialize};

pub use self::master_manager::*;
pub use self::master_worker::*;
pub use self::probe::*;
pub use self::to_manager::*;
pub use self::to_worker::*;
pub use self::worker_worker::*;
use crate::fd::WorkerId;

/// Which image and configuration a process runs: counted from 1, one more for each reload.
pub type Generation = u32;

/// Names an open request of one worker, so that its answer finds it. 0: no answer is wanted.
pub type RequestId = u64;

/// What every child says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`IPC_VERSION`](super::IPC_VERSION) of the image.
    pub ipc_version: u8,
    /// The package version of the image.
    pub version: String,
}

impl Hello {
    /// This image's.
    pub fn ours() -> Hello {
        Hello { ipc_version: super::IPC_VERSION, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// How to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// TERM: stop accepting, let running handlers end (at most `max_wait_time`), 1001 to all,
    /// wait 5 s for answers.
    Graceful,
    /// INT: 1001 to all and exit.
    Quick,
}

/// Where a push or a question comes from, so that its answer goes back there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A worker's handler.
    Worker(WorkerId),
    /// A control command.
    Control,
}

/// A direct link between two workers. No number is used twice while a server runs.
pub type LinkId = u64;

/// The longest name of a timer of the whole server.
pub const TICK_NAME_BYTES_MAX: usize = 128;

/// A pass: connections that move together. No number is used twice while a server runs.
pub type PassId = u64;
