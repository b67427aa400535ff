//! A WebSocket application server: a daemon of several processes in the style of Swoole, around
//! the handlers you write.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     wsd::Server::new()
//!         .listen("127.0.0.1:9501")
//!         .on_open(|ctx, request| {
//!             ctx.push(request.fd, "hello, welcome");
//!         })
//!         .on_message(|ctx, frame| {
//!             ctx.push(frame.fd, "this is server");
//!         })
//!         .on_close(|_, fd, close| println!("client {fd} is gone: {}", close.cause))
//!         .run()
//! }
//! ```
//!
//! That program has the command line of a daemon: `start`, `stop`, `reload`, `status`, `push` and
//! so on. `start` makes a master, a manager and several workers of it, which share the port.
//!
//! **Each worker has a memory of its own.** A `HashMap` in a handler knows the clients of one
//! worker, and a reload begins it anew in a new process. What lives on a connection moves with
//! the connection; what is in a map does not.
//!
//! A tour:
//!
//! - [`Server`] takes closures, plain or async, or a [`Handler`](api::Handler) of your own.
//! - [`Context`](api::Context) is what each of them gets: it pushes to any client of the server
//!   by its number ([`Fd`](fd::Fd)), from any worker, and says what became of the push
//!   ([`Verdict`](api::Verdict)); it broadcasts, closes, asks, sets timers and runs blocking jobs.
//! - [`Handle`](api::Handle) is a context that crosses threads.
//! - [`Accept::extension`](api::Accept::extension) takes what `on_handshake` found out, a signed-in
//!   user for example, to `on_open`.
//! - [`Server::state`] makes what the closures of a worker share;
//!   [`Context::server_tick`](api::Context::server_tick) is a timer that runs once in the whole
//!   server, whichever worker that is in.
//! - [`Server::freeze`] and [`Server::on_attach`] take what you know of a client along when a
//!   reload moves its connection.
//! - [`testing`] has a worker's stand-in for the tests of your handlers, and with the feature
//!   `testing` a server within a test.
//! - [`Config`](config::Config) is what `etc/wsd.toml`, the environment and `--set` resolve to.
//!
//! Features, all on by default: `cli` is the command line ([`Server::run`]; without it there is
//! [`Server::start`]), `cluster` makes several hosts one server by a Redis, `handlers` are the
//! handlers of the stock program, `mimalloc` is its allocator, and `tls` lets `wsd connect` speak
//! `wss://`. How the inside is laid out stands in `docs/architecture.md`.

// Without the command line nobody asks on the control socket, so the asker's half of the control
// protocol is left over, with what prints its answers.
// Without an engine the courier of a cluster has nothing to talk to.
#![cfg_attr(not(all(feature = "cli", feature = "cluster")), allow(dead_code, unused_imports))]

pub mod api;
pub mod close;
pub mod config;
pub mod error;
pub mod fd;
#[cfg(feature = "handlers")]
pub mod handler;
pub mod server;
pub mod websocket;

mod courier;
mod manager;
mod master;
mod worker;

// What tests and fuzzers see of the inside, and a user does not.
#[cfg(not(feature = "internals"))]
mod ipc;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod ipc;
#[cfg(not(feature = "internals"))]
mod log;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod log;
#[cfg(not(feature = "internals"))]
mod sys;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod sys;

pub use bytes;
pub use http;
pub use server::Server;

/// For the tests of programs: a stand-in for a worker, and with the feature `testing` a whole
/// server within the test.
pub mod testing {
    pub use crate::api::testing::*;
    #[cfg(any(test, feature = "testing"))]
    pub use crate::server::testing::{ClientError, TestClient, TestServer};
}

/// What only `fuzz/targets` may see of modules that are closed to everybody else.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::master::fuzzing::*;
    pub use crate::worker::fuzzing::*;
}
