//! How a command finds the server whose runtime directory it was given, and makes sure that it is
//! that server and nobody who pretends to be.
//!
//! The directory, the lock and the socket in it belong to one user. That is who asks, or root, or
//! for root anybody whose directory only root can have made where it is. Whoever listens on the
//! socket is that user or root, and a signal goes to whoever listens, never to a number in a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

use super::{CONTROL_SOCKET, ControlError};
use crate::sys::dir::{Dir, kind};
use crate::sys::path_walk::{Links, Missing, PathWalk};
use crate::sys::process;

/// The lock's name in `runtime_dir`.
pub const LOCK_FILE: &str = "wsd.lock";
/// A server that starts has its socket within this time of its lock.
const SOCKET_PATIENCE: Duration = Duration::from_secs(5);
const SOCKET_RETRY: Duration = Duration::from_millis(20);

/// Who holds a lock, as its file says: pid and start time name one process for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The master's pid.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub started: u64,
}

impl Holder {
    /// What a lock file says; `None` where it says nothing of the kind.
    pub fn read(file: &mut impl Read) -> Option<Holder> {
        let mut text = String::new();
        file.take(256).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// The write lock on the whole of a file.
pub fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A running master.
pub struct Master {
    /// Its pid.
    pub pid: Pid,
    /// What names it for good.
    pub pidfd: OwnedFd,
    /// Whose server it is.
    pub owner: u32,
}

/// A server's runtime directory that may be believed.
pub struct RunningServer {
    dir: Dir,
    path: PathBuf,
    owner: u32,
}

fn failed(error: impl ToString) -> ControlError {
    ControlError::Failed(error.to_string())
}

impl RunningServer {
    /// Finds the directory.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] where there is none, [`ControlError::Failed`] where somebody
    /// may have made it who is not to be believed.
    pub fn find(runtime_dir: &Path) -> Result<RunningServer, ControlError> {
        let path = absolute(runtime_dir).map_err(failed)?;
        let way = PathWalk::to(&path, Links::Ours, Missing::Fail);
        let found = way.and_then(|way| Ok((way.parent.enter(&way.name)?, way)));
        let (dir, way) = found.map_err(|error| match error.errno() {
            Some(libc::ENOENT) => ControlError::NotRunning(error.to_string()),
            _ => failed(error),
        })?;
        let stat = dir.stat().map_err(failed)?;
        let (me, owner) = (geteuid().as_raw(), stat.st_uid);
        let made_by_root = me == 0 && way.untrusted.is_none() && !way.sticky;
        if owner != me && owner != 0 && !made_by_root {
            return Err(failed(format!(
                "{} belongs to uid {owner}, who is neither you nor root, so no server there \
                 is asked; run the command as that user, or name the right runtime_dir",
                path.display()
            )));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(failed(format!(
                "{} can be written by others (mode {:o}), who could answer in the server's \
                 place; `chmod go-w` it",
                path.display(),
                stat.st_mode & 0o7777
            )));
        }
        Ok(RunningServer { dir, path, owner })
    }

    /// Connects to the control socket.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] where nobody listens, [`ControlError::Failed`] where the
    /// socket or whoever listens is not the directory owner's.
    pub fn connect(&self) -> Result<UnixStream, ControlError> {
        self.check(LOCK_FILE, SFlag::S_IFREG)?;
        self.check(CONTROL_SOCKET, SFlag::S_IFSOCK)?;
        let stream = UnixStream::connect(self.dir.path_of(CONTROL_SOCKET)).map_err(|error| {
            let what = format!("connect to {}: {error}", self.socket().display());
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ControlError::NotRunning(what)
                }
                _ => ControlError::Failed(what),
            }
        })?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials).map_err(failed)?.uid();
        match peer == self.owner || peer == 0 {
            true => Ok(stream),
            false => Err(failed(format!(
                "uid {peer} listens on {}, which belongs to uid {}: not asked",
                self.socket().display(),
                self.owner
            ))),
        }
    }

    fn socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }

    /// Makes sure that an entry is the owner's and of the right kind. One that is missing is not
    /// wrong; whoever needs it finds out.
    fn check(&self, name: &str, wanted: SFlag) -> Result<(), ControlError> {
        let Some(stat) = self.dir.stat_of(name).map_err(failed)? else { return Ok(()) };
        let path = self.path.join(name);
        match (kind(&stat) == wanted, stat.st_uid == self.owner) {
            (true, true) => Ok(()),
            (false, _) => Err(failed(format!("{} is not what a server makes", path.display()))),
            (_, false) => Err(failed(format!(
                "{} belongs to uid {}, its directory to uid {}, so no server there is \
                 asked",
                path.display(),
                stat.st_uid,
                self.owner
            ))),
        }
    }

    /// Who holds the lock, where it is held.
    fn holder(&self) -> Result<Option<Option<Holder>>, ControlError> {
        self.check(LOCK_FILE, SFlag::S_IFREG)?;
        let mut file = match self.dir.open(LOCK_FILE, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => {
                let path = self.path.join(LOCK_FILE);
                return Err(failed(format!("open {}: {errno}", path.display())));
            }
        };
        if fstat(&file).map_err(failed)?.st_uid != self.owner {
            return Err(failed("the lock file was changed while it was looked at"));
        }
        let mut lock = whole_file();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(failed)?;
        let held = i32::from(lock.l_type) != libc::F_UNLCK;
        Ok(held.then(|| Holder::read(&mut file)))
    }

    /// The master that serves here; `None` when none runs. The kernel says which process made the
    /// control socket listen.
    ///
    /// # Errors
    /// Where a server holds the lock and cannot be told for certain.
    pub fn master(&self) -> Result<Option<Master>, ControlError> {
        let deadline = Instant::now() + SOCKET_PATIENCE;
        loop {
            let Some(holder) = self.holder()? else { return Ok(None) };
            match self.connect() {
                Ok(stream) => return self.identify(&stream, holder),
                Err(ControlError::NotRunning(_)) if Instant::now() < deadline => {
                    std::thread::sleep(SOCKET_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn identify(
        &self,
        stream: &UnixStream,
        holder: Option<Holder>,
    ) -> Result<Option<Master>, ControlError> {
        let peer = getsockopt(stream, sockopt::PeerCredentials).map_err(failed)?;
        let pid = Pid::from_raw(peer.pid());
        let found = match process::peer_pidfd(stream.as_fd()) {
            // Kernels before 6.5: the pidfd of the number, and then the check that this number
            // is still the process that the lock names.
            Err(Errno::ENOPROTOOPT) => process::pidfd_open(pid).map(|pidfd| {
                let named = Holder { pid: peer.pid(), started: start_of(pid) };
                (holder == Some(named)).then_some(pidfd)
            }),
            found => found.map(Some),
        };
        match found {
            // It has ended, and with it the lock.
            Err(Errno::ESRCH) => Ok(None),
            Ok(Some(pidfd)) if peer.uid() == self.owner => {
                Ok(Some(Master { pid, pidfd, owner: self.owner }))
            }
            Ok(_) => Err(failed(format!(
                "{} is not the socket of the server that holds the lock beside it: nobody is \
                 signalled",
                self.socket().display()
            ))),
            Err(errno) => Err(failed(format!("open the process {pid}: {errno}"))),
        }
    }
}

fn start_of(pid: Pid) -> u64 {
    process::start_time(pid).unwrap_or(0)
}
