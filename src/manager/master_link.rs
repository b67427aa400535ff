//! The link to the master: plain messages, one a packet. The master has no lanes; what it does
//! not take at once waits here, and there is never much of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::error::{Error, Result, Subject};
use crate::ipc::codec;
use crate::ipc::messages::{ManagerToMaster, MasterToManager};
use crate::sys::packet;
use crate::sys::watch::watch;

/// The kernel's largest packet.
const PACKET_BYTES_MAX: usize = 256 * 1024;

/// The link.
pub struct MasterLink {
    socket: AsyncFd<OwnedFd>,
    waiting: RefCell<VecDeque<Vec<u8>>>,
    wake: Notify,
    buffer: RefCell<Vec<u8>>,
}

impl MasterLink {
    /// Takes the descriptor the master left for us.
    pub fn new(socket: OwnedFd) -> Result<MasterLink> {
        let socket = watch(socket, Interest::READABLE | Interest::WRITABLE)
            .subject(|| "watch the link to the master".to_owned())?;
        Ok(MasterLink {
            socket,
            waiting: RefCell::default(),
            wake: Notify::new(),
            buffer: RefCell::new(vec![0; PACKET_BYTES_MAX]),
        })
    }

    /// Queues a message.
    pub fn send(&self, message: &ManagerToMaster) {
        let mut bytes = Vec::new();
        match codec::encode(message, &mut bytes) {
            Ok(_) => {
                self.waiting.borrow_mut().push_back(bytes);
                self.wake.notify_one();
            }
            Err(error) => tracing::error!(%error, "a message to the master is lost"),
        }
    }

    /// Sends what is queued, for ever. Ends when the master is gone.
    pub async fn flush_forever(&self) -> Error {
        loop {
            self.wake.notified().await;
            if let Err(error) = self.flush().await {
                return error;
            }
        }
    }

    /// Sends what is queued now.
    pub async fn flush(&self) -> Result<()> {
        let subject = || "send to the master".to_owned();
        while !self.waiting.borrow().is_empty() {
            let mut ready = self.socket.writable().await.subject(subject)?;
            if let Ok(sent) = ready.try_io(|socket| Ok(self.send_all(socket.as_fd())?)) {
                sent.subject(subject)?;
            }
        }
        Ok(())
    }

    fn send_all(&self, socket: std::os::fd::BorrowedFd<'_>) -> nix::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(bytes) = waiting.front() {
            packet::send(socket, bytes, &[])?;
            waiting.pop_front();
        }
        Ok(())
    }

    /// Waits for the next message and what is beside it. `None`: the master is gone.
    pub async fn receive(&self) -> Result<Option<(MasterToManager, Vec<OwnedFd>)>> {
        let got = self.socket.async_io(Interest::READABLE, |socket| {
            let mut buffer = self.buffer.borrow_mut();
            let got = packet::receive(socket.as_fd(), &mut buffer)?;
            Ok((codec::decode(&buffer[..got.len]), got))
        });
        match got.await {
            Ok((_, got)) if got.len == 0 => Ok(None),
            Ok((message, got)) => Ok(Some((message?, got.fds))),
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => Ok(None),
            Err(error) => Err(Error::io("receive from the master", error)),
        }
    }
}
