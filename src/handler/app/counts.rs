//! How much the places of a pool have to do. Pure.

use super::pool::Pool;
use super::process_queue::ProcessQueue;

impl Pool {
    /// Whether no event waits anywhere or is being handled.
    pub fn idle(&self) -> bool {
        self.served().iter().all(|queue| queue.events() == 0)
    }

    /// Whether an event of that client waits or is being handled.
    pub fn is_busy(&self, fd: u64) -> bool {
        let Some(pin) = self.pins.get(&fd) else { return false };
        self.queues[usize::from(pin.place)].all().any(|event| event.packet.fd == fd)
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
}
