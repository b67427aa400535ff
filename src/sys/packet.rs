//! Datagrams with descriptors beside them, over SOCK_SEQPACKET socketpairs.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};

use crate::error::{Result, Subject};

/// Descriptors beside one datagram; the kernel's limit is 253.
pub const PACKET_FDS_MAX: usize = 128;

/// Bytes of the kernel's queue we ask for, each way. It may give less to an unprivileged user.
const QUEUE_BYTES: usize = 1024 * 1024;

/// A pair of connected non-blocking SEQPACKET sockets, close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .subject(|| "socketpair".to_owned())?;
    for end in [&pair.0, &pair.1] {
        // Best effort: the default queue works too, only with more wake-ups.
        if setsockopt(end, sockopt::SndBufForce, &QUEUE_BYTES).is_err() {
            let _ = setsockopt(end, sockopt::SndBuf, &QUEUE_BYTES);
        }
    }
    Ok(pair)
}

/// Sends one datagram, whole or not at all. `EAGAIN` when the peer's queue is full.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        let sent = if raw.is_empty() {
            // The same, but nothing to copy and check for the kernel.
            socket::send(socket.as_raw_fd(), bytes, flags)
        } else {
            let (iov, beside) = ([IoSlice::new(bytes)], [ControlMessage::ScmRights(&raw)]);
            sendmsg::<()>(socket.as_raw_fd(), &iov, &beside, flags, None)
        };
        match sent {
            Err(Errno::EINTR) => continue,
            result => return result.map(|_| ()),
        }
    }
}

/// What was received.
#[derive(Debug)]
pub struct Datagram {
    /// How many bytes; 0 means that the peer is gone.
    pub len: usize,
    /// What came beside them, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one datagram into `buffer`. `EAGAIN` when there is none; a datagram that is longer
/// than the buffer is `EMSGSIZE`.
///
/// A peer that ends with something unread leaves a reset, which the kernel tells once and before
/// what the peer had sent; that is read all the same.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Datagram> {
    let mut space = nix::cmsg_space!([RawFd; PACKET_FDS_MAX]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let mut iov = [IoSliceMut::new(buffer)];
    let mut reset = false;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ECONNRESET) if !reset => reset = true,
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for beside in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = beside {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows
            // them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok(Datagram { len: message.bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_travel_beside_the_bytes() {
        let (ours, theirs) = pair().unwrap();
        let (end, other) = pair().unwrap();
        send(ours.as_fd(), b"take this", &[end.as_fd()]).unwrap();
        let mut buffer = [0; 64];
        let got = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..got.len], b"take this");
        send(got.fds[0].as_fd(), b"through it", &[]).unwrap();
        let got = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..got.len], b"through it");
    }

    #[test]
    fn what_a_peer_sent_is_read_though_it_left_something_unread() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), b"never read", &[]).unwrap();
        send(theirs.as_fd(), b"last words", &[]).unwrap();
        drop(theirs);
        let mut buffer = [0; 64];
        let got = receive(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..got.len], b"last words");
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().len, 0);
    }

    #[test]
    fn a_gone_peer_reads_as_nothing_and_a_full_one_as_again() {
        let (ours, theirs) = pair().unwrap();
        while send(ours.as_fd(), &[0; 1000], &[]).is_ok() {}
        assert_eq!(send(ours.as_fd(), &[0; 1000], &[]), Err(Errno::EAGAIN));
        drop(ours);
        let mut buffer = [0; 1000];
        while receive(theirs.as_fd(), &mut buffer).unwrap().len > 0 {}
        assert_eq!(send(theirs.as_fd(), b"x", &[]), Err(Errno::EPIPE));
    }
}
