//! Reading a link, whoever is at its other end.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::errno::Errno;

use super::Peers;
use crate::error::{Error, Result};
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::link::{Arrival, Link};
use crate::sys::packet;

/// Packets of the manager handled before clients get their turn.
const PACKETS_PER_TURN: usize = 4;

impl Peers {
    /// Reads a link to its end. `take` takes a packet, and is called within a turn. A packet that
    /// `take` does not understand is logged where the manager sent it, and elsewhere the end.
    pub(in crate::worker) async fn read_link(
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
}

/// Whether a packet is lost: it was too long, or there was no descriptor left for what came beside
/// it.
pub(in crate::worker) fn is_cut(error: &Error) -> bool {
    packet::is_cut(error) || error.errno() == Some(Errno::EMSGSIZE as i32)
}
