//! The way to a path, gone step by step from the root: where it leads, and who besides root and
//! us could lead it elsewhere.
//!
//! A link that somebody else has made is refused, or followed and doubted. A directory is ours
//! alone where root or we own it and nobody else may write to it; in one that all may write to,
//! but that is root's and sticky, such as /tmp, an entry that root or we own is ours alone too.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;

use super::dir::{Dir, kind};
use crate::error::{Error, Result, Subject};

/// As many links as the kernel follows on one path.
const LINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Somebody else could put something of their own in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// What is not ours alone.
    pub path: PathBuf,
    /// Whose it is.
    pub owner: u32,
    /// Its permission bits.
    mode: u32,
}

impl Untrusted {
    fn of(path: PathBuf, stat: &FileStat) -> Untrusted {
        Untrusted { path, owner: stat.st_uid, mode: stat.st_mode & 0o7777 }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match is_ours(self.owner) {
            true => write!(f, "{path} can be written by others (mode {:o})", self.mode),
            false => write!(f, "{path} belongs to uid {}", self.owner),
        }
    }
}

/// Where a path leads.
#[derive(Debug)]
pub struct PathWalk {
    /// The directory that the last name stands in.
    pub parent: Dir,
    /// The last name.
    pub name: OsString,
    /// The first thing on the way that is not ours alone; the last name itself is not looked at.
    pub untrusted: Option<Untrusted>,
    /// Whether everybody may put entries beside the last name, though not touch it: as in /tmp.
    pub sticky: bool,
}

/// Whether what a uid owns is ours: root's, or the effective user's.
pub fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Whether an entry that root or we should have made is ours alone.
pub fn is_ours_alone(stat: &FileStat) -> bool {
    is_ours(stat.st_uid) && stat.st_mode & OTHERS_WRITE == 0
}

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Those that root or we have made; another is an error.
    Ours,
    /// All of them; one that somebody else has made is doubted.
    Any,
    /// As `Any`, but the last name is what is wanted, be it a link or not.
    NotTheLast,
}

/// What is done where a directory is missing on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// That is an error, of which `errno` tells.
    Fail,
    /// The way ends there, before the first name that is missing.
    Stop,
    /// It is made with this mode.
    Make(u32),
}

impl PathWalk {
    /// Goes to an absolute path.
    ///
    /// # Errors
    /// Where a directory is missing, or a link was made by somebody else.
    pub fn to(path: &Path, links: Links, missing: Missing) -> Result<PathWalk> {
        let mut walk = Walk {
            here: Dir::root()?,
            rest: VecDeque::new(),
            untrusted: None,
            links,
            followed: 0,
        };
        walk.prepend(path);
        walk.arrive(&walk.here.stat()?, Path::new("/").to_owned());
        loop {
            let Some(name) = walk.rest.pop_front() else {
                return Err(Error::new(format!("{} names no file", path.display())));
            };
            let is_last = walk.rest.is_empty();
            let stat = walk.here.stat_of(&name)?;
            match stat {
                Some(stat)
                    if kind(&stat) == SFlag::S_IFLNK
                        && !(is_last && links == Links::NotTheLast) =>
                {
                    walk.follow(&name, &stat, path)?;
                }
                _ if is_last => return walk.end(name, stat.as_ref()),
                None if missing == Missing::Stop => return walk.end(name, None),
                Some(_) => walk.enter(&name)?,
                None => walk.make(&name, missing)?,
            }
        }
    }

    /// Opens what stands at the end as a directory, which is made with this mode where it is
    /// missing and `missing` says so. Doubts of the directory itself are the caller's.
    pub fn open_dir(&self, missing: Missing) -> Result<Dir> {
        match missing {
            Missing::Make(mode) => self.parent.make_dir(&self.name, mode),
            Missing::Fail | Missing::Stop => self.parent.open_dir(&self.name),
        }
    }

    /// Opens what stands at the end, which is no link any more.
    pub fn open(&self, flags: OFlag, mode: u32) -> Result<OwnedFd> {
        let path = self.path();
        self.parent.open(&self.name, flags, mode).subject(|| format!("open {}", path.display()))
    }

    /// Where it leads, for messages.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }
}

/// A way that is being gone.
struct Walk {
    here: Dir,
    rest: VecDeque<OsString>,
    untrusted: Option<Untrusted>,
    links: Links,
    followed: usize,
}

impl Walk {
    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.rest.push_front(name.to_owned()),
                Component::ParentDir => self.rest.push_front(OsString::from("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// Notes whether a directory that was reached can be written by others.
    fn arrive(&mut self, stat: &FileStat, path: PathBuf) {
        let sticky = is_ours(stat.st_uid) && stat.st_mode & STICKY != 0;
        if !sticky && !is_ours_alone(stat) {
            self.untrusted.get_or_insert(Untrusted::of(path, stat));
        }
    }

    fn enter(&mut self, name: &OsStr) -> Result<()> {
        let next = self.here.enter(name)?;
        let stat = next.stat()?;
        self.arrive(&stat, next.path().to_owned());
        self.here = next;
        Ok(())
    }

    fn make(&mut self, name: &OsStr, missing: Missing) -> Result<()> {
        match missing {
            Missing::Make(mode) => {
                self.here.make_dir(name, mode)?;
                self.enter(name)
            }
            Missing::Fail | Missing::Stop => {
                let path = self.here.path().join(name);
                Err(Error::io(format!("open the directory {}", path.display()), Errno::ENOENT))
            }
        }
    }

    fn follow(&mut self, name: &OsStr, stat: &FileStat, whole: &Path) -> Result<()> {
        let path = self.here.path().join(name);
        if !is_ours(stat.st_uid) {
            if self.links == Links::Ours {
                return Err(Error::new(format!(
                    "{} is a link that uid {} has made, which is not followed; name the \
                     directory itself",
                    path.display(),
                    stat.st_uid
                )));
            }
            self.untrusted.get_or_insert(Untrusted::of(path, stat));
        }
        self.followed += 1;
        if self.followed > LINKS_MAX {
            return Err(Error::io(format!("follow {}", whole.display()), Errno::ELOOP));
        }
        let Some(target) = self.here.link_of(name)? else { return Ok(()) };
        if Path::new(&target).is_absolute() {
            self.here = Dir::root()?;
        }
        self.prepend(Path::new(&target));
        Ok(())
    }

    fn end(mut self, name: OsString, stat: Option<&FileStat>) -> Result<PathWalk> {
        let parent = self.here.stat()?.st_mode;
        let sticky = parent & STICKY != 0 && parent & OTHERS_WRITE != 0;
        // In a sticky directory an entry of ours stays, and one of another is another's.
        if let Some(stat) = stat.filter(|stat| sticky && !is_ours(stat.st_uid)) {
            self.untrusted.get_or_insert(Untrusted::of(self.here.path().join(&name), stat));
        }
        Ok(PathWalk { parent: self.here, name, untrusted: self.untrusted, sticky })
    }
}

/// Why somebody besides root and us could change what a file says or does, if somebody could.
///
/// # Errors
/// Where there is no such file.
pub fn untrusted_part(path: &Path) -> Result<Option<Untrusted>> {
    let way = PathWalk::to(path, Links::Any, Missing::Fail)?;
    let stat = way.parent.stat_of(&way.name)?;
    let stat = stat.ok_or_else(|| Error::io(path.display().to_string(), Errno::ENOENT))?;
    let own = (!is_ours_alone(&stat)).then(|| Untrusted::of(way.path(), &stat));
    Ok(way.untrusted.or(own))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn to(path: &Path) -> Result<PathWalk> {
        PathWalk::to(path, Links::Ours, Missing::Fail)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_way_in_a_sticky_directory_by_our_own_entries_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let way = to(&dir.path().join("file")).unwrap();
        assert_eq!((way.untrusted, way.name), (None, "file".into()));
    }

    #[test]
    fn the_first_directory_that_others_can_write_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir_all(open.join("closed")).unwrap();
        mode(&open, 0o777);
        let doubt = to(&open.join("closed/file")).unwrap().untrusted.unwrap();
        assert_eq!(doubt.path, open);
        assert!(doubt.to_string().ends_with("can be written by others (mode 777)"), "{doubt}");
    }

    #[test]
    fn links_that_we_have_made_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("real/file"), "x").unwrap();
        symlink("file", dir.path().join("real/other")).unwrap();
        let path = dir.path().join("link/../link/./other");
        let way = to(&path).unwrap();
        assert_eq!((way.name.as_os_str(), way.untrusted.as_ref()), (OsStr::new("file"), None));
        assert!(way.open(OFlag::O_RDONLY, 0).is_ok());
    }

    #[test]
    fn links_in_a_circle_and_missing_directories_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        symlink("round", dir.path().join("round")).unwrap();
        assert_eq!(to(&dir.path().join("round/x")).unwrap_err().errno(), Some(libc::ELOOP));
        let missing = dir.path().join("a/b/file");
        assert_eq!(to(&missing).unwrap_err().errno(), Some(libc::ENOENT));
        PathWalk::to(&missing, Links::Ours, Missing::Make(0o750)).unwrap();
        assert_eq!(fs::metadata(missing.parent().unwrap()).unwrap().mode() & 0o777, 0o750);
    }
}
