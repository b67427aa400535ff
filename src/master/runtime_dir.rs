//! The runtime directory: one server for each, held by descriptor for the master's life, and made
//! anew where something cleaned it away.
//!
//! The lock is an open-file-description lock, which outlives an exec and, unlike flock, can be
//! asked about without being taken for a moment. Whoever holds the lock of the file that stands
//! in the directory now is the server of that directory: a master whose directory was removed
//! holds nothing until it holds the lock in the new one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::absolute;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown, fchownat, geteuid, getpid};

use super::trust;
use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::ipc::control::{CONTROL_SOCKET, Holder, LOCK_FILE, whole_file};
use crate::sys::dir::{Dir, only_regular};
use crate::sys::path_walk::{Links, Missing, PathWalk};
use crate::sys::process;

/// Who may look into the directory: the server's user and group.
const DIR_MODE: u32 = 0o750;
/// Who may look things up in a directory that was made for another group.
const SHARED_DIR_MODE: u32 = 0o710;
/// Only root and the server's user may command it.
const SOCKET_MODE: u32 = 0o600;
/// As well as the user of application processes; what each may ask, the manager decides.
const SHARED_SOCKET_MODE: u32 = 0o660;
/// How often the lock file may vanish while it is being taken.
const LOCK_TRIES: usize = 100;

/// What a name stands for.
pub type Identity = (u64, u64);

fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// The directory, with the lock in it.
pub struct RuntimeDir {
    pub(super) parent: Dir,
    pub(super) name: OsString,
    pub(super) dir: Dir,
    pub(super) lock: File,
    pub(super) socket: Identity,
    /// The group of application processes, where these have another user.
    pub(super) group: Option<Gid>,
}

impl RuntimeDir {
    /// Takes the lock of the runtime directory, making the directory where it is missing.
    ///
    /// # Errors
    /// When another master holds the lock, or somebody else could put things there.
    pub fn take(config: &Config) -> Result<RuntimeDir> {
        // Nothing is made where it would be in doubt.
        let path = absolute(&config.runtime_dir).subject(|| "runtime_dir".to_owned())?;
        let named = |error: Error| Error::new(format!("runtime_dir: {error}"));
        let known = PathWalk::to(&path, Links::Ours, Missing::Stop).map_err(named)?;
        trust::judge("runtime_dir", known.untrusted.as_ref(), config)?;
        let fresh = !path.exists();
        let way = PathWalk::to(&path, Links::Ours, Missing::Make(DIR_MODE)).map_err(named)?;
        let dir = way.open_dir(Missing::Make(DIR_MODE)).map_err(named)?;
        check(&dir)?;
        let lock = lock_in(&dir)?;
        dir.keep_from_cleaners();
        let group = group_of_app(config)?;
        let (parent, name) = (way.parent, way.name);
        let taken = RuntimeDir { parent, name, dir, lock, socket: (0, 0), group };
        taken.let_application_in(fresh)?;
        Ok(taken)
    }

    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The socket on which the manager answers the command line, made anew. The master holds it,
    /// so that a command given while the manager is being replaced only waits.
    pub fn control_socket(&mut self) -> Result<OwnedFd> {
        let mode = self.group.map_or(SOCKET_MODE, |_| SHARED_SOCKET_MODE);
        let socket = self.dir.listen(CONTROL_SOCKET, mode)?;
        if self.group.is_some() {
            fchownat(&self.dir, CONTROL_SOCKET, None, self.group, AtFlags::AT_SYMLINK_NOFOLLOW)
                .subject(|| "give the control socket the application's group".to_owned())?;
        }
        self.socket = self.dir.stat_of(CONTROL_SOCKET)?.map_or((0, 0), |stat| identity(&stat));
        Ok(socket)
    }

    /// Lets application processes of another user reach what stands in the directory, and neither
    /// list nor change it. A directory that was there before is somebody's decision: then it is
    /// only said what is missing.
    fn let_application_in(&self, fresh: bool) -> Result<()> {
        let Some(group) = self.group else { return Ok(()) };
        let stat = self.dir.stat()?;
        let bit = if stat.st_gid == group.as_raw() { 0o010 } else { 0o001 };
        let directory = self.dir.path().display();
        if stat.st_mode & bit == 0 && fresh {
            let mode = Mode::from_bits_truncate(SHARED_DIR_MODE);
            fchown(&self.dir, None, Some(group))
                .and_then(|()| fchmod(&self.dir, mode))
                .subject(|| format!("let the application into runtime_dir {directory}"))?;
        } else if stat.st_mode & bit == 0 {
            tracing::warn!(
                %directory, %group,
                "application processes cannot reach the control socket: give the directory that \
                 group and `chmod g+x`, or remove it before the start"
            );
        }
        Ok(())
    }

    /// Makes anew what is not there any more. The answer is a new control socket, where the old
    /// one could not be reached.
    ///
    /// # Errors
    /// Where that is not possible now, for want of space or because another server is there.
    pub fn repair(&mut self) -> Result<Option<OwnedFd>> {
        if !self.dir.is_entry_of(&self.parent, &self.name)? {
            let dir = self.parent.make_dir(&self.name, DIR_MODE)?;
            check(&dir)?;
            self.lock = lock_in(&dir)?;
            dir.keep_from_cleaners();
            self.dir = dir;
            self.let_application_in(true)?;
        } else if !self.is_locked()? {
            self.lock = lock_in(&self.dir)?;
        }
        let there = self.dir.stat_of(CONTROL_SOCKET)?;
        match there.is_some_and(|stat| identity(&stat) == self.socket) {
            true => Ok(None),
            false => self.control_socket().map(Some),
        }
    }

    fn is_locked(&self) -> Result<bool> {
        is_in(&self.dir, &self.lock)
    }

    /// Removes what only a running server has.
    pub fn leave_nothing(&self) {
        // Another server may have the directory by now, or it is gone.
        if matches!(self.is_locked(), Ok(true)) {
            let _ = self.dir.remove(CONTROL_SOCKET);
        }
    }
}

/// The group of application processes that run as another user; `None`: they run as we do, or as
/// root, who needs no permission.
pub fn group_of_app(config: &Config) -> Result<Option<Gid>> {
    let (uid, gid) = config.app_rights().ids()?;
    Ok((uid != geteuid() && !uid.is_root()).then_some(gid))
}

/// Whether a file that is open is the one that the lock's name stands for.
fn is_in(dir: &Dir, lock: &File) -> Result<bool> {
    let ours = fstat(lock).subject(|| "look at the lock".to_owned())?;
    Ok(dir.stat_of(LOCK_FILE)?.is_some_and(|there| identity(&there) == identity(&ours)))
}

/// Makes sure that nobody else can put things into the directory.
fn check(dir: &Dir) -> Result<()> {
    let (stat, path) = (dir.stat()?, dir.path().display());
    let (uid, owner) = (geteuid().as_raw(), stat.st_uid);
    if owner != uid && owner != 0 {
        return Err(Error::new(format!(
            "runtime_dir {path} belongs to uid {owner}, not to {uid}; choose another"
        )));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::new(format!(
            "runtime_dir {path} can be written by others (mode {:o}); `chmod go-w` it, or choose \
             another",
            stat.st_mode & 0o7777
        )));
    }
    Ok(())
}

fn lock_in(dir: &Dir) -> Result<File> {
    let path = dir.path().join(LOCK_FILE);
    for _ in 0..LOCK_TRIES {
        let opened =
            dir.open(LOCK_FILE, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o600);
        let opened = opened.subject(|| format!("open {}", path.display()))?;
        let mut file = only_regular(File::from(opened), &path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let holder = Holder::read(&mut file);
                let holder = holder.map_or(String::new(), |h| format!(" (pid {})", h.pid));
                return Err(Error::new(format!(
                    "already running{holder}: {} is locked; `wsd stop --set runtime_dir={}` ends \
                     that server, another `runtime_dir` starts a second one",
                    path.display(),
                    dir.path().display()
                )));
            }
            Err(errno) => return Err(Error::io(format!("lock {}", path.display()), errno)),
        }
        // It may have been removed before it was locked; then it is the lock of nothing.
        if is_in(dir, &file)? {
            sign(&mut file).subject(|| format!("write {}", path.display()))?;
            return Ok(file);
        }
    }
    Err(Error::new(format!("{} vanishes as often as it is made", path.display())))
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let started = process::start_time(getpid()).unwrap_or(0);
    let holder = Holder { pid: getpid().as_raw(), started };
    let text = serde_json::to_string(&holder).unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::ipc::control::RunningServer;

    fn config(runtime_dir: &Path) -> Config {
        Config { runtime_dir: runtime_dir.to_owned(), ..Config::default() }
    }

    fn holder(path: &Path) -> Option<nix::unistd::Pid> {
        let server = RunningServer::find(path).ok()?;
        server.master().unwrap().map(|master| master.pid)
    }

    #[test]
    fn the_lock_is_taken_once_and_its_holder_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let config = config(&path);
        assert_eq!(holder(&path), None);
        let mut taken = RuntimeDir::take(&config).unwrap();
        let _socket = taken.control_socket().unwrap();
        assert_eq!(holder(&path), Some(getpid()));
        let error = RuntimeDir::take(&config).err().unwrap().to_string();
        assert!(error.contains(&format!("already running (pid {})", getpid())), "{error}");
        drop(taken);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn what_was_cleaned_away_is_made_anew_and_never_another_servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let config = config(&path);
        let mut taken = RuntimeDir::take(&config).unwrap();
        let mut sockets = vec![taken.control_socket().unwrap()];
        assert!(taken.repair().unwrap().is_none());
        for name in ["wsd.sock", "wsd.lock"] {
            fs::remove_file(path.join(name)).unwrap();
            sockets.extend(taken.repair().unwrap());
            assert!(RuntimeDir::take(&config).is_err(), "after {name} was removed");
            assert_eq!(holder(&path), Some(getpid()));
        }
        fs::remove_dir_all(&path).unwrap();
        let other = RuntimeDir::take(&config).unwrap();
        let error = taken.repair().unwrap_err().to_string();
        assert!(error.contains("already running"), "{error}");
        drop(other);
        sockets.extend(taken.repair().unwrap());
        assert_eq!(sockets.len(), 3);
        assert!(RuntimeDir::take(&config).is_err());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told_with_the_key_that_names_the_directory() {
        // Nothing can be made in /proc, by nobody.
        let error = RuntimeDir::take(&config(Path::new("/proc/wsd"))).err().unwrap().to_string();
        assert!(error.starts_with("runtime_dir: make the directory /proc/wsd"), "{error}");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = RuntimeDir::take(&config(dir.path())).err().unwrap().to_string();
        assert!(error.contains("can be written by others"), "{error}");
    }
}
