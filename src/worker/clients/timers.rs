//! One coarse wheel for all timers of all connections.
//!
//! A connection is in the wheel for the earliest moment at which something may be due; what it
//! is, is looked up then. Setting a later moment costs nothing: the early look finds nothing due
//! and sets the next. So an idle connection costs eight bytes here and one look in its ping
//! interval.

use super::key::Key;
use crate::worker::base::ticks::Tick;

/// Slots of the wheel: 256 s. What is further away is looked at on the way.
const SLOTS: usize = 1024;

/// The wheel.
pub(in crate::worker) struct Wheel {
    slots: Vec<Vec<Key>>,
    /// Everything up to this tick was taken out.
    done: Tick,
}

impl Wheel {
    pub fn new(now: Tick) -> Wheel {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), done: now }
    }

    /// Has `key` come out at `at`, or on the way there. The answer is when.
    pub fn set(&mut self, key: Key, at: Tick) -> Tick {
        let at = at.clamp(self.done + 1, self.done + SLOTS as Tick);
        self.slots[at as usize % SLOTS].push(key);
        at
    }

    /// Takes out what comes up to `now`.
    pub fn advance(&mut self, now: Tick) -> Vec<Key> {
        let mut due = Vec::new();
        // After a long sleep of the machine every slot is due once.
        let from = self.done.max(now.saturating_sub(SLOTS as Tick));
        for at in from..now {
            let slot = &mut self.slots[(at + 1) as usize % SLOTS];
            if due.is_empty() {
                due = std::mem::take(slot);
            } else {
                due.append(slot);
            }
        }
        self.done = self.done.max(now);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(index: u32) -> Key {
        Key { index, version: 1 }
    }

    #[test]
    fn a_far_moment_is_looked_at_on_the_way() {
        let mut wheel = Wheel::new(100);
        let at = wheel.set(key(1), 100_000);
        assert_eq!(at, 100 + SLOTS as Tick);
        assert_eq!(wheel.advance(at - 1), []);
        assert_eq!(wheel.advance(at), [key(1)]);
    }

    #[test]
    fn a_moment_that_has_passed_comes_next() {
        let mut wheel = Wheel::new(100);
        assert_eq!(wheel.set(key(1), 5), 101);
        assert_eq!(wheel.advance(101), [key(1)]);
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_when_it_was_said(
            sets in prop::collection::vec((0..300u32, 0..3000u32), 0..100),
        ) {
            let mut wheel = Wheel::new(0);
            let (mut now, mut waiting) = (0, Vec::new());
            for (index, (step, ahead)) in sets.into_iter().enumerate() {
                let at = wheel.set(key(index as u32), now + ahead);
                waiting.push((at, key(index as u32)));
                now += step;
                let mut due = wheel.advance(now);
                let mut want: Vec<Key> =
                    waiting.extract_if(.., |(at, _)| *at <= now).map(|(_, key)| key).collect();
                due.sort_by_key(|key| key.index);
                want.sort_by_key(|key| key.index);
                prop_assert_eq!(due, want);
            }
        }
    }
}
