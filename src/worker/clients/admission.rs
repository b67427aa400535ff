//! Who has a place here: how many connections there are of each kind and of each address, and
//! who gives way when there is no room. Counts only; [`accept`](crate::worker::door::accept) acts.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::key::Key;
use crate::config::{Config, batch_max, lingering_max};

/// A body of which nothing came for so long gives way where there is no room.
const SILENCE: Duration = Duration::from_secs(1);

/// Who is on the way in.
pub(in crate::worker) struct Gatekeeper {
    pub admitted: Admitted,
    pub rates: Rates,
    /// How many connections this worker has descriptors for.
    pub clients_max: u64,
    /// How many refused clients may take their time to read the answer.
    pub lingering_max: u64,
    /// How many connections move in one batch of a handover.
    pub batch_max: usize,
    /// Accepts until the connections of all workers are counted again.
    pub credit: Cell<u64>,
    /// A descriptor to give up when there are no others, so that a client can be told.
    pub reserve: RefCell<Option<OwnedFd>>,
    /// When the log last told that there were none, in milliseconds of the monotonic clock.
    pub warned_at: Cell<u64>,
}

impl Gatekeeper {
    /// A gate of a process that may have `limit` descriptors.
    pub fn new(config: &Config, limit: u64) -> Gatekeeper {
        Gatekeeper {
            admitted: Admitted::default(),
            rates: Rates::default(),
            clients_max: config.clients_of_worker(limit),
            lingering_max: lingering_max(limit),
            batch_max: batch_max(limit) as usize,
            credit: Cell::new(0),
            reserve: RefCell::new(open_reserve()),
            warned_at: Cell::new(0),
        }
    }
}

/// A descriptor to give up.
pub(in crate::worker) fn open_reserve() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

/// The connections of one worker, counted.
#[derive(Default)]
pub(in crate::worker) struct Admitted {
    /// Pending handshakes.
    pending: Cell<usize>,
    /// Pending handshakes, the oldest first, among others that are none any more.
    queue: RefCell<VecDeque<Key>>,
    /// Refused clients that read their answer.
    lingering: Cell<usize>,
    by_address: RefCell<HashMap<IpAddr, OfAddress>>,
    /// Plain connections that wait for their client, and since when.
    waiting: RefCell<BTreeMap<u64, (Rc<Yielding>, Instant)>>,
    waits: Cell<u64>,
    /// How many of those that wait are between two requests.
    resting: Cell<usize>,
}

/// What one address has here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct OfAddress {
    /// Connections of any kind.
    pub all: u32,
    /// How many of these are pending handshakes.
    pub pending: u32,
}

/// Whom a connection counts for, if anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum CountsAs {
    /// Nobody: it is a trusted proxy's, or it has given its place back.
    None,
    /// The address at the other end.
    Peer,
    /// The address that a trusted proxy has named.
    Client,
    /// It was refused and reads its answer.
    Lingering,
}

/// What a plain connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Wait {
    /// The next request.
    Request,
    /// The rest of a body.
    Body,
}

/// How a plain connection is told to give its place to another.
#[derive(Default)]
pub(in crate::worker) struct Yielding {
    /// Its place counts no more.
    gone: Cell<bool>,
    /// It waits for a request: it ends without a word.
    ends: Notify,
    /// It waits for a body: the request is answered first.
    answers: Notify,
    /// Whether something has come for it, perhaps its request, that the worker has had no time for:
    /// then it waits for the worker, and not for its client.
    pub queues: Cell<bool>,
}

impl Yielding {
    /// Its place counts no more; false if it did not before.
    pub fn go(&self) -> bool {
        !self.gone.replace(true)
    }

    /// Whether its place counts no more.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// When it is to end without a word.
    pub async fn ends(&self) {
        self.ends.notified().await;
    }

    /// When it is to answer the request at once.
    pub async fn answers(&self) {
        self.answers.notified().await;
    }
}

/// One worker's part of what an address may have in all of them. No worker believes another's
/// count, and the kernel deals an address's connections out by chance: an even part would refuse
/// some of an address that has fewer than it may. Of `even` connections a worker gets on average,
/// it gets more than `even` and four standard deviations once in some 30,000 times, and a part of
/// few has 4 more.
pub(in crate::worker) fn part(limit: usize, workers: u16) -> usize {
    let even = limit as f64 / f64::from(workers.max(1));
    limit.min((even + 4.0 * even.sqrt() + 4.0).ceil() as usize)
}

impl Admitted {
    pub fn pending(&self) -> usize {
        self.pending.get()
    }

    pub fn lingering(&self) -> usize {
        self.lingering.get()
    }

    pub fn resting(&self) -> usize {
        self.resting.get()
    }

    /// What a network has here.
    pub fn of(&self, network: IpAddr) -> OfAddress {
        self.by_address.borrow().get(&network).copied().unwrap_or_default()
    }

    /// Whether a network has so many pending handshakes. It is not looked for where all together
    /// have fewer.
    pub fn has_pending(&self, network: IpAddr, limit: usize) -> bool {
        self.pending() >= limit && self.of(network).pending as usize >= limit
    }

    pub fn add(&self, network: IpAddr) {
        self.by_address.borrow_mut().entry(network).or_default().all += 1;
    }

    pub fn remove(&self, network: IpAddr) {
        self.change(network, |of| of.all = of.all.saturating_sub(1));
    }

    pub fn begin_handshake(&self, key: Key, network: Option<IpAddr>) {
        self.pending.set(self.pending.get() + 1);
        self.queue.borrow_mut().push_back(key);
        if let Some(network) = network {
            self.by_address.borrow_mut().entry(network).or_default().pending += 1;
        }
    }

    pub fn end_handshake(&self, network: Option<IpAddr>) {
        self.pending.set(self.pending.get().saturating_sub(1));
        if let Some(network) = network {
            self.change(network, |of| of.pending = of.pending.saturating_sub(1));
        }
    }

    /// The handshakes that have begun last, at most so many, among others that are none any more.
    pub fn newest(&self, most: usize) -> Vec<Key> {
        self.queue.borrow().iter().rev().take(most).copied().collect()
    }

    /// Takes the oldest handshake of which `unfinished` holds off the queue.
    pub fn oldest_handshake(&self, unfinished: impl Fn(Key) -> bool) -> Option<Key> {
        let mut queue = self.queue.borrow_mut();
        while let Some(key) = queue.pop_front() {
            if unfinished(key) {
                return Some(key);
            }
        }
        None
    }

    /// Drops from the queue who is no pending handshake any more, once these are many.
    pub fn tidy(&self, unfinished: impl Fn(Key) -> bool) {
        const SPARE: usize = 64;
        let mut queue = self.queue.borrow_mut();
        if queue.len() > 2 * self.pending.get() + SPARE {
            queue.retain(|&key| unfinished(key));
            queue.shrink_to(2 * self.pending.get() + SPARE);
        }
    }

    pub fn linger(&self) {
        self.lingering.set(self.lingering.get() + 1);
    }

    pub fn linger_no_more(&self) {
        self.lingering.set(self.lingering.get().saturating_sub(1));
    }

    /// A plain connection waits for its client from now on; the answer names the wait.
    pub fn wait(&self, yielding: &Rc<Yielding>, wait: Wait) -> u64 {
        let number = self.waits.get() << 1 | u64::from(wait == Wait::Body);
        self.waits.set(self.waits.get() + 1);
        self.waiting.borrow_mut().insert(number, (yielding.clone(), Instant::now()));
        self.resting.set(self.resting.get() + usize::from(wait == Wait::Request));
        number
    }

    /// That wait is over.
    pub fn wait_no_more(&self, number: u64) {
        if self.waiting.borrow_mut().remove(&number).is_some() {
            self.resting.set(self.resting.get() - usize::from(number & 1 == 0));
        }
    }

    /// For how long the plain connection has waited that has waited longest.
    pub fn oldest_plain_waits(&self) -> Option<Duration> {
        self.oldest_plain().map(|(_, since)| since.elapsed())
    }

    /// Has the plain connection that has waited longest give its place up; `None` if none waits.
    pub fn oldest_plain_yields(&self) -> Option<Rc<Yielding>> {
        let (number, _) = self.oldest_plain()?;
        self.yields(number)
    }

    /// The longest wait for a client, and since when.
    fn oldest_plain(&self) -> Option<(u64, Instant)> {
        let waiting = self.waiting.borrow();
        let mut waits = waiting.iter().filter(|(_, (yielding, _))| !yielding.queues.get());
        waits.next().map(|(number, (_, since))| (*number, *since))
    }

    /// Has the body of which nothing came for longest be waited for no more, if that is a while.
    pub fn silent_body_yields(&self) -> Option<Rc<Yielding>> {
        let (number, since) = {
            let waiting = self.waiting.borrow();
            let mut bodies = waiting.iter().filter(|(number, _)| *number & 1 == 1);
            bodies.next().map(|(number, (_, since))| (*number, *since))?
        };
        if since.elapsed() < SILENCE { None } else { self.yields(number) }
    }

    fn yields(&self, number: u64) -> Option<Rc<Yielding>> {
        let (yielding, _) = self.waiting.borrow().get(&number).cloned()?;
        self.wait_no_more(number);
        let notify = if number & 1 == 0 { &yielding.ends } else { &yielding.answers };
        notify.notify_one();
        Some(yielding)
    }

    fn change(&self, network: IpAddr, change: impl FnOnce(&mut OfAddress)) {
        if let Entry::Occupied(mut of) = self.by_address.borrow_mut().entry(network) {
            change(of.get_mut());
            if *of.get() == OfAddress::default() {
                of.remove();
            }
        }
    }
}

/// How often each network may come: the generic cell rate algorithm of ATM and redis-cell, which
/// keeps one moment for each.
#[derive(Default)]
pub(in crate::worker) struct Rates {
    /// When a network would have come last if it came evenly, in microseconds.
    moments: RefCell<HashMap<IpAddr, u64>>,
    /// When the past was forgotten last, in milliseconds.
    tidied_at: Cell<u64>,
}

/// Networks that are remembered; beyond these a new one is let in and not remembered.
const NETWORKS_MAX: usize = 1 << 16;

impl Rates {
    /// Whether one of a network may come now: `rate` a second, and `burst` at once.
    pub fn take(&self, network: IpAddr, rate: u64, burst: u64, now_ms: u64) -> bool {
        let (now, each) = (now_ms * 1000, (1_000_000 / rate).max(1));
        let mut moments = self.moments.borrow_mut();
        if moments.len() >= NETWORKS_MAX && !moments.contains_key(&network) {
            if now_ms >= self.tidied_at.get() + 1000 {
                self.tidied_at.set(now_ms);
                moments.retain(|_, moment| *moment > now);
            }
            if moments.len() >= NETWORKS_MAX {
                return true;
            }
        }
        let moment = moments.entry(network).or_insert(now);
        let ahead = (*moment).saturating_sub(now);
        if ahead > each * (burst - 1) {
            return false;
        }
        *moment = (*moment).max(now) + each;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::address::network;

    #[test]
    fn an_ipv6_client_is_its_64_and_an_ipv4_one_its_address() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(of("10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn a_workers_part_of_a_limit_is_more_than_chance_gives_it_and_never_more_than_the_limit() {
        assert_eq!([part(64, 1), part(64, 2), part(64, 8), part(64, 64)], [64, 59, 24, 9]);
        assert_eq!([part(0, 8), part(1, 8), part(3, 2)], [0, 1, 3]);
        // An address that has as many as it may, on workers that chance chooses.
        for workers in [2_u16, 4, 8, 64] {
            let (mut dice, mut refused) = (0x9e37_79b9_7f4a_7c15_u64, 0);
            for _ in 0..1000 {
                let mut counts = vec![0; usize::from(workers)];
                for _ in 0..64 {
                    dice ^= dice << 13;
                    dice ^= dice >> 7;
                    dice ^= dice << 17;
                    let count = &mut counts[(dice >> 32) as usize % usize::from(workers)];
                    *count += 1;
                    refused += usize::from(*count > part(64, workers));
                }
            }
            assert!(refused <= 6, "{refused} of 64,000 on {workers} workers");
        }
    }

    #[test]
    fn a_network_may_come_at_once_as_often_as_its_burst_and_then_at_its_rate() {
        let (rates, one) = (Rates::default(), "10.0.0.1".parse().unwrap());
        let come = |now_ms| rates.take(one, 10, 3, now_ms);
        assert_eq!([come(0), come(0), come(0), come(0)], [true, true, true, false]);
        assert_eq!([come(99), come(100), come(100)], [false, true, false]);
        assert!(rates.take("10.0.0.2".parse().unwrap(), 10, 3, 100));
        assert_eq!([come(1000), come(1000), come(1000), come(1000)], [true, true, true, false]);
    }

    #[test]
    fn networks_beyond_the_table_are_let_in_and_those_of_the_past_forgotten() {
        let rates = Rates::default();
        let network = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(number));
        for number in 0..NETWORKS_MAX as u32 {
            assert!(rates.take(network(number), 1, 1, 5000));
        }
        assert!(rates.take(network(1 << 20), 1, 1, 5000));
        assert!(rates.take(network(1 << 20), 1, 1, 5000), "it is not remembered");
        assert!(rates.take(network(1 << 20), 1, 1, 7000));
        assert!(!rates.take(network(1 << 20), 1, 1, 7000));
    }

    #[test]
    fn a_body_of_which_something_comes_does_not_give_way_to_other_bodies() {
        let admitted = Admitted::default();
        let waiting: Vec<Rc<Yielding>> = (0..3).map(|_| Rc::default()).collect();
        for (yielding, wait) in waiting.iter().zip([Wait::Request, Wait::Body, Wait::Body]) {
            admitted.wait(yielding, wait);
        }
        assert!(admitted.silent_body_yields().is_none());
        let then = Instant::now().checked_sub(SILENCE).unwrap();
        admitted.waiting.borrow_mut().values_mut().for_each(|it| it.1 = then);
        assert!(Rc::ptr_eq(&admitted.silent_body_yields().unwrap(), &waiting[1]));
        assert!(Rc::ptr_eq(&admitted.silent_body_yields().unwrap(), &waiting[2]));
        assert!(admitted.silent_body_yields().is_none(), "the other waits for a request");
    }

    #[test]
    fn the_plain_connection_that_waits_longest_yields_first() {
        let admitted = Admitted::default();
        let waiting: Vec<Rc<Yielding>> = (0..3).map(|_| Rc::default()).collect();
        let numbers: Vec<u64> =
            waiting.iter().map(|yielding| admitted.wait(yielding, Wait::Request)).collect();
        admitted.wait_no_more(numbers[0]);
        assert!(Rc::ptr_eq(&admitted.oldest_plain_yields().unwrap(), &waiting[1]));
        assert_eq!(admitted.resting(), 1);
        admitted.wait(&waiting[0], Wait::Body);
        assert!(Rc::ptr_eq(&admitted.oldest_plain_yields().unwrap(), &waiting[2]));
        assert!(Rc::ptr_eq(&admitted.oldest_plain_yields().unwrap(), &waiting[0]));
        assert!(admitted.oldest_plain_yields().is_none());
    }

    #[test]
    fn a_plain_connection_that_waits_for_its_worker_does_not_yield() {
        let admitted = Admitted::default();
        let waiting: Vec<Rc<Yielding>> = (0..2).map(|_| Rc::default()).collect();
        for yielding in &waiting {
            admitted.wait(yielding, Wait::Request);
        }
        waiting[0].queues.set(true);
        assert!(Rc::ptr_eq(&admitted.oldest_plain_yields().unwrap(), &waiting[1]));
        assert!(admitted.oldest_plain_waits().is_none(), "the other waits for the worker");
        assert!(admitted.oldest_plain_yields().is_none());
        waiting[0].queues.set(false);
        assert!(Rc::ptr_eq(&admitted.oldest_plain_yields().unwrap(), &waiting[0]));
    }
}
