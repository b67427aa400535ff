//! The whole worker, driven over its real sockets.

mod harness;
mod serving;
