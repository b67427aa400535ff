//! What the launcher (`start`) leaves for the master at descriptor 3: a memfd with everything it
//! found out, so that the master begins where the launcher checked.

use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::upgrade::takeover::Takeover;
use crate::config::{Config, Sources};
use crate::error::{Error, Result, Subject};
use crate::ipc::IPC_VERSION;
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
        Launch::parse(&read_bytes(memfd)?)
    }

    fn parse(bytes: &[u8]) -> Result<Launch> {
        // Without a preface there is no launch record either, and that is told below.
        if let Ok(preface) = Preface::parse(bytes) {
            preface.check()?;
        }
        serde_json::from_slice(bytes)
            .map_err(|error| Error::new(format!("not a launch record of this version: {error}")))
    }
}

/// As much of a launch record as every version can read of every other's. New fields of the
/// record have a default; what was here once keeps its name and meaning.
#[derive(Debug, Deserialize)]
pub struct Preface {
    /// As in [`Launch`].
    pub report: Option<RawFd>,
    takeover: Option<Left>,
}

#[derive(Debug, Deserialize)]
struct Left {
    from: String,
    ipc_version: u8,
}

impl Preface {
    /// Reads it from the memfd at descriptor 3.
    pub fn read(memfd: &OwnedFd) -> Result<Preface> {
        Preface::parse(&read_bytes(memfd)?)
    }

    fn parse(bytes: &[u8]) -> Result<Preface> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::new(format!("not a launch record: {error}")))
    }

    /// Refuses a server whose workers this image could not speak to until they are replaced.
    fn check(&self) -> Result<()> {
        match &self.takeover {
            Some(left) if left.ipc_version != IPC_VERSION => Err(Error::new(format!(
                "the server (version {}) speaks IPC version {}, this image (version {}) \
                 {IPC_VERSION}: stop the server and start this image instead",
                left.from,
                left.ipc_version,
                env!("CARGO_PKG_VERSION")
            ))),
            _ => Ok(()),
        }
    }
}

fn read_bytes(memfd: &OwnedFd) -> Result<bytes::Bytes> {
    let memfd = memfd.try_clone().subject(|| "duplicate the launch record".to_owned())?;
    memory::read_sealed_whole(memfd)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A master of 0.1.0 left this: two workers, one of which owes the `on_close` of a killed one,
    /// an application process, and listeners on TCP and on a Unix socket.
    const LEFT_BY_0_1: &str = include_str!("../../tests/golden/takeover-0.1.json");

    /// Whether everything that `old` says is said by `new`.
    fn holds(new: &Value, old: &Value) -> bool {
        match (new, old) {
            (Value::Object(new), Value::Object(old)) => {
                old.iter().all(|(key, old)| new.get(key).is_some_and(|new| holds(new, old)))
            }
            (Value::Array(new), Value::Array(old)) => {
                new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old))
            }
            (new, old) => new == old,
        }
    }

    #[test]
    fn what_the_first_version_left_is_understood_and_said_again() {
        let launch = Launch::parse(LEFT_BY_0_1.as_bytes()).unwrap();
        let golden: Value = serde_json::from_str(LEFT_BY_0_1).unwrap();
        let again = serde_json::to_value(&launch).unwrap();
        assert!(holds(&again, &golden), "{again:#}\nis not\n{golden:#}");
    }

    #[test]
    fn another_ipc_version_is_told_whatever_else_has_changed() {
        let mut other: Value = serde_json::from_str(LEFT_BY_0_1).unwrap();
        other["takeover"] = json!({ "from": "9.9.9", "ipc_version": 9, "more": [1, 2] });
        other["report"] = json!(7);
        let bytes = serde_json::to_vec(&other).unwrap();
        let error = Launch::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains("(version 9.9.9) speaks IPC version 9, this image"), "{error}");
        assert_eq!(Preface::parse(&bytes).unwrap().report, Some(7));
    }
}
