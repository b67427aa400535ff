//! Bodies that are held while a request is under way: those that processes read in parts, and those
//! that processes send in parts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
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

/// A shorter part of a body is joined with others that wait: each of them alone would take many
/// times its own memory.
const SHORT_BYTES: usize = 4096;

/// What a process sends of a body.
pub enum Part {
    Bytes(Bytes),
    /// All parts that are joined by then.
    Joined,
    End,
}

/// A body that a process sends in parts.
pub struct Outgoing {
    pub owner: ProcessId,
    pub parts: mpsc::UnboundedSender<Part>,
    /// Where it is not empty, a [`Part::Joined`] waits, and whatever comes is added here.
    pub joined: Rc<RefCell<BytesMut>>,
    /// Bytes that the process sent and the client has not taken.
    pub unread: Rc<Cell<usize>>,
}

impl Outgoing {
    /// The process has sent more. Where the other end is gone, that is lost.
    pub fn add(&self, bytes: Bytes) {
        let mut joined = self.joined.borrow_mut();
        if joined.is_empty() {
            if bytes.len() >= SHORT_BYTES {
                let _ = self.parts.send(Part::Bytes(bytes));
                return;
            }
            let _ = self.parts.send(Part::Joined);
        }
        joined.extend_from_slice(&bytes);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_parts_of_a_body_wait_as_one_and_all_parts_in_their_order() {
        let (parts, mut waiting) = mpsc::unbounded_channel();
        let (joined, unread) = (Rc::default(), Rc::default());
        let body = Outgoing { owner: ProcessId { place: 0, epoch: 1 }, parts, joined, unread };
        let mut taken = |body: &Outgoing| match waiting.try_recv() {
            Ok(Part::Bytes(bytes)) => Some(bytes),
            Ok(Part::Joined) => Some(body.joined.take().freeze()),
            _ => None,
        };
        let long = Bytes::from(vec![b'l'; SHORT_BYTES]);
        body.add(long.clone());
        for _ in 0..100_000 {
            body.add(Bytes::from_static(b"s"));
        }
        body.add(long.clone());
        assert_eq!(taken(&body), Some(long.clone()));
        let rest = [vec![b's'; 100_000], long.to_vec()].concat();
        assert_eq!(taken(&body), Some(Bytes::from(rest)));
        assert_eq!(taken(&body), None);
        body.add(long.clone());
        body.add(Bytes::from_static(b"s"));
        assert_eq!(taken(&body), Some(long));
        assert_eq!(taken(&body), Some(Bytes::from_static(b"s")));
        assert_eq!(taken(&body), None);
    }
}
