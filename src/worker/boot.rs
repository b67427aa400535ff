//! The first packet: who this process is and what it was given.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::inherit::Legacy;
use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::ipc::codec;
use crate::ipc::ledger::Ledger;
use crate::ipc::messages::{Hello, Listener, MasterToWorker, WorkerBoot, WorkerToMaster};
use crate::ipc::registry::Registry;
use crate::ipc::shadow;
use crate::sys::{guard, packet, process};

/// Bytes of the largest message of the master; the configuration is most of `Boot`.
pub(super) const MASTER_BYTES_MAX: usize = 256 * 1024;

/// What the master gave.
pub(super) struct Boot {
    pub is: WorkerBoot,
    pub config: Config,
    pub master: OwnedFd,
    pub link: OwnedFd,
    pub scoreboard: OwnedFd,
    pub registry: OwnedFd,
    pub listeners: Vec<(Listener, OwnedFd)>,
    /// Only in a crash-proof worker.
    pub ledger: Option<Ledger>,
    /// Why it is not crash-proof after all.
    pub shadowless: Option<Error>,
    pub legacies: Vec<Legacy>,
}

/// Waits for `Boot` and answers `Hello`. Blocks: there is no runtime yet.
pub(super) fn receive(master: OwnedFd) -> Result<Boot> {
    let (first, fds) = next(&master)?;
    let hello = WorkerToMaster::Hello(Hello::ours());
    let mut bytes = Vec::new();
    codec::encode(&hello, &mut bytes)?;
    packet::send(master.as_fd(), &bytes, &[]).subject(|| "greet the master".to_owned())?;
    match codec::decode(&first)? {
        MasterToWorker::Boot(is) => take(is, master, fds),
        other => Err(Error::new(format!("the master said {other:?} before Boot"))),
    }
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
            Ok(_) => return Err(Error::new("the master is gone before it said anything")),
            Err(Errno::EAGAIN) => wait(master)?,
            Err(error) => return Err(Error::io("receive from the master", error)),
        }
    }
}

impl Boot {
    /// Makes this worker crash-proof: takes what stands behind `Boot`, and makes the shadow. Only
    /// while this process has one thread.
    pub fn become_crash_proof(&mut self) -> Result<()> {
        let (bytes, fds) = next(&self.master)?;
        let [socket, ledger] = few(fds)?;
        let legacies = match codec::decode(&bytes)? {
            MasterToWorker::Shadow { legacies } => legacies,
            other => return Err(Error::new(format!("the master said {other:?} behind Boot"))),
        };
        // Better without one than not at all; there is no log to tell it to yet.
        self.shadowless = make_shadow(self.is.id.slot, socket).err();
        self.ledger = Some(Ledger::open(ledger.as_fd())?);
        for _ in 0..legacies {
            let (bytes, fds) = next(&self.master)?;
            let MasterToWorker::Inherit { from } = codec::decode(&bytes)? else {
                return Err(Error::new("the master promised more legacies"));
            };
            let [registry, ledger, shadow] = few(fds)?;
            let registry = Registry::open(registry.as_fd())?;
            let ledger = Ledger::open(ledger.as_fd())?;
            self.legacies.push(Legacy { from, registry, ledger, shadow });
        }
        Ok(())
    }
}

fn few<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N]> {
    let wrong = |fds: Vec<_>| Error::new(format!("{} descriptors came, not {N}", fds.len()));
    fds.try_into().map_err(wrong)
}

/// The shadow holds the descriptors of this process, whatever they come to be, and lives until the
/// master lets it go.
fn make_shadow(slot: crate::fd::Slot, socket: OwnedFd) -> Result<()> {
    let master = nix::unistd::getppid();
    if process::fork_beside()?.is_some() {
        // The shadow's, for as long as there is a table: it would be closed for both.
        let _ = socket.into_raw_fd();
        return Ok(());
    }
    guard::retitle(&format!("wsd: shadow {slot}"));
    // Only so that what is sent to the worker's group is not for it.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
    if process::kill_with_parent(master).is_ok() {
        shadow::serve(socket.as_fd());
    }
    process::exit_now(0)
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
    let (link, scoreboard, registry) = (next()?, next()?, next()?);
    let mut listeners = Vec::new();
    for listener in &is.listeners {
        listeners.push((listener.clone(), next()?));
    }
    let config = serde_json::from_str(&is.config)
        .map_err(|error| Error::new(format!("the configuration of Boot: {error}")))?;
    Ok(Boot {
        is,
        config,
        master,
        link,
        scoreboard,
        registry,
        listeners,
        ledger: None,
        shadowless: None,
        legacies: Vec::new(),
    })
}
