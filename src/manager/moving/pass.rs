//! A pass as a state machine: events in, steps out, no I/O.
//!
//! ```text
//! Giving ─► Taking ─► Letting ──► over
//!    │         │         (the old worker is told what the new one took)
//!    │         └──────► Returning ─► over
//!    └─ the new worker dies ─┘   (the old worker takes the rest back, and says so)
//! ```
//!
//! A pass moves some connections of an old worker to a new one, and the new worker answers for all
//! of them at once. Until that answer is read, the connections are the old worker's: if the new
//! worker dies, the whole pass goes back. From then on they are the new worker's, which serves them
//! when it hears `Own` and not before. The old worker is told before, so that no manager that
//! follows could believe that the old worker still has what the new one serves.
//!
//! What is sent to either worker meanwhile waits ([`Passes::waits`]). [`inherited`] decides the end
//! of passes that a manager which died has left.

mod inherited;

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Moving, Passed, Step};
use crate::fd::WorkerId;
use crate::ipc::messages::{Left, PassId};

/// Connections of a pass, which a worker that gives counts as well.
const FDS_MAX: usize = 1024;
/// Bytes of state after which none gives more in a pass: far more than the two million at which a
/// worker ends one.
const BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The old worker gives.
    Giving,
    /// The new worker was asked what it has.
    Taking,
    /// Until the old worker's kernel has the message that says what was taken.
    Letting,
    /// Until the old worker says that it has taken back the rest.
    Returning,
}

#[derive(Debug)]
pub(super) struct Pass {
    pub(super) id: PassId,
    pub(super) from: WorkerId,
    /// `None` once it is dead.
    pub(super) to: Option<WorkerId>,
    pub(super) from_lives: bool,
    pub(super) stage: Stage,
    pub(super) given: BTreeSet<u64>,
    /// Bytes of their state.
    given_bytes: usize,
    pub(super) taken: Vec<u64>,
    left: Option<Left>,
    /// Whether the new worker has answered: from then on it keeps by itself what it sends to
    /// clients of the pass.
    pub(super) answered: bool,
    /// Whether the old worker has taken the rest back, which means the same.
    pub(super) returned: bool,
}

impl Pass {
    pub(super) fn new(id: PassId, from: WorkerId, to: Option<WorkerId>) -> Pass {
        Pass {
            id,
            from,
            to,
            from_lives: true,
            stage: Stage::Giving,
            given: BTreeSet::new(),
            given_bytes: 0,
            taken: Vec::new(),
            left: None,
            answered: false,
            returned: false,
        }
    }

    /// All was given: the new worker is asked for its answer.
    fn ask(&mut self) -> Option<Step> {
        let to = self.to.filter(|_| !self.given.is_empty())?;
        self.stage = Stage::Taking;
        Some(Step::Take { to, pass: self.id })
    }

    /// What was taken is known. `None` if the old worker has nothing to hear of.
    pub(super) fn settle(&mut self) -> Option<Step> {
        if !self.from_lives || self.given.is_empty() {
            return None;
        }
        let all = self.taken.len() == self.given.len();
        self.stage = if all { Stage::Letting } else { Stage::Returning };
        Some(Step::Settle { from: self.from, pass: self.id, taken: self.taken.clone() })
    }

    fn waits_for(&self) -> WorkerId {
        match (self.stage, self.to) {
            (Stage::Taking, Some(to)) => to,
            _ => self.from,
        }
    }

    fn ends(&self) -> Vec<WorkerId> {
        [Some(self.from).filter(|_| self.from_lives), self.to].into_iter().flatten().collect()
    }

    /// Who is to hear `Own`, and of which clients.
    pub(super) fn owners(&self) -> Vec<(WorkerId, Vec<u64>)> {
        let taken = self.to.filter(|_| !self.taken.is_empty());
        let taken = taken.map(|to| (to, self.taken.clone()));
        let back = (self.returned && self.from_lives).then(|| (self.from, self.rest()));
        taken.into_iter().chain(back).collect()
    }

    /// What the new worker does not have.
    fn rest(&self) -> Vec<u64> {
        let taken: BTreeSet<u64> = self.taken.iter().copied().collect();
        self.given.difference(&taken).copied().collect()
    }

    fn passed(self) -> Passed {
        let went_back = !self.answered && self.to.is_none();
        let refused = self.rest();
        Passed {
            from: self.from,
            moved: self.taken.len() as u64,
            refused: if went_back || !self.from_lives { Vec::new() } else { refused },
            went_back,
            left: self.left.filter(|_| self.from_lives),
        }
    }
}

/// What a worker holds of a pass, as a new manager hears.
#[derive(Debug)]
pub(super) struct Holding {
    pub by: WorkerId,
    pub pass: PassId,
    pub from: WorkerId,
    pub fds: Vec<u64>,
}

/// The pass that is under way, and those that a manager that died has left.
#[derive(Debug, Default)]
pub struct Passes {
    last: PassId,
    current: Option<Pass>,
    /// Who is to give next, once nothing else is under way.
    next: Option<(WorkerId, WorkerId)>,
    /// What old workers have given, of passes that a manager that died had begun.
    pub(super) gives: BTreeMap<WorkerId, (PassId, Vec<u64>)>,
    /// What workers hold of such passes.
    pub(super) holds: Vec<Holding>,
    /// Such passes whose end was decided.
    pub(super) inherited: Vec<Pass>,
    /// Who was heard to answer for a pass that a manager that died had begun.
    pub(super) answered: BTreeSet<WorkerId>,
    /// Who is to hear `Own` when a new manager has settled.
    pub(super) owners: Vec<(WorkerId, PassId, Vec<u64>)>,
    pub(super) settled: bool,
}

impl Passes {
    /// None yet, for the manager of this epoch. A manager that follows another settles first.
    pub fn new(epoch: u32, settled: bool) -> Passes {
        Passes { last: u64::from(epoch) << 32, settled, ..Passes::default() }
    }

    /// Has `from` give a pass to `to`, now or when nothing else is under way.
    pub fn begin(&mut self, from: WorkerId, to: WorkerId) -> Vec<Step> {
        self.next = Some((from, to));
        self.go_on()
    }

    /// What was to begin next will not.
    pub fn cancel_next(&mut self) {
        self.next = None;
    }

    /// Begins what is to begin next, if nothing else is under way.
    pub fn go_on(&mut self) -> Vec<Step> {
        if self.current.is_some() || !self.has_inherited_nothing() {
            return Vec::new();
        }
        let Some((from, to)) = self.next.take() else { return Vec::new() };
        self.last += 1;
        self.current = Some(Pass::new(self.last, from, Some(to)));
        vec![Step::Give { from, to, pass: self.last }]
    }

    fn current(&mut self, pass: PassId) -> Option<&mut Pass> {
        self.current.as_mut().filter(|it| it.id == pass)
    }

    /// Whether more comes in a pass than any worker gives, or one of these for the second time:
    /// what waits for the new worker would have no bound.
    pub fn is_beyond(&mut self, from: WorkerId, pass: PassId, fds: &[u64], bytes: usize) -> bool {
        let Some(it) = self.current(pass).filter(|it| it.from == from) else { return false };
        let is_beyond = it.given_bytes > BYTES_MAX
            || it.given.len() + fds.len() > FDS_MAX
            || fds.iter().any(|fd| it.given.contains(fd))
            || fds.iter().collect::<BTreeSet<_>>().len() < fds.len();
        it.given_bytes = it.given_bytes.saturating_add(bytes);
        is_beyond
    }

    /// Connections come from the old worker.
    pub fn moving(&mut self, from: WorkerId, pass: PassId, fds: &[u64]) -> Moving {
        let gives = |it: &Pass| it.from == from && it.stage == Stage::Giving;
        let Some(it) = self.current(pass).filter(|it| gives(it)) else { return Moving::Outdated };
        it.given.extend(fds);
        it.to.map_or(Moving::ToNobody, Moving::To)
    }

    /// The old worker has given all of the pass.
    pub fn gave(&mut self, from: WorkerId, pass: PassId, left: Left) -> Vec<Step> {
        let Some(it) = self.current(pass) else { return Vec::new() };
        if it.from != from || it.stage != Stage::Giving {
            return Vec::new();
        }
        it.left = Some(left);
        match it.ask() {
            Some(step) => vec![step],
            None => self.settle(),
        }
    }

    /// A worker has these of the pass: the new worker in answer to `Take`, the old one in answer
    /// to `Settled`. What it was not given, it does not have.
    pub fn adopted(&mut self, by: WorkerId, pass: PassId, fds: &[u64]) -> Vec<Step> {
        if let Some(it) = self.current(pass) {
            if it.stage == Stage::Taking && it.to == Some(by) {
                it.answered = true;
                let taken: BTreeSet<u64> = fds.iter().copied().collect();
                it.taken = it.given.intersection(&taken).copied().collect();
                return self.settle();
            }
            if it.stage == Stage::Returning && it.from == by {
                it.returned = true;
                return self.conclude();
            }
        }
        let returned = |it: &Pass| it.id == pass && it.from == by && it.stage == Stage::Returning;
        let Some(index) = self.inherited.iter().position(returned) else {
            // It said so to a manager that died. What it sends from here on, it defers itself.
            let _ = self.answers(by, false);
            return Vec::new();
        };
        self.inherited[index].returned = true;
        self.conclude_inherited(index)
    }

    /// The kernel has what the old worker was told of a pass.
    pub fn told(&mut self, from: WorkerId, pass: PassId) -> Vec<Step> {
        let told = |it: &Pass| it.id == pass && it.from == from && it.stage == Stage::Letting;
        if self.current.as_ref().is_some_and(told) {
            return self.conclude();
        }
        let Some(index) = self.inherited.iter().position(told) else { return Vec::new() };
        self.conclude_inherited(index)
    }

    fn settle(&mut self) -> Vec<Step> {
        match self.current.as_mut().and_then(Pass::settle) {
            Some(step) => vec![step],
            None => self.conclude(),
        }
    }

    fn conclude(&mut self) -> Vec<Step> {
        let Some(pass) = self.current.take() else { return Vec::new() };
        let mut steps = Vec::new();
        if let Some(to) = pass.to {
            steps.push(Step::Route { to, fds: pass.taken.clone() });
        }
        let arriving = pass.owners();
        steps.push(Step::Release { ends: pass.ends(), arriving: arriving.clone() });
        steps.extend(arriving.into_iter().map(|(id, _)| Step::Own { id, pass: pass.id }));
        steps.extend([Step::Passed(pass.passed()), Step::GoOn]);
        steps
    }

    /// A worker has ended, and all that it said was taken.
    pub fn exited(&mut self, id: WorkerId) -> Vec<Step> {
        self.next = self.next.filter(|(from, to)| *from != id && *to != id);
        let mut steps = self.current_lost(id);
        let mut index = 0;
        while index < self.inherited.len() {
            let it = &mut self.inherited[index];
            it.to = it.to.filter(|to| *to != id);
            if it.from == id {
                it.from_lives = false;
                steps.extend(self.conclude_inherited(index));
            } else {
                index += 1;
            }
        }
        self.gives.remove(&id);
        self.holds.retain(|holding| holding.by != id);
        self.owners.retain(|(owner, ..)| *owner != id);
        steps
    }

    fn current_lost(&mut self, id: WorkerId) -> Vec<Step> {
        let Some(it) = &mut self.current else { return Vec::new() };
        if it.from == id {
            it.from_lives = false;
            match it.stage {
                // What has come of it can still be taken.
                Stage::Giving => match it.ask() {
                    Some(step) => vec![step],
                    None => self.conclude(),
                },
                Stage::Taking => Vec::new(),
                Stage::Letting | Stage::Returning => self.conclude(),
            }
        } else if it.to == Some(id) {
            it.to = None;
            if it.stage == Stage::Taking { self.settle() } else { Vec::new() }
        } else {
            Vec::new()
        }
    }

    /// Whom the pass under way waits for.
    pub fn waits_for(&self) -> Option<WorkerId> {
        self.current.as_ref().map(Pass::waits_for)
    }
}

// What waits.
impl Passes {
    /// Whether a message waits for the end of the pass: what is for either worker, and what the
    /// old worker sends to whom it has given. What the old worker sent before it gave anything,
    /// nothing can overtake.
    pub fn waits(
        &self,
        sender: Option<WorkerId>,
        target: Option<WorkerId>,
        client: Option<u64>,
    ) -> bool {
        let Some(pass) = &self.current else { return false };
        if client.is_some_and(|fd| pass.given.contains(&fd)) {
            return true;
        }
        let Some(target) = target else { return false };
        if sender == Some(pass.from) {
            return !pass.given.is_empty() && pass.to == Some(target);
        }
        target == pass.from || pass.to == Some(target)
    }

    /// Whether a broadcast has to reach clients that its sender may have missed.
    pub fn keeps(&self, sender: Option<WorkerId>) -> bool {
        let Some(pass) = &self.current else { return false };
        (sender == Some(pass.from) && !pass.given.is_empty())
            || (sender.is_some() && sender == pass.to)
    }

    /// Whether a worker is at either end of the pass under way.
    pub fn is_end(&self, worker: WorkerId) -> bool {
        self.current.as_ref().is_some_and(|it| it.from == worker || it.to == Some(worker))
    }

    /// Whether a worker that has clients of a pass keeps by itself what it sends to them: what it
    /// sent before has to reach them by way of the manager.
    pub fn has_answered(&self, sender: Option<WorkerId>) -> bool {
        let has = |it: &Pass| {
            (it.answered && it.to == sender) || (it.returned && Some(it.from) == sender)
        };
        self.current.iter().chain(&self.inherited).any(has)
            || self.holds.iter().any(|it| Some(it.by) == sender)
            || self.answered.iter().any(|by| Some(*by) == sender)
            || self.owners.iter().any(|(id, ..)| Some(*id) == sender)
    }
}
