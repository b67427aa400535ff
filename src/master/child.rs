//! A child process as the master sees it: its pid and the link at its descriptor 3, which is its
//! lifeline as well.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::SECRET_VARIABLES;
use crate::error::{Error, Result, Subject};
use crate::ipc::codec;
use crate::sys::{clock, packet, process};

/// KILL follows ABRT after this time.
pub const ABORT_MS: u64 = 2_000;

/// Packets that may wait for a child that does not read. One that lets so many pile up is hung,
/// and its checks tell.
const QUEUE_PACKETS_MAX: usize = 4096;

/// Bytes of the largest message a child may send.
pub const MESSAGE_BYTES_MAX: usize = 192 * 1024;

/// How a child is started.
pub struct Birth<'a> {
    /// The program.
    pub image: &'a CStr,
    /// What `ps` shows.
    pub title: &'a str,
    /// The user's own arguments.
    pub arguments: &'a [CString],
    /// Where its standard output goes; `None`: ours.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Where its log goes; `None`: ours.
    pub stderr: Option<BorrowedFd<'a>>,
}

/// A child process that is alive, or dead and not yet reaped: its pid is no stranger's.
pub struct Child {
    /// Its process.
    pub pid: Pid,
    /// When it was started, on the monotonic clock.
    pub started_ms: u64,
    link: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    is_refused: bool,
    /// When KILL follows an ABRT.
    pub kill_at_ms: Option<u64>,
}

impl Child {
    /// Starts it.
    pub fn start(birth: &Birth<'_>) -> Result<Child> {
        let (link, theirs) = packet::pair()?;
        let pid = process::spawn(&process::Spawn {
            image: birth.image,
            title: birth.title,
            arguments: birth.arguments,
            link: theirs.as_fd(),
            socket: None,
            stdout: birth.stdout,
            stderr: birth.stderr,
            secrets: &SECRET_VARIABLES,
        })?;
        Ok(Child::adopt(pid, clock::monotonic_ms(), link))
    }

    /// Takes over a child of the image before this one.
    pub fn adopt(pid: Pid, started_ms: u64, link: OwnedFd) -> Child {
        Child {
            pid,
            started_ms,
            link,
            queue: VecDeque::new(),
            is_refused: false,
            kill_at_ms: None,
        }
    }

    /// The master's end of its link.
    pub fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Whether something waits for the link to take more.
    pub fn is_backed_up(&self) -> bool {
        !self.queue.is_empty() && !self.is_refused
    }

    /// Whether something waits of which nobody tells when it can be sent.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Sends a message with descriptors beside it. Never waits: what the kernel does not take is
    /// queued. A child that is gone takes nothing, and is reaped soon.
    pub fn send<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) -> Result<()> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes)?;
        if self.queue.len() >= QUEUE_PACKETS_MAX {
            return Err(Error::new(format!("process {} does not read its link", self.pid)));
        }
        self.queue.push_back((bytes, fds));
        self.flush();
        Ok(())
    }

    /// Gives the kernel as much of the queue as it takes.
    pub fn flush(&mut self) {
        while let Some((bytes, fds)) = self.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let sent = packet::send(self.link.as_fd(), bytes, &fds);
            self.is_refused = sent.is_err_and(packet::is_passing);
            match sent {
                Err(Errno::EAGAIN) => return,
                Err(_) if self.is_refused => return,
                Ok(()) => drop(self.queue.pop_front()),
                // It is dead or dying; the reaper has the last word.
                Err(_) => return self.queue.clear(),
            }
        }
    }

    /// The next message that has arrived, with what came beside it; `None` when there is none
    /// now. `buffer` is [`MESSAGE_BYTES_MAX`] long, and nothing of it is used again.
    ///
    /// # Errors
    /// When the child sent what is no message.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        buffer: &mut [u8],
    ) -> Result<Option<(T, Vec<OwnedFd>)>> {
        match packet::receive(self.link.as_fd(), buffer) {
            Ok(got) if got.len > 0 => {
                let message = codec::decode(&buffer[..got.len])?;
                Ok(Some((message, got.fds)))
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::ECONNRESET) => Ok(None),
            Err(errno) => Err(Error::io(format!("receive from process {}", self.pid), errno)),
        }
    }

    /// Has it dump its core, and be killed soon if it does not end of that.
    pub fn abort(&mut self, now: u64) {
        self.signal(Signal::SIGABRT);
        self.kill_at_ms = Some(now + ABORT_MS);
    }

    /// Kills it if its time is over.
    pub fn kill_when_due(&mut self, now: u64) {
        if self.kill_at_ms.is_some_and(|at| at <= now) {
            self.kill_at_ms = None;
            self.signal(Signal::SIGKILL);
        }
    }

    /// Sends it a signal. It is not reaped yet, so its pid is its own.
    pub fn signal(&self, signal: Signal) {
        // ESRCH: it is dead already, which is soon known.
        let _ = kill(self.pid, signal);
    }
}

/// A second descriptor for the same open file.
pub fn duplicate(descriptor: BorrowedFd<'_>) -> Result<OwnedFd> {
    descriptor.try_clone_to_owned().subject(|| "duplicate a descriptor".to_owned())
}
