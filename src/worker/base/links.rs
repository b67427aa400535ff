//! The links to the master and to the manager, as far as this worker speaks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Base;
use crate::api::Verdict;
use crate::error::{Result, Subject};
use crate::ipc::codec;
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{Origin, RequestId, WorkerToManager, WorkerToMaster};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::sys::packet;
use crate::sys::watch::watch;

/// The link to the master: plain messages, one a packet.
pub(in crate::worker) struct MasterLink {
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

    /// Waits for a packet.
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<packet::Datagram> {
        let receive = |socket: &OwnedFd| Ok(packet::receive(socket.as_fd(), &mut *buffer)?);
        let got = self.socket.async_io(Interest::READABLE, receive).await;
        got.subject(|| "receive from the master".to_owned())
    }
}

impl Base {
    /// Says something to the manager that must arrive.
    pub(in crate::worker) fn say(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.control(message) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    pub(in crate::worker) fn tell_verdict(&self, origin: Origin, id: RequestId, verdict: Verdict) {
        if id != 0 {
            self.say(&WorkerToManager::Verdict { origin, id, verdict });
        }
    }

    /// Says something behind all that was said before.
    pub(in crate::worker) fn say_in_order(&self, message: &WorkerToManager) {
        if let Err(error) = self.link.insist(message, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the manager was not told");
        }
    }

    /// Gives a message for somebody elsewhere to the manager.
    pub(in crate::worker) fn relay(&self, message: &WorkerToManager, body: &[u8]) -> Verdict {
        self.relayed(self.link.send(Lane::Data, message, Body::Inline(body), Vec::new()))
    }

    pub(in crate::worker) fn relayed(&self, sent: Result<Sent>) -> Verdict {
        match sent {
            Ok(Sent::Queued) => Verdict::Relayed,
            Ok(Sent::Full) => {
                self.add(Counter::LaneFull, 1);
                Verdict::Full
            }
            Err(error) => {
                tracing::error!(%error, "cannot relay");
                Verdict::Full
            }
        }
    }
}
