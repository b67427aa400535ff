//! The edge of the kernel. The only module with `unsafe`, each with its reason.
//!
//! - processes: `process` (started, named, ended), `ending` (who ends with whom), `fork`, `signal`,
//!   `guard` (the way back from an upgrade), `usage`.
//! - rights and files: `rights` (given up for good), `account` (another user's, for a moment),
//!   `dir`, `path_walk`.
//! - descriptors: `socket` (clients), `address`, `packet` (datagrams between processes), `watch`
//!   (for tokio), `memory` (shared).
//! - `clock`; for tests `point` and `heap`.
#![allow(unsafe_code)]

pub mod account;
pub mod address;
pub mod clock;
pub mod dir;
pub mod ending;
pub mod fork;
pub mod guard;
#[cfg(test)]
pub mod heap;
pub mod memory;
pub mod packet;
pub mod path_walk;
pub mod point;
pub mod process;
pub mod rights;
pub mod signal;
pub mod socket;
pub mod usage;
pub mod watch;

/// The descriptor at which every process of ours finds what its launcher left it.
pub const LINK_RAW_FD: i32 = 3;
