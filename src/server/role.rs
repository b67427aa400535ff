//! Which process of a server this is: the name it was executed under says so.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::api::Handler;
use crate::config::{Config, Sources};
use crate::error::{Error, Result};
use crate::ipc::codec;
use crate::ipc::messages::{Hello, MasterToProbe, ProbeToMaster};
use crate::sys::{packet, process};
use crate::{courier, manager, master, worker};

/// A process of a server, with what its launcher left at descriptor 3.
pub enum Role {
    /// `wsd: master`.
    Master(OwnedFd),
    /// `wsd: manager`.
    Manager(OwnedFd),
    /// `wsd: courier`.
    Courier(OwnedFd),
    /// `wsd: worker 0`.
    Worker(OwnedFd),
    /// `wsd: rehearsal`: says whether this image can take a server over, and leaves.
    Rehearsal(OwnedFd),
    /// `wsd: app 0/1`: about to become the application.
    App(OwnedFd),
    /// `wsd: probe`: says whether this image can serve, and leaves.
    Probe(OwnedFd),
}

impl Role {
    /// What this process was executed as; `None` for one that a person started.
    pub fn of_this_process() -> Result<Option<Role>> {
        let name = std::env::args_os().next().unwrap_or_default();
        let name = name.to_string_lossy();
        let Some(title) = name.strip_prefix("wsd: ") else { return Ok(None) };
        let link = process::take_link().map_err(|error| {
            Error::new(format!(
                "`{name}` is a name that only the server gives its own processes: {error}"
            ))
        })?;
        match title.split(' ').next() {
            Some("master") => Ok(Some(Role::Master(link))),
            Some("manager") => Ok(Some(Role::Manager(link))),
            Some("courier") => Ok(Some(Role::Courier(link))),
            Some("worker") => Ok(Some(Role::Worker(link))),
            Some("probe") => Ok(Some(Role::Probe(link))),
            Some("app") => Ok(Some(Role::App(link))),
            Some("rehearsal") => Ok(Some(Role::Rehearsal(link))),
            _ => Err(Error::new(format!("`{name}` is no process of this version"))),
        }
    }

    /// Lives that process's life.
    pub fn live(
        self,
        base: Config,
        privileged: impl FnOnce(&Config) -> Result<()>,
        make: impl FnOnce(&Config) -> Rc<dyn Handler> + 'static,
    ) -> ExitCode {
        process::set_name(c"wsd");
        match self {
            Role::Master(record) => master::run(record),
            Role::Manager(link) => manager::run(link),
            Role::Courier(link) => courier::run(link),
            Role::Worker(link) => worker::run(link, privileged, make),
            Role::Probe(link) => code(probe(&link, base)),
            Role::App(record) => code(Err(master::become_app(record))),
            Role::Rehearsal(record) => code(master::rehearse(record, base)),
        }
    }
}

fn code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log::say(format_args!("wsd: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Resolves the configuration as the serving processes of this image would, and says so.
fn probe(link: &OwnedFd, base: Config) -> Result<()> {
    let mut readable = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    while poll(&mut readable, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let mut buffer = vec![0; 256 * 1024];
    let got = packet::receive(link.as_fd(), &mut buffer)
        .map_err(|errno| Error::io("receive from the master", errno))?;
    let MasterToProbe::Boot { sources, rights } = codec::decode(&buffer[..got.len])?;
    say(link, &ProbeToMaster::Hello(Hello::ours()))?;
    let sources: Sources = serde_json::from_str(&sources)
        .map_err(|error| Error::new(format!("the master's sources: {error}")))?;
    // The file may be root's to read alone; what to make of it is not.
    let sources = sources.read_now();
    rights.take()?;
    let answer = match Config::load(base, &sources) {
        Err(errors) => ProbeToMaster::Errors(errors.to_string()),
        Ok(config) => {
            let text = serde_json::to_string(&config)
                .map_err(|error| Error::new(format!("cannot send the configuration: {error}")))?;
            ProbeToMaster::Config(text)
        }
    };
    say(link, &answer)
}

fn say(link: &OwnedFd, message: &ProbeToMaster) -> Result<()> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes)?;
    packet::send(link.as_fd(), &bytes, &[]).map_err(|errno| Error::io("answer the master", errno))
}
