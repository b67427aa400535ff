//! The courier: the one process that talks to the engine of a cluster. It has no listener and no
//! clients, may connect, and may die or hang at any time: the manager never waits for it.
//!
//! - [`life`]: from the first packet to the exit; [`state`] is what the courier knows meanwhile.
//! - [`engine`]: what an engine has to do, whichever it is; [`redis`] is one.
//! - [`session`]: one connection to the engine, from its lease to its end; [`leases`] says who
//!   lives, and [`probe`] whether what is published comes back.
//! - [`check`]: whether an engine answers, without serving.
//! - [`queue`]: what goes to the engine, in its order; [`inbox`]: what comes from there.
//! - [`links`]: what master and manager say, and what they are told, by links as a worker's.

#[cfg(feature = "cli")]
mod check;
mod engine;
mod inbox;
mod leases;
mod life;
mod links;
#[cfg(test)]
mod memory;
mod probe;
mod queue;
mod redis;
mod session;
mod state;
#[cfg(test)]
mod tests;

#[cfg(feature = "cli")]
pub(crate) use check::check;
#[cfg(feature = "cli")]
pub(crate) use engine::Description;
pub(crate) use life::run;
