//! Connections that move between workers.
//!
//! - [`handover`] gives them in passes, and [`take_back`] takes back whom the new worker has not.
//! - [`adopt`] takes them, and [`deferred`] keeps what is sent to them before they are ours.
//! - [`snapshot`] is a connection as bytes.
//! - [`route`] says where a client is, and [`owns`] tells the manager.

pub(super) mod adopt;
pub(super) mod deferred;
pub(super) mod handover;
pub(super) mod owns;
pub(super) mod route;
pub(super) mod snapshot;
pub(super) mod take_back;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;

use self::adopt::Arriving;
use self::deferred::DeferredSend;
use self::handover::Handover;
use super::door::Door;
use crate::ipc::messages::PassId;
use crate::ipc::transit::Transit;

/// What is on its way from here and to here.
pub(super) struct Moving {
    pub door: Rc<Door>,
    pub handover: RefCell<Handover>,
    pub transit: RefCell<Transit<DeferredSend>>,
    pub arriving: RefCell<HashMap<PassId, Vec<Arriving>>>,
}

impl Moving {
    /// Nothing is on its way.
    pub(super) fn new(door: Rc<Door>) -> Moving {
        Moving {
            door,
            handover: RefCell::default(),
            transit: RefCell::default(),
            arriving: RefCell::default(),
        }
    }
}

impl Deref for Moving {
    type Target = Rc<Door>;

    fn deref(&self) -> &Rc<Door> {
        &self.door
    }
}
