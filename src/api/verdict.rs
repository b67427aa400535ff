//! What became of a push.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a push, or of another call that concerns clients. A verdict is the owner's word,
/// never a guess from a list that lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// In the client's queue. It is lost only if the connection or its worker ends before the
    /// kernel has the bytes, and such a loss is counted.
    Queued,
    /// On its way to whoever does it: the worker that owns the client, for calls of a
    /// [`Handle`](super::Handle) the handle's own worker, for a publish all that have members. What
    /// waits for an answer (`push_confirmed`, `publish_confirmed` and so on) never answers this.
    Relayed,
    /// The client's queue (`buffer_output_size`), the lane to its worker (16 MiB) or a limit on
    /// rooms is full. Nothing was queued for that client; a publish reached the members of the
    /// caller's own worker.
    Full,
    /// No such client, now or ever again; for a message to a worker, no such slot; for a call of a
    /// [`Handle`](super::Handle), its worker has left.
    Gone,
    /// Larger than a message may be: than both `package_max_length` and `buffer_output_size`, than
    /// 125 bytes for a ping or a pong, or than what the call says. Nothing was queued.
    TooBig,
    /// No answer came before the deadline, for example since the owner died meanwhile: the
    /// message may or may not have been queued.
    Unknown,
    /// The room has presence, and the client is no user's: `bind` it first.
    NoUser,
    /// Only the clients of this node: the engine that carries messages to the others is away. Only
    /// a plain `publish`, `push_uid` or `close_uid`, or a broadcast by the HTTP API or the command
    /// line, of a cluster's node answers this.
    LocalOnly,
}

impl Verdict {
    /// True for `Queued` and `Relayed`. Not for `LocalOnly`, which is half of a success.
    pub fn is_ok(self) -> bool {
        matches!(self, Verdict::Queued | Verdict::Relayed)
    }

    /// The name on the command line, in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Queued => "queued",
            Verdict::Relayed => "relayed",
            Verdict::Full => "full",
            Verdict::Gone => "gone",
            Verdict::TooBig => "too_big",
            Verdict::Unknown => "unknown",
            Verdict::NoUser => "no_user",
            Verdict::LocalOnly => "local_only",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
