//! What few connections have besides their rooms.

use crate::api::rooms::Topic;
use crate::worker::base::ticks::{NEVER, Tick};

/// What few connections have besides their rooms.
#[derive(Debug)]
pub(in crate::worker) struct Personal {
    /// What the application keeps of it, as JSON.
    pub session: Option<Box<str>>,
    /// When it is to be closed.
    pub expires_at: Tick,
    /// What presence shows of it, by room.
    pub infos: Vec<(Topic, Box<str>)>,
}

impl Default for Personal {
    fn default() -> Personal {
        Personal { session: None, expires_at: NEVER, infos: Vec::new() }
    }
}

impl Personal {
    pub fn is_needed(&self) -> bool {
        self.session.is_some() || self.expires_at != NEVER || !self.infos.is_empty()
    }
}
