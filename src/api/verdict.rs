//! What became of a push.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a push. A verdict is the owner's word, never a guess from a list that lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// In the client's queue. It is lost only if the connection or its worker ends before the
    /// kernel has the bytes, and such a loss is counted.
    Queued,
    /// On its way to the worker that owns the client. Only the plain `push` answers this; a
    /// confirmed push says what came of it.
    Relayed,
    /// The client's queue, or the lane to its worker, is full. Nothing was queued.
    Full,
    /// No such client, now or ever again.
    Gone,
    /// Larger than a message may be. Nothing was queued.
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
    /// True for `Queued` and `Relayed`.
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
