//! What one image of the master writes down for the next: all of it is here. The golden file
//! `tests/golden/takeover-0.1.json` keeps the format.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::ipc::messages::{Generation, Listener, WorkerRecord};
use crate::ipc::scoreboard::Totals;
use crate::master::apps::App;
use crate::master::drain::Drain;
use crate::master::lease::Lease;
use crate::master::protocol::ProtocolState;
use crate::master::runtime_dir::Identity;

/// What one image of the master leaves to the next. Every number is a descriptor's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// The version of the image that wrote this.
    pub from: String,
    /// What that image and the workers it left speak.
    pub ipc_version: u8,
    /// All of the numbers below.
    pub all: Vec<RawFd>,
    /// Where the new image writes why it goes back.
    pub why: RawFd,
    pub started_at: u64,
    pub runtime_dir: RuntimeDirLeft,
    pub control: RawFd,
    pub departed: Totals,
    /// The summary of all counters.
    #[serde(default)]
    pub summary: Option<RawFd>,
    pub image: RawFd,
    pub generation: Generation,
    pub last_generation: Generation,
    pub worker_restarts: u64,
    /// How far a drain is.
    #[serde(default)]
    pub drain: Option<Drain>,
    pub serials: BTreeMap<u8, u64>,
    pub listeners: Vec<(u8, Listener, RawFd)>,
    pub slots: Vec<SlotLeft>,
    pub workers: Vec<WorkerLeft>,
    pub apps: Vec<App>,
    pub manager: ManagerLeft,
}

/// A slot, as it is left.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotLeft {
    pub slot: u8,
    pub epoch: u32,
    pub closing_lost: Vec<RawFd>,
}

/// A worker, as one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerLeft {
    pub record: WorkerRecord,
    pub started_ms: u64,
    pub ready_ms: Option<u64>,
    pub protocol: ProtocolState,
    pub lease: Lease,
    pub closing_lost: usize,
    pub link: RawFd,
    pub manager_end: RawFd,
    pub registry: RawFd,
    pub page: RawFd,
}

/// The manager, as one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct ManagerLeft {
    pub process: Option<(i32, RawFd)>,
    pub epoch: u32,
    pub ready: bool,
    pub restarts: u64,
    #[serde(default)]
    pub page: Option<RawFd>,
}

/// The runtime directory, as one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct RuntimeDirLeft {
    pub parent: RawFd,
    pub name: OsString,
    pub dir: RawFd,
    pub lock: RawFd,
    pub socket: Identity,
}

impl Takeover {
    /// Where to write why this image goes back.
    pub fn why(&self) -> RawFd {
        self.why
    }
}
