//! Sockets of clients: accept, read, write, and the options they inherit from their listener.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    recv, send, sendmsg, setsockopt, shutdown, sockopt,
};

/// Accepts one connection, non-blocking and close-on-exec. The address is the client's; `None`
/// for a Unix socket.
pub fn accept(listener: BorrowedFd<'_>) -> nix::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut address = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let start = address.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `address`, which has that many.
    let raw = unsafe { libc::accept4(listener.as_raw_fd(), start, &raw mut len, flags) };
    let raw = Errno::result(raw)?;
    // SAFETY: on success the descriptor is new and ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: zeroed is a valid sockaddr_in6, and so is whatever the kernel wrote over it.
    let v6 = unsafe { address.assume_init() };
    let peer = match i32::from(v6.sin6_family) {
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
        }
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in was written, which is the smaller.
            let v4 = unsafe { &*address.as_ptr().cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        _ => None,
    };
    Ok((socket, peer))
}

/// Lets nobody attach a filter to a listener, or a program that spreads the clients of all
/// listeners of its port: who is given a listener accepts on it, and decides for no other.
pub fn lock_filter(listener: BorrowedFd<'_>) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    let value = (&raw const on).cast();
    // SAFETY: the kernel reads an int, which `value` points to.
    let done = unsafe {
        libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, value, len)
    };
    Errno::result(done).map(drop)
}

/// Has a TCP socket forget that it was shut down, if it does not listen now. Else what is accepted
/// after the next listen(2) would be born shut: accepted sockets take that over.
pub fn forget_shutdown(socket: BorrowedFd<'_>) -> nix::Result<()> {
    if getsockopt(&socket, sockopt::AcceptConn).unwrap_or(true) {
        return Ok(());
    }
    // SAFETY: all zeros are a valid sockaddr.
    let mut nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    nobody.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let len = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of an address that lives.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) };
    Errno::result(done).map(drop)
}

/// What the options of a listener are by which whoever has it could keep clients from everybody
/// who accepts on it: where they come from, how far away they may be, what they may send. No
/// worker sets any of them. `TCP_MD5SIG`, which is one as well, cannot be read (tcp(7)).
pub fn gate_options(listener: BorrowedFd<'_>) -> Vec<Option<Vec<u8>>> {
    const OPTIONS: [(libc::c_int, libc::c_int); 13] = [
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
        (libc::SOL_SOCKET, libc::SO_DONTROUTE),
        (libc::SOL_SOCKET, libc::SO_RCVBUF),
        (libc::SOL_SOCKET, libc::SO_SNDBUF),
        (libc::SOL_SOCKET, libc::SO_LINGER),
        (libc::IPPROTO_IP, libc::IP_TTL),
        (libc::IPPROTO_IP, libc::IP_MINTTL),
        (libc::IPPROTO_IP, libc::IP_OPTIONS),
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    ];
    OPTIONS.map(|(level, name)| option_bytes(listener, level, name)).into()
}

fn option_bytes(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; 64];
    let mut len = bytes.len() as libc::socklen_t;
    let value = bytes.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `value`, and how many to `len`.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut len) };
    bytes.truncate(len as usize);
    (done == 0).then_some(bytes)
}

/// Reads what there is, at most the buffer full. 0 means that the client shut its end; `EAGAIN`
/// that there is nothing.
pub fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Writes pieces as one, and says how many bytes the kernel took. `EAGAIN` when it takes none.
pub fn write(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        let result = match pieces {
            [piece] => send(socket.as_raw_fd(), piece, flags),
            pieces => sendmsg::<()>(socket.as_raw_fd(), pieces, &[], flags, None),
        };
        match result {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Says that nothing more will be sent. The client may be gone already, which is as good.
pub fn finish_writing(socket: BorrowedFd<'_>) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// Whether it is an AF_UNIX socket.
pub fn is_unix(socket: BorrowedFd<'_>) -> bool {
    getsockname::<SockaddrStorage>(socket.as_raw_fd())
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix))
}

/// Whether it is bound to a loopback address.
pub fn is_loopback(socket: BorrowedFd<'_>) -> bool {
    let Ok(address) = getsockname::<SockaddrStorage>(socket.as_raw_fd()) else { return false };
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().is_loopback());
    let v6 = address.as_sockaddr_in6().map(|v6| v6.ip().to_canonical().is_loopback());
    v4.or(v6).unwrap_or(false)
}

/// Options that accepted connections inherit, so that they cost no system call each.
#[derive(Debug, Clone, Copy)]
pub struct TcpOptions {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE with TCP_KEEPIDLE; zero: off.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT; zero: the kernel's own.
    pub user_timeout: Duration,
}

/// Bytes of a client that the kernel holds before it has sent them. Without this limit it takes
/// up to 4 MiB for each client that does not read, beyond what any policy of ours bounds.
static UNSENT_BYTES_MAX: libc::c_int = 128 * 1024;

/// Sets TCP_NOTSENT_LOWAT, which nix does not know.
fn bound_unsent(listener: BorrowedFd<'_>) -> nix::Result<()> {
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
    let value = (&raw const UNSENT_BYTES_MAX).cast();
    let len = size_of_val(&UNSENT_BYTES_MAX) as libc::socklen_t;
    // SAFETY: `value` is `len` bytes, which the kernel only reads.
    let set = unsafe { libc::setsockopt(listener.as_raw_fd(), level, name, value, len) };
    Errno::result(set).map(drop)
}

/// How the kernel sees a TCP connection (TCP_INFO of tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpState {
    /// The round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Segments that were sent and are not acknowledged.
    pub unacked: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
}

/// How the kernel sees a TCP connection; `None` where a socket is none.
pub fn tcp_state(socket: BorrowedFd<'_>) -> Option<TcpState> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, name, to) = (libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `len` bytes to `info`, which has that many.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut len) };
    Errno::result(got).ok()?;
    // SAFETY: zeroed is a valid tcp_info, and so is whatever the kernel wrote over it.
    let info = unsafe { info.assume_init() };
    let (rtt_us, unacked) = (info.tcpi_rtt, info.tcpi_unacked);
    Some(TcpState { rtt_us, unacked, retransmits: info.tcpi_total_retrans })
}

/// Sets the options of a TCP listener.
pub fn tune(listener: BorrowedFd<'_>, options: TcpOptions) -> nix::Result<()> {
    bound_unsent(listener)?;
    setsockopt(&listener, sockopt::TcpNoDelay, &options.nodelay)?;
    setsockopt(&listener, sockopt::KeepAlive, &!options.keepalive.is_zero())?;
    if !options.keepalive.is_zero() {
        setsockopt(&listener, sockopt::TcpKeepIdle, &(options.keepalive.as_secs() as u32))?;
    }
    setsockopt(&listener, sockopt::TcpUserTimeout, &(options.user_timeout.as_millis() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn an_accepted_client_has_its_address_and_the_listeners_options() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let second = Duration::from_secs(1);
            let options = TcpOptions { nodelay: true, keepalive: second, user_timeout: second };
            tune(listener.as_fd(), options).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = accept(listener.as_fd()).unwrap();
            assert_eq!(peer, Some(client.local_addr().unwrap()));
            let nodelay = nix::sys::socket::getsockopt(&socket, sockopt::TcpNoDelay).unwrap();
            assert!(nodelay);
            assert_eq!(read(socket.as_fd(), &mut [0; 8]), Err(Errno::EAGAIN));
            client.write_all(b"x").unwrap();
            write(socket.as_fd(), &[IoSlice::new(b"a"), IoSlice::new(b"b")]).unwrap();
        }
    }
}
