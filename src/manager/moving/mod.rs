//! Connections move: who moves, to whom, and when the route changes.
//!
//! - [`pass`] decides one pass: what the old worker gives, what the new one answers, and what
//!   waits meanwhile.
//! - [`step`] is what a pass is to bring about.
//! - [`inherited`] decides the end of passes that a manager which died has left.
//! - [`carry`] does what is decided.
//!
//! `tests` play the machines of old worker, new worker and manager against each other, with deaths
//! between any two steps.

mod carry;
mod inherited;
pub mod pass;
pub mod step;

#[cfg(test)]
mod tests;
