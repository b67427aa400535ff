//! Who owns which client: for each slot a short list of ranges of numbers, since during a drain
//! two processes share a slot and after a shrink one process has clients of several.
//!
//! Pure: it is told what workers say they own and what a handover moved, and answers lookups. A
//! number in nobody's range goes to the worker that serves its slot, whose table knows best.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use crate::fd::{Fd, Slot, WorkerId};

/// The table of routes.
#[derive(Debug)]
pub struct Router {
    /// By slot of the client's number, what each worker has of the slot's numbers, by [`rank`].
    claims: Vec<Vec<Claim>>,
    singles: Singles,
    /// Who takes new connections of a slot.
    serving: HashMap<Slot, WorkerId>,
    worker_num: u16,
    /// The first part of every number that is given here.
    node: u8,
}

/// The ranges that one worker has of a slot's numbers.
#[derive(Debug)]
struct Claim {
    owner: WorkerId,
    /// The first and the last number of each, in ascending order. None touches another.
    ranges: Vec<(u64, u64)>,
}

impl Claim {
    fn has(&self, number: u64) -> bool {
        let begun = self.ranges.partition_point(|(first, _)| *first <= number);
        self.ranges[..begun].last().is_some_and(|(_, last)| number <= *last)
    }

    fn add(&mut self, first: u64, last: u64) {
        let from = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let touched = &self.ranges[from..to];
        let first = touched.first().map_or(first, |(begin, _)| first.min(*begin));
        let last = touched.last().map_or(last, |(_, end)| last.max(*end));
        self.ranges.splice(from..to, [(first, last)]);
    }

    fn add_all(&mut self, ranges: Vec<(u64, u64)>) {
        self.ranges.extend(ranges);
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, before| {
            let touches = next.0 <= before.1.saturating_add(1);
            if touches {
                before.1 = before.1.max(next.1);
            }
            touches
        });
    }
}

/// Single clients that are not where their range is: what stayed behind in a handover.
#[derive(Debug, Default)]
struct Singles {
    owners: BTreeMap<Fd, WorkerId>,
    /// How many of a slot's each worker has: a worker may have very many, and may ask often for
    /// what depends on whose they are.
    counts: BTreeMap<(Slot, WorkerId), usize>,
}

impl Singles {
    fn insert(&mut self, fd: Fd, owner: WorkerId) {
        self.remove(fd);
        self.owners.insert(fd, owner);
        *self.counts.entry((fd.slot(), owner)).or_default() += 1;
    }

    fn remove(&mut self, fd: Fd) {
        let Some(owner) = self.owners.remove(&fd) else { return };
        if let Entry::Occupied(mut count) = self.counts.entry((fd.slot(), owner)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Looks at each of them once, and keeps it with the owner that `owner` names, if any. At the
    /// end of a handover that is each client of a worker, and everybody waits: so the map is made
    /// anew from what is in order, and nothing is looked for in it.
    fn revise(&mut self, owner: impl Fn(Fd, WorkerId) -> Option<WorkerId>) {
        let Singles { owners, mut counts } = std::mem::take(self);
        counts.clear();
        let kept = owners.into_iter().filter_map(|(fd, before)| {
            let now = owner(fd, before)?;
            *counts.entry((fd.slot(), now)).or_default() += 1;
            Some((fd, now))
        });
        self.owners = kept.collect();
        self.counts = counts;
    }

    /// The slots of whose numbers somebody has single clients, and who that is.
    fn owners_by_slot(&self) -> impl Iterator<Item = (Slot, WorkerId)> {
        self.counts.keys().copied()
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
            claims: std::iter::repeat_with(Vec::new).take(256).collect(),
            singles: Singles::default(),
            serving: HashMap::new(),
            worker_num: worker_num.max(1),
            node,
        }
    }

    /// Whose client this is. `None`: nobody's, so it is gone.
    pub fn owner(&self, fd: Fd) -> Option<WorkerId> {
        let single = self.singles.owners.get(&fd).copied();
        single.or_else(|| self.by_range(fd)).or_else(|| self.serving(fd.slot()))
    }

    /// One among these numbers whose client is not this worker's.
    pub fn not_of(&self, worker: WorkerId, fds: &[u64]) -> Option<u64> {
        let owner = |number: u64| Fd::try_from(number).ok().and_then(|fd| self.owner(fd));
        fds.iter().copied().find(|number| owner(*number) != Some(worker))
    }

    fn by_range(&self, fd: Fd) -> Option<WorkerId> {
        let claims = &self.claims[usize::from(fd.slot().0)];
        claims.iter().rev().find(|claim| claim.has(fd.as_u64())).map(|claim| claim.owner)
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
        let singles = self.singles.owners_by_slot().filter(|(of, _)| *of == slot);
        let claims = self.claims[usize::from(slot.0)].iter().map(|claim| claim.owner);
        let sole = singles.map(|(_, owner)| owner).chain(claims).all(|owner| owner == serving);
        sole.then_some(serving)
    }

    /// Whether a worker has clients of other slots than its own: of one that was removed.
    pub fn has_of_other_slots(&self, id: WorkerId) -> bool {
        let others = |slot: usize| slot != usize::from(id.slot.0);
        let mut claims = self.claims.iter().enumerate().filter(|(slot, _)| others(*slot));
        let mut singles = self.singles.owners_by_slot();
        claims.any(|(_, claims)| claims.iter().any(|claim| claim.owner == id))
            || singles.any(|(slot, owner)| owner == id && slot != id.slot)
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
        for &(first, last) in ranges {
            let (Ok(fd), Ok(end)) = (Fd::try_from(first), Fd::try_from(last)) else { continue };
            if fd > end {
                continue;
            }
            let outranked = |owner: &WorkerId| rank(fd.slot(), *owner) < rank(fd.slot(), id);
            let others = self.singles.owners.range(fd..=end);
            let old_workers: Vec<Fd> =
                others.filter(|(_, owner)| outranked(owner)).map(|(fd, _)| *fd).collect();
            old_workers.into_iter().for_each(|fd| self.singles.remove(fd));
            if fd != end {
                self.claim(first, last, id);
            } else if !self.singles.owners.contains_key(&fd)
                && self.by_range(fd).is_none_or(|owner| owner == id || outranked(&owner))
            {
                self.singles.insert(fd, id);
            }
        }
    }

    fn claim(&mut self, first: u64, last: u64, owner: WorkerId) {
        let Some(fd) = Fd::try_from(first).ok().filter(|_| first <= last) else { return };
        self.claim_of(fd.slot(), owner).add(first, last);
    }

    /// What a worker has of a slot's numbers. Lookups take the last claim that fits.
    fn claim_of(&mut self, home: Slot, owner: WorkerId) -> &mut Claim {
        let claims = &mut self.claims[usize::from(home.0)];
        let at = claims.iter().position(|claim| claim.owner == owner).unwrap_or_else(|| {
            let before = |claim: &Claim| rank(home, claim.owner) <= rank(home, owner);
            let at = claims.partition_point(before);
            claims.insert(at, Claim { owner, ranges: Vec::new() });
            at
        });
        &mut claims[at]
    }

    /// A worker is no more: what it owned is gone.
    pub fn forget(&mut self, id: WorkerId) {
        self.serving.retain(|_, serving| *serving != id);
        for claims in &mut self.claims {
            claims.retain(|claim| claim.owner != id);
        }
        self.singles.revise(|_, owner| (owner != id).then_some(owner));
    }

    /// Everything of `from` is now `to`'s, but for the numbers in `stay`.
    pub fn hand_over(&mut self, from: WorkerId, to: WorkerId, stay: Vec<u64>) {
        for home in 0..=u8::MAX {
            let claims = &mut self.claims[usize::from(home)];
            if let Some(at) = claims.iter().position(|claim| claim.owner == from) {
                let ranges = claims.remove(at).ranges;
                self.claim_of(Slot(home), to).add_all(ranges);
            }
        }
        self.singles.revise(|_, owner| Some(if owner == from { to } else { owner }));
        self.hand_over_some(from, stay);
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
        let mut singles = std::mem::take(&mut self.singles);
        singles.revise(|fd, owner| (self.by_range(fd) != Some(owner)).then_some(owner));
        self.singles = singles;
    }

    /// Only these of `from`'s are now `to`'s: a handover that was not finished.
    pub fn hand_over_some(&mut self, to: WorkerId, moved: impl IntoIterator<Item = u64>) {
        for fd in moved.into_iter().filter_map(|number| Fd::try_from(number).ok()) {
            self.singles.insert(fd, to);
        }
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
        assert_eq!(router.singles.owners.len(), 1);
        router.hand_over(id(0, 1), id(0, 2), vec![]);
        assert!(router.singles.owners.is_empty() && router.singles.counts.is_empty());
        assert_eq!(router.owner(fd(0, 120)), Some(id(0, 2)));
    }

    #[test]
    fn leases_in_a_row_are_one_range() {
        let mut router = Router::new(1, 0);
        router.owns(id(0, 1), &[lease(0, 100), lease(0, 200), lease(0, 300)]);
        assert_eq!(router.claims[0][0].ranges, [(lease(0, 100).0, lease(0, 300).1)]);
        assert_eq!(router.owner(fd(0, 399)), Some(id(0, 1)));
    }

    #[test]
    fn ranges_of_a_worker_that_touch_become_one_wherever_they_come() {
        let number = |serial| fd(0, serial).as_u64();
        let run = |first, last| (number(first), number(last));
        let mut claim = Claim { owner: id(0, 1), ranges: Vec::new() };
        for (first, last) in [(10, 19), (40, 49), (60, 69), (20, 29), (5, 5), (48, 55)] {
            claim.add(number(first), number(last));
        }
        assert_eq!(claim.ranges, [run(5, 5), run(10, 29), run(40, 55), run(60, 69)]);
        let has = |claim: &Claim, serial| claim.has(number(serial));
        assert!([5, 10, 29, 40, 55, 69].iter().all(|serial| has(&claim, *serial)));
        assert!(![4, 6, 9, 30, 39, 56, 70].iter().any(|serial| has(&claim, *serial)));
        claim.add(number(6), number(59));
        assert_eq!(claim.ranges, [run(5, 69)]);
        claim.add_all(vec![run(1, 2), run(70, 80), run(90, 99), run(3, 3)]);
        assert_eq!(claim.ranges, [run(1, 3), run(5, 80), run(90, 99)]);
    }

    #[test]
    fn however_many_ranges_two_workers_tell_each_has_one_claim_in_order() {
        let mut router = serving(2);
        let number = |serial| fd(0, serial).as_u64();
        let single: Vec<_> = (0..100).map(|n| (number(8 * n + 1), number(8 * n + 1))).collect();
        let wide: Vec<_> = (0..100).map(|n| (number(8 * n + 4), number(8 * n + 6))).collect();
        for owner in [id(0, 2), id(1, 1)] {
            router.owns(owner, &single);
            router.owns(owner, &wide);
        }
        let owners: Vec<WorkerId> = router.claims[0].iter().map(|claim| claim.owner).collect();
        assert_eq!(owners, [id(0, 1), id(0, 2), id(1, 1)]);
        assert_eq!(router.claims[0][1].ranges, wide);
        assert_eq!(router.claims[0][2].ranges, wide);
        assert_eq!(router.owner(fd(0, 8 * 99 + 5)), Some(id(1, 1)));
        router.hand_over(id(1, 1), id(0, 2), vec![]);
        assert_eq!(router.owner(fd(0, 8 * 99 + 1)), Some(id(0, 2)));
        assert_eq!(router.claims[0][1].ranges, wide);
    }

    #[test]
    fn whose_the_single_clients_of_a_slot_are_is_known_without_a_look_at_each() {
        let mut router = serving(2);
        let some = |count: u64| (0..count).map(|n| fd(0, 2 * n + 1).as_u64());
        let owners = |router: &Router| -> Vec<_> { router.singles.owners_by_slot().collect() };
        router.hand_over_some(id(1, 1), some(100));
        assert_eq!(owners(&router), [(Slot(0), id(1, 1))], "one for all that the worker has");
        assert!(router.has_of_other_slots(id(1, 1)) && router.sole_owner(Slot(0)).is_none());
        router.hand_over_some(id(0, 2), some(10));
        assert_eq!(owners(&router), [(Slot(0), id(0, 2)), (Slot(0), id(1, 1))]);
        router.hand_over_some(id(0, 2), some(100));
        assert_eq!(owners(&router), [(Slot(0), id(0, 2))], "nobody else has one any more");
        assert!(!router.has_of_other_slots(id(1, 1)));
        router.forget(id(0, 2));
        assert_eq!(owners(&router), []);
        assert_eq!(router.sole_owner(Slot(0)), Some(id(0, 1)));
    }

    #[test]
    fn an_unfinished_handover_moves_only_what_arrived() {
        let mut router = serving(1);
        router.hand_over_some(id(0, 2), [fd(0, 110).as_u64()]);
        assert_eq!(router.owner(fd(0, 110)), Some(id(0, 2)));
        assert_eq!(router.owner(fd(0, 111)), Some(id(0, 1)));
    }
}
