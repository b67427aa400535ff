//! The making of listening sockets, of each kind of address.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::SFlag;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::trusted_path::TrustedPath;
use crate::config::{Config, ListenAddr};
use crate::error::{Error, Result, Subject};
use crate::ipc::messages::Purpose;
use crate::sys::path_walk::Missing;
use crate::sys::socket::lock_filter;

/// Removes the path of an entry that is one.
pub fn unlink(entry: &str, config: &Config) {
    if let Some(path) = entry.strip_prefix("unix:") {
        let path = TrustedPath::new(entry, Path::new(path), Missing::Fail, config);
        // It may be gone already, with its directory.
        let _ = path.and_then(|path| path.remove(SFlag::S_IFSOCK));
    }
}

/// The socket of a slot, and its real address. Others may be bound beside it; with `first` none
/// may be there yet.
pub fn tcp(addr: SocketAddr, first: bool, config: &Config) -> Result<(OwnedFd, String)> {
    if first && addr.port() != 0 {
        probe(addr)?;
    }
    let subject = || format!("listen on {addr}");
    let bound = |addr: SocketAddr| {
        let socket = socket_for(addr).subject(subject)?;
        socket.set_reuse_port(true).subject(subject)?;
        socket.bind(&SockAddr::from(addr)).map_err(|error| bind_error("listen", addr, error))?;
        Ok(socket)
    };
    let mut socket: Socket = bound(addr)?;
    if addr.port() == 0 {
        // A socket whose port the kernel chose loses that port when the socket is shut down, and
        // would listen on another one after a drain that is taken back.
        let chosen = socket.local_addr().subject(subject)?.as_socket().unwrap_or(addr);
        socket = bound(chosen)?;
    }
    socket.listen(backlog(config)).subject(subject)?;
    lock_filter(socket.as_fd()).subject(subject)?;
    let real = socket.local_addr().subject(subject)?.as_socket().unwrap_or(addr);
    Ok((socket.into(), real.to_string()))
}

/// One socket for all slots: whichever worker is free takes the next connection.
pub fn shared_tcp(addr: SocketAddr, config: &Config) -> Result<(OwnedFd, String)> {
    let subject = || format!("listen on {addr}");
    let socket = socket_for(addr).subject(subject)?;
    socket.bind(&SockAddr::from(addr)).map_err(|error| bind_error("api.listen", addr, error))?;
    socket.listen(backlog(config)).subject(subject)?;
    lock_filter(socket.as_fd()).subject(subject)?;
    let real = socket.local_addr().subject(subject)?.as_socket().unwrap_or(addr);
    Ok((socket.into(), real.to_string()))
}

/// With SO_REUSEPORT alone a second server of the same user would bind silently beside a first
/// and take half of its clients. A plain bind tells.
fn probe(addr: SocketAddr) -> Result<()> {
    let socket = socket_for(addr).subject(|| format!("listen on {addr}"))?;
    socket.bind(&SockAddr::from(addr)).map_err(|error| bind_error("listen", addr, error))
}

fn socket_for(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        // `[::]:8000` and `0.0.0.0:8000` are two entries, as in nginx.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Why nothing can listen on an address that `key` names.
fn bind_error(key: &str, addr: SocketAddr, error: std::io::Error) -> Error {
    let cure = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            format!("something else listens there; `ss -ltnp` tells what, `{key}` chooses another")
        }
        Some(libc::EACCES) => {
            format!("ports below 1024 need root or CAP_NET_BIND_SERVICE; `{key}` chooses another")
        }
        Some(libc::EADDRNOTAVAIL) => "no interface of this machine has that address".to_owned(),
        _ => format!("see `{key}`"),
    };
    Error::io(format!("cannot listen on {addr} ({cure})"), error)
}

/// As nginx does: who may connect is decided by the directory.
const UNIX_MODE: u32 = 0o666;

/// The mode of a socket of this purpose.
pub fn unix_mode(purpose: &Purpose, config: &Config) -> u32 {
    match purpose {
        Purpose::Clients => UNIX_MODE,
        Purpose::Api => config.api.socket_mode.0,
    }
}

/// Whether the path of a socket is gone, so that nobody reaches it any more.
pub fn is_lost(addr: &ListenAddr) -> bool {
    let ListenAddr::Unix(path) = addr else { return false };
    let there = std::fs::symlink_metadata(path);
    let is_lost = matches!(there, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    if is_lost {
        tracing::warn!(path = %path.display(), "a socket was removed: it is made anew");
    }
    is_lost
}

/// A socket at a path, which all slots share.
pub fn unix(entry: &str, path: &Path, mode: u32, config: &Config) -> Result<OwnedFd> {
    let socket = Socket::from(TrustedPath::new(entry, path, Missing::Fail, config)?.bind(mode)?);
    socket.listen(backlog(config)).subject(|| format!("listen on {entry}"))?;
    Ok(socket.into())
}

/// How many connections may wait to be accepted.
pub fn backlog(config: &Config) -> i32 {
    i32::try_from(config.backlog).unwrap_or(i32::MAX)
}
