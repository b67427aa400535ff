//! What all of the worker stands on: who this process is, its settings, clock and counters, how far
//! it is, and what it says to the master and to the manager.
//!
//! - [`settings`]: the configuration, resolved.
//! - [`ticks`]: the grain of all deadlines.
//! - [`board`]: the counters of this worker, and those of the others.
//! - [`phase`]: how far this worker is, from its start to its exit.
//! - [`links`]: what this worker says to the manager.

pub(super) mod board;
pub(super) mod links;
pub(super) mod phase;
pub(super) mod settings;
pub(super) mod ticks;

use std::cell::Cell;

use tokio::sync::{Notify, watch};

use self::board::Board;
use self::phase::Phase;
use self::settings::Settings;
use crate::api::Verdict;
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::Link;
use crate::ipc::master_link::MasterLink;
use crate::ipc::scoreboard::Counter;

/// The process.
pub(super) struct Base {
    pub id: WorkerId,
    pub worker_num: Cell<u16>,
    pub settings: Settings,
    pub phase: Cell<Phase>,
    /// Told when the phase changes, when a connection is gone and when a handler has ended.
    pub changed: Notify,
    /// Tells plain HTTP connections to end after the running request. Each has a receiver, so
    /// its closing tells when the last is gone.
    pub stop_http: watch::Sender<bool>,
    pub now_ms: Cell<u64>,
    pub board: Board,
    pub link: Link,
    pub master: MasterLink,
}

impl Base {
    pub(super) fn slot(&self) -> Slot {
        self.id.slot
    }

    pub(super) fn add(&self, counter: Counter, n: u64) {
        self.board.add(counter, n);
    }

    /// A verdict that nobody waits for is still counted.
    #[inline]
    pub(super) fn count_verdict(&self, verdict: Verdict) -> Verdict {
        let counter = match verdict {
            Verdict::Queued => Counter::PushQueued,
            Verdict::Relayed => Counter::PushRelayed,
            Verdict::Full => Counter::PushFull,
            Verdict::Gone => Counter::PushGone,
            Verdict::TooBig => Counter::PushTooBig,
            Verdict::Unknown | Verdict::NoUser => return verdict,
        };
        self.add(counter, 1);
        verdict
    }
}
