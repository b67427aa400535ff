//! Why a connection ended: one named cause for each, the same in code, log and metric.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Initiator {
    /// The client sent a close frame, or shut its end.
    Client,
    /// The server closed: a handler, a limit, an operator, a reload.
    Server,
    /// Nobody said anything: the network or a process died.
    Nobody,
}

/// The named cause of a close. `as_str` is what stands in logs, metrics and `on_close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The client sent a close frame; the code is the client's (1005 where it gave none).
    ClientClosed,
    /// The connection ended without a close frame (1006).
    ClientVanished,
    /// The client broke RFC 6455 (1002).
    ProtocolError,
    /// Text, or a close reason, was not UTF-8 (1007).
    InvalidText,
    /// A message was larger than `package_max_length` (1009).
    MessageTooBig,
    /// A message came in too many fragments (1008).
    TooManyFragments,
    /// A message was begun and not finished in time (1008).
    MessageTimeout,
    /// Nothing was received for `heartbeat_idle_time` (1001).
    IdleTimeout,
    /// A ping was not answered within `pong_timeout` (1006 to the handler).
    PongTimeout,
    /// More than `buffer_output_size` waited for this client (1013).
    SlowReader,
    /// A handler panicked (1011).
    HandlerPanic,
    /// A handler asked for it; the code is the handler's.
    HandlerClosed,
    /// An operator asked for it with `close`.
    OperatorClosed,
    /// The server stops (1001).
    ServerStop,
    /// A reload left this connection behind on an old worker (1012).
    ServerDrain,
    /// The worker process that held the connection died (1006).
    WorkerCrashed,
    /// The application process did not answer in time, or died (1011).
    AppFailed,
    /// The connection reached the configured age (1012).
    MaxAge,
    /// The client sent more than `messages_per_second` or `bytes_per_second` (1008).
    TooFast,
    /// `client_memory` is used up (1013).
    OutOfMemory,
    /// The time came that a handler had set with `expire_at` (1008).
    Expired,
}

impl Cause {
    /// Every cause, for metrics and tests.
    pub const ALL: &[Cause] = &[
        Cause::ClientClosed,
        Cause::ClientVanished,
        Cause::ProtocolError,
        Cause::InvalidText,
        Cause::MessageTooBig,
        Cause::TooManyFragments,
        Cause::MessageTimeout,
        Cause::IdleTimeout,
        Cause::PongTimeout,
        Cause::SlowReader,
        Cause::HandlerPanic,
        Cause::HandlerClosed,
        Cause::OperatorClosed,
        Cause::ServerStop,
        Cause::ServerDrain,
        Cause::WorkerCrashed,
        Cause::AppFailed,
        Cause::MaxAge,
        Cause::TooFast,
        Cause::OutOfMemory,
        Cause::Expired,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::ClientClosed => "client_closed",
            Cause::ClientVanished => "client_vanished",
            Cause::ProtocolError => "protocol_error",
            Cause::InvalidText => "invalid_text",
            Cause::MessageTooBig => "message_too_big",
            Cause::TooManyFragments => "too_many_fragments",
            Cause::MessageTimeout => "message_timeout",
            Cause::IdleTimeout => "idle_timeout",
            Cause::PongTimeout => "pong_timeout",
            Cause::SlowReader => "slow_reader",
            Cause::HandlerPanic => "handler_panic",
            Cause::HandlerClosed => "handler_closed",
            Cause::OperatorClosed => "operator_closed",
            Cause::ServerStop => "server_stop",
            Cause::ServerDrain => "server_drain",
            Cause::WorkerCrashed => "worker_crashed",
            Cause::AppFailed => "app_failed",
            Cause::MaxAge => "max_age",
            Cause::TooFast => "too_fast",
            Cause::OutOfMemory => "out_of_memory",
            Cause::Expired => "expired",
        }
    }

    /// The RFC 6455 (section 7.4) code that goes with the cause, unless a person chose another.
    pub fn code(self) -> u16 {
        match self {
            Cause::ClientClosed => 1005,
            Cause::ClientVanished | Cause::PongTimeout | Cause::WorkerCrashed => 1006,
            Cause::ProtocolError => 1002,
            Cause::InvalidText => 1007,
            Cause::MessageTooBig => 1009,
            Cause::TooManyFragments | Cause::MessageTimeout | Cause::TooFast | Cause::Expired => {
                1008
            }
            Cause::SlowReader | Cause::OutOfMemory => 1013,
            Cause::HandlerPanic | Cause::AppFailed => 1011,
            Cause::HandlerClosed | Cause::OperatorClosed => 1000,
            Cause::IdleTimeout | Cause::ServerStop => 1001,
            Cause::ServerDrain | Cause::MaxAge => 1012,
        }
    }

    /// Who ended it.
    pub fn initiator(self) -> Initiator {
        match self {
            Cause::ClientClosed => Initiator::Client,
            Cause::ClientVanished | Cause::WorkerCrashed => Initiator::Nobody,
            _ => Initiator::Server,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection ended, as `on_close` sees it. Swoole tells only the fd and a reactor id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The close code (RFC 6455 section 7.4); 1005 and 1006 as in section 7.1.5.
    pub code: u16,
    /// The reason text: the client's where the client closed, else ours. At most 123 bytes.
    pub reason: String,
    /// Why.
    pub cause: Cause,
}

impl Close {
    /// A close with the code that goes with `cause` and no text.
    pub fn because(cause: Cause) -> Close {
        Close { code: cause.code(), reason: String::new(), cause }
    }

    /// As [`because`](Self::because), and the client is asked to come back no sooner: the reason
    /// is `retry after N ms`.
    pub fn until_later(cause: Cause, retry_ms: u64) -> Close {
        Close { reason: format!("retry after {retry_ms} ms"), ..Close::because(cause) }
    }

    /// The time that a handler set for the connection has come. The reason says so, since a client
    /// that is closed with 1008 alone may take it that nobody wants it any more.
    pub fn expired() -> Close {
        let cause = Cause::Expired;
        Close { reason: cause.as_str().to_owned(), ..Close::because(cause) }
    }

    /// Who ended the connection.
    pub fn by(&self) -> Initiator {
        self.cause.initiator()
    }
}

/// Whether an endpoint may put `code` into a close frame (RFC 6455 section 7.4.2): 1000 to 1003,
/// 1007 to 1014, and 3000 to 4999.
pub fn code_may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The longest reason text of a close frame, in bytes (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// A reason as a close frame can carry it: cut between two characters where it is longer.
pub(crate) fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_equal_to_their_serde_form() {
        let mut seen = std::collections::HashSet::new();
        for &cause in Cause::ALL {
            assert!(seen.insert(cause.as_str()));
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }
}
