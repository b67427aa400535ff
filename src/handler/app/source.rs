//! Where application processes come from. The worker asks, the master does.

use std::fmt;

use tokio::net::UnixStream;

use crate::api::LocalFuture;

/// One application process: the `epoch`th that was started for `place` of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// 0 to `processes` - 1.
    pub place: u16,
    /// Counts the processes of a place from 1.
    pub epoch: u32,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {}.{}", self.place, self.epoch)
    }
}

/// A process that was started, with our end of its socket.
#[derive(Debug)]
pub struct Started {
    /// Which one.
    pub id: ProcessId,
    /// Its pid, for the memory limit and the log.
    pub pid: Option<u32>,
    /// Our end.
    pub stream: UnixStream,
}

/// Why a process has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It handled `max_requests` events.
    MaxRequests,
    /// It holds more than `memory_limit`, so many bytes.
    Memory(u64),
    /// It finished no event within `event_timeout`.
    EventTimeout,
    /// It broke the protocol, as the text says.
    Protocol(String),
    /// It closed its socket, but may still run.
    Closed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::MaxRequests => f.write_str("it handled max_requests events"),
            Why::Memory(bytes) => write!(f, "it holds {bytes} bytes, over memory_limit"),
            Why::EventTimeout => f.write_str("it finished no event within event_timeout"),
            Why::Protocol(what) => write!(f, "it broke the protocol: {what}"),
            Why::Closed => f.write_str("it closed its socket"),
        }
    }
}

/// Brings application processes. One process for each place is expected without asking, and a
/// new one (throttled) whenever one of them has ended.
pub trait AppSource {
    /// The next process that was started, for any place; pending while there is none, `None`
    /// when there will be none any more.
    fn next(&self) -> LocalFuture<Option<Started>>;

    /// Ends a process at once (SIGKILL), if it still runs.
    fn kill(&self, id: ProcessId, why: &Why);

    /// Starts a further process for the place of `id`. When it is ready, the old one is told to
    /// finish and exit, which must not count as a crash.
    fn replace(&self, id: ProcessId, why: &Why);
}
