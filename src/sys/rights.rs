//! Giving up rights for good: user, groups, capabilities, and what a debugger or a core file
//! could read.
//!
//! Every child of the master does this before anything of the network reaches it. The kernel
//! keeps most of these rights for each thread apart, so that a process does it while it has one.

use std::ffi::CString;
use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Subject};

/// What a process keeps of its rights. Names are looked up when they are needed, as of then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// The user to become; `None`: stay.
    pub user: Option<String>,
    /// The group to become; `None`: that of `user`, or stay.
    pub group: Option<String>,
    /// What is kept of the capabilities, also over an exec. All others are gone from every set.
    pub capabilities: Vec<Capability>,
    /// Whether a core file and a debugger of the same user may show the memory.
    pub dumpable: bool,
}

/// A capability, by its number (`linux/capability.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability(u8);

/// The names without `CAP_`, at their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const CAP_KILL: Capability = Capability(5);
const CAP_SETGID: Capability = Capability(6);
const CAP_SETUID: Capability = Capability(7);
const CAP_SETPCAP: Capability = Capability(8);

/// Above the numbers of all capabilities: a set has 64 bits.
const NUMBERS: u8 = 64;

impl FromStr for Capability {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Capability, ()> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == name).ok_or(())?;
        u8::try_from(number).map(Capability).map_err(|_| ())
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => write!(f, "CAP_{name}"),
            None => write!(f, "capability {}", self.0),
        }
    }
}

impl Capability {
    /// The names of all, for suggestions.
    pub fn names() -> impl Iterator<Item = String> {
        (0..NAMES.len() as u8).map(|number| Capability(number).to_string())
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// The numbers that the names of [`Rights`] stand for.
struct Identity {
    /// With its name, by which its groups are found.
    user: Option<(CString, Uid)>,
    group: Option<Gid>,
}

impl Rights {
    /// Says before anything is started whether this process can make children with these rights.
    /// `table` stands before the keys: `app.` for those of the application.
    ///
    /// # Errors
    /// The key, what is wrong with its value, and the cure.
    pub fn check(&self, table: &str) -> Result<()> {
        let identity = self.identity(table)?;
        let own = Sets::read()?;
        let lacks = |capability: Capability| own.effective & capability.bit() == 0;
        if !identity.is_ours() {
            // KILL, since a child of another user has to be ended too.
            let missing = [CAP_SETUID, CAP_SETGID, CAP_KILL].into_iter().find(|it| lacks(*it));
            if let Some(missing) = missing {
                let (key, name) = match (&self.user, &self.group) {
                    (Some(user), _) => ("user", user.as_str()),
                    (None, group) => ("group", group.as_deref().unwrap_or_default()),
                };
                return Err(Error::new(format!(
                    "{table}{key} = {name:?}: this process has no right to change users (it \
                     lacks {missing}); start the server as root, or take the key away"
                )));
            }
        }
        match self.capabilities.iter().find(|it| own.permitted & it.bit() == 0) {
            None => Ok(()),
            Some(missing) => Err(Error::new(format!(
                "capabilities: this process has no {missing} that a worker could keep; start \
                 the server as root, or take the name away"
            ))),
        }
    }

    /// The user and the group that a process with these rights has.
    pub fn ids(&self) -> Result<(Uid, Gid)> {
        let Identity { user, group } = self.identity("")?;
        let uid = user.map_or_else(nix::unistd::geteuid, |(_, uid)| uid);
        Ok((uid, group.unwrap_or_else(nix::unistd::getegid)))
    }

    fn identity(&self, table: &str) -> Result<Identity> {
        let missing = |key: &str, name: &str| {
            Error::new(format!(
                "{table}{key} = {name:?}: this machine has no {key} of that name; create that \
                 {key}, or name another"
            ))
        };
        let user = match &self.user {
            None => None,
            Some(name) => {
                let found = User::from_name(name).subject(|| format!("look up user {name}"))?;
                Some(found.ok_or_else(|| missing("user", name))?)
            }
        };
        let group = match &self.group {
            None => user.as_ref().map(|user| user.gid),
            Some(name) => {
                let found = Group::from_name(name).subject(|| format!("look up group {name}"))?;
                Some(found.ok_or_else(|| missing("group", name))?.gid)
            }
        };
        let user = user.map(|user| {
            // A name with a NUL is no user's.
            (CString::new(user.name).unwrap_or_default(), user.uid)
        });
        Ok(Identity { user, group })
    }

    /// Gives up everything else, for good. The process must have one thread.
    ///
    /// # Errors
    /// When anything of it failed: then the process must not go on.
    pub fn take(&self) -> Result<()> {
        let threads =
            std::fs::read_dir("/proc/self/task").subject(|| "count threads".to_owned())?;
        if threads.count() != 1 {
            return Err(Error::new(
                "a thread was started before the rights were given up; start threads in \
                 on_worker_start, which comes after",
            ));
        }
        let identity = self.identity("")?;
        let kept = self.capabilities.iter().fold(0, |set, capability| set | capability.bit());
        if Sets::read()?.effective & CAP_SETPCAP.bit() != 0 {
            drop_bounding(!kept)?;
        }
        // Else the change of user would take them all.
        prctl::set_keepcaps(kept != 0).subject(|| "PR_SET_KEEPCAPS".to_owned())?;
        identity.take_on()?;
        let wanted = Sets { effective: kept, permitted: kept, inheritable: kept };
        // A service manager may have taken all and have the call refused.
        if Sets::read()? != wanted {
            wanted.write()?;
        }
        keep_over_exec(kept)?;
        prctl::set_no_new_privs().subject(|| "PR_SET_NO_NEW_PRIVS".to_owned())?;
        if !self.dumpable {
            setrlimit(Resource::RLIMIT_CORE, 0, 0).subject(|| "RLIMIT_CORE".to_owned())?;
        }
        prctl::set_dumpable(self.dumpable).subject(|| "PR_SET_DUMPABLE".to_owned())?;
        identity.verify(kept)
    }
}

impl Identity {
    fn is_ours(&self) -> bool {
        self.user.as_ref().is_none_or(|(_, uid)| *uid == nix::unistd::geteuid())
            && self.group.is_none_or(|gid| gid == nix::unistd::getegid())
    }

    fn take_on(&self) -> Result<()> {
        let may = Sets::read()?.effective & CAP_SETGID.bit() != 0;
        if self.is_ours() && !may {
            // Started as that user. Its groups are what whoever started it chose.
            return Ok(());
        }
        let Some(gid) = self.group else { return Ok(()) };
        match &self.user {
            Some((name, _)) => nix::unistd::initgroups(name, gid),
            None => nix::unistd::setgroups(&[gid]),
        }
        .subject(|| format!("take on the groups with {gid}"))?;
        nix::unistd::setresgid(gid, gid, gid).subject(|| format!("setresgid to {gid}"))?;
        if let Some((_, uid)) = self.user {
            nix::unistd::setresuid(uid, uid, uid).subject(|| format!("setresuid to {uid}"))?;
        }
        Ok(())
    }

    /// Looks at what the kernel made of it, and that there is no way back.
    fn verify(&self, kept: u64) -> Result<()> {
        let users = nix::unistd::getresuid().subject(|| "getresuid".to_owned())?;
        let groups = nix::unistd::getresgid().subject(|| "getresgid".to_owned())?;
        let is_user = |uid| users.real == uid && users.effective == uid && users.saved == uid;
        let is_group = |gid| groups.real == gid && groups.effective == gid && groups.saved == gid;
        let uid = self.user.as_ref().map(|(_, uid)| *uid);
        let no_way_back = uid.is_none_or(|uid| {
            let root = Uid::from_raw(0);
            uid == root
                || kept & CAP_SETUID.bit() != 0
                || nix::unistd::setresuid(uid, root, uid).is_err()
        });
        let sets = Sets::read()?;
        let dropped = sets.effective | sets.permitted | sets.inheritable == kept
            && prctl::get_no_new_privs().subject(|| "PR_GET_NO_NEW_PRIVS".to_owned())?;
        let is_it = uid.is_none_or(is_user) && self.group.is_none_or(is_group);
        match is_it && no_way_back && dropped {
            true => Ok(()),
            false => {
                Err(Error::new("the kernel did not give up the rights as `user` and `group` ask"))
            }
        }
    }
}

/// The capability sets of this thread, a bit each.
#[derive(PartialEq, Eq)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: 32 bits of each set.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, of this very thread.
const HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

impl Sets {
    fn read() -> Result<Sets> {
        let (mut header, mut halves) = (HEADER, [Half::default(); 2]);
        let read =
            // SAFETY: version 3 takes a header and two halves, which are valid and ours to write.
            unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
        Errno::result(read).subject(|| "capget".to_owned())?;
        let [low, high] = halves;
        let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Ok(Sets {
            effective: whole(low.effective, high.effective),
            permitted: whole(low.permitted, high.permitted),
            inheritable: whole(low.inheritable, high.inheritable),
        })
    }

    fn write(&self) -> Result<()> {
        let half = |shift: u32| Half {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let (mut header, halves) = (HEADER, [half(0), half(32)]);
        // SAFETY: version 3 takes a header and two halves, which are valid; it writes neither
        // half.
        let written = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
        Errno::result(written).map(|_| ()).subject(|| "capset".to_owned())
    }
}

/// Drops these from the bounding set: no exec can bring them back.
fn drop_bounding(set: u64) -> Result<()> {
    for number in 0..NUMBERS {
        // SAFETY: a plain system call that answers for a number.
        let has = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number)) };
        if has < 0 {
            // The kernel knows no more than those before.
            return Ok(());
        }
        if has == 1 && set & Capability(number).bit() != 0 {
            let dropped =
                // SAFETY: a plain system call that takes a right away.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) };
            Errno::result(dropped).subject(|| format!("drop {} for good", Capability(number)))?;
        }
    }
    Ok(())
}

/// Makes the ambient set these: what an executed program of an ordinary user begins with.
fn keep_over_exec(set: u64) -> Result<()> {
    let ambient = |what: libc::c_int, number: u8| {
        let (what, number) = (what as libc::c_ulong, libc::c_ulong::from(number));
        // SAFETY: a plain system call on this thread's ambient set.
        let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, what, number, 0, 0) };
        Errno::result(done).map(|_| ()).subject(|| "PR_CAP_AMBIENT".to_owned())
    };
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    let kept = (0..NUMBERS).filter(|number| set & Capability(*number).bit() != 0);
    kept.into_iter().try_for_each(|number| ambient(libc::PR_CAP_AMBIENT_RAISE, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_known_by_its_name_in_any_case_with_or_without_its_prefix() {
        for name in ["CAP_NET_RAW", "net_raw", "Cap_Net_Raw"] {
            assert_eq!(name.parse(), Ok(Capability(13)), "{name}");
        }
        assert_eq!(Capability(13).to_string(), "CAP_NET_RAW");
        assert_eq!("CAP_NONSENSE".parse::<Capability>(), Err(()));
        assert_eq!(Capability::names().last().as_deref(), Some("CAP_CHECKPOINT_RESTORE"));
    }

    #[test]
    fn who_does_not_exist_is_told_with_the_key() {
        let rights = Rights { user: Some("no-such-user".to_owned()), ..Rights::default() };
        let error = rights.check("app.").unwrap_err().to_string();
        assert!(error.starts_with("app.user = \"no-such-user\": this machine has no"), "{error}");
        let rights = Rights { group: Some("no-such-group".to_owned()), ..Rights::default() };
        let error = rights.check("").unwrap_err().to_string();
        assert!(error.starts_with("group = \"no-such-group\": "), "{error}");
    }
}
