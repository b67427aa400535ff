//! Clients whose process is gone, and where they go. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::{Pin, Pool};
use crate::handler::app::codec::Kind;
use crate::handler::app::loss::Loss;
use crate::handler::app::process_queue::{Event, ProcessQueue};
use crate::handler::app::suspects::{APART_MS, Marked};

/// How long clients wait for a new process in the place of a dead one before they are moved to
/// another place, in milliseconds.
pub(super) const REPIN_AFTER_MS: u64 = 1000;

/// Which clients of a place move away from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Everybody,
    /// Those whose address the place may not serve.
    Barred,
}

impl Pool {
    /// Moves the clients of places that stay empty to others. Gives the places that took them.
    pub fn rehome(&mut self, now_ms: u64) -> Vec<u16> {
        let empty = |queue: &ProcessQueue| {
            queue.process.is_none()
                && (queue.pins > 0 || !queue.waiting.is_empty())
                && now_ms.saturating_sub(queue.vacant_since) >= REPIN_AFTER_MS
        };
        if self.of_events().iter().all(|queue| queue.process.is_none()) {
            return Vec::new();
        }
        let places: Vec<u16> = (0u16..)
            .zip(self.of_events())
            .filter(|(_, queue)| empty(queue))
            .map(|(p, _)| p)
            .collect();
        let mut touched = HashSet::new();
        for place in places {
            self.move_away(place, Who::Everybody, &mut touched);
        }
        touched.into_iter().collect()
    }

    /// A process ended on an event of an address.
    pub(super) fn suspect(&mut self, address: IpAddr, marks: u32) {
        match self.suspects.mark(address, marks, self.now_ms) {
            Marked::Apart => tracing::warn!(
                %address, seconds = APART_MS / 1000,
                "application processes end on events of this address: one place serves it alone"
            ),
            Marked::Alone => tracing::warn!(
                %address,
                "application processes end on events of this address, from which nearly all \
                 events come: if it is a proxy's, name it in trusted_proxies"
            ),
            Marked::Noted => {}
        }
    }

    /// A place has lost its process: who may not be there goes where he may.
    pub(super) fn sort_out(&mut self, place: u16) {
        if place < self.processes {
            self.move_away(place, Who::Barred, &mut HashSet::new());
        }
    }

    /// Has requests that wait go where they may now.
    pub(super) fn deal_requests_anew(&mut self) {
        let mut waiting = Vec::new();
        let places = usize::from(self.processes);
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

    pub(super) fn give_up_clients(&mut self, place: u16, loss: &mut Loss) {
        let of_place = self.pins.iter().filter(|(_, pin)| pin.place == place);
        loss.close = of_place.map(|(fd, _)| *fd).collect();
        loss.close.sort_unstable();
        let queue = &mut self.queues[usize::from(place)];
        let (kept, dropped): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut queue.waiting)
            .into_iter()
            .partition(|event| !matches!(event.packet.kind, Kind::Message));
        queue.waiting = kept;
        loss.again = loss.again.min(queue.waiting.len());
        loss.dropped.extend(dropped.into_iter().map(|event| event.packet));
        queue.recount();
    }

    fn move_away(&mut self, from: u16, who: Who, touched: &mut HashSet<u16>) {
        let mut moved: HashMap<u64, u16> = HashMap::new();
        let leaves = |pin: &Pin| {
            let stays = who == Who::Barred && self.places_for(pin.address).contains(&from);
            pin.place == from && !stays
        };
        let mut fds: Vec<u64> =
            self.pins.iter().filter(|(_, pin)| leaves(pin)).map(|(fd, _)| *fd).collect();
        if who == Who::Barred && fds.is_empty() {
            return;
        }
        fds.sort_unstable();
        let events = std::mem::take(&mut self.queues[usize::from(from)].waiting);
        self.queues[usize::from(from)].recount();
        let opening: HashSet<u64> = events
            .iter()
            .filter(|event| matches!(event.packet.kind, Kind::Open | Kind::Attach))
            .map(|event| event.packet.fd)
            .collect();
        for fd in fds {
            let Some(pin) = self.unpin(fd) else { continue };
            let to = self.choose_for_client(pin.address);
            moved.insert(fd, to);
            self.pin(fd, Pin { place: to, ..pin });
            if to != from && !opening.contains(&fd) {
                let packet = self.attach_packet(fd);
                self.queues[usize::from(to)].push(Event::new(packet));
            }
            touched.insert(to);
        }
        for event in events {
            // A client that is gone by now has its last events in one place all the same.
            let fallback = self.choose(event.address);
            let to = match (event.packet.kind, who) {
                (Kind::Request, Who::Everybody) => fallback,
                (Kind::Open | Kind::Message | Kind::Close | Kind::Attach, Who::Barred) => {
                    moved.get(&event.packet.fd).copied().unwrap_or(from)
                }
                (_, Who::Barred) => from,
                (_, Who::Everybody) => *moved.entry(event.packet.fd).or_insert(fallback),
            };
            touched.insert(to);
            self.queues[usize::from(to)].push(event);
        }
    }
}
