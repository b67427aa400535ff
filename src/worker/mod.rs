//! The worker: one listener, its connections, the handler.
//!
//! Its life, top to bottom: [`boot`] reads who it is from the master; [`serve`](life::serve)
//! starts the handler, accepts, and lives in [`reactor`] until it is told to leave. All of it is
//! one thread. State stands in cells of [`Worker`], borrowed only for short operations and never
//! while a handler runs, so a handler may call whatever it likes.
//!
//! The files, by what they are about:
//! - the process: [`boot`], [`life`], [`reactor`] (the event loop), [`turn`] (the end of a pass of
//!   the loop), [`leave`], [`settings`], [`timers`].
//! - who comes in: [`listeners`], [`accept`], [`checks`] and [`admission`] (limits), [`counting`],
//!   [`head`] (requests), [`open`] (the handshake's answer), [`plain`], `http` and
//!   [`http_connections`] (requests that are no WebSocket).
//! - clients: [`table`], [`connection`], [`frames`] (bytes in), [`outbox`], [`broadcast_buffer`]
//!   and [`spares`] (bytes out), [`heartbeat`], [`meter`] and [`budget`] (rates and memory),
//!   [`ending`].
//! - the handler: [`dispatch`], [`local_handle`] (what a handler may ask for), [`tasks`],
//!   [`processes`], [`crash`] (`on_close` for the clients of a worker that died).
//! - other processes: [`links`] (master and manager), [`push`], [`direct`] (links to other
//!   workers), [`requests`] (answers that are waited for), [`serials`], [`owns`].
//! - connections that move: [`handover`] and [`take_back`] give, [`adopt`] and [`deferred`] take,
//!   [`snapshot`] is a connection as bytes.

mod accept;
mod admission;
mod adopt;
mod api;
mod boot;
mod broadcast_buffer;
mod budget;
mod checks;
mod connection;
mod counting;
mod crash;
mod deferred;
mod direct;
mod dispatch;
mod ending;
mod frames;
mod handover;
mod head;
mod heartbeat;
mod http;
mod http_connections;
mod leave;
mod life;
mod links;
mod listeners;
mod local_handle;
mod meter;
mod open;
mod outbox;
mod owns;
mod plain;
mod processes;
mod push;
mod reactor;
mod requests;
mod rooms;
mod routed;
mod serials;
mod settings;
mod slow;
mod snapshot;
mod spares;
mod table;
mod take_back;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod turn;

#[cfg(any(test, feature = "testing"))]
pub(crate) use life::live;
pub(crate) use life::run;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub use super::head::{
        Body, Head, KeptRequest, Kind, Limits, Reader, Refusal, check_origin, classify,
        client_address, parse, request, response,
    };
    pub use super::snapshot::repack;
}

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use crate::api::{Context, Handler};
use crate::error::{Error, Result};
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::Link;
use crate::ipc::messages::PassId;
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{self, Counter, Row, Totals};
use crate::ipc::transit::Transit;
use crate::websocket::Codec;

/// The worker's state. Each field belongs to the file of its name.
pub(crate) struct Worker {
    id: WorkerId,
    worker_num: Cell<u16>,
    settings: settings::Settings,
    handler: Rc<dyn Handler>,
    context: OnceCell<Context>,
    phase: Cell<life::Phase>,
    now_ms: Cell<u64>,
    table: RefCell<table::Table>,
    wheel: RefCell<timers::Wheel>,
    codec: RefCell<Codec>,
    epoll: nix::sys::epoll::Epoll,
    turn: turn::Turn,
    broadcasts: RefCell<broadcast_buffer::BroadcastBuffer>,
    spares: RefCell<spares::Spares>,
    gate: accept::Gatekeeper,
    budget: budget::Budget,
    disk: Rc<http::Disk>,
    meters: meter::Meters,
    listeners: RefCell<listeners::Listeners>,
    serials: RefCell<serials::Serials>,
    http: http_connections::HttpConnections,
    requests: requests::Requests,
    rooms: rooms::Rooms,
    handover: RefCell<handover::Handover>,
    transit: RefCell<Transit<deferred::DeferredSend>>,
    arriving: RefCell<HashMap<PassId, Vec<adopt::Arriving>>>,
    leaving: leave::Leaving,
    jobs: tasks::Jobs,
    processes: processes::Processes,
    link: Link,
    direct: direct::Direct,
    master: links::MasterLink,
    registry: Registry,
    /// Whether what is for other nodes goes nowhere.
    engine_away: Cell<bool>,
    board: Board,
    api: api::Api,
}

impl Worker {
    fn slot(&self) -> Slot {
        self.id.slot
    }

    /// What handlers are given. Set before the first of them is called.
    fn context(&self) -> Option<&Context> {
        self.context.get()
    }

    fn add(&self, counter: Counter, n: u64) {
        self.board.add(counter, n);
    }
}

/// What this worker counts, and what it reads of the others.
struct Board {
    row: Row,
    others: RefCell<scoreboard::Board>,
}

impl Board {
    fn new(page: &OwnedFd, departed: Totals, pages: &[(WorkerId, OwnedFd)]) -> Result<Board> {
        let mut others = scoreboard::Board::new(departed);
        for (of, page) in pages {
            others.opened(*of, page.as_fd())?;
        }
        Ok(Board { row: Row::take(page.as_fd())?, others: RefCell::new(others) })
    }

    fn page_opened(&self, of: WorkerId, fds: &[OwnedFd]) -> Result<()> {
        let page = fds.first().ok_or_else(|| Error::new("Page without a page"))?;
        self.others.borrow_mut().opened(of, page.as_fd())
    }

    fn page_ended(&self, of: WorkerId, last: &Totals) -> Result<()> {
        self.others.borrow_mut().ended(of, last);
        Ok(())
    }

    fn add(&self, counter: Counter, n: u64) {
        self.row.add(counter, n);
    }

    fn sub(&self, counter: Counter, n: u64) {
        self.row.sub(counter, n);
    }

    /// What all workers have counted, those that ended as well.
    fn total(&self, counter: Counter) -> u64 {
        self.others.borrow().sum(counter).saturating_add(self.row.get(counter))
    }
}
