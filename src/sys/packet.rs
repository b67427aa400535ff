//! Datagrams with descriptors beside them, over SOCK_SEQPACKET socketpairs.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt,
    socketpair, sockopt,
};

use crate::error::{Error, Result, Subject};

/// Descriptors that the kernel lets anybody put beside one datagram (SCM_MAX_FD). There is room
/// for all of them, so that none is cut off.
const KERNEL_FDS_MAX: usize = 253;
/// Room for them: a header of 16 bytes, and two of them a word.
const SPACE_WORDS: usize = 2 + KERNEL_FDS_MAX.div_ceil(2);

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

/// Whether a send that failed so may succeed a moment later, though nobody tells when. That the
/// processes of one user have more descriptors under way than one of them may have open
/// (`ETOOMANYREFS`) passes when they are received; root's are not counted.
pub fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM)
}

/// What was received.
#[derive(Debug)]
pub struct Datagram {
    /// How many bytes; 0 means that the peer is gone.
    pub len: usize,
    /// What came beside them, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one datagram into `buffer`. `EAGAIN` when there is none. A datagram that is longer
/// than the buffer is `EMSGSIZE`; one whose descriptors find no room in this process is `EMFILE`,
/// which is no fault of whoever sent it. Either is lost, and none of its descriptors stays open.
///
/// A peer that ends with something unread leaves a reset, which the kernel tells once and before
/// what the peer had sent; that is read all the same.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Datagram> {
    let mut space = [0u64; SPACE_WORDS];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeros is a valid one: no address, no buffers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space);
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let mut reset = false;
    let len = loop {
        // SAFETY: the header names one buffer and one space for control messages, both of which
        // are ours alone and live until after the call.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match Errno::result(got) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ECONNRESET) if !reset => reset = true,
            result => break result?,
        }
    };
    let fds = descriptors(&header);
    if header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::EMSGSIZE);
    }
    // There is space for all descriptors that the kernel lets anybody send.
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Errno::EMFILE);
    }
    Ok(Datagram { len: usize::try_from(len).unwrap_or(0), fds })
}

/// Whether a datagram is lost since there was no descriptor left for what came beside it.
pub fn is_cut(error: &Error) -> bool {
    error.errno() == Some(Errno::EMFILE as i32)
}

/// What came beside a datagram, also where the kernel found no room for all of it: what it had
/// made by then is open, and is closed by nobody else. (nix shows nothing of such a message.)
fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg has filled in the header, whose control messages stand in memory that is
    // aligned for them and still alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: it was just found to lie within the control messages.
        let beside = unsafe { *message };
        if (beside.cmsg_level, beside.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above; the data begins behind the header and ends at `cmsg_len`.
            let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
            // SAFETY: plain arithmetic.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (beside.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` numbers of descriptors that it had just made
                // for us, and nobody else knows them.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for the first.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    fds
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
    fn whatever_came_beside_a_datagram_is_ours_or_closed() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (ours, theirs) = pair().unwrap();
        let many = vec![ours.as_fd(); KERNEL_FDS_MAX];
        // Other tests open and close theirs meanwhile; what leaked would be far more.
        let before = open();
        for _ in 0..100 {
            send(ours.as_fd(), b"as many as there may be", &many).unwrap();
            assert_eq!(receive(theirs.as_fd(), &mut [0; 64]).unwrap().fds.len(), KERNEL_FDS_MAX);
            send(ours.as_fd(), b"more than fits", &many).unwrap();
            assert_eq!(receive(theirs.as_fd(), &mut [0; 4]).unwrap_err(), Errno::EMSGSIZE);
        }
        assert!(open() < before + 1_000, "{} and {before}", open());
    }

    #[test]
    fn what_is_too_long_was_not_cut_for_want_of_descriptors() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), b"more than fits", &[ours.as_fd()]).unwrap();
        let too_long = receive(theirs.as_fd(), &mut [0; 4]).unwrap_err();
        assert!(!is_cut(&Error::io("receive", too_long)));
        assert!(is_cut(&Error::io("receive", Errno::EMFILE)));
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
