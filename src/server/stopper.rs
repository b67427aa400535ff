//! Stopping: a signal to the master whose control socket it is, a wait until all are gone, and
//! harder means on named deadlines. It needs no manager, but asks it how long the server may take.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::ipc::control::{Control, ControlError, Master, Request, RunningServer, Status};
use crate::sys::process;

/// What the master takes at most for a graceful stop beyond `max_wait_time`: 5 s for answers to
/// close frames, and 2 s twice to kill what is left.
const GRACE: Duration = Duration::from_secs(10);
/// For the manager to say what the server runs with. One that hangs is not waited for.
const ASK: Duration = Duration::from_secs(1);
/// The longest `max_wait_time` that a configuration may have.
const MAX_WAIT: Duration = Duration::from_secs(86_400);
/// Children of a killed master end within this time by themselves.
const ORPHANS: Duration = Duration::from_secs(5);

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing ran.
    NotRunning,
    /// It ended as asked.
    Gracefully,
    /// It had to be killed.
    Killed,
}

/// Stops the server of `config`'s runtime directory, and returns when all of it is gone.
pub fn stop(config: &Config) -> Result<Stopped> {
    let Some(Master { pid, pidfd, owner }) = find(config)? else {
        return Ok(Stopped::NotRunning);
    };
    let max_wait_time = config.max_wait_time.max(of_running(config));
    signal(pid, pidfd.as_fd(), Signal::SIGTERM)?;
    if ended(pidfd.as_fd(), max_wait_time + GRACE)? {
        return Ok(Stopped::Gracefully);
    }
    crate::log::say(format_args!("wsd: the master (pid {pid}) did not stop in time: killing it"));
    let children = children(pid, owner);
    signal(pid, pidfd.as_fd(), Signal::SIGKILL)?;
    ended(pidfd.as_fd(), ORPHANS)?;
    for child in children {
        if !ended(child.as_fd(), ORPHANS)? {
            // It may end between the look and the signal, which is as good.
            let _ = process::pidfd_signal(child.as_fd(), Signal::SIGKILL);
        }
    }
    Ok(Stopped::Killed)
}

/// The master that serves in the configured runtime directory.
fn find(config: &Config) -> Result<Option<Master>> {
    match RunningServer::find(&config.runtime_dir).and_then(|server| server.master()) {
        Ok(master) => Ok(master),
        Err(ControlError::NotRunning(_)) => Ok(None),
        Err(error) => Err(Error::new(error.to_string())),
    }
}

/// The `max_wait_time` of the server that runs: it may have been started with another one than
/// ours. Zero where nobody says.
fn of_running(config: &Config) -> Duration {
    let asked = Control::connect(&config.runtime_dir, ASK)
        .and_then(|mut control| control.ask(&Request::Status {}, b""));
    let status = asked.ok().and_then(|answer| answer.read::<Status>().ok());
    let max_wait_ms = status.map_or(0, |status| status.max_wait_ms);
    Duration::from_millis(max_wait_ms).min(MAX_WAIT)
}

fn signal(pid: Pid, pidfd: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    match process::pidfd_signal(pidfd, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).subject(|| format!("send {signal} to the master (pid {pid})")),
    }
}

/// Waits until a process has ended, for at most `patience`.
fn ended(pidfd: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).subject(|| "wait for a process to end".to_owned()),
        }
    }
}

/// The children of the master, as far as they are processes of the server's: those of a server
/// that is not root's are its user's.
fn children(master: Pid, owner: u32) -> Vec<OwnedFd> {
    let list = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let list = list.unwrap_or_default();
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    pids.filter_map(|pid| {
        // First the pidfd, then the look: what the pidfd names cannot change any more.
        let pidfd = process::pidfd_open(pid).ok()?;
        let (parent, uid) = process::parent_and_user(pid)?;
        (parent == master && (owner == 0 || uid == owner)).then_some(pidfd)
    })
    .collect()
}
