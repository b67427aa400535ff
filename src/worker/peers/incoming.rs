//! Direct links that lead here: what other workers send to clients of ours without the manager.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::Peers;
use super::reading::is_cut;
use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::link::{Arrival, Link};
use crate::ipc::messages::{LinkId, ManagerToWorker, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::{Body, Frames};

/// More packets than the kernel queues.
const QUEUED_MAX: usize = 1024;

impl Peers {
    /// A manager is new to this worker, and is told who sends to us.
    pub(in crate::worker) fn introduce_peers(self: &Rc<Self>) {
        // It knows nothing of those we send to.
        self.go_indirect();
        let peers = self.direct.peers.borrow();
        let from: Vec<_> = peers.iter().map(|(&id, link)| (id, link.id())).collect();
        drop(peers);
        for (id, _) in &from {
            // Its sender may have said to a manager that died that it goes by that.
            self.take_rest(*id);
        }
        self.say(&WorkerToManager::Peers { from });
    }

    /// Another worker sends to us directly, and all that it sent before was taken.
    pub(in crate::worker) fn on_peer(
        self: &Rc<Self>,
        id: LinkId,
        from: WorkerId,
        socket: OwnedFd,
    ) -> Result<()> {
        let link = Rc::new(Link::new(socket, from)?);
        // An empty frame: that it comes is all it says.
        link.control(&())?;
        link.end_turn();
        self.direct.peers.borrow_mut().insert(id, link.clone());
        let worker = self.clone();
        spawn_local(async move {
            let take = |packet: &[u8], fds: &mut _| worker.peer_packet(&link, packet, fds);
            if let Err(error) = worker.read_link(&link, take).await {
                tracing::error!(%from, %error, "a direct link cannot be read");
            }
            worker.peer_ended(id);
        });
        Ok(())
    }

    fn peer_packet(
        self: &Rc<Self>,
        link: &Link,
        packet: &[u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != link.id() {
            return Err(Error::new(format!("a packet is from {}", frames.id)));
        }
        while let Some(frame) = frames.next::<WorkerToWorker>(fds)? {
            self.peer_says(frame.message.passed_on_for(link.id()), frame.body)?;
        }
        Ok(())
    }

    fn peer_says(self: &Rc<Self>, message: ManagerToWorker, body: Body<'_>) -> Result<()> {
        if self.refuses_length(&message, &body) {
            return Ok(());
        }
        match message {
            ManagerToWorker::Change { .. } | ManagerToWorker::Call { .. } => {
                self.manager_says_of_rooms(message, body)
            }
            other => self.manager_says_to_clients(other, body),
        }
    }

    /// What its sender sends from here on comes by the manager.
    pub(in crate::worker) fn peer_left(self: &Rc<Self>, id: LinkId) {
        self.take_rest(id);
        if !self.peer_ended(id) {
            // It did not come up, or has ended by itself. The manager counts on an answer.
            self.say_in_order(&WorkerToManager::PeerEnded { link: id });
        }
    }

    /// Takes what has been sent so far. Who goes on sending meanwhile is not followed for ever.
    fn take_rest(self: &Rc<Self>, id: LinkId) {
        let Some(link) = self.direct.peers.borrow().get(&id).cloned() else { return };
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        for _ in 0..QUEUED_MAX {
            let taken = match link.try_receive(&mut buffer) {
                Ok(Some(Arrival { len, mut fds, .. })) => {
                    self.peer_packet(&link, &buffer[..len], &mut fds)
                }
                Ok(None) => return,
                Err(error) if is_cut(&error) => Err(error),
                Err(_) => return,
            };
            if let Err(error) = taken {
                return tracing::error!(from = %link.id(), %error, "a direct link is not read");
            }
        }
    }

    fn peer_ended(&self, id: LinkId) -> bool {
        let was_there = self.direct.peers.borrow_mut().remove(&id).is_some();
        if was_there {
            self.say_in_order(&WorkerToManager::PeerEnded { link: id });
        }
        was_there
    }
}
