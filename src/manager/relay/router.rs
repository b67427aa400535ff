//! Who owns which client: for each slot a short list of ranges of numbers, since during a drain
//! two processes share a slot and after a shrink one process has clients of several.
//!
//! Pure: it is told what workers say they own and what a handover moved, and answers lookups. A
//! number in nobody's range goes to the worker that serves its slot, whose table knows best.

use std::collections::{BTreeMap, HashMap};

use crate::fd::{Fd, Slot, WorkerId};

/// The table of routes.
#[derive(Debug)]
pub struct Router {
    /// By slot of the client's number.
    ranges: Vec<Vec<Range>>,
    /// Single clients that are not where their range is: what stayed behind in a handover.
    singles: BTreeMap<u64, WorkerId>,
    /// Who takes new connections of a slot.
    serving: HashMap<Slot, WorkerId>,
    worker_num: u16,
    /// The first part of every number that is given here.
    node: u8,
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

/// Which of two claims to numbers of a slot holds: the greater. Epochs count up within a slot,
/// and a worker of another slot can only have what was handed to it by the slot's own.
fn rank(home: Slot, owner: WorkerId) -> (bool, u32) {
    (owner.slot != home, owner.epoch)
}

impl Router {
    /// An empty table for so many slots of a node.
    pub fn new(worker_num: u16, node: u8) -> Router {
        Router {
            ranges: vec![Vec::new(); 256],
            singles: BTreeMap::new(),
            serving: HashMap::new(),
            worker_num: worker_num.max(1),
            node,
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
        self.by_range(fd).or_else(|| self.serving(fd.slot()))
    }

    fn by_range(&self, fd: Fd) -> Option<WorkerId> {
        let ranges = &self.ranges[usize::from(fd.slot().0)];
        ranges.iter().rev().find(|range| range.has(fd.as_u64())).map(|range| range.owner)
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

    /// The worker that serves exactly this slot, if no other has clients of it.
    pub fn sole_owner(&self, slot: Slot) -> Option<WorkerId> {
        let serving = self.serving_here(slot)?;
        let of_slot = |number: &u64| Fd::try_from(*number).is_ok_and(|fd| fd.slot() == slot);
        let singles = self.singles.iter().filter(|(number, _)| of_slot(number));
        let ranges = self.ranges[usize::from(slot.0)].iter().map(|range| range.owner);
        let sole = singles.map(|(_, owner)| *owner).chain(ranges).all(|owner| owner == serving);
        sole.then_some(serving)
    }

    /// Whether a worker has clients of other slots than its own: of one that was removed.
    pub fn has_of_other_slots(&self, id: WorkerId) -> bool {
        let others = |slot: usize| slot != usize::from(id.slot.0);
        let mut ranges = self.ranges.iter().enumerate().filter(|(slot, _)| others(*slot));
        let foreign = |number: u64| Fd::try_from(number).is_ok_and(|fd| fd.slot() != id.slot);
        ranges.any(|(_, ranges)| ranges.iter().any(|range| range.owner == id))
            || self.singles.iter().any(|(number, owner)| *owner == id && foreign(*number))
    }

    /// New connections of the worker's slot are its from now on.
    pub fn serve(&mut self, id: WorkerId) {
        self.serving.insert(id.slot, id);
    }

    /// So many slots serve from now on.
    pub fn resize(&mut self, worker_num: u16) {
        self.worker_num = worker_num.max(1);
    }

    /// Whether the slot is one of those that serve, or are to.
    pub fn has_slot(&self, slot: Slot) -> bool {
        u16::from(slot.0) < self.worker_num
    }

    /// The master says which serials of its slot a worker may give to new clients.
    pub fn leased(&mut self, id: WorkerId, first: u64, last: u64) {
        let number = |serial| Fd::new(self.node, id.slot, serial).map(Fd::as_u64);
        if let (Some(first), Some(last)) = (number(first), number(last)) {
            self.claim(first, last, id);
        }
    }

    /// A worker says what it owns of others' numbers, in addition to what is known. Where another
    /// claims the same, the one that was given it last holds, for the old worker knows of it until
    /// it is told.
    pub fn owns(&mut self, id: WorkerId, ranges: &[(u64, u64)]) {
        for &(first, last) in ranges.iter().filter(|(first, last)| first <= last) {
            let Ok(fd) = Fd::try_from(first) else { continue };
            let outranked = |owner: &WorkerId| rank(fd.slot(), *owner) < rank(fd.slot(), id);
            let others = self.singles.range(first..=last);
            let old_workers: Vec<u64> =
                others.filter(|(_, owner)| outranked(owner)).map(|(number, _)| *number).collect();
            for number in old_workers {
                self.singles.remove(&number);
            }
            if first != last {
                self.claim(first, last, id);
            } else if self.by_range(fd).is_none_or(|owner| owner == id || outranked(&owner)) {
                self.singles.entry(first).or_insert(id);
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
        // Lookups take the last that fits.
        list.sort_by_key(|range| rank(fd.slot(), range.owner));
    }

    /// A worker is no more: what it owned is gone.
    pub fn forget(&mut self, id: WorkerId) {
        self.serving.retain(|_, serving| *serving != id);
        for list in &mut self.ranges {
            list.retain(|range| range.owner != id);
        }
        self.singles.retain(|_, owner| *owner != id);
    }

    /// Everything of `from` is now `to`'s, but for the numbers in `stay`.
    pub fn hand_over(&mut self, from: WorkerId, to: WorkerId, stay: Vec<u64>) {
        for range in self.ranges.iter_mut().flatten().filter(|range| range.owner == from) {
            range.owner = to;
        }
        for owner in self.singles.values_mut().filter(|owner| **owner == from) {
            *owner = to;
        }
        self.singles.extend(stay.into_iter().map(|number| (number, from)));
        for serving in self.serving.values_mut().filter(|serving| **serving == from) {
            *serving = to;
        }
        if from.slot != to.slot {
            self.serving.remove(&from.slot);
        }
        self.forget_needless();
    }

    /// A single client that is where its range is needs no word of its own.
    fn forget_needless(&mut self) {
        let singles = std::mem::take(&mut self.singles);
        let needed = singles.into_iter().filter(|(number, owner)| {
            Fd::try_from(*number).is_ok_and(|fd| self.by_range(fd) != Some(*owner))
        });
        self.singles = needed.collect();
    }

    /// Only these of `from`'s are now `to`'s: a handover that was not finished.
    pub fn hand_over_some(&mut self, to: WorkerId, moved: impl IntoIterator<Item = u64>) {
        self.singles.extend(moved.into_iter().map(|number| (number, to)));
    }
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
        let mut router = Router::new(u16::from(slots), 0);
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
    fn a_range_that_ends_before_it_begins_is_nobodys() {
        let mut router = serving(1);
        let number = |serial| fd(0, serial).as_u64();
        router.owns(id(0, 2), &[(number(7), number(7)), (number(9), number(3))]);
        assert_eq!(router.owner(fd(0, 7)), Some(id(0, 2)));
        assert_eq!(router.owner(fd(0, 5)), Some(id(0, 1)));
    }

    #[test]
    fn an_unknown_number_goes_to_who_serves_the_slot() {
        let router = serving(2);
        assert_eq!(router.owner(fd(1, 9_999)), Some(id(1, 1)));
        // A removed slot is an alias; a slot without anybody has no clients.
        assert_eq!(router.owner(fd(5, 1)), Some(id(1, 1)));
        assert_eq!(Router::new(2, 0).owner(fd(0, 1)), None);
    }

    #[test]
    fn a_slot_is_its_workers_alone_only_when_nobody_else_has_a_client_of_it() {
        let mut router = serving(2);
        assert_eq!(router.sole_owner(Slot(1)), Some(id(1, 1)));
        assert_eq!(router.sole_owner(Slot(5)), None);
        router.hand_over(id(0, 1), id(0, 2), vec![fd(0, 120).as_u64()]);
        assert_eq!(router.sole_owner(Slot(0)), None);
        router.forget(id(0, 1));
        assert_eq!(router.sole_owner(Slot(0)), Some(id(0, 2)));
        // A slot that is served again has numbers that went elsewhere when it was removed.
        router.hand_over(id(1, 1), id(0, 2), vec![]);
        router.serve(id(1, 3));
        router.owns(id(1, 3), &[lease(1, 900)]);
        assert_eq!(router.sole_owner(Slot(1)), None);
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
        router.hand_over(id(0, 1), id(0, 2), stay);
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
        assert!(router.has_of_other_slots(id(0, 3)) && !router.has_of_other_slots(id(2, 4)));
    }

    #[test]
    fn after_a_managers_death_who_was_given_a_client_owns_it() {
        let one = |serial| (fd(0, serial).as_u64(), fd(0, serial).as_u64());
        let run = |first, last| (fd(0, first).as_u64(), fd(0, last).as_u64());
        // 101 and 110 to 112 went over, 120 stayed; the old worker has not heard that they arrived.
        let old_worker = (id(0, 1), [one(101), run(110, 112), one(120)]);
        let new_worker = (id(0, 2), [lease(0, 500), one(101), run(110, 112)]);
        for order in [[0, 1], [1, 0]] {
            let mut router = Router::new(1, 0);
            for which in order {
                let (id, ranges) = if which == 0 { &old_worker } else { &new_worker };
                router.owns(*id, ranges);
            }
            for (serial, owner) in [(101, new_worker.0), (111, new_worker.0), (120, old_worker.0)]
            {
                assert_eq!(router.owner(fd(0, serial)), Some(owner), "{serial}, {order:?}");
            }
        }
    }

    #[test]
    fn a_client_that_followed_needs_no_word_of_its_own() {
        let mut router = serving(1);
        router.hand_over(id(0, 1), id(0, 2), vec![fd(0, 120).as_u64()]);
        assert_eq!(router.singles.len(), 1);
        router.hand_over(id(0, 1), id(0, 2), vec![]);
        assert!(router.singles.is_empty());
        assert_eq!(router.owner(fd(0, 120)), Some(id(0, 2)));
    }

    #[test]
    fn leases_in_a_row_are_one_range() {
        let mut router = Router::new(1, 0);
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
