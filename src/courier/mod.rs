//! The courier: the one process that talks to the engine of a cluster. It has no listener and no
//! clients, may connect, and may die or hang at any time: the manager never waits for it.
//!
//! - [`life`]: from the first packet to the exit; [`state`] is what the courier knows meanwhile.
//! - [`engine`]: what an engine has to do, whichever it is; [`redis`] is one.
//! - [`session`]: one connection to the engine, from its lease to its end; [`number`] is how the
//!   node comes to its number, [`leases`] says who lives, and [`probe`] whether what is published
//!   comes back.
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
mod number;
mod probe;
mod queue;
#[cfg(feature = "cluster")]
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

use crate::config::{Config, EngineAddress};
use crate::error::{Error, Result};
use engine::Engine;

/// The engine that the configuration names.
fn engine_of(config: &Config, password: Option<String>) -> Result<Box<dyn Engine>> {
    let address = config.cluster.engine.clone();
    engine_at(address.ok_or_else(|| Error::new("no cluster.engine is configured"))?, password)
}

#[cfg(feature = "cluster")]
fn engine_at(address: EngineAddress, password: Option<String>) -> Result<Box<dyn Engine>> {
    Ok(Box::new(redis::RedisEngine::new(address, password)))
}

/// The configuration has refused such an address before.
#[cfg(not(feature = "cluster"))]
fn engine_at(address: EngineAddress, _: Option<String>) -> Result<Box<dyn Engine>> {
    Err(Error::new(format!("this program has no engine for {address}")))
}
