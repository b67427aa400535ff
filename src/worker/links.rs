//! The two links: to the master, whose end means the end, and to the manager, who comes and
//! goes.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::Worker;
use super::peers::reading::is_cut;
use crate::api::ProcessEvent;
use crate::error::{Error, Result};
use crate::ipc::messages::{ManagerToWorker, MasterToWorker, WorkerToManager};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Counter, SummaryPage};
use crate::sys::process;

/// Reads the master until it is gone.
pub(super) async fn read_master(worker: Rc<Worker>) {
    loop {
        let understood = match worker.master.receive().await {
            Ok(Some((message, fds))) => worker.master_says(message, fds),
            Ok(None) => break,
            Err(error) if error.errno().is_none() || is_cut(&error) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the master's link cannot be read");
                break;
            }
        };
        if let Err(error) = understood {
            tracing::error!(%error, "a message of the master was not understood");
        }
    }
    worker.master_died();
}

/// Reads the manager, and each who follows it on the same link.
pub(super) async fn read_manager(worker: Rc<Worker>) {
    let read = worker.read_link(&worker.link, |packet, fds| worker.packet(packet, fds)).await;
    if let Err(error) = read {
        tracing::error!(%error, "the manager's link cannot be read");
    }
}

/// Sends to the manager what is queued for it.
pub(super) async fn write_manager(worker: Rc<Worker>) {
    let error = worker.link.flush_forever().await;
    tracing::warn!(%error, "the manager's link has ended");
}

impl Worker {
    fn master_says(self: &Rc<Self>, message: MasterToWorker, fds: Vec<OwnedFd>) -> Result<()> {
        match message {
            MasterToWorker::Boot(_) => Err(Error::new("the message Boot is for the start alone")),
            MasterToWorker::Page { of } => self.board.page_opened(of, &fds),
            MasterToWorker::PageEnded { of, last } => self.board.page_ended(of, &last),
            MasterToWorker::AcceptClients { on } => {
                self.take_clients(on);
                Ok(())
            }
            MasterToWorker::Summary => {
                let page = fds.first().ok_or_else(|| Error::new("Summary without a page"))?;
                self.summary.read_from(SummaryPage::open(page.as_fd())?);
                Ok(())
            }
            MasterToWorker::Lease { first } => {
                self.leased(first);
                Ok(())
            }
            MasterToWorker::LendListeners { slot, listeners } => {
                self.listen(slot, listeners.into_iter().zip(fds).collect())
            }
            MasterToWorker::TakeBackListeners { slot } => {
                self.unlisten(slot);
                Ok(())
            }
            MasterToWorker::Stop(mode) => {
                self.stop(mode);
                Ok(())
            }
            MasterToWorker::CloseLost => {
                let dead = fds.first().ok_or_else(|| Error::new("no registry in CloseLost"))?;
                self.close_lost(Registry::open(dead.as_fd())?);
                Ok(())
            }
            MasterToWorker::AppStarted { id, pid } => {
                let pid = u32::try_from(pid).unwrap_or(0);
                self.processes.happened(ProcessEvent::Started { id, pid });
                Ok(())
            }
            MasterToWorker::AppExited { id, how } => {
                self.processes.happened(ProcessEvent::Exited { id, how });
                Ok(())
            }
            MasterToWorker::Reopen => {
                let log = fds.first().ok_or_else(|| Error::new("Reopen without a log"))?;
                if self.settings.config.daemonize {
                    process::redirect(log.as_fd(), 1)?;
                }
                process::redirect(log.as_fd(), 2)
            }
        }
    }

    /// One packet of the manager.
    fn packet(self: &Rc<Self>, packet: &[u8], fds: &mut Vec<OwnedFd>) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != self.id {
            self.add(Counter::StalePackets, 1);
            return Ok(());
        }
        while let Some(frame) = frames.next::<ManagerToWorker>(fds)? {
            self.manager_says(frame.message, frame.body, fds)?;
        }
        Ok(())
    }

    fn manager_says(
        self: &Rc<Self>,
        message: ManagerToWorker,
        body: Body<'_>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        if self.refuses_length(&message, &body) {
            return Ok(());
        }
        match message {
            ManagerToWorker::LivenessCheck(number) => self.answer_check(number),
            ManagerToWorker::WhoAreYou { manager } => {
                self.introduce_peers();
                self.introduce_rooms();
                self.ask_presence_again();
                self.say_passes(manager);
                self.say_owns(manager);
            }
            message @ (ManagerToWorker::Push { .. }
            | ManagerToWorker::Broadcast { .. }
            | ManagerToWorker::Close { .. }
            | ManagerToWorker::Protect { .. }
            | ManagerToWorker::Info { .. }) => self.manager_says_to_clients(message, body)?,
            message @ (ManagerToWorker::Change { .. }
            | ManagerToWorker::Call { .. }
            | ManagerToWorker::Asked { .. }
            | ManagerToWorker::Tally { .. }
            | ManagerToWorker::Members { .. }
            | ManagerToWorker::Rooms { .. }
            | ManagerToWorker::Presence { .. }
            | ManagerToWorker::PresenceAnswer { .. }
            | ManagerToWorker::PresenceNodes { .. }
            | ManagerToWorker::NodesAsked { .. }
            | ManagerToWorker::NodeTally { .. }
            | ManagerToWorker::Noted { .. }) => self.manager_says_of_rooms(message, body)?,
            ManagerToWorker::Farewell => self.farewell(),
            ManagerToWorker::Verdict { id, verdict } => self.answer_verdict(id, verdict),
            // Each was relayed, and is now known not to have been queued.
            ManagerToWorker::Refused { count } => self.add(Counter::PushFull, count),
            ManagerToWorker::ListSlow { id, limit } => self.list_slow(id, usize::from(limit)),
            ManagerToWorker::InfoAnswer { id, info } => self.answer_info(id, info),
            ManagerToWorker::ListAnswer { id, part, last } => self.answer_list(id, part, last),
            ManagerToWorker::TickAnswer { id, number } => self.answer_tick(id, number),
            ManagerToWorker::WorkerMessage { from, acts } => {
                self.worker_message(from, acts, body.into_bytes()?)
            }
            ManagerToWorker::Sweep { idle_ms } => self.sweep(idle_ms),
            ManagerToWorker::HandOver { to } => self.hand_over(to),
            ManagerToWorker::Give { .. }
            | ManagerToWorker::Adopt { .. }
            | ManagerToWorker::Take { .. }
            | ManagerToWorker::Settled { .. }
            | ManagerToWorker::Own { .. }
            | ManagerToWorker::Missed { .. } => self.moves(message, body, fds)?,
            ManagerToWorker::Drain { jitter_ms, deadline_ms } => {
                self.drain(jitter_ms, deadline_ms);
            }
            ManagerToWorker::WorkerNum(num) => self.worker_num.set(num),
            ManagerToWorker::Engine { away } => self.engine_away.set(away),
            ManagerToWorker::Direct { link, to } => self.go_direct(link, to, only(fds)?)?,
            ManagerToWorker::EndDirect { link } => self.told_indirect(link),
            ManagerToWorker::Peer { link, from } => self.on_peer(link, from, only(fds)?)?,
            ManagerToWorker::PeerLeft { link } => self.peer_left(link),
        }
        Ok(())
    }

    fn answer_check(&self, number: u64) {
        crate::log::tell_rest();
        self.say(&WorkerToManager::Alive(number));
    }
}

/// The descriptor beside a message.
fn only(fds: &mut Vec<OwnedFd>) -> Result<OwnedFd> {
    fds.pop().ok_or_else(|| Error::new("a message came without its descriptor"))
}
