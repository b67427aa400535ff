//! The slots of workers: what is kept for each while its processes come and go. Pure.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::throttle::Throttle;
use crate::config::Config;
use crate::fd::{Slot, WorkerId};

/// Registries of killed workers that a slot keeps: one that dies over and over before it has told
/// of their clients would use up the master's descriptors.
const OWED_MAX: usize = 16;

/// One slot.
#[derive(Default)]
pub struct SlotState {
    /// How many processes were started here.
    pub epoch: u32,
    /// Delays after early deaths.
    pub throttle: Throttle,
    /// When the next process is to be started; `None` while one lives.
    pub start_at_ms: Option<u64>,
    /// Since when no worker here was ready.
    pub idle_since_ms: Option<u64>,
    /// Who accepts on this slot's listeners for it.
    pub lent_to: Option<WorkerId>,
    /// The registries of killed workers whose clients have not had their `on_close`, the oldest
    /// first.
    pub owed: Vec<OwnedFd>,
}

impl SlotState {
    /// Keeps the registry of a killed worker; false where there are too many.
    #[must_use]
    pub fn owe(&mut self, registry: OwnedFd) -> bool {
        let has_room = self.owed.len() < OWED_MAX;
        if has_room {
            self.owed.push(registry);
        }
        has_room
    }
}

/// Every slot that ever was, by number. Those beyond `worker_num` were removed by a reload: they
/// start no process, but their listeners and the numbers of their clients live on.
pub struct Slots {
    slots: BTreeMap<u8, SlotState>,
    serving: u16,
}

impl Slots {
    /// Empty slots, each to be filled at once.
    pub fn new(config: &Config) -> Slots {
        let mut slots = Slots { slots: BTreeMap::new(), serving: 0 };
        slots.resize(config, Some(0));
        slots
    }

    /// Takes up another number of slots; new ones are filled at `start_at_ms`, if at all.
    pub fn resize(&mut self, config: &Config, start_at_ms: Option<u64>) {
        let serving = u16::try_from(config.worker_num).unwrap_or(256).min(256);
        for slot in self.serving..serving {
            let place = self.slots.entry(slot as u8).or_default();
            place.start_at_ms = start_at_ms;
            place.idle_since_ms = Some(0);
        }
        for (slot, place) in &mut self.slots {
            if u16::from(*slot) >= serving {
                place.start_at_ms = None;
            }
        }
        self.serving = serving;
    }

    /// The slots that have, or should have, a worker.
    pub fn serving(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.serving).map(|slot| Slot(slot as u8))
    }

    /// Whether a slot should have a worker.
    pub fn serves(&self, slot: Slot) -> bool {
        u16::from(slot.0) < self.serving
    }

    /// The slot that stands in for a removed one.
    pub fn stand_in(&self, slot: Slot) -> Slot {
        match self.serves(slot) {
            true => slot,
            false => Slot((u16::from(slot.0) % self.serving.max(1)) as u8),
        }
    }

    /// A slot, made where it is new.
    pub fn at(&mut self, slot: Slot) -> &mut SlotState {
        self.slots.entry(slot.0).or_default()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut SlotState)> {
        self.slots.iter_mut().map(|(slot, place)| (Slot(*slot), place))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &SlotState)> {
        self.slots.iter().map(|(slot, place)| (Slot(*slot), place))
    }

    /// The slots in which a process is due.
    pub fn due(&self, now: u64) -> Vec<Slot> {
        let due = |place: &SlotState| place.start_at_ms.is_some_and(|at| at <= now);
        self.iter().filter(|(_, place)| due(place)).map(|(slot, _)| slot).collect()
    }

    /// When the next process is due.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.slots.values().filter_map(|place| place.start_at_ms).min()
    }

    /// The slots whose workers keep dying young, with the delay.
    pub fn throttled(&self) -> Vec<(Slot, u64)> {
        let delays = self.iter().map(|(slot, place)| (slot, place.throttle.next_delay_ms()));
        delays.filter(|(_, delay)| *delay > 100).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_dies_over_and_over_uses_up_no_descriptors() {
        let mut place = SlotState::default();
        let registry = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let kept = (0..100).filter(|_| place.owe(registry())).count();
        assert_eq!((kept, place.owed.len()), (OWED_MAX, OWED_MAX));
        place.owed.remove(0);
        assert!(place.owe(registry()));
    }
}
