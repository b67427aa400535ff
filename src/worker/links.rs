//! The two links: to the master, whose end means the end, and to the manager, who comes and
//! goes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Worker;
use super::boot::MASTER_BYTES_MAX;
use crate::api::ProcessEvent;
use crate::error::{Error, Result, Subject};
use crate::ipc::link::{Arrival, Link};
use crate::ipc::messages::{ManagerToWorker, MasterToWorker, WorkerToManager, WorkerToMaster};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Counter, SummaryPage};
use crate::ipc::{PACKET_BYTES_MAX, codec};
use crate::sys::watch::watch;
use crate::sys::{packet, process};

/// Packets of the manager handled before clients get their turn.
const PACKETS_PER_TURN: usize = 4;

/// The link to the master: plain messages, one a packet.
pub(super) struct MasterLink {
    socket: AsyncFd<OwnedFd>,
    /// What the kernel did not take at once, which is rare: the master reads all the time.
    waiting: RefCell<VecDeque<(Vec<u8>, Vec<OwnedFd>)>>,
}

impl MasterLink {
    pub fn new(socket: OwnedFd) -> Result<MasterLink> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket =
            watch(socket, interest).subject(|| "watch the link of the master".to_owned())?;
        Ok(MasterLink { socket, waiting: RefCell::default() })
    }

    /// Says something to the master. A master that is gone is noticed by the reader.
    pub fn send(&self, message: &WorkerToMaster) {
        self.send_with(message, Vec::new());
    }

    /// As [`send`](Self::send), with descriptors beside it.
    pub fn send_with(&self, message: &WorkerToMaster, fds: Vec<OwnedFd>) {
        let mut bytes = Vec::new();
        match codec::encode(message, &mut bytes) {
            Ok(_) => self.waiting.borrow_mut().push_back((bytes, fds)),
            Err(error) => return tracing::error!(%error, "the master was not told"),
        }
        self.flush();
    }

    /// Gives the kernel what it takes. Each tick calls this as well, for the rest.
    pub fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some((bytes, fds)) = waiting.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match packet::send(self.socket.get_ref().as_fd(), bytes, &fds) {
                Err(errno) if errno == Errno::EAGAIN || packet::is_passing(errno) => return,
                Err(error) => tracing::error!(%error, "the master was not told"),
                Ok(()) => {}
            }
            waiting.pop_front();
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> Result<packet::Datagram> {
        let receive = |socket: &OwnedFd| Ok(packet::receive(socket.as_fd(), &mut *buffer)?);
        let got = self.socket.async_io(Interest::READABLE, receive).await;
        got.subject(|| "receive from the master".to_owned())
    }
}

/// Reads the master until it is gone.
pub(super) async fn read_master(worker: Rc<Worker>) {
    let mut buffer = vec![0; MASTER_BYTES_MAX];
    loop {
        let got = match worker.master.receive(&mut buffer).await {
            Ok(got) if got.len > 0 => got,
            Ok(_) => break,
            Err(error) if is_cut(&error) => {
                tracing::error!(%error, "a message of the master was cut");
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "the master's link cannot be read");
                break;
            }
        };
        let done = codec::decode(&buffer[..got.len])
            .and_then(|message| worker.master_says(message, got.fds));
        if let Err(error) = done {
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
    /// Says something to the manager that must arrive.
    pub(super) fn say(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.control(message) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    fn master_says(self: &Rc<Self>, message: MasterToWorker, fds: Vec<OwnedFd>) -> Result<()> {
        match message {
            MasterToWorker::Boot(_) => Err(Error::new("it is for the start alone")),
            MasterToWorker::Page { of } => self.board.page_opened(of, &fds),
            MasterToWorker::PageEnded { of, last } => self.board.page_ended(of, &last),
            MasterToWorker::AcceptClients { on } => {
                self.take_clients(on);
                Ok(())
            }
            MasterToWorker::Summary => {
                let page = fds.first().ok_or_else(|| Error::new("Summary without a page"))?;
                self.api.read_from(SummaryPage::open(page.as_fd())?);
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

    /// Reads a link to its end. `take` takes a packet, and is called within a turn. A packet that
    /// `take` does not understand is logged where the manager sent it, and elsewhere the end.
    pub(super) async fn read_link(
        self: &Rc<Self>,
        link: &Link,
        take: impl Fn(&[u8], &mut Vec<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        loop {
            if link.id() != self.id {
                // What another worker asks is answered by the manager's link. (The manager itself
                // is always read, or each of us might wait for the other.)
                self.link.room().await;
            }
            match link.receive(&mut buffer).await {
                Ok(Some(mut arrival)) => {
                    if self.in_turn(|| self.packets(link, &mut buffer, &mut arrival, &take))? {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if is_cut(&error) => self.is_borne(link, error)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// A packet of a link, alone if it was waited for, else with those that came meanwhile: what
    /// they push is written once. True if there may be more than one turn takes.
    fn packets(
        &self,
        link: &Link,
        buffer: &mut [u8],
        arrival: &mut Arrival,
        take: &impl Fn(&[u8], &mut Vec<OwnedFd>) -> Result<()>,
    ) -> Result<bool> {
        let mut packets = 0;
        loop {
            if let Err(error) = take(&buffer[..arrival.len], &mut arrival.fds) {
                self.is_borne(link, error)?;
            }
            packets += 1;
            if arrival.waited || packets == PACKETS_PER_TURN || self.turn.is_congested() {
                return Ok(!arrival.waited);
            }
            match link.receive_more(buffer) {
                Ok(Some(next)) => *arrival = next,
                Err(error) if is_cut(&error) => {
                    self.is_borne(link, error)?;
                    return Ok(true);
                }
                // An end or another error comes again when it is received the usual way.
                Ok(None) | Err(_) => return Ok(false),
            }
        }
    }

    /// What the manager sent and was not understood is logged, and the link goes on. From another
    /// worker it is the end of the link: what that sends from then on comes by the manager.
    fn is_borne(&self, link: &Link, error: Error) -> Result<()> {
        if link.id() != self.id {
            return Err(error);
        }
        tracing::error!(link = %link.id(), %error, "a packet was not understood");
        Ok(())
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

    pub(super) fn manager_says(
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
            | ManagerToWorker::Presence { .. }
            | ManagerToWorker::PresenceAnswer { .. }
            | ManagerToWorker::NodesAsked { .. }
            | ManagerToWorker::NodeTally { .. }
            | ManagerToWorker::Noted { .. }) => self.manager_says_of_rooms(message, body)?,
            ManagerToWorker::Verdict { id, verdict } => self.answer_verdict(id, verdict),
            // Each was relayed, and is now known not to have been queued.
            ManagerToWorker::Refused { count } => self.add(Counter::PushFull, count),
            ManagerToWorker::ListSlow { id, limit } => self.list_slow(id, usize::from(limit)),
            ManagerToWorker::InfoAnswer { id, info } => self.answer_info(id, info),
            ManagerToWorker::ListAnswer { id, part, last } => self.answer_list(id, part, last),
            ManagerToWorker::TickAnswer { id, number } => self.answer_tick(id, number),
            ManagerToWorker::WorkerMessage { from } => {
                self.worker_message(from, body.into_bytes()?)
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

/// Whether there was no descriptor left for what came beside a packet, which is lost with that.
pub(super) fn is_cut(error: &Error) -> bool {
    error.errno() == Some(Errno::EMSGSIZE as i32)
}

/// The descriptor beside a message.
fn only(fds: &mut Vec<OwnedFd>) -> Result<OwnedFd> {
    fds.pop().ok_or_else(|| Error::new("it came without its descriptor"))
}
