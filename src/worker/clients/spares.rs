//! Empty outboxes with some memory, for connections that have none.

use super::outbox::Outbox;

/// The most that is kept.
const COUNT_MAX: usize = 1024;
/// The most memory that is kept.
const BYTES_MAX: usize = 512 * 1024;

/// The outboxes that nobody uses.
#[derive(Default)]
pub(in crate::worker) struct Spares {
    #[expect(clippy::vec_box, reason = "they come from connections and go back, boxed")]
    outboxes: Vec<Box<Outbox>>,
    bytes: usize,
}

impl Spares {
    /// The one that came last, which is in the processor's cache.
    #[inline]
    pub fn take(&mut self) -> Box<Outbox> {
        let Some(outbox) = self.outboxes.pop() else { return Box::default() };
        self.bytes -= outbox.spare_bytes();
        outbox
    }

    /// Keeps an empty one, if there is room.
    pub fn put(&mut self, outbox: Box<Outbox>) {
        let bytes = self.bytes + outbox.spare_bytes();
        if self.outboxes.len() < COUNT_MAX && bytes <= BYTES_MAX && outbox.is_empty() {
            self.bytes = bytes;
            self.outboxes.push(outbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut spares = Spares::default();
        for _ in 0..100 {
            let mut outbox = Box::<Outbox>::default();
            outbox.add_control(&[0; 16 * 1024]);
            outbox.took(16 * 1024);
            spares.put(outbox);
        }
        assert!(spares.bytes <= BYTES_MAX && spares.outboxes.len() > 20);
        while !spares.outboxes.is_empty() {
            spares.take();
        }
        assert_eq!(spares.bytes, 0);
    }
}
