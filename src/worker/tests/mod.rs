//! The whole worker, driven over its real sockets.

mod direct;
mod handover;
mod harness;
mod memory;
mod messages;
mod parting;
mod presence;
mod rooms;
mod serving;
