//! Between master and probe.

use serde::{Deserialize, Serialize};

use super::Hello;
use crate::sys::rights::Rights;

/// Master to probe: the short-lived process of a new image that says whether it can serve.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToProbe {
    /// The first packet: resolve the configuration from these sources.
    Boot {
        /// [`crate::config`]'s sources as JSON.
        sources: String,
        /// What the probe keeps of its rights once it has read the file.
        rights: Rights,
    },
}

/// Probe to master. Then it exits.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProbeToMaster {
    /// Who is there.
    Hello(Hello),
    /// The resolved configuration, as JSON.
    Config(String),
    /// The configuration has errors: whole sentences, one a line.
    Errors(String),
}
