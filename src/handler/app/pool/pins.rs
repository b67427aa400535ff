//! The clients of a pool, and what is kept of them. Pure.

use super::{Pin, Pool};

impl Pool {
    /// Ties a client to a place. What is kept of one that comes from another worker had room there.
    pub fn pin(&mut self, fd: u64, pin: Pin) {
        self.queues[usize::from(pin.place)].pins += 1;
        self.kept_bytes += pin.kept.len();
        if let Some(old) = self.pins.insert(fd, pin) {
            self.unpinned(&old);
        }
    }

    /// What is kept of a client.
    pub fn pinned(&self, fd: u64) -> Option<&Pin> {
        self.pins.get(&fd)
    }

    /// Keeps bytes for a client's next process. False where all clients together have no room for
    /// more; then what was kept before stays.
    pub fn keep_bytes(&mut self, fd: u64, bytes: &[u8]) -> bool {
        let Some(pin) = self.pins.get_mut(&fd) else { return true };
        let all = self.kept_bytes - pin.kept.len() + bytes.len();
        if all > self.kept_bytes && all > self.kept_max {
            return false;
        }
        self.kept_bytes = all;
        pin.kept = bytes.into();
        true
    }

    /// Forgets a client; events of it that wait are still delivered.
    pub fn unpin(&mut self, fd: u64) -> Option<Pin> {
        let pin = self.pins.remove(&fd)?;
        self.unpinned(&pin);
        Some(pin)
    }

    fn unpinned(&mut self, pin: &Pin) {
        self.queues[usize::from(pin.place)].pins -= 1;
        self.kept_bytes -= pin.kept.len();
    }

    /// How many clients are pinned.
    pub fn clients(&self) -> usize {
        self.pins.len()
    }
}
