//! The parts of the master that outlive an image: how each is written down, and taken over.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::unistd::Pid;

use super::takeover::{CourierLeft, ManagerLeft, RuntimeDirLeft, WorkerLeft};
use crate::config::Config;
use crate::error::{Result, Subject};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::Page;
use crate::master::child::{Child, duplicate};
use crate::master::courier::CourierPlace;
use crate::master::manager_handle::ManagerPlace;
use crate::master::runtime_dir::{RuntimeDir, group_of_app};
use crate::master::supervised::Supervised;
use crate::master::worker_handle::WorkerHandle;
use crate::sys::dir::Dir;
use crate::sys::{clock, process};

/// Collects descriptors that are to outlive an exec.
#[derive(Default)]
pub struct Leaving {
    pub passed: Vec<OwnedFd>,
}

impl Leaving {
    /// A duplicate that outlives the exec; the original stays as it is.
    pub fn pass_on(&mut self, descriptor: BorrowedFd<'_>) -> Result<RawFd> {
        self.give(duplicate(descriptor)?)
    }

    pub fn give(&mut self, descriptor: OwnedFd) -> Result<RawFd> {
        let number = process::keep_over_exec(descriptor.as_fd())?;
        self.passed.push(descriptor);
        Ok(number)
    }
}

impl WorkerLeft {
    /// Whether it could be taken over; everything is dropped again.
    pub fn check(self) -> Result<()> {
        check_link(self.link)?;
        check_link(self.manager_end)?;
        Page::open(process::duplicate_number(self.page)?.as_fd())?;
        Registry::open(process::duplicate_number(self.registry)?.as_fd()).map(|_| ())
    }
}

impl WorkerHandle {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<WorkerLeft> {
        Ok(WorkerLeft {
            record: self.record(),
            started_ms: self.child.started_ms,
            ready_ms: self.ready_ms,
            protocol: self.protocol.clone(),
            lease: self.lease.clone(),
            closing_lost: self.closing_lost,
            link: leaving.pass_on(self.child.link())?,
            manager_end: leaving.pass_on(self.manager_end.as_fd())?,
            registry: leaving.pass_on(self.registry.as_fd())?,
            page: leaving.pass_on(self.page.as_fd())?,
        })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(left: WorkerLeft) -> Result<WorkerHandle> {
        let record = left.record;
        Ok(WorkerHandle {
            id: record.id,
            generation: record.generation,
            child: adopt_child(record.pid, left.started_ms, left.link)?,
            page: process::duplicate_number(left.page)?,
            overstates: false,
            manager_end: process::duplicate_number(left.manager_end)?,
            registry: process::duplicate_number(left.registry)?,
            ready_ms: left.ready_ms,
            protocol: left.protocol,
            broke_protocol: false,
            app_starts: Default::default(),
            lease: left.lease,
            fatal: None,
            waits: None,
            closing_lost: left.closing_lost,
        })
    }
}

impl Supervised {
    /// Writes its process down, and the descriptor of the link.
    fn leave(&self, leaving: &mut Leaving) -> Result<Option<(i32, RawFd)>> {
        let process = |child: &Child| Ok((child.pid.as_raw(), leaving.pass_on(child.link())?));
        self.child().map(process).transpose()
    }

    /// Takes its process over from the image before this one.
    fn take_over(
        name: &'static str,
        process: Option<(i32, RawFd)>,
        epoch: u32,
        serves: bool,
    ) -> Result<Supervised> {
        let now = clock::monotonic_ms();
        let child = process.map(|(pid, link)| adopt_child(pid, now, link)).transpose()?;
        Ok(Supervised::adopt(name, child, epoch, serves, now))
    }
}

impl ManagerPlace {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<ManagerLeft> {
        Ok(ManagerLeft {
            process: self.process.leave(leaving)?,
            page: self.page.as_ref().map(|page| leaving.pass_on(page.as_fd())).transpose()?,
            epoch: self.process.epoch(),
            ready: self.process.serves(),
            restarts: self.restarts,
        })
    }

    /// Takes it over from the image before this one.
    pub fn adopt(left: ManagerLeft) -> Result<ManagerPlace> {
        Ok(ManagerPlace {
            process: Supervised::take_over("manager", left.process, left.epoch, left.ready)?,
            restarts: left.restarts,
            page: left.page.map(process::duplicate_number).transpose()?,
            ..ManagerPlace::new()
        })
    }
}

impl CourierPlace {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<CourierLeft> {
        let end = self.manager_end.as_ref();
        Ok(CourierLeft {
            process: self.process.leave(leaving)?,
            manager_end: end.map(|end| leaving.pass_on(end.as_fd())).transpose()?,
            epoch: self.process.epoch(),
            boot: self.boot,
        })
    }

    /// Takes it over from the image before this one, which served.
    pub fn adopt(left: Option<CourierLeft>) -> Result<CourierPlace> {
        let Some(left) = left else {
            let place = CourierPlace::new(Supervised::new("courier"));
            return Ok(CourierPlace { may_serve: true, ..place });
        };
        let process = Supervised::take_over("courier", left.process, left.epoch, true)?;
        Ok(CourierPlace {
            manager_end: left.manager_end.map(process::duplicate_number).transpose()?,
            boot: left.boot,
            may_serve: true,
            ..CourierPlace::new(process)
        })
    }
}

impl RuntimeDir {
    /// Writes down what the next image needs to take it over.
    pub fn leave(&self, leaving: &mut Leaving) -> Result<RuntimeDirLeft> {
        Ok(RuntimeDirLeft {
            parent: leaving.pass_on(self.parent.as_fd())?,
            name: self.name.clone(),
            dir: leaving.pass_on(self.dir.as_fd())?,
            lock: leaving.pass_on(self.lock.as_fd())?,
            socket: self.socket,
        })
    }

    /// Takes it over from the image before this one. The lock belongs to the open file, which is
    /// the same.
    pub fn adopt(left: RuntimeDirLeft, config: &Config) -> Result<RuntimeDir> {
        let path = &config.runtime_dir;
        let parent = path.parent().map_or_else(PathBuf::new, PathBuf::from);
        Ok(RuntimeDir {
            parent: Dir::adopt(process::duplicate_number(left.parent)?, &parent),
            name: left.name,
            dir: Dir::adopt(process::duplicate_number(left.dir)?, path),
            lock: File::from(process::duplicate_number(left.lock)?),
            socket: left.socket,
            group: group_of_app(config)?,
        })
    }
}

/// Whether a child's link is still what it says.
fn check_link(raw: RawFd) -> Result<()> {
    let link = process::duplicate_number(raw)?;
    nix::sys::socket::getsockopt(&link, nix::sys::socket::sockopt::SockType)
        .map(|_| ())
        .subject(|| "look at a worker's link".to_owned())
}

/// Takes a child over.
fn adopt_child(pid: i32, started_ms: u64, link: RawFd) -> Result<Child> {
    Ok(Child::adopt(Pid::from_raw(pid), started_ms, process::duplicate_number(link)?))
}
