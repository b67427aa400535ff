//! The HTTP API and the metrics, on listeners of their own (`api.listen`).
//!
//! One socket serves for all workers: a connection waits in it until some worker is free, so a
//! worker that hangs is asked nothing. What is answered is the whole server's, whoever answers.
//!
//! - [`connection`] is one connection and what hyper asks of it, [`access`] who may ask what,
//!   [`route`] which request is what.
//! - [`requests`] does what is asked, by way of [`clients`], [`rooms`] and [`listing`]. What a
//!   request says is read by [`query`], [`message`] and [`paging`].
//! - [`readiness`] says whether balancers are to send clients here.
//! - [`metrics`] tells the figures of all processes.

mod access;
mod answer;
mod clients;
mod connection;
mod listing;
mod message;
mod metrics;
mod paging;
mod query;
mod readiness;
mod requests;
mod rooms;
mod route;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::sys::socket;
use crate::worker::clients::admission::Admitted;
use crate::worker::peers::Peers;

/// The description of the API.
const OPEN_API: &str = include_str!("openapi.json");
/// How long a connection may wait for its client before it gives its place to one that has none.
const REST: Duration = Duration::from_secs(1);

/// What a worker has for the API.
#[derive(Default)]
pub(in crate::worker) struct Api {
    /// Connections that are open here.
    open: Cell<usize>,
    /// Those of them that wait for their client.
    admitted: Admitted,
    /// Whether there are as many as may be, so that the next one waits in the listener.
    is_full: Cell<bool>,
    /// The metrics as they were written last, and of which writing of the summary they are.
    written: Mutex<Option<(u64, Bytes)>>,
}

impl Peers {
    /// Takes one connection of the API. What is left there is told again, to this worker or to
    /// another that is free.
    pub(in crate::worker) fn accept_api(self: &Rc<Self>, index: u32) {
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
            Err(_) => return,
        }
        if self.api.open.get() >= self.settings.config.api.connections_max {
            self.api.is_full.set(true);
            self.rest_api(true);
            self.make_room();
        }
    }

    /// A connection of the API has ended.
    fn api_left(&self) {
        self.api.open.set(self.api.open.get().saturating_sub(1));
        if self.api.is_full.replace(false) {
            self.rest_api(false);
        }
    }

    /// While no more connections are taken, whichever has waited longest for its client ends.
    fn make_room(self: &Rc<Self>) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                sleep(REST).await;
                if !worker.api.is_full.get() || worker.api.admitted.oldest_plain_yields().is_none()
                {
                    return;
                }
            }
        });
    }
}
