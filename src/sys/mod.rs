//! The edge of the kernel. The only room with `unsafe`, each with its reason.
#![allow(unsafe_code)]

pub mod clock;
pub mod memory;
pub mod packet;
pub mod process;
pub mod socket;
pub mod watch;
