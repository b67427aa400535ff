//! The reload as a state machine: events in, actions out, the clock passed in.
//!
//! ```text
//! Preparing ─► Spawning ─► Moving, one old worker after the other ─► commit
//!     │            └─ a new worker fails ─► what the others took goes back ─► abort
//!     └─ refused: nothing has changed
//! ```
//!
//! Until the first connection moves, a failure undoes everything. From then on the reload goes
//! forward: a new worker that dies is started once more, an old one that dies has lost what it
//! had not given yet, and the verdict says so.
//!
//! A worker gives in passes ([`super::pass`]), and after each of them the routes of those it gave
//! change, so that no message waits longer than a pass takes, however many connections there are.
//!
//! What stayed behind follows later, by a move of its own ([`Reload::follow`]).

use std::collections::{BTreeMap, VecDeque};

use crate::fd::{Slot, WorkerId};
use crate::ipc::control::{ReloadState, ReloadVerdict, SlotVerdict};
use crate::ipc::messages::{Generation, Left};
use crate::manager::moving::step::Passed;

/// How often one slot's new worker is started before the slot is given up.
const TRIES_MAX: u8 = 2;
/// Clients that may stay with one old worker: more than a worker has handlers that run.
const STAY_MAX: usize = 1 << 20;

/// Deadlines, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the master to check image and configuration.
    pub prepare_ms: u64,
    /// For new workers to be ready.
    pub boot_ms: u64,
    /// For one old worker to hand over.
    pub hand_over_ms: u64,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// The master is ready to spawn this generation.
    Prepared { generation: Generation, worker_num: u16 },
    /// It will not.
    PrepareFailed(String),
    /// A worker was started.
    Attached { id: WorkerId, generation: Generation },
    /// A worker is ready.
    Ready(WorkerId),
    /// A worker ended.
    Exited { id: WorkerId, how: String },
    /// A new worker could not be started.
    SpawnFailed { slot: Slot, why: String },
    /// Connections stay where they are.
    Stays { from: WorkerId, fds: Vec<u64> },
    /// The old worker is at rest: a pass can begin.
    CanGive { from: WorkerId },
    /// A pass is over.
    Passed(Passed),
    /// Time has passed; the worker that the pass under way waits for.
    Tick { waits_for: Option<WorkerId> },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the master to check image and configuration.
    Prepare,
    /// Ask the master for a worker of the new generation.
    Spawn(Slot),
    /// Tell the master that the new generation serves.
    Commit { worker_num: u16 },
    /// Tell the master that the new generation is not wanted.
    Abort,
    /// Have `from` stop accepting, and say when it can give to `to`.
    HandOver { from: WorkerId, to: WorkerId },
    /// Have `from` give a pass.
    Give { from: WorkerId, to: WorkerId },
    /// Have the master kill a worker that holds a pass up.
    Kill(WorkerId),
    /// All of `from` but for `stay` is now with `to`.
    Flip { from: WorkerId, to: WorkerId, stay: Vec<u64> },
    /// Have an old worker close what it has left, and leave.
    Drain(WorkerId),
    /// It is over.
    Finished(ReloadVerdict),
}

#[derive(Debug, Default, Clone)]
struct Peer {
    id: Option<WorkerId>,
    ready: bool,
    tries: u8,
    /// Its second start was asked for since the first had died, so the master's word about the
    /// first says nothing about the second.
    respawning: bool,
}

impl Peer {
    fn ready_id(&self) -> Option<WorkerId> {
        self.id.filter(|_| self.ready)
    }
}

#[derive(Debug)]
enum Phase {
    Preparing { until: u64 },
    Spawning { until: u64 },
    Moving(Move),
    Over,
}

#[derive(Debug)]
struct Move {
    from: WorkerId,
    /// Where to: a slot, and its worker once there is one.
    slot: Slot,
    to: Option<WorkerId>,
    until: u64,
    /// A pass is under way.
    passing: bool,
    /// The old worker has something to give, and can.
    can_give: bool,
    /// The old worker has nothing more to give.
    all_given: bool,
    moved: u64,
    stay: Vec<u64>,
    from_died: bool,
    failed: Option<String>,
}

impl Move {
    fn passed(&mut self, passed: Passed) {
        self.passing = false;
        self.moved += passed.moved;
        if !passed.refused.is_empty() {
            let refused = passed.refused.len();
            let said = format!("The new worker could not take {refused} connections.");
            self.failed.get_or_insert(said);
        }
        match passed.left {
            // It is dead, which we hear next.
            None => self.can_give = false,
            // What went back is given to the next, and who stays is told anew.
            _ if passed.went_back => {
                self.can_give = true;
                self.stay.clear();
            }
            // Whom the new worker refused is given again with what is left.
            Some(Left::More) => self.can_give = true,
            Some(Left::Busy) => {}
            Some(Left::Nothing) => {
                self.all_given = true;
                self.stay.extend(passed.refused);
            }
        }
    }
}

/// Which way connections move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From the old generation to the new.
    Forward,
    /// Back to the old one: the new is not wanted.
    Back,
    /// After the others, from one old worker that some had stayed with.
    After,
}

/// One reload.
#[derive(Debug)]
pub struct Reload {
    limits: Limits,
    started_ms: u64,
    generation: Generation,
    worker_num: u16,
    old: BTreeMap<Slot, Peer>,
    new: BTreeMap<Slot, Peer>,
    phase: Phase,
    /// Slots whose connections are still to move: of the old, or going back, of the new.
    todo: VecDeque<Slot>,
    direction: Direction,
    failure: Option<String>,
    slots: Vec<SlotVerdict>,
}

impl Reload {
    /// Begins: `old` are the workers that serve, and whether they are ready.
    pub fn begin(
        old: impl IntoIterator<Item = (WorkerId, bool)>,
        limits: Limits,
        now: u64,
    ) -> (Reload, Vec<Action>) {
        let reload = Reload {
            limits,
            started_ms: now,
            generation: 0,
            worker_num: 0,
            old: peers(old),
            new: BTreeMap::new(),
            phase: Phase::Preparing { until: now + limits.prepare_ms },
            todo: VecDeque::new(),
            direction: Direction::Forward,
            failure: None,
            slots: Vec::new(),
        };
        (reload, vec![Action::Prepare])
    }

    /// Goes on with what a manager that died had begun.
    pub fn resume(
        generation: Generation,
        worker_num: u16,
        old: impl IntoIterator<Item = (WorkerId, bool)>,
        new: impl IntoIterator<Item = (WorkerId, bool)>,
        limits: Limits,
        now: u64,
    ) -> (Reload, Vec<Action>) {
        let (mut reload, _) = Reload::begin(old, limits, now);
        reload.new = peers(new);
        let actions = reload.spawn_all(generation, worker_num, now);
        (reload, actions)
    }

    /// Moves what had stayed with `from`, and can move now, to the worker that serves its slot.
    pub fn follow(
        from: WorkerId,
        to: WorkerId,
        limits: Limits,
        now: u64,
    ) -> (Reload, Vec<Action>) {
        let (mut reload, _) = Reload::begin([(from, true)], limits, now);
        reload.direction = Direction::After;
        let actions = reload.move_between(from, to.slot, Some(to), now);
        (reload, actions)
    }

    /// Whether this only moves what had stayed behind.
    pub fn follows(&self) -> bool {
        self.direction == Direction::After
    }

    /// The workers of the old generation that are alive.
    pub fn old_workers(&self) -> impl Iterator<Item = WorkerId> {
        self.old.values().filter_map(|peer| peer.id)
    }

    /// Where it stands.
    pub fn state(&self) -> ReloadState {
        match self.phase {
            Phase::Preparing { .. } => ReloadState::Preparing,
            Phase::Spawning { .. } => ReloadState::Spawning,
            Phase::Moving(_) => ReloadState::Handing,
            Phase::Over => ReloadState::Idle,
        }
    }

    /// Whose connections are on their way now, and where to.
    pub fn moving(&self) -> Option<(WorkerId, WorkerId)> {
        match &self.phase {
            Phase::Moving(step) => step.to.map(|to| (step.from, to)),
            _ => None,
        }
    }

    /// The handover had to wait: its time begins now.
    pub fn moves_from(&mut self, now: u64) {
        if let Phase::Moving(step) = &mut self.phase {
            step.until = now + self.limits.hand_over_ms;
        }
    }

    /// Whether this worker gives connections now, or is about to.
    pub fn is_from(&self, id: WorkerId) -> bool {
        matches!(&self.phase, Phase::Moving(step) if step.from == id)
    }

    /// Takes an event.
    pub fn on(&mut self, event: Event, now: u64) -> Vec<Action> {
        match event {
            Event::Prepared { generation, worker_num } => match self.phase {
                Phase::Preparing { .. } => self.spawn_all(generation, worker_num, now),
                _ => Vec::new(),
            },
            Event::PrepareFailed(why) => match self.phase {
                Phase::Preparing { .. } => self.fail(why, now),
                _ => Vec::new(),
            },
            Event::Attached { id, generation } => {
                let side = self.side(generation);
                let peer = side.entry(id.slot).or_default();
                *peer = Peer { id: Some(id), tries: peer.tries, ..Peer::default() };
                Vec::new()
            }
            Event::Ready(id) => self.on_ready(id, now),
            Event::Exited { id, how } => self.on_exited(id, &how, now),
            Event::SpawnFailed { slot, why } => self.on_spawn_failed(slot, why, now),
            Event::Tick { waits_for } => self.on_tick(waits_for, now),
            Event::Stays { from, fds } => {
                if let Some(step) = self.step_from(from) {
                    let room = STAY_MAX.saturating_sub(step.stay.len());
                    step.stay.extend(fds.into_iter().take(room));
                }
                Vec::new()
            }
            Event::CanGive { from } => {
                if let Some(step) = self.step_from(from) {
                    step.can_give = true;
                }
                self.go_on(now)
            }
            Event::Passed(passed) => {
                if let Some(step) = self.step_from(passed.from) {
                    step.passed(passed);
                }
                self.go_on(now)
            }
        }
    }

    fn side(&mut self, generation: Generation) -> &mut BTreeMap<Slot, Peer> {
        let is_new = self.generation != 0 && generation >= self.generation;
        if is_new { &mut self.new } else { &mut self.old }
    }

    fn step_from(&mut self, from: WorkerId) -> Option<&mut Move> {
        match &mut self.phase {
            Phase::Moving(step) if step.from == from => Some(step),
            _ => None,
        }
    }

    fn spawn_all(&mut self, generation: Generation, worker_num: u16, now: u64) -> Vec<Action> {
        self.generation = generation;
        self.worker_num = worker_num.max(1);
        self.phase = Phase::Spawning { until: now + self.limits.boot_ms };
        let mut actions = Vec::new();
        for slot in (0..self.worker_num).map(|slot| Slot(slot as u8)) {
            let peer = self.new.entry(slot).or_default();
            if peer.id.is_none() {
                peer.tries += 1;
                actions.push(Action::Spawn(slot));
            }
        }
        actions.extend(self.move_if_all_ready(now));
        actions
    }

    fn on_ready(&mut self, id: WorkerId, now: u64) -> Vec<Action> {
        for peer in self.old.values_mut().chain(self.new.values_mut()) {
            if peer.id == Some(id) {
                peer.ready = true;
            }
        }
        match &mut self.phase {
            Phase::Spawning { .. } => self.move_if_all_ready(now),
            Phase::Moving(step) if step.to.is_none() && step.slot == id.slot => {
                if self.new.get(&id.slot).and_then(Peer::ready_id) != Some(id) {
                    return Vec::new();
                }
                step.to = Some(id);
                step.until = now + self.limits.hand_over_ms;
                vec![Action::HandOver { from: step.from, to: id }]
            }
            _ => Vec::new(),
        }
    }

    fn move_if_all_ready(&mut self, now: u64) -> Vec<Action> {
        if !self.new.values().all(|peer| peer.ready) {
            return Vec::new();
        }
        self.todo = self.old.keys().copied().collect();
        self.next_move(now)
    }

    fn on_exited(&mut self, id: WorkerId, how: &str, now: u64) -> Vec<Action> {
        let mut was_ready = false;
        let mut is_new = false;
        for (side_is_new, side) in [(false, &mut self.old), (true, &mut self.new)] {
            if let Some(peer) = side.get_mut(&id.slot).filter(|peer| peer.id == Some(id)) {
                (was_ready, is_new) = (peer.ready, side_is_new);
                (peer.id, peer.ready) = (None, false);
            }
        }
        match &mut self.phase {
            Phase::Spawning { .. } if is_new => {
                self.fail(format!("The new worker {id} died before all were ready: {how}."), now)
            }
            Phase::Moving(step) if step.from == id => {
                step.from_died = true;
                let said = format!("Worker {id} died while it handed over: {how}.");
                step.failed.get_or_insert(said);
                match step.to {
                    Some(_) => self.go_on(now),
                    None => self.give_up(String::new(), now),
                }
            }
            Phase::Moving(_) if is_new && self.direction == Direction::Forward => {
                self.on_new_died(id, was_ready, how, now)
            }
            Phase::Moving(step) if step.to == Some(id) => {
                self.give_up(format!("Worker {id} died while it took over: {how}."), now)
            }
            _ => Vec::new(),
        }
    }

    /// A new worker died while connections move forward: it is started once more.
    fn on_new_died(&mut self, id: WorkerId, was_ready: bool, how: &str, now: u64) -> Vec<Action> {
        let until = now + self.limits.boot_ms;
        if let Phase::Moving(step) = &mut self.phase
            && step.to == Some(id)
        {
            let moved = step.moved;
            step.failed = Some(format!(
                "The new worker {id} died while it took over, with {moved} connections: {how}.",
            ));
            step.to = None;
            step.until = until;
            (step.can_give, step.all_given) = (false, false);
            step.moved = 0;
            step.stay.clear();
        }
        if was_ready { self.respawn(id.slot, true, now) } else { Vec::new() }
    }

    fn respawn(&mut self, slot: Slot, after_exit: bool, now: u64) -> Vec<Action> {
        let peer = self.new.entry(slot).or_default();
        if peer.tries >= TRIES_MAX {
            let waits = matches!(&self.phase, Phase::Moving(step)
                if step.to.is_none() && step.slot == slot);
            return if waits { self.give_up(String::new(), now) } else { Vec::new() };
        }
        peer.tries += 1;
        peer.respawning = after_exit;
        vec![Action::Spawn(slot)]
    }

    fn on_spawn_failed(&mut self, slot: Slot, why: String, now: u64) -> Vec<Action> {
        match &mut self.phase {
            Phase::Spawning { .. } => {
                if let Some(peer) = self.new.get_mut(&slot) {
                    (peer.id, peer.ready) = (None, false);
                }
                self.fail(why, now)
            }
            Phase::Moving(step) if self.direction == Direction::Forward => {
                let peer = self.new.entry(slot).or_default();
                if std::mem::take(&mut peer.respawning) || peer.ready {
                    return Vec::new();
                }
                (peer.id, peer.ready) = (None, false);
                if step.slot == slot && step.to.is_none() {
                    step.failed.get_or_insert(why);
                }
                self.respawn(slot, false, now)
            }
            _ => Vec::new(),
        }
    }

    fn on_tick(&mut self, waits_for: Option<WorkerId>, now: u64) -> Vec<Action> {
        match &self.phase {
            Phase::Preparing { until } if now >= *until => {
                let secs = self.limits.prepare_ms / 1000;
                self.fail(format!("The master did not prepare a reload within {secs} s."), now)
            }
            Phase::Spawning { until } if now >= *until => {
                let late = self.new.iter().filter(|(_, peer)| !peer.ready);
                let late: Vec<String> = late.map(|(slot, _)| slot.to_string()).collect();
                let secs = self.limits.boot_ms / 1000;
                let late = late.join(", ");
                self.fail(format!("New workers were not ready within {secs} s: {late}."), now)
            }
            Phase::Moving(step) if now >= step.until && step.passing => {
                // It has connections that others wait for. Once it is dead they are free.
                let until = now + self.limits.hand_over_ms;
                if let Phase::Moving(step) = &mut self.phase {
                    step.until = until;
                }
                waits_for.map(Action::Kill).into_iter().collect()
            }
            Phase::Moving(step) if now >= step.until => {
                let why = match step.to {
                    Some(_) => format!("Worker {} did not hand over in time.", step.from),
                    None => format!("The new worker {} was not ready in time.", step.slot),
                };
                self.give_up(why, now)
            }
            _ => Vec::new(),
        }
    }

    /// Nothing has moved yet, so everything is undone: what new workers accepted goes back.
    fn fail(&mut self, why: String, now: u64) -> Vec<Action> {
        self.failure = Some(why);
        if matches!(self.phase, Phase::Preparing { .. }) {
            return vec![self.finished(now)];
        }
        self.direction = Direction::Back;
        let ready = self.new.iter().filter(|(_, peer)| peer.ready);
        self.todo = ready.map(|(slot, _)| *slot).collect();
        self.next_move(now)
    }

    fn next_move(&mut self, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(slot) = self.todo.pop_front() {
            let back = self.direction == Direction::Back;
            let (old_workers, new_workers) =
                if back { (&self.new, &self.old) } else { (&self.old, &self.new) };
            let Some(old_worker) = old_workers.get(&slot).cloned() else { continue };
            let Some(from) = old_worker.id else { continue };
            if !old_worker.ready {
                // It has no connections yet, and will find nothing to do.
                actions.push(Action::Drain(from));
                continue;
            }
            let count = new_workers.len().max(1) as u16;
            let target = if new_workers.contains_key(&slot) {
                slot
            } else {
                Slot((u16::from(slot.0) % count) as u8)
            };
            let to = new_workers.get(&target).and_then(Peer::ready_id);
            if to.is_none() && back {
                continue;
            }
            actions.extend(self.move_between(from, target, to, now));
            return actions;
        }
        let worker_num = self.worker_num;
        match self.direction {
            Direction::Forward => actions.push(Action::Commit { worker_num }),
            Direction::Back => actions.push(Action::Abort),
            Direction::After => {}
        }
        actions.push(self.finished(now));
        actions
    }

    /// Begins to move from one worker to another, or waits until there is another.
    fn move_between(
        &mut self,
        from: WorkerId,
        slot: Slot,
        to: Option<WorkerId>,
        now: u64,
    ) -> Vec<Action> {
        let patience = if to.is_some() { self.limits.hand_over_ms } else { self.limits.boot_ms };
        self.phase = Phase::Moving(Move {
            from,
            slot,
            to,
            until: now + patience,
            passing: false,
            can_give: false,
            all_given: false,
            moved: 0,
            stay: Vec::new(),
            from_died: false,
            failed: None,
        });
        match to {
            Some(to) => vec![Action::HandOver { from, to }],
            None if self.new.get(&slot).is_some_and(|peer| peer.tries > 0) => Vec::new(),
            None => self.respawn(slot, false, now),
        }
    }

    /// Begins the next pass, or ends the move, unless something is waited for.
    fn go_on(&mut self, now: u64) -> Vec<Action> {
        let Phase::Moving(step) = &mut self.phase else { return Vec::new() };
        let Some(to) = step.to else { return Vec::new() };
        if step.passing {
            return Vec::new();
        }
        let from = step.from;
        if !step.from_died && !step.all_given {
            step.passing = std::mem::take(&mut step.can_give);
            return if step.passing { vec![Action::Give { from, to }] } else { Vec::new() };
        }
        let alive = !step.from_died;
        let stay = if alive { std::mem::take(&mut step.stay) } else { Vec::new() };
        let verdict = SlotVerdict {
            slot: from.slot,
            to: to.slot,
            moved: step.moved,
            stayed: stay.len() as u64,
            failed: step.failed.take(),
        };
        let mut actions = vec![Action::Flip { from, to, stay }];
        actions.extend(self.after_move(from, alive, verdict, now));
        actions
    }

    /// The rest of this move will not happen: what has arrived stays with its new owner, and a pass
    /// that is under way ends by itself.
    fn give_up(&mut self, why: String, now: u64) -> Vec<Action> {
        let Phase::Moving(step) = &mut self.phase else { return Vec::new() };
        let (from, alive) = (step.from, !step.from_died);
        let verdict = SlotVerdict {
            slot: from.slot,
            to: step.slot,
            moved: step.moved,
            stayed: 0,
            failed: Some(step.failed.take().unwrap_or(why)),
        };
        self.after_move(from, alive, verdict, now)
    }

    /// Notes how a move ended, and goes on with the next.
    fn after_move(
        &mut self,
        from: WorkerId,
        alive: bool,
        verdict: SlotVerdict,
        now: u64,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if alive && self.direction == Direction::Forward {
            actions.push(Action::Drain(from));
        }
        if self.direction != Direction::Back {
            self.slots.push(verdict);
        }
        actions.extend(self.next_move(now));
        actions
    }

    fn finished(&mut self, now: u64) -> Action {
        self.phase = Phase::Over;
        Action::Finished(ReloadVerdict {
            generation: self.generation,
            failure: self.failure.take(),
            took_ms: now.saturating_sub(self.started_ms),
            slots: std::mem::take(&mut self.slots),
        })
    }
}

fn peers(workers: impl IntoIterator<Item = (WorkerId, bool)>) -> BTreeMap<Slot, Peer> {
    let peer = |(id, ready): (WorkerId, bool)| {
        let peer = Peer { id: Some(id), ready, tries: 1, ..Peer::default() };
        (id.slot, peer)
    };
    workers.into_iter().map(peer).collect()
}

#[cfg(test)]
mod tests;
