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
    pub unread: Rc<Unread>,
}

/// Bytes of a body that wait for its client, counted among those of all bodies as well.
#[derive(Default)]
pub struct Unread {
    own: Cell<usize>,
    all: Rc<Cell<usize>>,
}

impl Unread {
    pub fn get(&self) -> usize {
        self.own.get()
    }

    /// The process has sent more.
    pub fn add(&self, bytes: usize) {
        self.own.set(self.own.get() + bytes);
        self.all.set(self.all.get() + bytes);
    }

    /// The client took some.
    pub fn take(&self, bytes: usize) {
        let bytes = bytes.min(self.own.get());
        self.own.set(self.own.get() - bytes);
        self.all.set(self.all.get() - bytes);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.take(self.own.get());
    }
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

/// A body of which so few bytes wait does not fill the memory.
const FEW_BYTES: usize = 64 << 10;

/// The bodies that processes are sending, by the number of the REQUEST.
#[derive(Default)]
pub struct Outgoings {
    pub bodies: RefCell<HashMap<u32, Outgoing>>,
    unread: Rc<Cell<usize>>,
}

impl Outgoings {
    /// The count of a body that begins.
    pub fn unread(&self) -> Rc<Unread> {
        Rc::new(Unread { own: Cell::new(0), all: self.unread.clone() })
    }

    /// Whether so many bytes `more` of a body may wait, where `limit` bytes of all bodies may. One
    /// of which few wait goes on while others fill the memory.
    pub fn has_room(&self, unread: &Unread, more: usize, limit: usize) -> bool {
        unread.get() + more <= FEW_BYTES || self.unread.get() + more <= limit
    }

    /// Breaks off what a dead process was sending.
    pub fn lost(&self, owner: ProcessId) {
        self.bodies.borrow_mut().retain(|_, body| body.owner != owner);
    }

    /// Whether no process is sending a body.
    pub fn is_empty(&self) -> bool {
        self.bodies.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_of_all_bodies_is_bounded_and_a_body_of_few_bytes_goes_on() {
        let (outgoing, limit) = (Outgoings::default(), 4 * FEW_BYTES);
        let (much, few) = (outgoing.unread(), outgoing.unread());
        assert!(outgoing.has_room(&much, limit, limit));
        assert!(!outgoing.has_room(&much, limit + 1, limit));
        much.add(limit);
        assert!(!outgoing.has_room(&much, 1, limit));
        assert!(outgoing.has_room(&few, FEW_BYTES, limit));
        assert!(!outgoing.has_room(&few, FEW_BYTES + 1, limit));
        few.add(10);
        much.take(10);
        assert!(!outgoing.has_room(&much, 1, limit), "the other's count as well");
        drop(few);
        assert!(outgoing.has_room(&much, 10, limit) && !outgoing.has_room(&much, 11, limit));
    }

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
