//! RFC 6455 and RFC 7692 without I/O: bytes in, events out; messages in, bytes out.
//!
//! Nothing here knows a descriptor, a clock or tokio. A connection owns one [`Engine`], small
//! while nothing is half read; everything costly (a compressor, an inflater) is in the one
//! [`Codec`] that the connections of a worker share, so that the state of a connection is only
//! bytes and can be taken out ([`Engine::freeze`]) and put back ([`Engine::thaw`]) anywhere.
//!
//! ```text
//! receive buffer ─► Engine::next ─► Event        frame::* ─► outbox
//!                       └── Codec (inflate)      Codec::compress ─┘
//! extension: what Sec-WebSocket-Extensions said becomes Params, which Engine::new takes
//! ```
//!
//! `head` and `mask` are the parts of a frame. `engine` decodes, with `state` (what it is as bytes)
//! and `whole` (the short way); `event` is what comes out. `deflate` compresses.

mod deflate;
mod engine;
mod event;
mod extension;
pub mod frame;
mod head;
mod mask;
mod state;
mod whole;

pub use deflate::{Codec, DeflateOptions, Variant};
pub use engine::{Engine, Limits, Role};
pub use event::{Data, Event, Fault, Step};
pub use extension::{Direction, Params, accept_response, negotiate, offer};
pub use head::{CONTROL_BYTES_MAX, Head, Op};
pub use state::{BadState, EngineState};
