//! What workers say, and who does what is asked.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::Semaphore;

use super::listing::Page;
use super::relay::hold::SlotMessage;
use super::relay::message::{Reply, Wide};
use super::{Manager, Shared};
use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::link::{Arrival, Link};
use crate::ipc::master_link::MasterLink;
use crate::ipc::messages::{ManagerToMaster, Origin, WorkerToManager};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::scoreboard::{Counter, Row};
use crate::sys::packet;

/// After so many bytes of one worker the others, and whoever asks on the control socket, get their
/// turn: about a millisecond of small pushes.
const TURN_BYTES: usize = 64 * 1024;
/// What a packet costs besides its bytes.
const PACKET_COST: usize = 8 * 1024;
/// Packets of a worker that has ended: more than the kernel queues.
const LAST_PACKETS_MAX: usize = 1024;

/// Reads a worker's link until its end, a few packets at a time, so that all get their turn.
/// Nothing is read while the answers to what was read before pile up.
pub async fn read(manager: Shared, link: Rc<Link>, lists: Rc<Semaphore>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
    loop {
        link.room().await;
        drop(lists.acquire().await);
        let mut arrival = match link.receive(&mut buffer).await {
            Ok(Some(arrival)) => arrival,
            // The master will tell how it ended.
            Ok(None) => return,
            Err(error) if packet::is_cut(&error) => {
                lost_packet(&manager.borrow().exchange.row, link.id(), &error);
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => return replace(&manager.borrow().master, link.id(), &error),
        };
        let read = manager.borrow_mut().on_packets(&link, &mut buffer, &mut arrival);
        match read {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => {}
            Err(error) => return replace(&manager.borrow().master, link.id(), &error),
        }
    }
}

/// There was no descriptor for what came beside a packet, which is no fault of its worker's.
fn lost_packet(row: &Row, id: WorkerId, error: &Error) {
    tracing::error!(worker = %id, %error, "a packet is lost: no descriptor is left");
    row.add(Counter::LaneFull, 1);
}

/// A worker says what no worker says: a bug of ours or of its, or not our worker any more. A fresh
/// one is the cure.
fn replace(master: &MasterLink, id: WorkerId, error: &Error) {
    tracing::error!(worker = %id, %error, "a worker broke the protocol: it is replaced");
    master.send(&ManagerToMaster::Kill(id));
}

impl Manager {
    /// A packet of a worker.
    pub fn on_packet(
        &mut self,
        from: WorkerId,
        packet: &[u8],
        mut fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != from {
            self.exchange.row.add(Counter::StalePackets, 1);
            return Ok(());
        }
        while let Some(frame) = frames.next::<WorkerToManager>(&mut fds)? {
            self.on_message(from, frame.message, frame.body, &mut fds)?;
        }
        if let Some(worker) = self.exchange.workers.get_mut(from) {
            worker.tell_refused();
        }
        Ok(())
    }

    /// The answer to what was routed, or a question for a list.
    fn on_answer(&mut self, from: WorkerId, message: WorkerToManager) {
        match message {
            WorkerToManager::Verdict { origin, id, verdict } => {
                self.exchange.answer(origin, id, Reply::Verdict(verdict));
            }
            WorkerToManager::InfoAnswer { origin, id, info } => {
                self.exchange.answer(origin, id, Reply::Info(Box::new(info)));
            }
            WorkerToManager::List { id } => self.exchange.list(from, id, Page::All),
            WorkerToManager::ListPage { id, after, limit } => {
                self.exchange.list(from, id, Page::Above { after, limit: usize::from(limit) });
            }
            WorkerToManager::ListSlow { id, limit } => self.answer_slow(from, id, limit),
            WorkerToManager::SlowAnswer { id, part } => {
                self.exchange.answer(Origin::Control, id, Reply::Slow(part));
            }
            _ => {}
        }
    }

    fn on_message(
        &mut self,
        from: WorkerId,
        message: WorkerToManager,
        body: Body<'_>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        match message {
            message @ (WorkerToManager::Push { .. }
            | WorkerToManager::Close { .. }
            | WorkerToManager::Protect { .. }
            | WorkerToManager::Info { .. }) => {
                self.exchange.on_client_message(from, message, body);
            }
            WorkerToManager::WorkerMessage { to, acts } => {
                self.exchange.deliver_to_slot(SlotMessage::new(from, to, acts, body));
            }
            WorkerToManager::Broadcast { opcode, except } => {
                self.exchange.spread_everywhere(Wide::broadcast(Some(from), opcode, except), body);
            }
            message @ (WorkerToManager::Change { .. }
            | WorkerToManager::Call { .. }
            | WorkerToManager::Tally { .. }
            | WorkerToManager::Members { .. }
            | WorkerToManager::Rooms { .. }
            | WorkerToManager::Present { .. }
            | WorkerToManager::PresenceOf { .. }
            | WorkerToManager::Interest { .. }) => {
                self.exchange.on_room_message(from, message, body)?
            }
            message @ (WorkerToManager::Verdict { .. }
            | WorkerToManager::InfoAnswer { .. }
            | WorkerToManager::List { .. }
            | WorkerToManager::ListPage { .. }
            | WorkerToManager::ListSlow { .. }
            | WorkerToManager::SlowAnswer { .. }) => self.on_answer(from, message),
            WorkerToManager::Alive(number) => self.exchange.workers.answered_check(from, number),
            WorkerToManager::Owns { manager, ranges, last } => {
                self.on_owns(from, manager, &ranges, last)?;
            }
            message @ (WorkerToManager::Moving { .. }
            | WorkerToManager::Stays { .. }
            | WorkerToManager::Gave { .. }
            | WorkerToManager::Gives { .. }
            | WorkerToManager::Holds { .. }) => self.on_pass_message(from, message, body, fds),
            message @ WorkerToManager::Adopted { .. } => {
                self.on_pass_message(from, message, body, fds);
                self.check_owners_known();
            }
            WorkerToManager::Peers { from: peers } => self.on_peers(from, peers),
            WorkerToManager::WantDirect { to } => self.on_want_direct(from, to),
            WorkerToManager::Through { link } => {
                self.exchange.direct.through(&self.exchange.workers, from, link)
            }
            WorkerToManager::Indirect { link } => self.on_indirect(from, link),
            WorkerToManager::PeerEnded { link } => self.on_peer_ended(from, link),
            WorkerToManager::CanGive => self.on_can_give(from),
            WorkerToManager::TickDue { id, name, period_ms } => {
                self.server_ticks.on_due(&self.exchange.workers, from, id, &name, period_ms)?;
            }
            WorkerToManager::Drained => self.exchange.workers.part(from),
        }
        Ok(())
    }

    /// Packets of a worker; then what they are to bring about goes on its way. True if there may
    /// be more.
    fn on_packets(
        &mut self,
        link: &Link,
        buffer: &mut [u8],
        arrival: &mut Arrival,
    ) -> Result<bool> {
        self.exchange.workers.begin_turn();
        let more = self.take_packets(link, buffer, arrival);
        self.exchange.workers.end_turn();
        more
    }

    /// A packet of a worker, alone if it was waited for, else with those that came meanwhile, at
    /// most a turn's. True if there may be more than that.
    fn take_packets(
        &mut self,
        link: &Link,
        buffer: &mut [u8],
        arrival: &mut Arrival,
    ) -> Result<bool> {
        let mut turn = 0;
        loop {
            let fds = std::mem::take(&mut arrival.fds);
            self.on_packet(link.id(), &buffer[..arrival.len], fds)?;
            turn += arrival.len + PACKET_COST;
            if arrival.waited || turn >= TURN_BYTES {
                return Ok(!arrival.waited);
            }
            // An end or an error comes again when it is received the usual way.
            let Ok(Some(next)) = link.receive_more(buffer) else { return Ok(false) };
            *arrival = next;
        }
    }

    /// Reads what is left in the link of a worker that has ended. Who kept a copy of its end may
    /// go on writing, and is not followed.
    pub fn drain_link(&mut self, id: WorkerId) {
        let Some(link) = self.exchange.workers.get(id).map(|worker| Rc::clone(&worker.link))
        else {
            return;
        };
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        for _ in 0..LAST_PACKETS_MAX {
            let arrival = match link.try_receive(&mut buffer) {
                Ok(Some(arrival)) => arrival,
                Err(error) if packet::is_cut(&error) => {
                    lost_packet(&self.exchange.row, id, &error);
                    continue;
                }
                Ok(None) | Err(_) => return,
            };
            if let Err(error) = self.on_packet(id, &buffer[..arrival.len], arrival.fds) {
                tracing::warn!(worker = %id, %error, "the last words of a worker are garbled");
                return;
            }
        }
    }
}
