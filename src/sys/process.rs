//! Processes: names, death signals, pidfds.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// Opens a descriptor that names a process for good, even after its pid is reused.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: a plain system call; on success the descriptor is new and ours alone.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}
