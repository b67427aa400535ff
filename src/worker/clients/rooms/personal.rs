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
    /// What the application has put here. What presence shows is in the list of its room as well.
    pub fn bytes(&self) -> usize {
        let infos = self.infos.iter().map(|(of, info)| of.as_str().len() + 2 * info.len());
        self.session.as_ref().map_or(0, |session| session.len()) + infos.sum::<usize>()
    }

    pub fn is_needed(&self) -> bool {
        self.session.is_some() || self.expires_at != NEVER || !self.infos.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_presence_shows_takes_memory_as_a_session_does() {
        let mut personal = Personal::default();
        assert_eq!(personal.bytes(), 0);
        personal.session = Some("{}".into());
        personal.infos = vec![(Topic::room("r"), "[1]".into()), (Topic::room("s"), "2".into())];
        assert_eq!(personal.bytes(), "{}".len() + "#r#s".len() + 2 * "[1]2".len());
    }
}
