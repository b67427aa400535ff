//! The whole worker, driven over its real sockets.

mod handover;
mod harness;
mod serving;
