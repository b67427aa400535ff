//! Another user's rights to files, taken for a moment: what is done with them can do no more than
//! that user could.

use std::ffi::CString;

use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups, setfsgid, setfsuid,
    setgroups,
};

use crate::error::{Error, Result, Subject};

/// A user with all groups that decide what the user may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    /// The account of that name, with another first group where one is named.
    ///
    /// # Errors
    /// Where there is no such user or group.
    pub fn named(user: &str, group: Option<&str>) -> Result<Account> {
        let found = User::from_name(user).subject(|| format!("look up {user}"))?;
        let found = found.ok_or_else(|| Error::new(format!("there is no user `{user}`")))?;
        let Some(name) = group else { return Account::of(&found, found.gid) };
        let group = Group::from_name(name).subject(|| format!("look up {name}"))?;
        let group = group.ok_or_else(|| Error::new(format!("there is no group `{name}`")))?;
        Account::of(&found, group.gid)
    }

    /// The account of that number.
    ///
    /// # Errors
    /// Where no user has that number.
    pub fn numbered(uid: u32) -> Result<Account> {
        let found = User::from_uid(Uid::from_raw(uid)).subject(|| format!("look up uid {uid}"))?;
        let found = found.ok_or_else(|| Error::new(format!("no user has the uid {uid}")))?;
        Account::of(&found, found.gid)
    }

    fn of(user: &User, gid: Gid) -> Result<Account> {
        let name = CString::new(user.name.as_str())
            .map_err(|_| Error::new("the name of a user has a NUL"))?;
        let groups = getgrouplist(&name, gid).subject(|| format!("groups of {}", user.name))?;
        Ok(Account { uid: user.uid, gid, groups })
    }

    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Whether it is root's.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Does something with this account's rights to files. Only for a process with one thread.
    ///
    /// # Errors
    /// Where these rights cannot be taken, or not be given back.
    pub fn act<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let groups = getgroups().subject(|| "read our groups".to_owned())?;
        let taken = setgroups(&self.groups).subject(|| format!("take the groups of {}", self.uid));
        let done = taken.and_then(|()| {
            setfsgid(self.gid);
            setfsuid(self.uid);
            // Neither call says whether it succeeded; asked for what cannot be, it tells what is.
            let nobody = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
            match (setfsuid(nobody.0), setfsgid(nobody.1)) == (self.uid, self.gid) {
                true => work(),
                false => Err(Error::new(format!("the rights of uid {} were refused", self.uid))),
            }
        });
        setfsuid(geteuid());
        setfsgid(getegid());
        setgroups(&groups).subject(|| "take our own groups back".to_owned())?;
        done
    }
}
