//! Upgrade: the master re-executes itself in place. To come with continuity.

use serde::{Deserialize, Serialize};

use super::Master;
use crate::ipc::messages::MasterToManager;

/// What one image of the master leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {}

impl Master {
    pub(super) fn upgrade(&mut self) {
        let why = "not yet".to_owned();
        self.tell_manager(&MasterToManager::UpgradeFailed { why }, Vec::new());
    }
}
