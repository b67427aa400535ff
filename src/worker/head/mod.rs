//! The head: the opening HTTP request of a connection, and our answer to it.
//!
//! Pure: bytes in, verdicts and bytes out; it knows no socket and no clock. In order of use:
//!
//! 1. [`Reader`] finds the end of the head as bytes arrive, and refuses what no head may hold.
//! 2. [`parse`] checks the lines, which hyper would accept in shapes that proxies read
//!    differently (bare LF, doubled Host), and only then lets httparse take them apart.
//! 3. [`classify`] says whether it is plain HTTP, for hyper, or an upgrade, for us.
//! 4. [`check_origin`], [`client_address`] and [`subprotocol`] decide about an upgrade.
//! 5. [`KeptRequest`] is what an open connection keeps of it; [`response`] writes the answer.
//!
//! Whatever is refused is answered and closed: no byte after it is ever parsed.

mod check;
mod classify;
mod client_address;
mod kept_request;
mod origin;
mod parse;
mod read;
mod refusal;
pub mod response;
pub mod subprotocol;
#[cfg(test)]
mod table;
mod target;

pub use check::check_field_line;
pub use classify::{Kind, classify};
pub use client_address::{client_address, is_forwarded};
pub use kept_request::{KeptRequest, request};
pub use origin::{Authority, Came, check_host, check_origin};
pub use parse::{Body, Head, parse};
pub use read::{Limits, RawHead, Reader};
pub use refusal::{RETRY_AFTER, Reason, Refusal};
