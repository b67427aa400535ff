//! Bodies that are held while a request is under way: those that processes read in parts, and those
//! that processes send in parts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::{HeldBody, ProcessId};

/// The bodies of a worker's requests, by the number of the REQUEST.
#[derive(Default)]
pub struct Bodies(pub RefCell<HashMap<u32, HeldBody>>);

impl Bodies {
    pub fn insert(&self, id: u32, body: HeldBody) {
        self.0.borrow_mut().insert(id, body);
    }

    pub fn get(&self, id: u32) -> Option<HeldBody> {
        self.0.borrow().get(&id).cloned()
    }
}

/// What a process sends of a body.
pub enum Part {
    Bytes(Bytes),
    End,
}

/// A body that a process sends in parts.
pub struct Outgoing {
    pub owner: ProcessId,
    pub parts: mpsc::UnboundedSender<Part>,
    /// Bytes that the process sent and the client has not taken.
    pub unread: Rc<Cell<usize>>,
}

/// The bodies that processes are sending.
#[derive(Default)]
pub struct Outgoings(pub RefCell<HashMap<u32, Outgoing>>);

impl Outgoings {
    /// Breaks off what a dead process was sending.
    pub fn lost(&self, owner: ProcessId) {
        self.0.borrow_mut().retain(|_, body| body.owner != owner);
    }

    /// Whether no process is sending a body.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}
