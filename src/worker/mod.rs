//! The worker: one listener, its connections, the handler.
//!
//! Its life, top to bottom: [`boot`] reads who it is from the master; [`serve`](life::serve)
//! starts the handler, accepts, and lives in [`reactor`] until it is told to leave. All of it is
//! one thread. State stands in cells, borrowed only for short operations and never while a handler
//! runs, so a handler may call whatever it likes.
//!
//! The worker is built in layers, each a folder with one struct. A layer owns the one below, calls
//! only those below, and is dereferenced to the one below, so that what is below is at hand
//! without a word. What a lower layer has to tell a higher one, the lower one returns or queues.
//!
//! - the loop, these files: [`boot`] and [`life`], [`reactor`], [`wheel`], [`links`] (who says
//!   what), [`leave`].
//! - [`peers`]: other processes, and what may be asked of clients wherever these are.
//! - [`moving`]: connections that move.
//! - [`door`]: who comes in.
//! - [`app`]: the handler.
//! - [`clients`]: the table of connections and all that belongs to them.
//! - [`base`]: who this process is, and what it says to the master and to the manager.
//!
//! Beside them, [`head`] reads the heads of requests and knows none of the layers.

mod app;
mod base;
mod boot;
mod clients;
mod door;
mod head;
mod leave;
mod life;
mod links;
mod moving;
mod peers;
mod reactor;
#[cfg(test)]
mod tests;
mod wheel;

#[cfg(any(test, feature = "testing"))]
pub(crate) use life::live;
pub(crate) use life::run;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub use super::head::{
        Body, Came, Head, KeptRequest, Kind, Limits, Reader, Refusal, check_origin, classify,
        client_address, parse, request, response,
    };
    pub use super::moving::snapshot::repack;
}

use std::ops::Deref;
use std::rc::Rc;

use self::leave::Leaving;
use self::peers::Peers;

/// The worker, as its loop has it.
struct Worker {
    peers: Rc<Peers>,
    leaving: Leaving,
}

impl Deref for Worker {
    type Target = Rc<Peers>;

    fn deref(&self) -> &Rc<Peers> {
        &self.peers
    }
}
