//! The workers' counters: who gets to read whose page, what is left of them when a worker ends,
//! and whether what they say can be.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::child::duplicate;
use super::worker_handle::WorkerHandle;
use super::{CHECK_MS, Master};
use crate::error::Result;
use crate::fd::WorkerId;
use crate::ipc::messages::MasterToWorker;
use crate::ipc::scoreboard::Totals;

/// Clients that a worker may tell beyond the descriptors it has: some come and go while both are
/// read.
const SPARE: u64 = 256;

impl Master {
    /// The pages that a worker which is about to start has to read: of all that are ready, and so
    /// have sealed theirs.
    pub(super) fn pages(&self) -> Result<Vec<(WorkerId, OwnedFd)>> {
        let ready = self.workers.iter().filter(|worker| worker.ready_ms.is_some());
        ready.map(|worker| Ok((worker.id, duplicate(worker.page.as_fd())?))).collect()
    }

    /// A worker is ready, and has sealed its page: the others may read it.
    pub(super) fn show_page(&mut self, index: usize) -> Result<()> {
        let of = self.workers[index].id;
        let page = duplicate(self.workers[index].page.as_fd())?;
        for other in self.workers.iter_mut().filter(|other| other.id != of) {
            other.send(&MasterToWorker::Page { of }, vec![duplicate(page.as_fd())?]);
        }
        Ok(())
    }

    /// A worker has ended and is no more among `workers`: what it had counted is the answer, and
    /// is kept by all.
    pub(super) fn end_page(&mut self, of: WorkerId) -> Totals {
        let last = self.board.page(of).map(|page| page.totals()).unwrap_or_default();
        self.board.ended(of, &last);
        for worker in &mut self.workers {
            worker.send(&MasterToWorker::PageEnded { of, last: last.clone() }, Vec::new());
        }
        last
    }

    /// Looks once a second whether workers tell more clients than they can have: the others would
    /// refuse theirs, since `max_connection` is for all together.
    pub(super) fn tick_counts(&mut self, now: u64) {
        if now < self.counts_at_ms {
            return;
        }
        self.counts_at_ms = now + CHECK_MS;
        self.sum_up();
        for worker in &mut self.workers {
            let Some(page) = self.board.page(worker.id) else { continue };
            let Some(open) = open_descriptors(worker.child.pid) else { continue };
            let told = page.clients();
            let overstates = told > open + SPARE;
            // A second look, for a crowd that left between the two numbers.
            if !std::mem::replace(&mut worker.overstates, overstates) || !overstates {
                continue;
            }
            tracing::error!(
                worker = %worker.id, told, open,
                "a worker that broke the protocol is killed: more clients counted than descriptors"
            );
            worker.end_for_breach();
        }
    }
}

impl WorkerHandle {
    /// Ends a worker that did what no worker does. Nothing more of it is heard.
    pub(super) fn end_for_breach(&mut self) {
        self.broke_protocol = true;
        self.child.signal(Signal::SIGKILL);
    }
}

/// How many descriptors a process has, which the kernel tells since Linux 6.2 as the size of a
/// directory; `None` where it does not.
fn open_descriptors(pid: Pid) -> Option<u64> {
    let count = fs::metadata(format!("/proc/{pid}/fd")).ok()?.len();
    (count > 0).then_some(count)
}
