//! The HTTP API and the metrics, on listeners of their own (`api.listen`).
//!
//! One socket serves for all workers: a connection waits in it until some worker is free, so a
//! worker that hangs is asked nothing. What is answered is the whole server's, whoever answers.
//!
//! - [`connection`] is one connection and what hyper asks of it, [`access`] who may ask what,
//!   [`route`] which request is what.
//! - [`requests`] does what is asked, by way of [`clients`], [`rooms`] and [`listing`]. What a
//!   request says is read by [`query`], [`message`], [`object`] and [`paging`].
//! - [`share`] bounds what all of it takes of the worker's time.
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
mod share;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::Mutex;
use tokio::time::sleep;

use self::share::Share;
use crate::sys::socket;
use crate::worker::clients::admission::Admitted;
use crate::worker::peers::Peers;

/// The description of the API.
const OPEN_API: &str = include_str!("openapi.json");
/// How long a client may take before somebody else may have the place: of many who come at once
/// each has to be able to say what it wants.
const GRACE: Duration = Duration::from_millis(100);

/// What a worker has for the API.
#[derive(Default)]
pub(in crate::worker) struct Api {
    /// Connections that are open here.
    open: Cell<usize>,
    /// Those of them on which something was asked that may be asked.
    known_open: Cell<usize>,
    /// Those that wait for their client, and are not known.
    strangers: Admitted,
    /// Those that wait for their client, and are known.
    known: Admitted,
    /// Whether every one of as many as may be is at work, so that the next one waits in the
    /// listener.
    is_full: Cell<bool>,
    /// Whether that is looked at again soon.
    looks_again: Cell<bool>,
    /// The metrics as they were written last, and of which writing of the summary they are.
    written: Mutex<Option<(u64, Bytes)>>,
    /// What is left of the worker's time for all of them.
    share: Share,
}

impl Api {
    /// The clients have had a turn, and the API may work again; whether much of it waits, so that
    /// the clients are to have another turn soon.
    pub(in crate::worker) fn begin_share(&self) -> bool {
        self.share.begin()
    }

    /// Those that wait for their client, of one kind.
    fn waiting(&self, is_known: bool) -> &Admitted {
        if is_known { &self.known } else { &self.strangers }
    }

    /// A connection counts no more.
    fn left(&self, is_known: bool) {
        self.open.set(self.open.get().saturating_sub(1));
        self.known_open.set(self.known_open.get().saturating_sub(usize::from(is_known)));
    }

    /// Has a connection that waits for its client give its place to one that has none: whichever
    /// stranger has waited longest, and where there is no stranger at all, whichever known one has.
    /// So who comes with a whole request is answered however many others do not. False where
    /// nobody has waited long enough.
    fn makes_room(&self) -> bool {
        let are_all_known = self.open.get() == self.known_open.get();
        let waiting = self.waiting(are_all_known);
        if waiting.oldest_plain_waits().is_none_or(|time| time < GRACE) {
            return false;
        }
        let Some(yielding) = waiting.oldest_plain_yields() else { return false };
        if yielding.go() {
            self.left(are_all_known);
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
            self.rest_api(true);
            return self.look_again();
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

    /// Has the listeners of the API accept again soon, when somebody may have waited long enough.
    fn look_again(self: &Rc<Self>) {
        if self.api.looks_again.replace(true) {
            return;
        }
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            sleep(GRACE / 4).await;
            worker.api.looks_again.set(false);
            worker.api_has_room();
        });
    }

    /// There is a place for another connection of the API, or one that can be made.
    fn api_has_room(&self) {
        if self.api.is_full.replace(false) {
            self.rest_api(false);
        }
    }
}
