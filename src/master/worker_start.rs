//! A worker is started: its process, its links, its registry and its page.

use std::os::fd::AsFd;

use super::Master;
use super::child::{Birth, Child, duplicate};
use super::lease::Lease;
use super::protocol::ProtocolState;
use super::worker_handle::Starts;
use super::worker_handle::WorkerHandle;
use crate::config::Config;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{Generation, MasterToWorker, WorkerBoot};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Page, Row};
use crate::sys::packet;

/// Entries of a registry beyond `max_connection`: pending handshakes share its indices.
const REGISTRY_SPARE: usize = 8192;

impl Master {
    /// Starts a worker of the serving or the pending generation.
    pub(super) fn start_worker(
        &mut self,
        slot: Slot,
        generation: Generation,
        config: &Config,
    ) -> Result<()> {
        let place = self.slots.at(slot);
        place.epoch += 1;
        let id = WorkerId { slot, epoch: place.epoch };
        let (manager_end, worker_end) = packet::pair()?;
        let entries = config.max_connection + REGISTRY_SPARE;
        let (_, registry) = Registry::create(entries)?;
        let page = Row::create()?;
        let counters = Page::open(page.as_fd())?;
        let pages = self.pages()?;
        self.revive(slot, config);
        let (listeners, sockets) = self.listeners.of_slot(slot, config);
        let first = self.serials.lease(slot)?;
        let boot = WorkerBoot {
            id,
            generation,
            config: config.for_child(true),
            worker_num: u16::try_from(config.worker_num).unwrap_or(256),
            departed: self.board.departed().clone(),
            pages: pages.len() as u16,
            lease: first,
            listeners,
        };
        let mut fds = vec![worker_end, duplicate(page.as_fd())?];
        fds.push(duplicate(registry.as_fd())?);
        for socket in sockets {
            fds.push(duplicate(socket)?);
        }
        let image = self.image_of(generation);
        let child = Child::start(&Birth {
            image: &image.path(),
            title: &format!("wsd: worker {slot}"),
            arguments: &self.arguments,
            stdout: None,
            stderr: self.log_of(generation).for_child(),
        })?;
        tracing::info!(worker = %id, pid = child.pid.as_raw(), generation, "worker started");
        let mut worker = WorkerHandle {
            id,
            generation,
            child,
            page,
            overstates: false,
            manager_end,
            registry,
            ready_ms: None,
            protocol: ProtocolState::default(),
            broke_protocol: false,
            app_starts: Starts::default(),
            lease: Lease::begun(first),
            fatal: None,
            waits: None,
            closing_lost: 0,
        };
        self.board.add(id, counters);
        worker.send(&MasterToWorker::Boot(boot), fds);
        for (of, page) in pages {
            worker.send(&MasterToWorker::Page { of }, vec![page]);
        }
        self.workers.push(worker);
        self.attach(self.workers.len() - 1);
        self.show_summary(self.workers.len() - 1)
    }
}
