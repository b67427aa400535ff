//! What of the configuration concerns the manager.

use std::time::Duration;

use crate::api::rooms::Topic;
use crate::config::Config;
use crate::error::{Error, Result};

/// What a drain may take beyond its own deadline before the worker is killed.
const DRAIN_GRACE_MS: u64 = 5_000;

/// Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// After which a silent worker is hung.
    pub worker_timeout_ms: u64,
    /// The idle time after which clients are closed, and how often to look; `None`: never.
    pub heartbeat: Option<(u64, u64)>,
    /// For running handlers, and for what stayed behind in a reload.
    pub max_wait_ms: u64,
    /// Over which closes are spread.
    pub jitter_ms: u64,
    /// Topics that one worker may have members of. A worker that began before a reload goes on with
    /// what it was told then, so a reload never makes this less.
    pub rooms_max: usize,
    /// With what the names of rooms begin that have presence.
    pub presence: Vec<String>,
    /// Bytes of the longest name of a room.
    pub room_name_max: usize,
    /// Bytes of the longest uid.
    pub uid_max: usize,
    /// Bytes of the longest message that a client may be pushed.
    pub push_bytes_max: u64,
    /// For which a user without connections is still present.
    pub presence_linger_ms: u64,
    /// Which node of a cluster this is; `None` without one.
    pub node: Option<u8>,
    /// Whether the log is the standard output's place too.
    pub daemonize: bool,
}

impl Settings {
    /// From the resolved configuration as the master sends it.
    pub fn from_json(json: &str) -> Result<Settings> {
        let config: Config = serde_json::from_str(json)
            .map_err(|error| Error::new(format!("cannot read the configuration: {error}")))?;
        Ok(Settings {
            worker_timeout_ms: ms(config.worker_timeout),
            heartbeat: config.heartbeat().map(|(idle, interval)| (ms(idle), ms(interval))),
            max_wait_ms: ms(config.max_wait_time),
            jitter_ms: ms(config.reload_jitter),
            node: config.node(),
            rooms_max: config.rooms_max,
            room_name_max: config.room_name_max,
            uid_max: config.uid_max,
            push_bytes_max: config.push_bytes_max(),
            presence: config.rooms_presence,
            presence_linger_ms: ms(config.presence_linger),
            daemonize: config.daemonize,
        })
    }

    /// How long a worker that drains may live, in milliseconds.
    pub fn drain_ms(&self) -> u64 {
        self.max_wait_ms.max(self.jitter_ms) + DRAIN_GRACE_MS
    }

    /// Whether a room has presence.
    pub fn has_presence(&self, room: &Topic) -> bool {
        let mut prefixes = self.presence.iter();
        !room.is_user() && prefixes.any(|prefix| room.name().starts_with(prefix.as_str()))
    }

    /// What is in force after a reload.
    pub fn follow(&mut self, next: Settings) {
        let rooms_max = self.rooms_max.max(next.rooms_max);
        *self = Settings { rooms_max, ..next };
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}
