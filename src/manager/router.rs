//! Who owns which client: for each slot a short list of ranges of numbers, since during a drain
//! two processes share a slot and after a shrink one process has clients of several.
//!
//! Pure: it is told what workers say they own and what a handover moved, and answers lookups. A
//! number in nobody's range goes to the worker that serves its slot, whose table knows best.

use std::collections::HashMap;

use crate::fd::{Fd, Slot, WorkerId};

/// The table of routes.
#[derive(Debug)]
pub struct Router {
    /// By slot of the client's number.
    ranges: Vec<Vec<Range>>,
    /// Single clients that are not where their range is: what stayed behind in a handover.
    singles: HashMap<u64, WorkerId>,
    /// Who takes new connections of a slot.
    serving: HashMap<Slot, WorkerId>,
    worker_num: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    owner: WorkerId,
}

impl Range {
    fn has(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

impl Router {
    /// An empty table for so many slots.
    pub fn new(worker_num: u16) -> Router {
        Router {
            ranges: vec![Vec::new(); 256],
            singles: HashMap::new(),
            serving: HashMap::new(),
            worker_num: worker_num.max(1),
        }
    }

    /// Whose client this is. `None`: nobody's, so it is gone.
    pub fn owner(&self, fd: Fd) -> Option<WorkerId> {
        let number = fd.as_u64();
        if !self.singles.is_empty()
            && let Some(owner) = self.singles.get(&number)
        {
            return Some(*owner);
        }
        let ranges = &self.ranges[usize::from(fd.slot().0)];
        match ranges.iter().rev().find(|range| range.has(number)) {
            Some(range) => Some(range.owner),
            None => self.serving(fd.slot()),
        }
    }

    /// The worker that serves a slot, or that has taken over a removed one.
    pub fn serving(&self, slot: Slot) -> Option<WorkerId> {
        let alias = Slot((u16::from(slot.0) % self.worker_num) as u8);
        self.serving.get(&slot).or_else(|| self.serving.get(&alias)).copied()
    }

    /// The worker that serves exactly this slot.
    pub fn serving_here(&self, slot: Slot) -> Option<WorkerId> {
        self.serving.get(&slot).copied()
    }

    /// New connections of the worker's slot are its from now on.
    pub fn serve(&mut self, id: WorkerId) {
        self.serving.insert(id.slot, id);
    }

    /// So many slots serve from now on.
    pub fn resize(&mut self, worker_num: u16) {
        self.worker_num = worker_num.max(1);
    }

    /// A worker says what it owns, in addition to what is known. Where another claims the same,
    /// a single client beats a range, and the younger worker beats the older.
    pub fn owns(&mut self, id: WorkerId, ranges: &[(u64, u64)]) {
        for &(first, last) in ranges {
            if first == last {
                self.singles.insert(first, id);
            } else {
                self.claim(first, last, id);
            }
        }
    }

    fn claim(&mut self, first: u64, last: u64, owner: WorkerId) {
        let Ok(fd) = Fd::try_from(first) else { return };
        let list = &mut self.ranges[usize::from(fd.slot().0)];
        let touching = |range: &&mut Range| {
            range.owner == owner && first <= range.last.saturating_add(1) && range.first <= last
        };
        match list.iter_mut().rev().find(touching) {
            Some(range) => {
                range.first = range.first.min(first);
                range.last = range.last.max(last);
            }
            None => list.push(Range { first, last, owner }),
        }
        // Lookups take the last that fits. Epochs count up within a slot, and a worker of
        // another slot can only have what was handed to it by the slot's own.
        let home = fd.slot();
        list.sort_by_key(|range| (range.owner.slot != home, range.owner.epoch));
    }

    /// A worker is no more: what it owned is gone.
    pub fn forget(&mut self, id: WorkerId) {
        self.serving.retain(|_, serving| *serving != id);
        for list in &mut self.ranges {
            list.retain(|range| range.owner != id);
        }
        self.singles.retain(|_, owner| *owner != id);
    }

    /// Everything of `from` is now `to`'s, but for the numbers in `stay`. Answers with the
    /// ranges that `to` has got, without those that stayed.
    pub fn hand_over(
        &mut self,
        from: WorkerId,
        to: WorkerId,
        mut stay: Vec<u64>,
    ) -> Vec<(u64, u64)> {
        stay.sort_unstable();
        let mut got = Vec::new();
        for list in &mut self.ranges {
            for range in list.iter_mut().filter(|range| range.owner == from) {
                range.owner = to;
                got.extend(without(range.first, range.last, &stay));
            }
        }
        for (number, owner) in &mut self.singles {
            if *owner == from && stay.binary_search(number).is_err() {
                *owner = to;
                got.push((*number, *number));
            }
        }
        self.singles.extend(stay.into_iter().map(|number| (number, from)));
        for serving in self.serving.values_mut().filter(|serving| **serving == from) {
            *serving = to;
        }
        if from.slot != to.slot {
            self.serving.remove(&from.slot);
        }
        got
    }

    /// Only these of `from`'s are now `to`'s: a handover that was not finished.
    pub fn hand_over_some(&mut self, to: WorkerId, moved: impl IntoIterator<Item = u64>) {
        self.singles.extend(moved.into_iter().map(|number| (number, to)));
    }
}

/// A range without the numbers in `holes`, which are sorted.
fn without(first: u64, last: u64, holes: &[u64]) -> Vec<(u64, u64)> {
    let mut pieces = Vec::new();
    let mut start = first;
    let begin = holes.partition_point(|hole| *hole < first);
    for &hole in holes[begin..].iter().take_while(|hole| **hole <= last) {
        if start < hole {
            pieces.push((start, hole - 1));
        }
        start = hole + 1;
    }
    if start <= last {
        pieces.push((start, last));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u8, epoch: u32) -> WorkerId {
        WorkerId { slot: Slot(slot), epoch }
    }

    fn fd(slot: u8, serial: u64) -> Fd {
        Fd::new(0, Slot(slot), serial).unwrap()
    }

    fn lease(slot: u8, first: u64) -> (u64, u64) {
        (fd(slot, first).as_u64(), fd(slot, first + 99).as_u64())
    }

    fn serving(slots: u8) -> Router {
        let mut router = Router::new(u16::from(slots));
        for slot in 0..slots {
            router.serve(id(slot, 1));
            router.owns(id(slot, 1), &[lease(slot, 100)]);
        }
        router
    }

    #[test]
    fn a_number_goes_to_the_worker_whose_range_has_it() {
        let mut router = serving(2);
        router.owns(id(0, 2), &[lease(0, 500)]);
        assert_eq!(router.owner(fd(0, 150)), Some(id(0, 1)));
        assert_eq!(router.owner(fd(0, 510)), Some(id(0, 2)));
        assert_eq!(router.owner(fd(1, 100)), Some(id(1, 1)));
    }

    #[test]
    fn an_unknown_number_goes_to_who_serves_the_slot() {
        let router = serving(2);
        assert_eq!(router.owner(fd(1, 9_999)), Some(id(1, 1)));
        // A removed slot is an alias; a slot without anybody has no clients.
        assert_eq!(router.owner(fd(5, 1)), Some(id(1, 1)));
        assert_eq!(Router::new(2).owner(fd(0, 1)), None);
    }

    #[test]
    fn clients_of_a_dead_epoch_are_gone() {
        let mut router = serving(1);
        router.forget(id(0, 1));
        assert_eq!(router.owner(fd(0, 150)), None);
        router.serve(id(0, 2));
        // Its replacement has the last word, and will say the same.
        assert_eq!(router.owner(fd(0, 150)), Some(id(0, 2)));
    }

    #[test]
    fn a_handover_moves_the_ranges_and_leaves_who_stays() {
        let mut router = serving(1);
        let stay = vec![fd(0, 120).as_u64(), fd(0, 100).as_u64()];
        let got = router.hand_over(id(0, 1), id(0, 2), stay);
        let piece = |a, b| (fd(0, a).as_u64(), fd(0, b).as_u64());
        assert_eq!(got, [piece(101, 119), piece(121, 199)]);
        assert_eq!(router.owner(fd(0, 119)), Some(id(0, 2)));
        assert_eq!(router.owner(fd(0, 120)), Some(id(0, 1)));
        router.forget(id(0, 1));
        assert_eq!(router.owner(fd(0, 120)), Some(id(0, 2)));
    }

    #[test]
    fn a_removed_slot_moves_to_another_and_its_numbers_keep_routing() {
        let mut router = serving(3);
        router.resize(1);
        for slot in [1, 2] {
            router.hand_over(id(slot, 1), id(0, 2), vec![]);
        }
        router.hand_over(id(0, 1), id(0, 2), vec![]);
        for slot in 0..3 {
            assert_eq!(router.owner(fd(slot, 150)), Some(id(0, 2)), "slot {slot}");
        }
        // And on, when the survivor is reloaded in its turn.
        router.hand_over(id(0, 2), id(0, 3), vec![]);
        assert_eq!(router.owner(fd(2, 150)), Some(id(0, 3)));
        // A slot that comes back gets new numbers, and the old ones stay where they are.
        router.resize(3);
        router.serve(id(2, 4));
        router.owns(id(2, 4), &[lease(2, 900)]);
        assert_eq!(router.owner(fd(2, 901)), Some(id(2, 4)));
        assert_eq!(router.owner(fd(2, 150)), Some(id(0, 3)));
    }

    #[test]
    fn after_a_managers_death_the_narrower_and_the_younger_claim_wins() {
        let mut router = Router::new(1);
        let whole = lease(0, 100);
        let one = fd(0, 120).as_u64();
        router.owns(id(0, 2), &[whole, lease(0, 500)]);
        router.owns(id(0, 1), &[(one, one), whole]);
        assert_eq!(router.owner(fd(0, 120)), Some(id(0, 1)));
        assert_eq!(router.owner(fd(0, 121)), Some(id(0, 2)));
    }

    #[test]
    fn leases_in_a_row_are_one_range() {
        let mut router = Router::new(1);
        router.owns(id(0, 1), &[lease(0, 100), lease(0, 200), lease(0, 300)]);
        assert_eq!(router.ranges[0].len(), 1);
        assert_eq!(router.owner(fd(0, 399)), Some(id(0, 1)));
    }

    #[test]
    fn an_unfinished_handover_moves_only_what_arrived() {
        let mut router = serving(1);
        router.hand_over_some(id(0, 2), [fd(0, 110).as_u64()]);
        assert_eq!(router.owner(fd(0, 110)), Some(id(0, 2)));
        assert_eq!(router.owner(fd(0, 111)), Some(id(0, 1)));
    }
}
