//! What an operator may say about application processes: the `[app]` table.

use std::time::Duration;

/// What becomes of the clients of a process that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// They stay connected; the next process takes them over, events not done are sent again.
    Repin,
    /// They are closed with 1011.
    Close,
}

/// The `[app]` table, as far as the worker needs it. How processes are spawned is the master's.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// Processes of each worker.
    pub processes: u16,
    /// Events after which a process is replaced; 0 is never.
    pub max_requests: u64,
    /// Resident bytes over which a process is replaced; 0 is no limit.
    pub memory_limit: u64,
    /// How long a process may go without finishing an event it has.
    pub event_timeout: Duration,
    /// Events that may wait for one process; then its clients are no longer read.
    pub queue_events: usize,
    /// Bytes that may wait for one process.
    pub queue_bytes: usize,
    /// Events that are sent ahead of their DONE, where the process names no number.
    pub window: usize,
    /// What becomes of the clients of a process that died.
    pub on_crash: OnCrash,
    /// The largest payload of a frame: `package_max_length` and room for headers.
    pub frame_max: usize,
    /// Header fields of a client's request that ATTACH shows, in lower case.
    pub keep_headers: Vec<String>,
    /// What the application is told as `settings` in HELLO, a JSON object.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Default for AppSettings {
    fn default() -> AppSettings {
        AppSettings {
            processes: 1,
            max_requests: 0,
            memory_limit: 0,
            event_timeout: Duration::from_secs(30),
            queue_events: 1024,
            queue_bytes: 8 << 20,
            window: 128,
            on_crash: OnCrash::Repin,
            frame_max: (2 << 20) + (128 << 10),
            keep_headers: vec!["cookie".to_owned()],
            facts: serde_json::Map::new(),
        }
    }
}
