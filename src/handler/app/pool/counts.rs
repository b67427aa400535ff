//! How much the places of a pool have to do. Pure.

use super::Pool;
use crate::api::ProcessId;
use crate::handler::app::process_queue::ProcessQueue;

impl Pool {
    /// Whether no event waits anywhere or is being handled.
    pub fn idle(&self) -> bool {
        self.served().iter().all(|queue| queue.events() == 0)
    }

    /// Whether an event of that client waits or is being handled.
    pub fn is_busy(&self, fd: u64) -> bool {
        let Some(pin) = self.pins.get(&fd) else { return false };
        self.queues[usize::from(pin.place)].all().any(|event| event.packet.client() == Some(fd))
    }

    /// Whether an event of that id waits or is being handled.
    pub fn has_event(&self, id: u32) -> bool {
        self.queues.iter().any(|queue| queue.all().any(|event| event.packet.id == id))
    }

    /// Events that wait or are being handled, of one place.
    pub fn events_of(&self, place: u16) -> usize {
        self.queues[usize::from(place)].events()
    }

    /// Events that wait or are being handled, of all places.
    pub fn events(&self) -> usize {
        self.queues.iter().map(ProcessQueue::events).sum()
    }

    /// Since when a process is at its event, in milliseconds; says something only while it has one.
    pub fn since(&mut self, id: ProcessId) -> Option<u64> {
        self.queues[usize::from(id.place)].running(id).map(|process| process.since)
    }

    /// How many processes have events that they have not finished.
    pub fn busy(&self) -> usize {
        let processes = self.queues.iter().filter_map(|queue| queue.process.as_ref());
        processes.filter(|process| !process.sent.is_empty()).count()
    }
}
