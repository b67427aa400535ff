//! What user code sees: the handler, what it is given, and what it may ask for.
//!
//! This module knows ids only. The worker stands behind [`Reactor`], so a handler can be tested
//! without any process.

mod body;
mod context;
#[cfg(test)]
pub(crate) mod counted;
mod flow;
mod handle;
mod handler;
mod held_body;
mod http;
mod message;
mod payload;
mod process;
mod reactor;
mod request;
pub mod rooms;
pub mod testing;
mod timer;
mod verdict;

pub use body::{Body, BodyWriter, BrokeOff, NobodyReads};
pub use context::{Context, Info};
pub use flow::{Flow, IntoFlow};
pub use handle::{Handle, SendFuture};
pub use handler::{Handler, Pace};
pub use held_body::HeldBody;
pub use http::{HttpRequest, HttpResponse};
pub use message::{Frame, Message, Opcode};
pub use payload::Payload;
pub use process::{AppReport, ProcessEvent, ProcessId, ProcessState};
#[cfg(not(feature = "internals"))]
pub(crate) use reactor::Sealed;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use reactor::Sealed;
pub use reactor::{LocalFuture, Reactor, TaskError};
pub use request::{Accept, Handshake, Headers, Refuse, Request, is_reserved};
pub use timer::Timer;
pub use verdict::Verdict;
