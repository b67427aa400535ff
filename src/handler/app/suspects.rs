//! The addresses on whose events processes ended lately. Pure.
//!
//! Such an address is served by one place alone, and nobody else by that place: what the address
//! does next costs nobody else a process. With one process there is nothing to keep apart.
//!
//! An address from which nearly everything comes is not set apart: such an address is a proxy
//! that nobody named, and all clients stand behind the proxy. "Nearly everything" is counted in
//! moments and not in requests, so that no flood makes the others few.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

/// How long an address is kept apart after a process ended on its event, in milliseconds.
pub const APART_MS: u64 = 10_000;
/// Marks that set an address apart.
const MARKS: u32 = 4;
/// A process that dies on an event is enough.
pub const DIED: u32 = MARKS;
/// `exit` in a handler ends a process too, and some applications do it now and then.
pub const EXITED: u32 = 1;
/// Addresses that are remembered; where there are more, the one that is to be forgotten next goes.
const ADDRESSES_MAX: usize = 1024;
/// A moment in milliseconds, and how many of them are remembered: ten seconds.
const MOMENT_MS: u64 = 250;
const MOMENTS: usize = 40;
/// Others must have come in one of so many moments in which the address came.
const OTHERS_SHARE: usize = 10;

/// What marks did to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// Nothing new.
    Noted,
    /// The address is kept apart from now on.
    Apart,
    /// The address would be, if there were others to protect.
    Alone,
}

/// Addresses with their marks.
#[derive(Debug, Default)]
pub struct Suspects {
    marks: HashMap<IpAddr, Marks>,
    /// How many of them are apart.
    apart: usize,
    moments: Moments,
}

#[derive(Debug, Default)]
struct Marks {
    count: u32,
    until_ms: u64,
    apart: bool,
}

/// Who came in one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    number: u64,
    /// Whoever came first.
    one: Option<IpAddr>,
    /// Whether another address came as well.
    others: bool,
}

/// The last moments.
#[derive(Debug)]
struct Moments([Moment; MOMENTS]);

impl Default for Moments {
    fn default() -> Moments {
        Moments([Moment::default(); MOMENTS])
    }
}

impl Moments {
    fn note(&mut self, address: IpAddr, now_ms: u64) {
        let number = now_ms / MOMENT_MS;
        let moment = &mut self.0[number as usize % MOMENTS];
        if moment.number != number || moment.one.is_none() {
            *moment = Moment { number, one: Some(address), others: false };
        } else if moment.one != Some(address) {
            moment.others = true;
        }
    }

    /// Whether others than that address come often enough to be protected from the address.
    fn has_others(&self, address: IpAddr, now_ms: u64) -> bool {
        let since = (now_ms / MOMENT_MS).saturating_sub(MOMENTS as u64 - 1);
        let lately = self.0.iter().filter(|it| it.number >= since && it.one.is_some());
        let (mut its, mut others) = (0, 0);
        for moment in lately {
            // Where several came, the address is taken to be one of them.
            its += usize::from(moment.one == Some(address) || moment.others);
            others += usize::from(moment.one != Some(address) || moment.others);
        }
        others > 0 && others * OTHERS_SHARE >= its
    }
}

impl Suspects {
    /// Somebody of that address sent an event.
    pub fn note(&mut self, address: IpAddr, now_ms: u64) {
        self.moments.note(address, now_ms);
    }

    /// Whether anybody is kept apart.
    pub fn is_anybody_apart(&self) -> bool {
        self.apart > 0
    }

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
        self.marks.get(&address).is_some_and(|marks| marks.apart)
    }

    /// Gives an address more marks.
    pub fn mark(&mut self, address: IpAddr, count: u32, now_ms: u64) -> Marked {
        if self.marks.len() >= ADDRESSES_MAX && !self.marks.contains_key(&address) {
            let next = self.marks.iter().min_by_key(|(_, marks)| marks.until_ms);
            if let Some((next, _)) = next.map(|(next, marks)| (*next, marks.until_ms)) {
                self.marks.remove(&next);
            }
        }
        let has_others = self.moments.has_others(address, now_ms);
        let marks = self.marks.entry(address).or_default();
        let was = (marks.apart, marks.count >= MARKS);
        marks.count = marks.count.saturating_add(count);
        marks.until_ms = now_ms + APART_MS;
        let is_enough = marks.count >= MARKS;
        marks.apart = is_enough && has_others;
        let marked = match was {
            (false, _) if marks.apart => Marked::Apart,
            (_, false) if is_enough => Marked::Alone,
            _ => Marked::Noted,
        };
        self.count();
        marked
    }

    /// Forgets whose time is over.
    pub fn forget(&mut self, now_ms: u64) {
        self.marks.retain(|_, marks| marks.until_ms > now_ms);
        self.count();
    }

    fn count(&mut self) {
        self.apart = self.marks.values().filter(|marks| marks.apart).count();
    }
}
