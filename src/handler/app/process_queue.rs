//! One place of the pool: its queue, and the process that takes from it.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::BytesMut;

use super::codec::{ANSWER, Kind, Packet, TOGETHER, wants};
use super::packets::{WANTS_HAD, WANTS_PRESENCE, without_had};
use crate::api::{Opcode, ProcessId};

/// A request is sent while fewer events than this are under way: one that is handled, and one that
/// keeps the process busy until the worker has seen its DONE.
const REQUESTS_AHEAD: usize = 2;
/// As `REQUESTS_AHEAD`, of a process that is quick.
const REQUESTS_AHEAD_MOST: usize = 32;
/// So many requests a quick process may answer in one write. The death of the process costs them
/// all, since nobody knows which of them it has begun.
const TOGETHER_MOST: usize = 16;
/// A process is quick that finished so many requests and was slow with hardly any event: what ends
/// processes now and then is never among requests that are answered together.
const QUICK_REQUESTS: u32 = 5_000;
/// How long a quick event may take, in milliseconds.
const QUICK_MS: u64 = 1;
/// How many requests each further millisecond takes away. A process that shares its processor waits
/// for it some milliseconds now and then, and is quick all the same; one with slow pages is not.
const LATE_MS_COST: u64 = 5;

/// An event on its way.
#[derive(Debug)]
pub struct Event {
    /// The frame.
    pub packet: Packet,
    /// How often a process died that may have begun it.
    pub tries: u8,
    /// The network of whoever sent it.
    pub address: Option<IpAddr>,
}

impl Event {
    /// An event that no process has seen.
    pub fn new(packet: Packet) -> Event {
        Event { packet, tries: 0, address: None }
    }
}

/// A process that said READY.
#[derive(Debug)]
pub struct Process {
    /// Which one.
    pub id: ProcessId,
    /// The flags of READY.
    pub wants: u8,
    /// What else it asks for: the `fd` of READY.
    pub asked: u64,
    /// How many events it is sent ahead.
    pub window: usize,
    /// What it was sent and has not finished, oldest first.
    pub sent: VecDeque<Event>,
    /// Since when it finished nothing, in milliseconds; says something only while it has events.
    pub since: u64,
    /// Whether a command came since it last finished something: with events handled one after
    /// the other, that command belongs to the oldest of `sent`.
    pub reached: bool,
    /// Whether it said END: it has begun none of `sent`.
    pub ended: bool,
    /// Whether it said that it could not take the next of them in.
    pub untaken: bool,
    /// Who sent the event that it finished last.
    pub last: Option<IpAddr>,
    /// Of one that answers requests together where it may: how many requests it finished, at most
    /// twice `QUICK_REQUESTS`, without what slow events took away. Messages are not counted, since
    /// many quick ones say nothing about pages.
    pub quick: Option<u32>,
    /// How many requests that may be answered together were sent last.
    pub together: usize,
}

impl Process {
    fn is_quick(&self) -> bool {
        self.quick.is_some_and(|requests| requests >= QUICK_REQUESTS)
    }

    /// How many requests it is sent ahead.
    fn requests_ahead(&self) -> usize {
        match self.is_quick() {
            true => REQUESTS_AHEAD_MOST,
            false => REQUESTS_AHEAD,
        }
    }

    /// It finished so many events, some of them requests, in that time.
    fn finished(&mut self, events: usize, requests: u32, took_ms: u64) {
        let late_ms = took_ms.saturating_sub(QUICK_MS * events as u64);
        let cost = u32::try_from(late_ms.saturating_mul(LATE_MS_COST)).unwrap_or(u32::MAX);
        self.quick = self.quick.map(|before| {
            let count = before.saturating_add(requests).min(2 * QUICK_REQUESTS);
            count.saturating_sub(cost)
        });
    }

    /// Says of a request that leaves now whether the next one, which leaves with it, may be begun
    /// before DONE of this one comes.
    fn put_together(&mut self, event: &mut Event, next: Option<&Event>) {
        let is_request = |event: &Event| event.packet.kind == Kind::Request;
        let room = self.requests_ahead().min(self.window);
        let goes_on = is_request(event)
            && next.is_some_and(|next| is_request(next) && next.tries == 0)
            && self.is_quick()
            && self.together + 1 < TOGETHER_MOST
            && self.sent.len() + 1 < room;
        self.together = if goes_on { self.together + 1 } else { 0 };
        if is_request(event) {
            // The flag may be there from a process that died.
            event.packet.flags &= !TOGETHER;
            event.packet.flags |= if goes_on { TOGETHER } else { 0 };
        }
    }

    fn wants(&self, packet: &Packet) -> bool {
        let bit = match packet.kind {
            Kind::Open if packet.flags & ANSWER != 0 => wants::HANDSHAKE,
            Kind::Open => wants::OPEN,
            Kind::Message if packet.code > Opcode::Binary as u16 => wants::CONTROL,
            Kind::Message => wants::MESSAGE,
            Kind::Close => wants::CLOSE,
            Kind::Request => wants::REQUEST,
            Kind::Attach => wants::ATTACH,
            Kind::Presence => return self.asked & WANTS_PRESENCE != 0,
            _ => return true,
        };
        self.wants & bit != 0
    }
}

/// One place.
#[derive(Debug, Default)]
pub struct ProcessQueue {
    /// Not sent yet.
    pub waiting: VecDeque<Event>,
    /// Who takes from it.
    pub process: Option<Process>,
    /// Who will, when `process` has finished what it has.
    pub next: Option<Process>,
    /// Who stands by to take the place of a `process` that dies.
    pub spare: Option<Process>,
    /// Clients of this place.
    pub pins: usize,
    /// Bytes of all events, waiting or sent.
    pub bytes: usize,
    /// Since when there is no process, in milliseconds.
    pub vacant_since: u64,
}

impl ProcessQueue {
    /// Events that wait or are being handled.
    pub fn events(&self) -> usize {
        self.waiting.len() + self.process.as_ref().map_or(0, |process| process.sent.len())
    }

    /// Every event that waits or is being handled.
    pub fn all(&self) -> impl Iterator<Item = &Event> {
        let sent = self.process.iter().flat_map(|process| process.sent.iter());
        self.waiting.iter().chain(sent)
    }

    /// Queues an event.
    pub fn push(&mut self, event: Event) {
        self.bytes += event.packet.size();
        self.waiting.push_back(event);
    }

    /// Queues an event before all others.
    pub fn push_front(&mut self, event: Event) {
        self.bytes += event.packet.size();
        self.waiting.push_front(event);
    }

    /// The process of that id, if it is the one in charge.
    pub fn running(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| process.id == id)
    }

    /// See `Pool::take`.
    pub fn take(
        &mut self,
        id: ProcessId,
        now_ms: u64,
        out: &mut BytesMut,
        bytes_max: usize,
    ) -> Vec<u32> {
        let mut unwanted = Vec::new();
        // One that is to be relieved gets nothing more.
        if self.next.is_some() {
            return unwanted;
        }
        let Some(process) = self.process.as_mut().filter(|process| process.id == id) else {
            return unwanted;
        };
        while process.sent.len() < process.window && out.len() < bytes_max {
            // An event that a process may have died on goes alone, so that a second death tells
            // which event it was.
            let alone = |event: &Event| event.tries > 0;
            let suspect = process.sent.front().is_some_and(alone)
                || (!process.sent.is_empty() && self.waiting.front().is_some_and(alone));
            // A request behind another event may still be taken back, if its client leaves.
            let ahead = process.wants & wants::IN_ORDER != 0
                && process.sent.len() >= process.requests_ahead()
                && self.waiting.front().is_some_and(|event| event.packet.kind == Kind::Request);
            if suspect || ahead || process.ended {
                break;
            }
            let Some(mut event) = self.waiting.pop_front() else { break };
            if !process.wants(&event.packet) {
                self.bytes -= event.packet.size();
                unwanted.push(event.packet.id);
                continue;
            }
            if process.asked & WANTS_HAD == 0 {
                let before = event.packet.size();
                without_had(&mut event.packet);
                self.bytes -= before - event.packet.size();
            }
            if process.sent.is_empty() {
                process.since = now_ms;
            }
            process.put_together(&mut event, self.waiting.front());
            event.packet.encode(out);
            process.sent.push_back(event);
        }
        unwanted
    }

    /// See `Pool::done`.
    pub fn done(
        &mut self,
        id: ProcessId,
        event: u32,
        all: bool,
        now_ms: u64,
        mut each: impl FnMut(u32),
    ) -> bool {
        let Some(process) = self.process.as_mut().filter(|process| process.id == id) else {
            return true;
        };
        let Some(at) = process.sent.iter().position(|sent| sent.packet.id == event) else {
            return false;
        };
        let range = if all { 0..at + 1 } else { at..at + 1 };
        let (events, took_ms) = (range.len(), now_ms.saturating_sub(process.since));
        let mut requests = 0;
        process.since = now_ms;
        process.reached = false;
        for event in process.sent.drain(range) {
            requests += u32::from(event.packet.kind == Kind::Request);
            self.bytes -= event.packet.size();
            process.last = event.address;
            each(event.packet.id);
        }
        process.finished(events, requests, took_ms);
        true
    }

    /// Takes an event back that no process was sent. False where one was, or it is done.
    pub fn withdraw(&mut self, event: u32) -> bool {
        let Some(at) = self.waiting.iter().position(|waits| waits.packet.id == event) else {
            return false;
        };
        if let Some(event) = self.waiting.remove(at) {
            self.bytes -= event.packet.size();
        }
        true
    }

    /// Counts the bytes anew, after events were moved.
    pub fn recount(&mut self) {
        self.bytes = self.all().map(|event| event.packet.size()).sum();
    }
}
