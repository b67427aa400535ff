//! The master is written down for the next image.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::parts::Leaving;
use super::takeover::{SlotLeft, Takeover};
use crate::error::Result;
use crate::ipc::IPC_VERSION;
use crate::master::{Launch, Master};
use crate::sys::process;

impl Master {
    /// Writes down everything for the next image, and lets its descriptors outlive an exec.
    pub(super) fn leave(&self, report: Option<BorrowedFd<'_>>) -> Result<(Launch, Vec<OwnedFd>)> {
        let mut leaving = Leaving::default();
        let why = leaving.give(crate::sys::memory::open_memfd("wsd-why")?)?;
        let report = report.map(|pipe| leaving.pass_on(pipe)).transpose()?;
        let mut takeover = Takeover {
            all: Vec::new(),
            from: env!("CARGO_PKG_VERSION").to_owned(),
            ipc_version: IPC_VERSION,
            why,
            started_at: self.started_at,
            runtime_dir: self.runtime_dir.leave(&mut leaving)?,
            control: leaving.pass_on(self.control.as_fd())?,
            departed: self.board.departed().clone(),
            summary: Some(leaving.pass_on(self.summary.memfd().as_fd())?),
            image: leaving.pass_on(self.image.descriptor())?,
            generation: self.image.generation,
            last_generation: self.reload.last_generation(),
            worker_restarts: self.worker_restarts,
            drain: self.drain,
            serials: self.serials.next().clone(),
            listeners: self
                .listeners
                .all()
                .map(|(slot, listener, socket)| {
                    Ok((slot, listener.clone(), leaving.pass_on(socket)?))
                })
                .collect::<Result<_>>()?,
            slots: self
                .slots
                .iter()
                .map(|(slot, place)| {
                    let closing_lost = place.owed.iter().map(|it| leaving.pass_on(it.as_fd()));
                    let closing_lost = closing_lost.collect::<Result<_>>()?;
                    Ok(SlotLeft { slot: slot.0, epoch: place.epoch, closing_lost })
                })
                .collect::<Result<_>>()?,
            workers: self
                .workers
                .iter()
                .map(|worker| worker.leave(&mut leaving))
                .collect::<Result<_>>()?,
            apps: self.apps.clone(),
            manager: self.manager.leave(&mut leaving)?,
        };
        takeover.all = leaving.passed.iter().map(AsRawFd::as_raw_fd).collect();
        let launch = Launch {
            sources: self.launch.sources.clone(),
            config: self.config.clone(),
            invoked: self.launch.invoked.clone(),
            report,
            takeover: Some(takeover),
        };
        Ok((launch, leaving.passed))
    }

    /// The exec is over or did not happen: our own children are not to inherit anything.
    pub(super) fn take_back(&self, passed: Vec<OwnedFd>) {
        drop(passed);
        process::close_inherited_on_exec();
    }
}
