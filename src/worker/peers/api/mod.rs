//! The HTTP API and the metrics, on listeners of their own (`api.listen`).
//!
//! One socket serves for all workers: a connection waits in it until some worker is free, so a
//! worker that hangs is asked nothing. What is answered is the whole server's, whoever answers.
//!
//! - [`connection`] is one connection and what hyper asks of it, [`access`] who may ask what,
//!   [`route`] which request is what.
//! - [`requests`] does what is asked, by way of [`clients`], [`rooms`] and [`listing`]. What a
//!   request says is read by [`query`], [`message`], [`object`] and [`paging`].
//! - [`readiness`] says whether balancers are to send clients here.
//! - [`metrics`] tells the figures of all processes.

mod access;
mod answer;
mod clients;
mod connection;
mod listing;
mod message;
mod metrics;
mod object;
mod paging;
mod query;
mod readiness;
mod requests;
mod rooms;
mod route;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::Mutex;

use crate::sys::socket;
use crate::worker::clients::admission::Admitted;
use crate::worker::peers::Peers;

/// The description of the API.
const OPEN_API: &str = include_str!("openapi.json");

/// What a worker has for the API.
#[derive(Default)]
pub(in crate::worker) struct Api {
    /// Connections that are open here.
    open: Cell<usize>,
    /// Those of them that wait for their client, and on which nothing was asked yet that may be.
    strangers: Admitted,
    /// The others that wait for their client.
    known: Admitted,
    /// Whether every one of as many as may be is at work, so that the next one waits in the
    /// listener.
    is_full: Cell<bool>,
    /// The metrics as they were written last, and of which writing of the summary they are.
    written: Mutex<Option<(u64, Bytes)>>,
}

impl Api {
    /// Those that wait for their client, of one kind.
    fn waiting(&self, is_known: bool) -> &Admitted {
        if is_known { &self.known } else { &self.strangers }
    }

    /// A connection counts no more.
    fn left(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    /// Has a connection that waits for its client give its place to one that has none. Strangers
    /// go before others, and of these whichever has waited longest: who comes with a whole request
    /// is answered however many others do not. False where every one is at work.
    fn makes_room(&self) -> bool {
        let yields =
            self.strangers.oldest_plain_yields().or_else(|| self.known.oldest_plain_yields());
        let Some(yielding) = yields else { return false };
        if yielding.go() {
            self.left();
        }
        true
    }
}

impl Peers {
    /// Takes one connection of the API. What is left there is told again, to this worker or to
    /// another that is free.
    pub(in crate::worker) fn accept_api(self: &Rc<Self>, index: u32) {
        let is_full = self.api.open.get() >= self.settings.config.api.connections_max;
        if is_full && !self.api.makes_room() {
            self.api.is_full.set(true);
            return self.rest_api(true);
        }
        let accepted = {
            let listeners = self.listeners.borrow();
            let Some(listener) = listeners.get(index) else { return };
            socket::accept(listener.as_fd())
        };
        match accepted {
            Ok((socket, peer)) => self.serve_api(socket, peer),
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                self.out_of_descriptors(index);
            }
            // Another worker was faster, or the client has left.
            Err(_) => {}
        }
    }

    /// There is a place for another connection of the API, or one that can be made.
    fn api_has_room(&self) {
        if self.api.is_full.replace(false) {
            self.rest_api(false);
        }
    }
}
