//! The passes that a manager which died has left: the next one hears of them, and decides their
//! end, before it does anything else.

use super::{Holding, Pass, Passes};
use crate::fd::WorkerId;
use crate::ipc::messages::PassId;
use crate::manager::moving::step::Step;

/// Passes that one worker has and that a manager which died has left: far more than there are.
const HOLDS_MAX: usize = 64;

impl Passes {
    /// A worker says that it has given these in a pass, and has not heard what became of them.
    pub fn gives(&mut self, from: WorkerId, pass: PassId, fds: Vec<u64>) {
        self.gives.insert(from, (pass, fds));
    }

    /// A worker says that it has these of a pass, and has not heard that they are its own. Nothing
    /// more of the pass can come to it.
    pub fn holds(&mut self, by: WorkerId, (pass, from): (PassId, WorkerId), fds: Vec<u64>) {
        if self.holds.iter().filter(|it| it.by == by).count() < HOLDS_MAX {
            self.holds.push(Holding { by, pass, from, fds });
        }
    }

    /// A worker says to this manager, or to one that died, what it has of a pass. That is its
    /// answer, unless it has `answered` before. True if that answer was read by a manager that
    /// died: what the worker sent since to all, it has deferred for these clients by itself.
    #[must_use]
    pub fn answers(&mut self, by: WorkerId, answered: bool) -> bool {
        !self.settled && self.answered.insert(by) && answered
    }

    /// Decides what can be decided. `is_unknown` says whether a worker lives and has not said yet
    /// what it has; `any_unknown` whether there is one.
    pub fn resolve(
        &mut self,
        is_unknown: impl Fn(WorkerId) -> bool,
        any_unknown: bool,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for holding in std::mem::take(&mut self.holds) {
            if is_unknown(holding.from) {
                self.holds.push(holding);
                continue;
            }
            let Holding { by, pass, from, fds } = holding;
            let given = self.gives.get(&from).filter(|(given, _)| *given == pass).is_some();
            let mut it = Pass::new(pass, from, Some(by));
            (it.answered, it.taken) = (true, fds);
            if given && let Some((_, fds)) = self.gives.remove(&from) {
                it.given = fds.into_iter().collect();
                let given = &it.given;
                it.taken.retain(|fd| given.contains(fd));
            } else {
                // It has let go of them, or is dead.
                it.from_lives = false;
            }
            steps.extend(self.inherit(it));
        }
        if !any_unknown {
            for (from, (pass, fds)) in std::mem::take(&mut self.gives) {
                let mut it = Pass::new(pass, from, None);
                it.given = fds.into_iter().collect();
                steps.extend(self.inherit(it));
            }
        }
        steps
    }

    fn inherit(&mut self, mut it: Pass) -> Vec<Step> {
        let step = it.settle();
        self.inherited.push(it);
        match step {
            Some(step) => vec![step],
            None => self.conclude_inherited(self.inherited.len() - 1),
        }
    }

    pub(super) fn conclude_inherited(&mut self, index: usize) -> Vec<Step> {
        let pass = self.inherited.remove(index);
        let mut steps = Vec::new();
        if let Some(to) = pass.to {
            steps.push(Step::Route { to, fds: pass.taken.clone() });
        }
        let owners = pass.owners().into_iter().map(|(id, fds)| (id, pass.id, fds));
        if self.settled {
            steps.extend(owners.map(|(id, pass, _)| Step::Own { id, pass }));
        } else {
            self.owners.extend(owners);
        }
        steps.push(Step::GoOn);
        steps
    }

    /// Whether nothing is left to decide of what a manager that died has left.
    pub fn has_inherited_nothing(&self) -> bool {
        self.gives.is_empty() && self.holds.is_empty() && self.inherited.is_empty()
    }

    /// The new manager has settled: what waited goes out, and then clients of passes are served.
    pub fn settle_all(&mut self) -> Vec<Step> {
        self.settled = true;
        self.answered.clear();
        let owners = std::mem::take(&mut self.owners);
        let arriving = owners.iter().map(|(id, _, fds)| (*id, fds.clone())).collect();
        let release = Step::Release { ends: Vec::new(), arriving };
        let own = owners.into_iter().map(|(id, pass, _)| Step::Own { id, pass });
        std::iter::once(release).chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    fn id(slot: u8) -> WorkerId {
        WorkerId { slot: Slot(slot), epoch: 1 }
    }

    #[test]
    fn of_more_passes_than_a_worker_can_have_no_more_are_kept() {
        let mut passes = Passes::new(2, false);
        for pass in 0..4 * HOLDS_MAX as u64 {
            passes.holds(id(0), (pass, id(1)), Vec::new());
        }
        assert_eq!(passes.holds.len(), HOLDS_MAX);
        passes.holds(id(2), (9, id(1)), vec![5]);
        assert_eq!(passes.holds.len(), HOLDS_MAX + 1, "each worker has its own");
    }
}
