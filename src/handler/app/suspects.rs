//! The addresses on whose requests processes ended lately. Pure.
//!
//! Such an address is served by one place alone, and nobody else by that place: what the address
//! does next costs nobody else a process. With one process there is nothing to keep apart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

/// How long an address is kept apart after a process ended on its request, in milliseconds.
pub const APART_MS: u64 = 10_000;
/// Marks that set an address apart.
const MARKS: u32 = 4;
/// A process that dies on a request is enough.
pub const DIED: u32 = MARKS;
/// `exit` in a handler ends a process too, and some applications do it now and then.
pub const EXITED: u32 = 1;
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
    /// The places, of so many, that may serve an address, or a client whose address does not
    /// matter.
    pub fn places_for(&self, address: Option<IpAddr>, places: u16) -> Range<u16> {
        let last = places - 1;
        if last == 0 || self.apart == 0 {
            return 0..places;
        }
        match address.is_some_and(|address| self.has(address)) {
            true => last..places,
            false => 0..last,
        }
    }

    /// Whether an address is kept apart.
    fn has(&self, address: IpAddr) -> bool {
        self.marks.get(&address).is_some_and(|marks| marks.count >= MARKS)
    }

    /// Gives an address more marks. True where that sets it apart.
    pub fn mark(&mut self, address: IpAddr, count: u32, now_ms: u64) -> bool {
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
    pub fn forget(&mut self, now_ms: u64) {
        self.marks.retain(|_, marks| marks.until_ms > now_ms);
        self.count();
    }

    fn count(&mut self) {
        self.apart = self.marks.values().filter(|marks| marks.count >= MARKS).count();
    }
}
