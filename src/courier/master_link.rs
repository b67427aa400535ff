//! The link to the master: few and small messages, one a packet.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result, Subject};
use crate::ipc::cluster::messages::{CourierToMaster, MasterToCourier};
use crate::ipc::codec;
use crate::sys::packet;
use crate::sys::watch::watch;

/// Bytes of the largest packet of the master.
const PACKET_BYTES_MAX: usize = 256 * 1024;

/// The link.
pub struct MasterLink {
    socket: AsyncFd<OwnedFd>,
    /// What the kernel has not taken yet.
    waiting: RefCell<VecDeque<Vec<u8>>>,
}

impl MasterLink {
    /// Takes the descriptor that the master left for us.
    pub fn new(socket: OwnedFd) -> Result<MasterLink> {
        let socket = watch(socket, Interest::READABLE)
            .subject(|| "watch the link to the master".to_owned())?;
        Ok(MasterLink { socket, waiting: RefCell::default() })
    }

    /// Sends a message, now or with the next one: the master reads, and asks every second.
    pub fn send(&self, message: &CourierToMaster) {
        let mut bytes = Vec::new();
        if let Err(error) = codec::encode(message, &mut bytes) {
            return tracing::error!(%error, "a message to the master is lost");
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(bytes);
        while let Some(bytes) = waiting.front() {
            if packet::send(self.socket.get_ref().as_fd(), bytes, &[]).is_err() {
                return;
            }
            waiting.pop_front();
        }
    }

    /// Waits for the next message and what is beside it. `None`: the master is gone.
    pub async fn receive(&self) -> Result<Option<(MasterToCourier, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let got = self.socket.async_io(Interest::READABLE, |socket| {
            Ok(packet::receive(socket.as_fd(), &mut buffer)?)
        });
        match got.await {
            Ok(got) if got.len == 0 => Ok(None),
            Ok(got) => Ok(Some((codec::decode(&buffer[..got.len])?, got.fds))),
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => Ok(None),
            Err(error) => Err(Error::io("receive from the master", error)),
        }
    }
}
