//! The real binary, driven from outside: processes, sockets, signals and clients as they are.
//!
//! Each test starts a server of its own. Nothing here sleeps to wait for something, and nothing
//! asserts how fast it was; what is measured is in the tests that `scripts/soak` runs.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

mod answers;
mod api;
mod api_rooms;
mod attacks;
mod attacks_api;
mod browser;
mod churn;
mod command_line;
mod configuration;
mod drain;
mod examples;
mod frames;
mod handlers;
mod handshake;
mod http_rfc;
mod js_client;
mod kills;
mod limits;
mod listeners;
mod liveness;
mod metrics;
mod notify;
mod obstacles;
mod origins;
mod points;
mod processes;
mod proxy;
mod push;
mod reload;
mod rooms;
mod security;
mod signals;
mod slow;
mod soak;
mod upgrade;
