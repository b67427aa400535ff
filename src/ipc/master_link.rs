//! The link of a worker or a manager to the master: plain messages, one a packet. The master has no
//! lanes; what it does not take at once waits here, which is rare: the master reads all the time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::codec;
use crate::error::{Result, Subject};
use crate::sys::packet;
use crate::sys::watch::watch;

/// Bytes of the largest message of the master; the configuration is most of `Boot`.
pub const MASTER_BYTES_MAX: usize = 256 * 1024;
/// Until what the kernel has not taken is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// The link.
pub struct MasterLink {
    socket: AsyncFd<OwnedFd>,
    waiting: RefCell<VecDeque<(Vec<u8>, Vec<OwnedFd>)>>,
    buffer: RefCell<Vec<u8>>,
}

impl MasterLink {
    /// Takes the descriptor that the master left.
    ///
    /// # Errors
    /// Where the runtime cannot watch the socket.
    pub fn new(socket: OwnedFd) -> Result<MasterLink> {
        let socket = watch(socket, Interest::READABLE)
            .subject(|| "watch the link to the master".to_owned())?;
        let buffer = RefCell::new(vec![0; MASTER_BYTES_MAX]);
        Ok(MasterLink { socket, waiting: RefCell::default(), buffer })
    }

    /// Says something to the master. A master that is gone is noticed by the reader.
    pub fn send(&self, message: &impl Serialize) {
        self.send_with(message, Vec::new());
    }

    /// As [`send`](Self::send), with descriptors beside it.
    pub fn send_with(&self, message: &impl Serialize, fds: Vec<OwnedFd>) {
        let mut bytes = Vec::new();
        match codec::encode(message, &mut bytes) {
            Ok(_) => self.waiting.borrow_mut().push_back((bytes, fds)),
            Err(error) => return tracing::error!(%error, "the master was not told"),
        }
        self.flush();
    }

    /// Gives the kernel what it takes. Each tick of a process calls this as well, for the rest.
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

    /// Waits until the kernel has taken all.
    pub async fn flushed(&self) {
        self.flush();
        while !self.waiting.borrow().is_empty() {
            tokio::time::sleep(AGAIN).await;
            self.flush();
        }
    }

    /// Waits for the next message and what is beside it. `None`: the master is gone.
    ///
    /// # Errors
    /// What the kernel says, or, without a number, that the message was not understood.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>> {
        let got = self.socket.async_io(Interest::READABLE, |socket| {
            let mut buffer = self.buffer.borrow_mut();
            let got = packet::receive(socket.as_fd(), &mut buffer)?;
            // The end is an empty packet.
            let message = (got.len > 0).then(|| codec::decode(&buffer[..got.len]));
            Ok(message.map(|message| (message, got.fds)))
        });
        match got.await {
            Ok(None) => Ok(None),
            Ok(Some((message, fds))) => Ok(Some((message?, fds))),
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => Ok(None),
            Err(error) => Err(error).subject(|| "receive from the master".to_owned()),
        }
    }
}
