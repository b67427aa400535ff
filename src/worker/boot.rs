//! The first packet: who this process is and what it was given.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::WorkerId;
use crate::ipc::codec;
use crate::ipc::master_link::MASTER_BYTES_MAX;
use crate::ipc::messages::{Hello, Listener, MasterToWorker, WorkerBoot, WorkerToMaster};
use crate::sys::packet;

/// What the master gave.
pub(super) struct Boot {
    pub is: WorkerBoot,
    pub config: Config,
    pub master: OwnedFd,
    pub link: OwnedFd,
    /// Its page of the scoreboard, and those of the others.
    pub page: OwnedFd,
    pub pages: Vec<(WorkerId, OwnedFd)>,
    pub registry: OwnedFd,
    pub listeners: Vec<(Listener, OwnedFd)>,
}

/// Waits for `Boot` and answers `Hello`. Blocks: there is no runtime yet.
pub(super) fn receive(master: OwnedFd) -> Result<Boot> {
    let (first, fds) = next(&master)?;
    let hello = WorkerToMaster::Hello(Hello::ours());
    let mut bytes = Vec::new();
    codec::encode(&hello, &mut bytes)?;
    packet::send(master.as_fd(), &bytes, &[]).subject(|| "greet the master".to_owned())?;
    match codec::decode(&first)? {
        MasterToWorker::Boot(is) => {
            let mut boot = take(is, master, fds)?;
            boot.pages = pages(&boot.master, boot.is.pages)?;
            Ok(boot)
        }
        other => Err(Error::new(format!("the master said {other:?} before Boot"))),
    }
}

/// The pages that follow `Boot`.
fn pages(master: &OwnedFd, count: u16) -> Result<Vec<(WorkerId, OwnedFd)>> {
    let page = |_| {
        let (bytes, fds) = next(master)?;
        match (codec::decode(&bytes)?, fds.into_iter().next()) {
            (MasterToWorker::Page { of }, Some(page)) => Ok((of, page)),
            (other, _) => Err(Error::new(format!("the master said {other:?} behind Boot"))),
        }
    };
    (0..count).map(page).collect()
}

/// The next packet of the master.
fn next(master: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MASTER_BYTES_MAX];
    loop {
        match packet::receive(master.as_fd(), &mut buffer) {
            Ok(got) if got.len > 0 => {
                buffer.truncate(got.len);
                return Ok((buffer, got.fds));
            }
            Ok(_) => return Err(Error::new("the master is gone before it sent Boot")),
            Err(Errno::EAGAIN) => wait(master)?,
            Err(error) => return Err(Error::io("receive from the master", error)),
        }
    }
}

fn wait(master: &OwnedFd) -> Result<()> {
    let mut polled = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(Error::io("wait for the master", error)),
    }
}

fn take(is: WorkerBoot, master: OwnedFd, fds: Vec<OwnedFd>) -> Result<Boot> {
    let want = 3 + is.listeners.len();
    let got = fds.len();
    let mut fds = fds.into_iter();
    let mut next = || {
        let missing = || Error::new(format!("Boot came with {got} descriptors, not {want}"));
        fds.next().ok_or_else(missing)
    };
    let (link, page, registry) = (next()?, next()?, next()?);
    let mut listeners = Vec::new();
    for listener in &is.listeners {
        listeners.push((listener.clone(), next()?));
    }
    let config = serde_json::from_str(&is.config)
        .map_err(|error| Error::new(format!("the configuration of Boot: {error}")))?;
    Ok(Boot { is, config, master, link, page, pages: Vec::new(), registry, listeners })
}
