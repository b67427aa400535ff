//! The play: what each does with what it hears, and what happens next.

use super::world::{Down, Manager, Message, Up, World};
use crate::fd::{Slot, WorkerId};
use crate::manager::moving::reload::{Event, Limits, Reload};

/// Steps of a run in which things happen, and then until all has come to rest.
const STEPS: u32 = 200;
const REST_STEPS: u32 = 40_000;
pub const LIMITS: Limits = Limits { prepare_ms: 1, boot_ms: 1, hand_over_ms: 1 };

/// Something that a worker, or the manager with what a worker said, can go on with.
type Happening = fn(&mut World, WorkerId);

impl World {
    /// Plays a run to its end, and judges it.
    pub fn play(&mut self) -> Result<(), String> {
        for step in 0..STEPS + REST_STEPS {
            let ends = step >= STEPS;
            if ends && self.is_at_rest() {
                break;
            }
            self.happens(!ends);
            if self.violation.is_some() {
                break;
            }
        }
        if self.violation.is_none() && !self.is_at_rest() {
            self.violate("it does not come to rest".to_owned());
        }
        if self.violation.is_none() {
            self.judge();
        }
        self.violation.take().map_or(Ok(()), |what| {
            for line in self.trace.iter().flatten() {
                println!("{line}");
            }
            Err(what)
        })
    }

    pub fn is_at_rest(&self) -> bool {
        let quiet = |it: &super::world::Worker| {
            it.up.is_empty()
                && it.down.is_empty()
                && it.peer.is_empty()
                && it.clients.values().all(|here| !here.busy)
        };
        let Some(manager) = &self.manager else { return false };
        self.workers.values().all(quiet)
            && !manager.settling
            && manager.reload.is_none()
            && manager.untold.is_empty()
            && manager.passes.waits_for().is_none()
    }

    fn happens(&mut self, lively: bool) {
        if !lively || self.one_in(2) {
            let pauses = self.one_in(12);
            return match self.can_happen() {
                Some((id, what)) if !pauses => what(self, id),
                can => self.begin_something(lively, can.is_none()),
            };
        }
        let Some(id) = self.any_worker() else { return };
        match self.below(8) {
            0 => self.kill_someone(id),
            1 => self.grow_busy(id),
            2 => self.begin_something(true, false),
            _ => self.send(id),
        }
    }

    fn any_worker(&mut self) -> Option<WorkerId> {
        let index = self.below(self.workers.len() as u64) as usize;
        self.workers.keys().nth(index).copied()
    }

    /// Something that is under way, and can go on.
    fn can_happen(&mut self) -> Option<(WorkerId, Happening)> {
        let (first, which) = (self.any_worker()?, self.below(60) as usize);
        let from_there = self.workers.range(first..).chain(self.workers.range(..first));
        for (id, worker) in from_there {
            let mut can: [Option<Happening>; 6] = [None; 6];
            let mut count = 0;
            let mut add = |is: bool, what: Happening| {
                if is {
                    can[count] = Some(what);
                    count += 1;
                }
            };
            add(worker.up.can_flush(), World::flush_up);
            add(worker.down.can_flush(), World::flush_down);
            add(!worker.down.kernel.is_empty(), World::worker_reads);
            add(!worker.peer.is_empty(), World::reads_peer);
            add(self.manager.is_some() && !worker.up.kernel.is_empty(), World::manager_reads);
            add(worker.watches || worker.clients.values().any(|it| it.busy), World::come_to_rest);
            if count > 0 {
                return can[which % count].map(|what| (*id, what));
            }
        }
        None
    }

    fn begin_something(&mut self, lively: bool, stuck: bool) {
        if self.manager.is_none() {
            return self.start_manager();
        }
        let gives_up = !lively && (stuck || self.one_in(40));
        if gives_up && self.boss().passes.waits_for().is_none() {
            // What waits for somebody who will not come is given up.
            self.now += 10;
            self.check_owners_known();
            return self.reload_event_at(Event::Tick { waits_for: None }, self.now);
        }
        let idle = self.manager.as_ref().is_some_and(|it| it.reload.is_none() && !it.settling);
        if lively && idle && self.reloads_left > 0 && self.pending.is_none() && self.one_in(4) {
            self.reloads_left -= 1;
            self.new_num = 1 + self.below(2) as u16;
            let serving = self.generation;
            let old: Vec<_> = self.of_generation(serving);
            let (reload, actions) = Reload::begin(old, LIMITS, self.now);
            self.boss().reload = Some(reload);
            self.act(actions);
        }
    }

    pub fn of_generation(&self, generation: u32) -> Vec<(WorkerId, bool)> {
        let of = self.workers.values().filter(|it| it.generation == generation);
        of.map(|it| (it.id, true)).collect()
    }

    pub fn boss(&mut self) -> &mut Manager {
        self.manager.as_mut().expect("a manager")
    }

    pub fn kill_someone(&mut self, id: WorkerId) {
        if self.kills_left == 0 || !self.one_in(6) {
            return;
        }
        if self.faults.manager_dies && self.one_in(2) {
            if self.manager.is_some() {
                self.kills_left -= 1;
                self.kill_manager();
            }
            return;
        }
        let serving = self.generation;
        let may = match self.workers[&id].generation {
            1000 => self.faults.third_dies,
            generation if generation <= serving => self.faults.old_dies,
            _ => self.faults.new_dies,
        };
        if may {
            self.kills_left -= 1;
            self.kill_worker(id);
        }
    }

    pub fn kill_worker(&mut self, id: WorkerId) {
        self.note(|| format!("worker {id} dies"));
        let mut worker = self.workers.remove(&id).expect("it lives");
        let mut lost = worker.up.lose();
        for (fd, here) in &worker.clients {
            if !here.arriving || worker.transit.defers(*fd).is_some() {
                self.clients.get_mut(fd).expect("a client").may_be_gone = true;
            }
        }
        for (fd, client) in &mut self.clients {
            client.may_be_gone |= worker.transit.is_away(*fd);
        }
        for pass in worker.transit.passes() {
            self.excused.extend(worker.transit.own(pass).1.into_iter().map(Message::name));
        }
        if id == self.third {
            self.direct_is_up &= self.manager.is_some();
        }
        if let Some(third) = self.workers.get_mut(&self.third)
            && third.direct == Some(id)
        {
            third.direct = None;
        }
        let said: Vec<Up> = worker.up.kernel.drain(..).collect();
        if self.manager.is_some() {
            for up in said {
                self.manager_hears(id, up);
            }
            self.exited(id);
        } else {
            lost.extend(said);
        }
        self.excuse_up(lost);
    }

    pub fn excuse_up(&mut self, lost: Vec<Up>) {
        for up in lost {
            if let Up::Message(message) = up {
                self.excused.insert(message.name());
            }
        }
    }

    pub fn kill_manager(&mut self) {
        self.note(|| "the manager dies".to_owned());
        let manager = self.manager.take().expect("it lives");
        self.excused.extend(manager.hold.iter().map(|it| it.message.name()));
        for worker in self.workers.values_mut() {
            for down in worker.down.lose() {
                if let Down::Message(message) | Down::Missed(message) = down {
                    self.excused.insert(message.name());
                }
            }
        }
    }

    pub fn exited(&mut self, id: WorkerId) {
        let successor =
            self.workers.values().filter(|it| it.id.slot == id.slot).map(|it| it.id).max();
        let boss = self.boss();
        boss.introduced.remove(&id);
        boss.draining.remove(&id);
        boss.can_give.remove(&id);
        boss.untold.retain(|(from, _)| *from != id);
        boss.router.forget(id);
        if let Some(successor) = successor
            && boss.router.serving_here(id.slot).is_none()
        {
            boss.router.serve(successor);
        }
        let steps = boss.passes.exited(id);
        self.steps(steps);
        self.resolve();
        let event = Event::Exited { id, how: "killed".to_owned() };
        self.reload_event(event);
        if id == self.third && self.direct_is_up {
            self.left_by_peer();
        }
        let direct_to = WorkerId { slot: Slot(0), epoch: 1 };
        if id == direct_to && self.direct_is_up {
            self.direct_is_up = false;
            self.hand_over_if_undisturbed();
        }
        self.check_owners_known();
    }
}
