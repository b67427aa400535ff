//! What the launcher (`start`) leaves for the master at descriptor 3: a memfd with everything it
//! found out, so that the master begins where the launcher checked.

use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::upgrade::Takeover;
use crate::config::{Config, Sources};
use crate::error::{Error, Result, Subject};
use crate::sys::memory;

/// Everything the master needs to begin.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Where the configuration came from; a reload reads it anew.
    pub sources: Sources,
    /// The configuration, resolved.
    pub config: Config,
    /// The path the program was invoked by, absolute: a reload runs what stands there then.
    pub invoked: PathBuf,
    /// The descriptor of the pipe on which a daemon's launcher waits for the verdict.
    pub report: Option<RawFd>,
    /// What the last image of this master left, when this is an upgrade.
    #[serde(default)]
    pub takeover: Option<Takeover>,
}

impl Launch {
    /// Puts it into a memfd.
    pub fn write(&self) -> Result<OwnedFd> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::new(format!("cannot write the launch record: {error}")))?;
        memory::write_sealed("wsd-launch", &bytes)
    }

    /// Reads it from the memfd at descriptor 3.
    pub fn read(memfd: &OwnedFd) -> Result<Launch> {
        let memfd = memfd.try_clone().subject(|| "duplicate the launch record".to_owned())?;
        let bytes = memory::read_sealed_whole(memfd)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(format!("not a launch record of this version: {error}")))
    }
}
