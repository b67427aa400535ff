//! The other processes, and what they and the handlers ask of clients wherever these are.
//!
//! - [`push`]: to a client here or elsewhere; [`direct`] and [`incoming`]: links to and from other
//!   workers.
//! - [`reading`]: packets of a link. [`routed`]: what others send to clients here.
//! - [`requests`]: answers that are waited for. [`rooms`]: publishes and questions to all members.
//! - [`own`]: connections that moved here go on. [`turn`]: the end of a pass of the loop.
//! - [`local_handle`]: what a handler may ask for; [`api`]: what an HTTP client may.

pub(super) mod api;
pub(super) mod direct;
pub(super) mod incoming;
pub(super) mod local_handle;
pub(super) mod own;
pub(super) mod push;
pub(super) mod reading;
pub(super) mod requests;
pub(super) mod rooms;
pub(super) mod routed;
pub(super) mod turn;

use std::ops::Deref;
use std::rc::Rc;

use self::api::Api;
use self::direct::Direct;
use self::requests::Requests;
use super::moving::Moving;

/// This worker among the others.
pub(super) struct Peers {
    pub moving: Rc<Moving>,
    pub requests: Requests,
    pub direct: Direct,
    pub api: Api,
}

impl Peers {
    /// Nobody is known yet but the manager.
    pub(super) fn new(moving: Rc<Moving>) -> Peers {
        Peers {
            moving,
            requests: Requests::default(),
            direct: Direct::default(),
            api: Api::default(),
        }
    }
}

impl Deref for Peers {
    type Target = Rc<Moving>;

    fn deref(&self) -> &Rc<Moving> {
        &self.moving
    }
}
