//! The addresses on whose requests processes ended lately. Pure.
//!
//! Such an address is served by one place alone, and nobody else by that place: what the address
//! does next costs nobody else a process. With one process there is nothing to keep apart.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;

use super::codec::Kind;
use super::pool::Pool;
use super::process_queue::Event;

/// How long an address is kept apart after a process ended on its request, in milliseconds.
const APART_MS: u64 = 10_000;
/// Marks that set an address apart.
const MARKS: u32 = 4;
/// A process that dies on a request is enough.
pub(super) const DIED: u32 = MARKS;
/// `exit` in a handler ends a process too, and some applications do it now and then.
pub(super) const EXITED: u32 = 1;
/// Addresses that are remembered; where there are more, the one that is to be forgotten next goes.
const ADDRESSES_MAX: usize = 1024;

/// Addresses with their marks.
#[derive(Debug, Default)]
pub struct Suspects {
    marks: HashMap<IpAddr, Marks>,
    /// How many of them have all marks.
    apart: usize,
}

#[derive(Debug, Default)]
struct Marks {
    count: u32,
    until_ms: u64,
}

impl Suspects {
    /// Whether an address is kept apart.
    fn has(&self, address: IpAddr) -> bool {
        self.marks.get(&address).is_some_and(|marks| marks.count >= MARKS)
    }

    /// Gives an address more marks. True where that sets it apart.
    fn mark(&mut self, address: IpAddr, count: u32, now_ms: u64) -> bool {
        if self.marks.len() >= ADDRESSES_MAX && !self.marks.contains_key(&address) {
            let next = self.marks.iter().min_by_key(|(_, marks)| marks.until_ms);
            if let Some((next, _)) = next.map(|(next, marks)| (*next, marks.until_ms)) {
                self.marks.remove(&next);
            }
        }
        let was = self.has(address);
        let marks = self.marks.entry(address).or_default();
        marks.count = marks.count.saturating_add(count);
        marks.until_ms = now_ms + APART_MS;
        self.count();
        !was && self.has(address)
    }

    /// Forgets whose time is over.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.marks.retain(|_, marks| marks.until_ms > now_ms);
        self.count();
    }

    fn count(&mut self) {
        self.apart = self.marks.values().filter(|marks| marks.count >= MARKS).count();
    }
}

impl Pool {
    /// The places that may serve an address, or a client whose address does not matter.
    pub(super) fn places_for(&self, address: Option<IpAddr>) -> Range<u16> {
        let last = self.event_places() - 1;
        if last == 0 || self.suspects.apart == 0 {
            return 0..last + 1;
        }
        match address.is_some_and(|address| self.suspects.has(address)) {
            true => last..last + 1,
            false => 0..last,
        }
    }

    /// A process ended on a request of an address: has requests that wait go where they may.
    pub(super) fn suspect(&mut self, address: IpAddr, marks: u32, now_ms: u64) {
        if !self.suspects.mark(address, marks, now_ms) {
            return;
        }
        tracing::warn!(
            %address, seconds = APART_MS / 1000,
            "application processes end on requests of this address: one place serves it alone"
        );
        let mut waiting = Vec::new();
        let places = usize::from(self.event_places());
        for queue in &mut self.queues[..places] {
            let is_request = |event: &Event| event.packet.kind == Kind::Request;
            let (requests, others): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut queue.waiting).into_iter().partition(is_request);
            queue.waiting = others;
            queue.recount();
            waiting.extend(requests);
        }
        // Ids grow with time.
        waiting.sort_by_key(|event| event.packet.id);
        for event in waiting {
            let place = self.choose(event.address);
            self.queues[usize::from(place)].push(event);
        }
    }
}
