//! What an operator may say about application processes: the `[app]` table.

use std::time::Duration;

use crate::config::{AppStdout, Config, OnHang};

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
    /// Processes of the whole server that do tasks alone. Each worker has a place for each of them,
    /// and starts those that are its own.
    pub task_processes: u16,
    /// Processes of the whole server that run a function of their own, shared out in the same way.
    pub user_processes: u16,
    /// Processes of each worker that stand by.
    pub spare: u16,
    /// Events after which a process is replaced; 0 is never.
    pub max_requests: u64,
    /// The same for a process that does tasks.
    pub task_max_requests: u64,
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
    /// The longest message that may be pushed to a client.
    pub push_max: usize,
    /// Bytes of commands that are kept for a client that is not open yet.
    pub held_max: usize,
    /// What all clients together may take of the worker by what KEEP gave, and by what waits of
    /// answers that come in parts.
    pub client_memory: usize,
    /// What may be pushed to a client before a process has to ask whether there is room.
    pub push_free: usize,
    /// The largest payload of a frame: the longest message and room for headers.
    pub frame_max: usize,
    /// Header fields of a client's request that ATTACH shows, in lower case.
    pub keep_headers: Vec<String>,
    /// Whether the processes write to the server's standard output; else to the log.
    pub own_stdout: bool,
}

impl Default for AppSettings {
    fn default() -> AppSettings {
        AppSettings {
            processes: 1,
            task_processes: 0,
            user_processes: 0,
            spare: 0,
            max_requests: 0,
            task_max_requests: 0,
            memory_limit: 0,
            event_timeout: Duration::from_secs(30),
            queue_events: 1024,
            queue_bytes: 8 << 20,
            window: 128,
            on_crash: OnCrash::Repin,
            push_max: 2 << 20,
            held_max: 1 << 20,
            client_memory: 256 << 20,
            push_free: 512 << 10,
            frame_max: (2 << 20) + (128 << 10),
            keep_headers: vec!["cookie".to_owned()],
            own_stdout: true,
        }
    }
}

impl AppSettings {
    /// Places of processes: of events, of tasks, then those with a function of their own.
    pub fn places(&self) -> u16 {
        self.first_user_place().saturating_add(self.user_processes)
    }

    /// The first place of those with a function of their own.
    pub fn first_user_place(&self) -> u16 {
        self.processes.max(1).saturating_add(self.task_processes)
    }

    /// Whether the worker of that slot, of so many, starts a process for a place.
    pub fn is_started_by(&self, slot: u8, worker_num: u16, place: u16) -> bool {
        let user = place.checked_sub(self.first_user_place());
        let of_server = user.or_else(|| place.checked_sub(self.processes.max(1)));
        of_server.is_none_or(|number| number % worker_num.max(1) == u16::from(slot))
    }
}

/// Room in a frame for what stands around a message: the head of a request.
const HEAD_BYTES: u64 = 128 << 10;

impl From<&Config> for AppSettings {
    fn from(config: &Config) -> AppSettings {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        AppSettings {
            processes: u16::try_from(config.app.processes).unwrap_or(u16::MAX),
            task_processes: u16::try_from(config.app.task_processes).unwrap_or(u16::MAX),
            user_processes: u16::try_from(config.app.user_processes).unwrap_or(u16::MAX),
            spare: u16::try_from(config.app.spare).unwrap_or(u16::MAX),
            max_requests: config.app.max_requests as u64,
            task_max_requests: config.app.task_max_requests as u64,
            memory_limit: config.app.memory_limit,
            event_timeout: match config.app.event_timeout {
                Duration::ZERO => Duration::MAX,
                timeout => timeout,
            },
            on_crash: match config.app.on_hang {
                OnHang::Repin => OnCrash::Repin,
                OnHang::Close => OnCrash::Close,
            },
            // One message must always fit, or its client would wait for ever.
            queue_bytes: bytes(config.package_max_length).max(8 << 20),
            push_max: bytes(config.push_bytes_max()),
            held_max: bytes(config.buffer_output_size),
            client_memory: match config.client_memory {
                0 => usize::MAX,
                limit => bytes(limit),
            },
            push_free: bytes(config.buffer_output_size / 2),
            frame_max: bytes(config.push_bytes_max() + HEAD_BYTES),
            keep_headers: config.keep_headers.iter().map(|name| name.to_lowercase()).collect(),
            own_stdout: config.app.stdout == AppStdout::Own && !config.daemonize,
            ..AppSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_whole_server_is_started_by_one_worker() {
        let settings = AppSettings {
            processes: 2,
            task_processes: 3,
            user_processes: 1,
            ..AppSettings::default()
        };
        let started = |slot| {
            let mine = |place: &u16| settings.is_started_by(slot, 2, *place);
            (0..settings.places()).filter(mine).collect::<Vec<u16>>()
        };
        assert_eq!(started(0), [0, 1, 2, 4, 5]);
        assert_eq!(started(1), [0, 1, 3]);
    }
}
