//! A worker as one image of the master leaves it to the next.

use std::os::fd::{AsFd, RawFd};

use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::protocol::ProtocolState;
use super::upgrade::{Leaving, adopt_child, check_link};
use super::worker_handle::WorkerHandle;
use crate::error::Result;
use crate::ipc::messages::WorkerRecord;
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::Page;
use crate::sys::process;

/// A worker, as one image of the master leaves it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerLeft {
    record: WorkerRecord,
    started_ms: u64,
    ready_ms: Option<u64>,
    protocol: ProtocolState,
    lease: Lease,
    closing_lost: usize,
    link: RawFd,
    manager_end: RawFd,
    registry: RawFd,
    page: RawFd,
}

impl WorkerLeft {
    /// Whether it could be taken over; everything is dropped again.
    pub fn check(self) -> Result<()> {
        check_link(self.link)?;
        check_link(self.manager_end)?;
        Page::open(process::duplicate_number(self.page)?.as_fd())?;
        Registry::open(process::duplicate_number(self.registry)?.as_fd()).map(|_| ())
    }
}

impl WorkerHandle {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<WorkerLeft> {
        Ok(WorkerLeft {
            record: self.record(),
            started_ms: self.child.started_ms,
            ready_ms: self.ready_ms,
            protocol: self.protocol.clone(),
            lease: self.lease.clone(),
            closing_lost: self.closing_lost,
            link: leaving.pass_on(self.child.link())?,
            manager_end: leaving.pass_on(self.manager_end.as_fd())?,
            registry: leaving.pass_on(self.registry.as_fd())?,
            page: leaving.pass_on(self.page.as_fd())?,
        })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(left: WorkerLeft) -> Result<WorkerHandle> {
        let record = left.record;
        Ok(WorkerHandle {
            id: record.id,
            generation: record.generation,
            child: adopt_child(record.pid, left.started_ms, left.link)?,
            page: process::duplicate_number(left.page)?,
            overstates: false,
            manager_end: process::duplicate_number(left.manager_end)?,
            registry: process::duplicate_number(left.registry)?,
            ready_ms: left.ready_ms,
            protocol: left.protocol,
            broke_protocol: false,
            app_starts: Default::default(),
            lease: left.lease,
            fatal: None,
            waits: None,
            closing_lost: left.closing_lost,
        })
    }
}
