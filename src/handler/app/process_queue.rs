//! One place of the pool: its queue, and the process that takes from it.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::BytesMut;

use super::codec::{ANSWER, Kind, Packet, wants};
use crate::api::{Opcode, ProcessId};

/// A request is sent while fewer events than this are under way: one that is handled, and one that
/// keeps the process busy until the worker has seen its DONE.
const REQUESTS_AHEAD: usize = 2;

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
}

impl Process {
    fn wants(&self, packet: &Packet) -> bool {
        let bit = match packet.kind {
            Kind::Open if packet.flags & ANSWER != 0 => wants::HANDSHAKE,
            Kind::Open => wants::OPEN,
            Kind::Message if packet.code > Opcode::Binary as u16 => wants::CONTROL,
            Kind::Message => wants::MESSAGE,
            Kind::Close => wants::CLOSE,
            Kind::Request => wants::REQUEST,
            Kind::Attach => wants::ATTACH,
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
                && process.sent.len() >= REQUESTS_AHEAD
                && self.waiting.front().is_some_and(|event| event.packet.kind == Kind::Request);
            if suspect || ahead || process.ended {
                break;
            }
            let Some(event) = self.waiting.pop_front() else { break };
            if !process.wants(&event.packet) {
                self.bytes -= event.packet.size();
                unwanted.push(event.packet.id);
                continue;
            }
            if process.sent.is_empty() {
                process.since = now_ms;
            }
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
        process.since = now_ms;
        process.reached = false;
        let range = if all { 0..at + 1 } else { at..at + 1 };
        for event in process.sent.drain(range) {
            self.bytes -= event.packet.size();
            process.last = event.address;
            each(event.packet.id);
        }
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
