//! A path of the configuration at which the master makes a file of its own (the log, the pid
//! file, a `unix:` socket), and with whose rights. Where somebody besides root could put
//! something of theirs in the way, it is done with the rights of `user`, so that whoever leads
//! the master elsewhere gains nothing.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf, absolute};

use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::unistd::geteuid;

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::sys::account::Account;
use crate::sys::dir::{bound, kind, only_regular};
use crate::sys::path_walk::{Links, Missing, PathWalk, Untrusted, is_ours};

/// A path, and with whose rights something is done there.
pub struct TrustedPath {
    path: PathBuf,
    /// `None`: ours.
    account: Option<Account>,
    missing: Missing,
}

impl TrustedPath {
    /// Looks at the way to a path. `key` names it in messages; `missing` is done with
    /// directories that are not there.
    ///
    /// # Errors
    /// Where nobody's rights are right: the directory is root's, but a group or everybody may
    /// write to it.
    pub fn new(key: &str, path: &Path, missing: Missing, config: &Config) -> Result<TrustedPath> {
        let path = absolute(path).subject(|| format!("{key}: {}", path.display()))?;
        if !geteuid().is_root() {
            return Ok(TrustedPath { path, account: None, missing });
        }
        let way = PathWalk::to(&path, Links::NotTheLast, Missing::Stop)
            .map_err(|error| Error::new(format!("{key}: {error}")))?;
        let account = match (&way.untrusted, config.user.as_deref()) {
            (None, _) if !way.sticky => None,
            (_, Some(user)) if user != "root" => {
                Some(Account::named(user, config.group.as_deref())?)
            }
            (None, _) => None,
            (Some(doubt), _) => Some(owner(key, doubt)?),
        };
        Ok(TrustedPath { path, account: account.filter(|account| !account.is_root()), missing })
    }

    /// Opens a log file to append to it, making it where it is missing.
    ///
    /// # Errors
    /// Where somebody else could put names and this one is no regular file, or has another name.
    pub fn append(&self, mode: u32) -> Result<File> {
        if self.path.parent() == Some(Path::new("/dev")) {
            // /dev/stdout and the like are links that no walk can follow.
            let device = OpenOptions::new().append(true).open(&self.path);
            return device.subject(|| format!("open {}", self.path.display()));
        }
        let flags =
            OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        self.act(|way| {
            let opened = way.open(flags, mode);
            let file = File::from(opened.map_err(|error| match error.errno() {
                Some(libc::ELOOP) => Error::new(format!(
                    "{} is a link, which is not followed; name the file itself",
                    self.path.display()
                )),
                _ => error,
            })?);
            // Where only root can put names, a device or a second name is as root wants it.
            if self.account.is_none() && way.untrusted.is_none() && !way.sticky {
                return Ok(file);
            }
            let file = only_regular(file, &self.path)?;
            let owner =
                fstat(&file).subject(|| format!("look at {}", self.path.display()))?.st_uid;
            let is_account = self.account.as_ref().is_some_and(|account| account.uid() == owner);
            match is_ours(owner) || is_account {
                true => Ok(file),
                false => Err(Error::new(format!(
                    "{} belongs to uid {owner}, who could change what is written there; remove \
                     it, or choose another path",
                    self.path.display()
                ))),
            }
        })
    }

    /// Puts a file of that content and mode there.
    pub fn replace(&self, content: &[u8], mode: u32) -> Result<()> {
        self.act(|way| way.parent.replace(&way.name, content, mode))
    }

    /// Gives what is there the name with `.old` behind it.
    pub fn put_aside(&self) -> Result<()> {
        self.act(|way| {
            let mut aside = way.name.clone();
            aside.push(".old");
            way.parent.rename(&way.name, &aside)
        })
    }

    /// Removes a file or socket of that kind; nothing there is as good.
    pub fn remove(&self, wanted: SFlag) -> Result<()> {
        self.act(|way| match way.parent.stat_of(&way.name)? {
            Some(stat) if kind(&stat) == wanted => way.parent.remove(&way.name),
            _ => Ok(()),
        })
    }

    /// Gives the socket there this mode; nothing there is as good.
    pub fn set_socket_mode(&self, mode: u32) -> Result<()> {
        self.act(|way| match way.parent.stat_of(&way.name)? {
            Some(stat) if kind(&stat) == SFlag::S_IFSOCK && stat.st_mode & 0o777 != mode => {
                let mode = Mode::from_bits_truncate(mode);
                fchmodat(&way.parent, way.name.as_os_str(), mode, FchmodatFlags::FollowSymlink)
                    .subject(|| format!("set the mode of {}", self.path.display()))
            }
            _ => Ok(()),
        })
    }

    /// A stream socket bound there. A socket nobody listens on is a leftover and is replaced.
    ///
    /// # Errors
    /// Where somebody listens there, or the path is no socket.
    pub fn bind(&self, mode: u32) -> Result<OwnedFd> {
        let path = self.path.display();
        let taken = |what: &str, cure: &str| {
            Err(Error::new(format!(
                "cannot listen on unix:{path}: {what}; {cure}, or choose another path"
            )))
        };
        self.act(|way| {
            if let Some(stat) = way.parent.stat_of(&way.name)? {
                if kind(&stat) != SFlag::S_IFSOCK {
                    return taken("the path exists and is no socket", "remove the file");
                }
                match UnixStream::connect(&self.path) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return taken(&error.to_string(), "remove the socket"),
                    Ok(_) => return taken("another server listens there", "end that server"),
                }
                way.parent.remove(&way.name)?;
            }
            bound(&self.path, mode).subject(|| format!("listen on unix:{path}"))
        })
    }

    /// Goes the way and does something at its end, all of it with the right rights.
    fn act<T>(&self, work: impl FnOnce(&PathWalk) -> Result<T>) -> Result<T> {
        let go = || work(&PathWalk::to(&self.path, Links::NotTheLast, self.missing)?);
        match &self.account {
            None => go(),
            Some(account) => account.act(go),
        }
    }
}

/// Without a `user`, the rights of whoever the place belongs to: they can do there what they like.
fn owner(key: &str, doubt: &Untrusted) -> Result<Account> {
    match doubt.owner {
        0 => Err(Error::new(format!(
            "{key}: {doubt}, so that root opens nothing there; `chmod go-w` it, choose another \
             place, or name a `user`"
        ))),
        uid => Account::numbered(uid)
            .map_err(|error| Error::new(format!("{key}: {doubt}, and {error}"))),
    }
}
