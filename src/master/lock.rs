//! One server for each runtime directory: the lock, the pid file, and how others find the
//! master without ever hitting a stranger.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Pid, geteuid, getpid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Subject};
use crate::sys::process;

/// Who holds the lock: the pid and the start time name one process for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: i32,
    started: u64,
}

/// The lock, held for life. It is an open-file-description lock, which outlives an exec and,
/// unlike flock, can be asked about without being taken for a moment.
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of a runtime directory, making the directory where it is missing.
    ///
    /// # Errors
    /// When another master holds it, or the directory belongs to somebody else.
    pub fn take(runtime_dir: &Path) -> Result<Lock> {
        prepare_directory(runtime_dir)?;
        let path = lock_path(runtime_dir);
        let mut file = open_lock(&path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {
                let mut lock = Lock { file };
                lock.sign(&path)?;
                Ok(lock)
            }
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let holder = read_holder(&mut file);
                let holder = holder.map_or(String::new(), |h| format!(" (pid {})", h.pid));
                Err(Error::new(format!(
                    "already running{holder}: {} is locked; `wsd stop` ends it, another \
                     `runtime_dir` starts a second one",
                    path.display()
                )))
            }
            Err(errno) => Err(Error::io(format!("lock {}", path.display()), errno)),
        }
    }

    /// Takes over the lock of the image before this one: it belongs to the open file, which is
    /// the same.
    pub fn adopt(descriptor: OwnedFd) -> Lock {
        Lock { file: File::from(descriptor) }
    }

    fn sign(&mut self, path: &Path) -> Result<()> {
        let started = process::start_time(getpid()).unwrap_or(0);
        let holder = Holder { pid: getpid().as_raw(), started };
        let text = serde_json::to_string(&holder).unwrap_or_default();
        let subject = || format!("write {}", path.display());
        self.file.set_len(0).subject(subject)?;
        self.file.rewind().subject(subject)?;
        self.file.write_all(text.as_bytes()).subject(subject)
    }

    /// The descriptor, for an upgrade.
    pub fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_locked(file: &File) -> nix::Result<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn lock_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("wsd.lock")
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .subject(|| format!("open {}", path.display()))
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The running master of a runtime directory as a pidfd, or `None` when none runs. The lock
/// decides, never a pid that was written down: a stale file cannot lead to a stranger.
pub fn find_master(runtime_dir: &Path) -> Result<Option<(Pid, OwnedFd)>> {
    let path = lock_path(runtime_dir);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("open {}", path.display()), error)),
    };
    let holder = read_holder(&mut file);
    if !is_locked(&file).subject(|| format!("ask about the lock {}", path.display()))? {
        return Ok(None);
    }
    let Some(holder) = holder else {
        return Err(Error::new(format!(
            "{} is locked, but does not say by whom; try again in a moment",
            path.display()
        )));
    };
    let pid = Pid::from_raw(holder.pid);
    // First the pidfd, then the check: what the pidfd names cannot change any more.
    let pidfd = match process::pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(nix::errno::Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(Error::io(format!("open the process {pid}"), errno)),
    };
    match process::start_time(pid) == Some(holder.started) {
        true => Ok(Some((pid, pidfd))),
        false => Ok(None),
    }
}

/// Makes the runtime directory, or makes sure that nobody else can put things there.
fn prepare_directory(path: &Path) -> Result<()> {
    let subject = || format!("runtime_dir {}", path.display());
    DirBuilder::new().recursive(true).mode(0o750).create(path).subject(subject)?;
    let metadata = fs::metadata(path).subject(subject)?;
    let uid = geteuid().as_raw();
    let owner = metadata.uid();
    if owner != uid && owner != 0 {
        return Err(Error::new(format!(
            "runtime_dir {} belongs to uid {owner}, not to {uid}; choose another",
            path.display()
        )));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::new(format!(
            "runtime_dir {} can be written by others (mode {:o}); `chmod go-w` it, or choose \
             another",
            path.display(),
            metadata.mode() & 0o7777
        )));
    }
    Ok(())
}

/// Writes the pid file: a new file put in the place of whatever was there, so that a symbolic
/// link is replaced and not followed.
pub fn write_pid_file(path: &Path) -> Result<()> {
    let subject = || format!("write the pid file {}", path.display());
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", getpid()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .subject(subject)?;
    let written = writeln!(file, "{}", getpid()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Leave nothing half made; the error that matters is the first.
        let _ = fs::remove_file(&temporary);
    }
    written.subject(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_taken_once_and_its_holder_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let runtime_dir = dir.path().join("run");
        assert!(find_master(&runtime_dir).unwrap().is_none());
        let lock = Lock::take(&runtime_dir).unwrap();
        assert_eq!(find_master(&runtime_dir).unwrap().unwrap().0, getpid());
        let error = Lock::take(&runtime_dir).err().unwrap().to_string();
        assert!(error.contains(&format!("already running (pid {})", getpid())), "{error}");
        drop(lock);
        assert!(find_master(&runtime_dir).unwrap().is_none());
    }

    #[test]
    fn a_pid_file_replaces_a_link_and_leaves_its_target_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, pid_file) = (dir.path().join("victim"), dir.path().join("wsd.pid"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &pid_file).unwrap();
        write_pid_file(&pid_file).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", getpid()));
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Lock::take(dir.path()).err().unwrap().to_string();
        assert!(error.contains("can be written by others"), "{error}");
    }
}
