//! A directory held by its descriptor. Every name is looked up in the directory that was opened,
//! whatever stands at its path by now, and no name that is a link is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, umask};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result, Subject};

/// Connections the kernel queues for a control socket.
const CONTROL_BACKLOG: i32 = 128;

/// A directory, and the path it was found at, which is for messages alone.
#[derive(Debug)]
pub struct Dir {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Dir {
    /// The root of the file system.
    pub fn root() -> Result<Dir> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor =
            nix::fcntl::open("/", flags, Mode::empty()).subject(|| "open /".to_owned())?;
        Ok(Dir { descriptor, path: PathBuf::from("/") })
    }

    /// Takes over a directory that is open already.
    pub fn adopt(descriptor: OwnedFd, path: &Path) -> Dir {
        Dir { descriptor, path: path.to_owned() }
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> Result<Dir> {
        let descriptor = self.descriptor.try_clone().subject(|| self.named("duplicate"))?;
        Ok(Dir { descriptor, path: self.path.clone() })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Owner, mode and identity of the directory.
    pub fn stat(&self) -> Result<FileStat> {
        fstat(self).subject(|| self.named("look at"))
    }

    /// Owner, kind, mode and identity of an entry; `None` where there is none.
    pub fn stat_of(&self, name: impl AsRef<OsStr>) -> Result<Option<FileStat>> {
        let name = name.as_ref();
        match fstatat(self, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).subject(|| self.what("look at", name)),
        }
    }

    /// Whether an entry is this directory: the same, not one of the same name.
    pub fn is_entry_of(&self, parent: &Dir, name: impl AsRef<OsStr>) -> Result<bool> {
        let (ours, there) = (self.stat()?, parent.stat_of(name)?);
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)))
    }

    /// Opens an entry without following a link.
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(self, name.as_ref(), flags, Mode::from_bits_truncate(mode))
    }

    /// Opens a directory in it.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Dir> {
        self.directory(name.as_ref(), OFlag::O_RDONLY)
    }

    /// Opens a directory in it as a step of a way: it need not be readable.
    pub fn enter(&self, name: impl AsRef<OsStr>) -> Result<Dir> {
        self.directory(name.as_ref(), OFlag::O_PATH)
    }

    fn directory(&self, name: &OsStr, flags: OFlag) -> Result<Dir> {
        let descriptor = self
            .open(name, flags | OFlag::O_DIRECTORY, 0)
            .subject(|| self.what("open the directory", name))?;
        Ok(Dir { descriptor, path: self.path.join(name) })
    }

    /// Makes a directory in it with exactly this mode. One that is there already stays as it is.
    pub fn make_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Dir> {
        let name = name.as_ref();
        // Closed to everybody else until it has its mode.
        match mkdirat(self, name, Mode::S_IRWXU) {
            Ok(()) => {
                let made = self.open_dir(name)?;
                made.set_mode(made.as_fd(), mode, name)?;
                Ok(made)
            }
            Err(Errno::EEXIST) => self.open_dir(name),
            Err(errno) => Err(errno).subject(|| self.what("make the directory", name)),
        }
    }

    /// Where a link leads; `None` for what is no link.
    pub fn link_of(&self, name: impl AsRef<OsStr>) -> Result<Option<OsString>> {
        let name = name.as_ref();
        match readlinkat(self, name) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::EINVAL) => Ok(None),
            Err(errno) => Err(errno).subject(|| self.what("read the link", name)),
        }
    }

    /// Puts a file with this content and mode in the place of whatever has the name, whole or not
    /// at all, and returns when it is on the disk. A link is replaced, never followed.
    pub fn replace(&self, name: impl AsRef<OsStr>, content: &[u8], mode: u32) -> Result<()> {
        let name = name.as_ref();
        let temporary = temporary(name);
        // What a process that was killed has left.
        let _ = self.remove(&temporary);
        let written = self.write_new(&temporary, content, mode).and_then(|()| {
            self.rename(&temporary, name)?;
            self.sync()
        });
        if written.is_err() {
            // Leave nothing half made; the error that matters is the first.
            let _ = self.remove(&temporary);
        }
        written
    }

    /// Returns when the names in it are on the disk.
    fn sync(&self) -> Result<()> {
        match self.open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0) {
            Ok(readable) => match nix::unistd::fsync(readable) {
                // Some file systems sync names by themselves and have no such call.
                Ok(()) | Err(Errno::EINVAL) => Ok(()),
                Err(errno) => Err(errno).subject(|| self.named("sync")),
            },
            // One that we may write to and not read is synced when the kernel does so.
            Err(Errno::EACCES) => Ok(()),
            Err(errno) => Err(errno).subject(|| self.named("sync")),
        }
    }

    fn write_new(&self, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
        let subject = || self.what("write", name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = File::from(self.open(name, flags, 0o600).subject(subject)?);
        self.set_mode(file.as_fd(), mode, name)?;
        file.write_all(content).and_then(|()| file.sync_all()).subject(subject)
    }

    /// Gives an entry that is open exactly this mode, whatever the umask is.
    pub fn set_mode(
        &self,
        entry: BorrowedFd<'_>,
        mode: u32,
        name: impl AsRef<OsStr>,
    ) -> Result<()> {
        fchmod(entry, Mode::from_bits_truncate(mode))
            .subject(|| self.what("set the mode of", name.as_ref()))
    }

    /// Renames an entry within the directory.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        renameat(self, from, self, to).subject(|| self.what("rename", from))
    }

    /// Removes an entry that is no directory. Nothing there is as good.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref();
        match unlinkat(self, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).subject(|| self.what("remove", name)),
        }
    }

    /// A path by which a call that takes only paths reaches an entry of this very directory.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let number = self.descriptor.as_raw_fd().to_string();
        [OsStr::new("/proc/self/fd"), number.as_ref(), name.as_ref()].iter().collect()
    }

    /// A listening stream socket in the place of whatever has the name. It has its mode from its
    /// first moment. Only for a process with one thread, since the umask is the process's.
    pub fn listen(&self, name: &str, mode: u32) -> Result<OwnedFd> {
        let subject = || self.what("listen on", name);
        let temporary = temporary(name.as_ref());
        self.remove(&temporary)?;
        let socket = bound(&self.path_of(&temporary), mode).subject(subject)?;
        let backlog = nix::sys::socket::Backlog::new(CONTROL_BACKLOG).subject(subject)?;
        nix::sys::socket::listen(&socket, backlog).subject(subject)?;
        self.rename(&temporary, name)?;
        Ok(socket)
    }

    /// Keeps cleaners of temporary files out: systemd-tmpfiles(8) leaves alone what is locked
    /// with flock(2). The lock ends with the last descriptor of this directory. Without it all
    /// works as well, so that a failure is none.
    pub fn keep_from_cleaners(&self) {
        // SAFETY: a plain system call on a descriptor of ours.
        unsafe { libc::flock(self.descriptor.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    }

    fn named(&self, verb: &str) -> String {
        format!("{verb} the directory {}", self.path.display())
    }

    fn what(&self, verb: &str, name: impl AsRef<OsStr>) -> String {
        format!("{verb} {}", self.path.join(name.as_ref()).display())
    }
}

/// The name under which something is made before it gets its own.
fn temporary(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    temporary
}

/// A stream socket bound to a path, which does not block. Its file has its mode from its first
/// moment. Only for a process with one thread, since the umask is the process's.
pub fn bound(path: &Path, mode: u32) -> nix::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = bind(made.as_raw_fd(), &address);
    umask(before);
    bound.map(|()| made)
}

/// The kind of a file, of what `stat` says.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Opens a regular file that has no second name, to append to it. A link is not followed.
///
/// # Errors
/// Where the name is a link, a device, or a file that is known by another name as well.
pub fn only_regular(file: File, path: &Path) -> Result<File> {
    let stat = fstat(&file).subject(|| format!("look at {}", path.display()))?;
    let wrong = match kind(&stat) {
        SFlag::S_IFREG if stat.st_nlink <= 1 => return Ok(file),
        SFlag::S_IFREG => format!("has {} names (hard links)", stat.st_nlink),
        _ => "is no regular file".to_owned(),
    };
    Err(Error::new(format!("{} {wrong}; remove it, or choose another path", path.display())))
}
