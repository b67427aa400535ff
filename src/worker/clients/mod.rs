//! The clients of this worker: [`Clients`] owns all of them, and calls nobody above. Who is told of
//! what a client does is the business of the layers above.
//!
//! - [`table`] has every [`connection`] by its [`key`], in a [`chunked_slab`]; [`watch`] is the
//!   epoll set, [`timers`] the wheel.
//! - [`push`]: messages to clients here; [`queue`]: into an [`outbox`], or for many into the
//!   [`broadcast_buffer`]. [`spares`]: outboxes that are not in use. [`turn`]: what is written
//!   when.
//! - [`admission`] and [`counting`]: how many there are, of each kind and of each address;
//!   [`budget`]: what all of them hold.
//! - [`heartbeat`]: pings and deadlines. [`ending`]: how a connection ends. [`slow`]: who does not
//!   read.
//! - [`rooms`]: who is a member of what.

pub(super) mod admission;
pub(super) mod broadcast_buffer;
pub(super) mod budget;
mod chunked_slab;
pub(super) mod connection;
pub(super) mod counting;
pub(super) mod ending;
pub(super) mod heartbeat;
pub(super) mod key;
pub(super) mod outbox;
pub(super) mod push;
pub(super) mod queue;
pub(super) mod rooms;
pub(super) mod slow;
pub(super) mod spares;
pub(super) mod table;
pub(super) mod timers;
pub(super) mod turn;
pub(super) mod watch;

use std::cell::RefCell;
use std::ops::Deref;

use nix::sys::epoll::Epoll;

use self::admission::Gatekeeper;
use self::broadcast_buffer::BroadcastBuffer;
use self::budget::Budget;
use self::connection::Connection;
use self::key::Key;
use self::rooms::Rooms;
use self::spares::Spares;
use self::table::Table;
use self::timers::Wheel;
use self::turn::Turn;
use super::base::Base;
use super::base::phase::Phase;
use super::base::ticks::tick;
use crate::ipc::registry::Registry;
use crate::sys::process;
use crate::websocket::Codec;

/// All connections, and what each of them needs of the process.
pub(super) struct Clients {
    pub base: Base,
    pub table: RefCell<Table>,
    pub wheel: RefCell<Wheel>,
    pub codec: RefCell<Codec>,
    pub epoll: Epoll,
    pub turn: Turn,
    pub broadcasts: RefCell<BroadcastBuffer>,
    pub spares: RefCell<Spares>,
    pub gate: Gatekeeper,
    pub budget: Budget,
    pub registry: Registry,
    pub rooms: Rooms,
}

impl Deref for Clients {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

impl Clients {
    /// Nobody yet.
    pub(super) fn new(base: Base, epoll: Epoll, registry: Registry) -> Clients {
        let config = &base.settings.config;
        Clients {
            table: RefCell::default(),
            wheel: RefCell::new(Wheel::new(tick(base.now_ms.get()))),
            codec: RefCell::new(Codec::new(base.settings.deflate())),
            epoll,
            turn: Turn::default(),
            broadcasts: RefCell::default(),
            spares: RefCell::default(),
            gate: Gatekeeper::new(config, process::descriptor_limit()),
            budget: Budget::new(config.client_memory),
            registry,
            rooms: Rooms::default(),
            base,
        }
    }

    /// A connection is gone for good.
    pub(super) fn left(&self) {
        if self.phase.get() != Phase::Serving {
            if self.table.borrow().is_empty() {
                self.table.borrow_mut().shrink();
            }
            self.changed.notify_waiters();
        }
    }

    pub(super) fn keys(&self, which: impl Fn(&Connection) -> bool) -> Vec<Key> {
        let table = self.table.borrow();
        table.iter().filter(|(_, it)| which(it)).map(|(key, _)| key).collect()
    }
}
