//! Who takes a place of the pool. Pure.

use std::collections::HashSet;

use bytes::BytesMut;

use super::Pool;
use crate::handler::app::codec::{Kind, Packet, wants};
use crate::handler::app::process_queue::{Event, Process};

impl Pool {
    /// Lets the next process take over when the present one has finished what it was sent.
    pub(super) fn swap_if_idle(&mut self, place: u16) {
        let queue = &mut self.queues[usize::from(place)];
        let idle = queue.process.as_ref().is_some_and(|process| process.sent.is_empty());
        if idle && queue.next.is_some() {
            queue.process = None;
            if let Some(next) = queue.next.take() {
                self.take_over(next);
            }
        }
    }

    /// Seats a process, with an ATTACH for every client whose OPEN it will not see.
    pub(super) fn take_over(&mut self, process: Process) {
        let place = process.id.place;
        if process.wants & wants::ATTACH != 0 {
            let queue = &self.queues[usize::from(place)];
            let opening: HashSet<u64> = queue
                .waiting
                .iter()
                .filter(|event| matches!(event.packet.kind, Kind::Open | Kind::Attach))
                .map(|event| event.packet.fd)
                .collect();
            let mut fds: Vec<u64> = self
                .pins
                .iter()
                .filter(|(fd, pin)| pin.place == place && !opening.contains(fd))
                .map(|(fd, _)| *fd)
                .collect();
            fds.sort_unstable();
            for fd in fds.into_iter().rev() {
                let packet = self.attach_packet(fd);
                self.queues[usize::from(place)].push_front(Event::new(packet));
            }
        }
        self.queues[usize::from(place)].process = Some(process);
    }

    /// The ATTACH of a client.
    pub fn attach_packet(&mut self, fd: u64) -> Packet {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let mut body = BytesMut::new();
        if let Some(pin) = self.pins.get(&fd) {
            body.extend_from_slice(&pin.request);
            body.extend_from_slice(&pin.kept);
        }
        Packet { id: self.last_id, fd, body: body.freeze(), ..Packet::new(Kind::Attach) }
    }
}
