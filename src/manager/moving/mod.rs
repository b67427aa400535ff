//! Connections move: who moves, to whom, and when the route changes.
//!
//! - [`pass`] decides one pass: what the old worker gives, what the new one answers, and what
//!   waits meanwhile.
//! - [`step`] is what a pass is to bring about.
//! - [`carry`] does what a pass decides.
//! - [`reload`] decides a reload, pass by pass; [`mover`] does what the reload decides, and
//!   [`stragglers`] follow later.
//!
//! `tests` play the machines of old worker, new worker and manager against each other, with deaths
//! between any two steps.

mod carry;
pub(super) mod mover;
pub mod pass;
pub(super) mod reload;
pub mod step;
mod stragglers;

#[cfg(test)]
mod tests;
