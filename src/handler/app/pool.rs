//! Which process has which client and which events. Pure: times come in, packets go out.
//!
//! A place of the pool has a queue of events and the process that takes them. A client
//! belongs to one queue from OPEN to CLOSE, so its events keep their order.

mod counts;
mod moves;
mod pins;
mod seats;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;

use bytes::BytesMut;

use super::codec::{ANSWER, ANY, Kind, Packet, TASK, USER};
pub use super::loss::Loss;
use super::loss::sort;
use super::packets::GATHERS;
use super::process_queue::{Event, Process, ProcessQueue};
use super::settings::{AppSettings, OnCrash};
use super::suspects::{DIED, EXITED, Suspects};
use crate::api::ProcessId;

/// Messages of other processes that may wait for one.
const PIPE_BYTES_MAX: usize = 32 << 20;

/// What is kept of a client.
#[derive(Debug, Default)]
pub struct Pin {
    /// Its place.
    pub place: u16,
    /// Its network.
    pub address: Option<IpAddr>,
    /// The payload of ATTACH without what was kept.
    pub request: Box<[u8]>,
    /// What KEEP gave.
    pub kept: Box<[u8]>,
    /// How many processes died on an event of this client.
    pub deaths: u8,
}

/// The state of all places of a worker.
#[derive(Debug)]
pub struct Pool {
    /// Those of events, those of tasks, then those with a function of their own.
    pub(super) queues: Vec<ProcessQueue>,
    /// How many of the queues are of events.
    pub(super) processes: u16,
    /// How many are of events or tasks.
    first_user: u16,
    pub(super) pins: HashMap<u64, Pin>,
    /// Bytes that are kept of all clients, and how many may be.
    kept_bytes: usize,
    kept_max: usize,
    pub(super) suspects: Suspects,
    /// The time when the pool was told of it last, in milliseconds.
    pub(super) now_ms: u64,
    last_id: u32,
    queue_events: usize,
    queue_bytes: usize,
    window: usize,
    on_crash: OnCrash,
    pub(super) event_timeout_ms: u64,
    /// How many times a process took or finished events.
    pub(super) progress: u64,
    /// Since when events wait and no process took one, with `progress` as it was then.
    pub(super) stalled: Option<(u64, u64)>,
}

impl Pool {
    /// A pool whose places are all still empty.
    pub fn new(settings: &AppSettings) -> Pool {
        Pool {
            queues: (0..settings.places()).map(|_| ProcessQueue::default()).collect(),
            processes: settings.processes.max(1),
            first_user: settings.first_user_place(),
            pins: HashMap::new(),
            kept_bytes: 0,
            kept_max: settings.client_memory,
            suspects: Suspects::default(),
            now_ms: 0,
            last_id: 0,
            queue_events: settings.queue_events,
            queue_bytes: settings.queue_bytes,
            window: settings.window,
            on_crash: settings.on_crash,
            event_timeout_ms: u64::try_from(settings.event_timeout.as_millis())
                .unwrap_or(u64::MAX),
            progress: 0,
            stalled: None,
        }
    }

    /// How many places there are.
    pub fn places(&self) -> u16 {
        self.queues.len() as u16
    }

    /// The places that may serve an address.
    pub(super) fn places_for(&self, address: Option<IpAddr>) -> Range<u16> {
        self.suspects.places_for(address, self.processes)
    }

    /// The place that a request of an address should go to: a ready one with the least to do.
    pub fn choose(&self, address: Option<IpAddr>) -> u16 {
        let load = |queue: &ProcessQueue| (queue.process.is_none(), queue.events(), queue.pins);
        let queue = |place: &u16| &self.queues[usize::from(*place)];
        let places = self.places_for(address);
        places.min_by_key(|place| load(queue(place))).unwrap_or_default()
    }

    /// All but those with a function of their own, which may leave what was sent to them for later.
    pub(super) fn served(&self) -> &[ProcessQueue] {
        &self.queues[..usize::from(self.first_user)]
    }

    pub(super) fn of_events(&self) -> &[ProcessQueue] {
        &self.queues[..usize::from(self.processes)]
    }

    /// The place for a message between applications, with the flags and the number of SEND.
    /// `started` are the places that this worker starts processes for; `None`: none of them is for
    /// this message.
    pub fn place_of_pipe(&self, to: u8, number: u64, started: &[u16]) -> Option<u16> {
        let of_kind = match to {
            to if to & USER != 0 => self.first_user..self.places(),
            to if to & TASK != 0 => self.processes..self.first_user,
            _ => 0..self.processes,
        };
        if to & ANY != 0 {
            let load = |place: &u16| {
                let queue = &self.queues[usize::from(*place)];
                (queue.events(), queue.process.is_none())
            };
            let places = started.iter().copied().filter(|place| of_kind.contains(place));
            return places.min_by_key(load);
        }
        let number = number.checked_rem(of_kind.len() as u64)?;
        let place = of_kind.start + number as u16;
        started.contains(&place).then_some(place)
    }

    /// The place for a new client of an address: a ready one with the fewest clients.
    pub fn choose_for_client(&self, address: Option<IpAddr>) -> u16 {
        let load = |queue: &ProcessQueue| (queue.process.is_none(), queue.pins, queue.events());
        let queue = |place: &u16| &self.queues[usize::from(*place)];
        let places = self.places_for(address);
        places.min_by_key(|place| load(queue(place))).unwrap_or_default()
    }

    /// Whether a place takes another event of a client.
    pub fn has_room(&self, place: u16) -> bool {
        let queue = &self.queues[usize::from(place)];
        queue.events() < self.queue_events && queue.bytes < self.queue_bytes
    }

    /// Whether a place takes another message of a process: a burst of tasks, and no flood.
    pub fn has_room_for_pipe(&self, place: u16) -> bool {
        let queue = &self.queues[usize::from(place)];
        queue.bytes + queue.events() * size_of::<Event>() < self.queue_bytes.max(PIPE_BYTES_MAX)
    }

    /// Queues an event and gives its id. Ask `has_room` first, except for what is never refused:
    /// CLOSE, ATTACH and TICK.
    pub fn queue(&mut self, place: u16, packet: Packet) -> u32 {
        let address = match packet.kind {
            Kind::Open | Kind::Message | Kind::Close | Kind::Attach => {
                self.pins.get(&packet.fd).and_then(|pin| pin.address)
            }
            _ => None,
        };
        self.queue_of(address, place, packet)
    }

    /// Queues an event of an address, as `queue` does.
    pub fn queue_of(&mut self, address: Option<IpAddr>, place: u16, mut packet: Packet) -> u32 {
        if let Some(address) = address {
            self.suspects.note(address, self.now_ms);
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        packet.id = self.last_id;
        self.queues[usize::from(place)].push(Event { address, ..Event::new(packet) });
        self.last_id
    }

    /// A process is loaded and takes events. Gives the one it takes over from, which must be
    /// told to shut down.
    pub fn ready(&mut self, id: ProcessId, wanted: u8, window: u32) -> Option<ProcessId> {
        let process = self.process_of(id, wanted, window);
        let queue = &mut self.queues[usize::from(id.place)];
        if let Some(current) = &queue.process {
            let old = current.id;
            queue.next = Some(process);
            self.swap_if_idle(id.place);
            return Some(old);
        }
        self.take_over(process);
        None
    }

    fn process_of(&self, id: ProcessId, wants: u8, window: u32) -> Process {
        let window = if window == 0 { self.window } else { window as usize };
        Process {
            id,
            wants,
            asked: 0,
            window,
            sent: VecDeque::new(),
            since: 0,
            reached: false,
            ended: false,
            untaken: false,
            last: None,
            quick: None,
            together: 0,
        }
    }

    /// A process is loaded and stands by.
    pub fn stands_by(&mut self, id: ProcessId, wanted: u8, window: u32) {
        let process = self.process_of(id, wanted, window);
        self.queues[usize::from(id.place)].spare = Some(process);
    }

    /// What a process that has just said READY asks for besides, as READY's `fd` has it.
    pub fn asks(&mut self, id: ProcessId, asked: u64) {
        let queue = &mut self.queues[usize::from(id.place)];
        let seats = [&mut queue.process, &mut queue.next, &mut queue.spare];
        if let Some(process) = seats.into_iter().flatten().find(|process| process.id == id) {
            (process.asked, process.quick) = (asked, (asked & GATHERS != 0).then_some(0));
        }
    }

    /// Appends to `out` what may be sent to that process now, up to about `bytes_max`. Gives the
    /// ids of events that it does not want and that are done therefore.
    pub fn take(
        &mut self,
        id: ProcessId,
        now_ms: u64,
        out: &mut BytesMut,
        bytes_max: usize,
    ) -> Vec<u32> {
        self.now_ms = now_ms;
        let before = out.len();
        let unwanted = self.queues[usize::from(id.place)].take(id, now_ms, out, bytes_max);
        self.progress += u64::from(out.len() > before);
        unwanted
    }

    /// A process finished an event, and with `all` every one sent before. Calls `each` with the
    /// ids. False where no such event was sent.
    pub fn done(
        &mut self,
        id: ProcessId,
        event: u32,
        all: bool,
        now_ms: u64,
        each: impl FnMut(u32),
    ) -> bool {
        self.now_ms = now_ms;
        let queue = &mut self.queues[usize::from(id.place)];
        let known = queue.done(id, event, all, now_ms, each);
        self.progress += u64::from(known);
        self.swap_if_idle(id.place);
        known
    }

    /// The client of a waiting handshake is in: OPEN, if it has to be sent again, asks no more.
    pub fn answered(&mut self, id: ProcessId, event: u32) {
        if let Some(process) = self.queues[usize::from(id.place)].running(id) {
            for sent in process.sent.iter_mut().filter(|sent| sent.packet.id == event) {
                sent.packet.flags &= !ANSWER;
            }
        }
    }

    /// A command came from that process. It is known then what it died on, if it dies.
    pub fn reached(&mut self, id: ProcessId) {
        if let Some(process) = self.queues[usize::from(id.place)].running(id) {
            process.reached = !process.sent.is_empty();
        }
    }

    /// A process ends, by itself or as it was told, and has begun none of the events it has.
    /// `untaken` says that it could not take the next of them in.
    pub fn ended(&mut self, id: ProcessId, by_itself: bool, untaken: bool) {
        if let Some(process) = self.queues[usize::from(id.place)].running(id) {
            process.ended = true;
            process.untaken = untaken;
            process.last.take_if(|_| !by_itself);
        }
    }

    /// Takes back an event that no process was sent. False where one was, or it is done.
    pub fn withdraw(&mut self, event: u32) -> bool {
        self.queues.iter_mut().any(|queue| queue.withdraw(event))
    }

    /// A process is gone. `hung` says that it was ended for not finishing its oldest event.
    pub fn lost(&mut self, id: ProcessId, hung: bool, now_ms: u64) -> Loss {
        self.now_ms = now_ms;
        let mut loss = Loss::default();
        let queue = &mut self.queues[usize::from(id.place)];
        if queue.next.as_ref().is_some_and(|next| next.id == id) {
            queue.next = None;
            return loss;
        }
        queue.spare.take_if(|spare| spare.id == id);
        let Some(process) = queue.process.take_if(|process| process.id == id) else { return loss };
        queue.vacant_since = now_ms;
        let ended = process.ended;
        let last = process.last;
        let sorted = sort(process, hung);
        loss.again = sorted.again.len();
        sorted.again.into_iter().rev().for_each(|event| queue.waiting.push_front(event));
        queue.recount();
        let mut blamed = None;
        if let Some(pin) = sorted.blamed.and_then(|fd| self.pins.get_mut(&fd)) {
            blamed = pin.address;
            pin.deaths += 1;
            if pin.deaths > 1 {
                loss.deadly.extend(sorted.blamed);
            }
        }
        let twice = sorted.dropped.iter().filter(|event| event.tries > 1);
        loss.deadly.extend(twice.filter_map(|event| event.packet.client()));
        loss.deadly.dedup();
        // Where several addresses may have been the one, none of them is suspected.
        let mut addresses = sorted.dropped.iter().filter_map(|event| event.address);
        let first = addresses.next().filter(|first| addresses.all(|other| other == *first));
        let died_on = first.or(blamed);
        loss.dropped.extend(sorted.dropped.into_iter().map(|event| event.packet));
        if self.on_crash == OnCrash::Close && !ended {
            self.give_up_clients(id.place, &mut loss);
        }
        match (died_on, last.filter(|_| ended)) {
            (Some(address), _) => self.suspect(address, DIED),
            (None, Some(address)) => self.suspect(address, EXITED),
            (None, None) => {}
        }
        if self.suspects.is_anybody_apart() {
            self.sort_out(id.place);
        }
        let queue = &mut self.queues[usize::from(id.place)];
        if let Some(next) = queue.next.take() {
            self.take_over(next);
        } else if let Some(spare) = queue.spare.take() {
            loss.placed = Some(spare.id);
            self.take_over(spare);
        }
        // Also what this process had not begun of an address that was apart before.
        if self.suspects.is_anybody_apart() {
            self.deal_requests_anew();
        }
        loss
    }

    /// Whether a ready process has that place.
    pub fn is_ready(&self, place: u16) -> bool {
        self.queues[usize::from(place)].process.is_some()
    }

    /// The process at a place that is ready and serves it.
    pub fn process(&self, place: u16) -> Option<ProcessId> {
        self.queues.get(usize::from(place))?.process.as_ref().map(|process| process.id)
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
