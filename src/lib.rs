//! wsd: a multi-process reactor/worker WebSocket application server in the style of Swoole.
//!
//! The map, from the outside in. Each room uses only rooms to its right (`tests/tidy.rs` keeps
//! it so):
//!
//! ```text
//! bin ─► server ─► { master | manager | worker } ─► { api, ipc, websocket }
//!                                                     ─► { config, fd, close, error, log } ─► sys
//! handler/* uses api only (app: also ipc)
//! ```

pub mod api;
pub mod close;
pub mod config;
pub mod error;
pub mod fd;
pub mod handler;
pub mod ipc;
pub mod log;
pub(crate) mod manager;
pub(crate) mod master;
pub mod server;
pub mod sys;
pub mod websocket;
pub(crate) mod worker;
pub use server::Server;

/// What only `fuzz/targets` may see of rooms that are closed to everybody else.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::worker::fuzzing::*;
}
