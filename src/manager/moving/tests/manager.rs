//! The manager of the play: it does what the reload and the passes decide, as the real one does.

use super::play::LIMITS;
use super::world::{Broken, Down, Manager, Up, World, lease};
use crate::fd::{Slot, WorkerId};
use crate::manager::moving::pass::Passes;
use crate::manager::moving::reload::{Action, Event, Reload};
use crate::manager::moving::step::{Moving, Step};
use crate::manager::relay::router::Router;

impl World {
    pub fn start_manager(&mut self) {
        self.managers += 1;
        let epoch = self.managers;
        self.note(|| format!("manager {epoch} starts"));
        let router = Router::new(self.serving_num);
        let mut manager = Manager {
            epoch,
            router,
            reload: None,
            passes: Passes::new(epoch, epoch == 1),
            hold: Default::default(),
            settling: epoch > 1,
            introduced: Default::default(),
            draining: Default::default(),
            can_give: Default::default(),
            untold: Vec::new(),
            waits_for_direct: None,
            told_indirect: false,
        };
        for worker in self.workers.values_mut() {
            let id = worker.id;
            if worker.generation < self.generation {
                manager.draining.insert(id);
            }
            let serves = manager.router.serving_here(id.slot);
            let replaces = worker.generation == self.generation
                && serves.is_none_or(|serving| serving.epoch < id.epoch);
            if replaces || serves.is_none() {
                manager.router.serve(id);
            }
            let (first, last) = lease(id);
            manager.router.leased(id, first, last);
            if epoch == 1 {
                manager.introduced.insert(id);
            } else {
                worker.down.control.push_back(Down::WhoAreYou { manager: epoch });
            }
        }
        self.manager = Some(manager);
    }

    pub fn flush_up(&mut self, id: WorkerId) {
        self.worker(id).up.flush_one();
    }

    pub fn flush_down(&mut self, id: WorkerId) {
        self.worker(id).down.flush_one();
        self.tell_flushed();
    }

    pub fn tell_flushed(&mut self) {
        let Some(manager) = &self.manager else { return };
        for (from, pass) in manager.untold.clone() {
            if self.workers.get(&from).is_some_and(|it| it.down.control.is_empty()) {
                self.boss().untold.retain(|it| *it != (from, pass));
                let steps = self.boss().passes.told(from, pass);
                self.steps(steps);
            }
        }
    }

    pub fn manager_reads(&mut self, id: WorkerId) {
        if self.manager.is_none() {
            return;
        }
        if let Some(up) = self.worker(id).up.kernel.pop_front() {
            self.note(|| format!("the manager hears {up:?} of {id}"));
            self.manager_hears(id, up);
        }
    }

    pub fn manager_hears(&mut self, id: WorkerId, up: Up) {
        let epoch = self.boss().epoch;
        match up {
            Up::Message(message) => match message.fd {
                Some(fd) => self.deliver(fd, message),
                None => self.broadcast(message),
            },
            Up::Moving { pass, fds } => match self.boss().passes.moving(id, pass, &fds) {
                Moving::To(to) => self.tell(to, Down::Adopt { pass, from: id, fds }),
                Moving::ToNobody => {}
                Moving::Outdated => self.mark_had(id),
            },
            Up::Gave { pass, left } => {
                let steps = self.boss().passes.gave(id, pass, left);
                self.steps(steps);
            }
            Up::Stays { fds } => self.reload_event(Event::Stays { from: id, fds }),
            Up::CanGive => self.on_can_give(id),
            Up::Adopted { pass, fds } => {
                let steps = self.boss().passes.adopted(id, pass, &fds);
                self.steps(steps);
                self.check_owners_known();
            }
            Up::Gives { manager, pass, fds } if manager == epoch => {
                if !self.is_broken(Broken::ForgetsWhatWasGiven) {
                    self.boss().passes.gives(id, pass, fds);
                }
            }
            Up::Holds { manager, of, fds, answered } => {
                if self.boss().passes.answers(id, answered) {
                    self.mark_had(id);
                }
                if manager == epoch && !self.is_broken(Broken::ForgetsWhatHasCome) {
                    self.boss().passes.holds(id, of, fds);
                }
            }
            Up::Owns { manager, fds } if manager == epoch => {
                let ranges: Vec<(u64, u64)> = fds.into_iter().map(|fd| (fd, fd)).collect();
                self.boss().router.owns(id, &ranges);
                self.boss().introduced.insert(id);
                self.resolve();
                self.check_owners_known();
            }
            Up::Gives { .. } | Up::Owns { .. } => {}
            Up::Indirect => self.left_by_peer(),
            Up::PeerEnded => {
                self.direct_is_up = false;
                self.hand_over_if_undisturbed();
            }
        }
    }

    pub fn mark_had(&mut self, id: WorkerId) {
        let held = self.boss().hold.iter_mut();
        held.filter(|it| it.message.sender == id).for_each(|it| it.had = true);
    }

    pub fn resolve(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        let (workers, introduced) = (&self.workers, &manager.introduced);
        let is_unknown = |id: WorkerId| workers.contains_key(&id) && !introduced.contains(&id);
        let any_unknown = workers.keys().any(|id| !introduced.contains(id));
        let steps = manager.passes.resolve(is_unknown, any_unknown);
        self.steps(steps);
    }

    pub fn check_owners_known(&mut self) {
        let Some(manager) = &self.manager else { return };
        let all = self.workers.keys().all(|id| manager.introduced.contains(id));
        if !manager.settling || !all || !manager.passes.has_inherited_nothing() {
            return;
        }
        self.note(|| "the manager has settled".to_owned());
        let steps = self.boss().passes.settle_all();
        self.steps(steps);
        self.boss().settling = false;
        if let Some((generation, worker_num)) = self.pending {
            let (old, new) = (self.of_generation(self.generation), self.of_generation(generation));
            let (reload, actions) =
                Reload::resume(generation, worker_num, old, new, LIMITS, self.now);
            self.boss().reload = Some(reload);
            self.act(actions);
        }
        for id in self.boss().draining.clone() {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.down.data.push_back(Down::Drain);
                self.on_can_give(id);
            }
        }
    }

    pub fn left_by_peer(&mut self) {
        let to = WorkerId { slot: Slot(0), epoch: 1 };
        match self.workers.get_mut(&to) {
            Some(worker) if self.direct_is_up => worker.down.data.push_back(Down::PeerLeft),
            _ => {
                self.direct_is_up = false;
                self.hand_over_if_undisturbed();
            }
        }
    }

    pub fn on_can_give(&mut self, id: WorkerId) {
        if self.boss().reload.as_ref().is_some_and(|it| it.is_from(id)) {
            if self.boss().waits_for_direct.is_none() {
                self.reload_event(Event::CanGive { from: id });
            }
        } else {
            self.boss().can_give.insert(id);
            self.follow();
        }
    }

    pub fn follow(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        if manager.reload.is_some() || manager.settling || self.pending.is_some() {
            return;
        }
        let pair = manager.can_give.iter().find_map(|&from| {
            let to = manager.router.serving(from.slot).filter(|to| *to != from)?;
            let can = manager.draining.contains(&from) && self.workers.contains_key(&to);
            can.then_some((from, to))
        });
        let Some((from, to)) = pair else { return };
        manager.can_give.remove(&from);
        let (reload, actions) = Reload::follow(from, to, LIMITS, self.now);
        manager.reload = Some(reload);
        self.act(actions);
    }

    pub fn reload_event(&mut self, event: Event) {
        self.reload_event_at(event, self.now);
    }

    pub fn reload_event_at(&mut self, event: Event, now: u64) {
        let Some(reload) = &mut self.boss().reload else { return };
        let actions = reload.on(event, now);
        self.act(actions);
    }

    pub fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.note(|| format!("reload: {action:?}"));
            match action {
                Action::Prepare => {
                    let (generation, worker_num) = (self.generation + 1, self.new_num);
                    self.pending = Some((generation, worker_num));
                    self.reload_event(Event::Prepared { generation, worker_num });
                }
                Action::Spawn(slot) => self.spawn(slot),
                Action::Commit { worker_num } => self.commit(worker_num),
                Action::Abort => self.violate("a reload is taken back".to_owned()),
                Action::HandOver { from, to } => self.hand_over(from, to),
                Action::Give { from, to } => {
                    let steps = self.boss().passes.begin(from, to);
                    self.steps(steps);
                }
                Action::Kill(_) => {}
                Action::Flip { from, to, stay } => {
                    let boss = self.boss();
                    boss.router.hand_over(from, to, stay);
                    boss.router.serve(to);
                }
                Action::Drain(id) => {
                    self.boss().draining.insert(id);
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.down.data.push_back(Down::Drain);
                    }
                }
                Action::Finished(_) => {
                    self.boss().reload = None;
                    self.boss().passes.cancel_next();
                    self.follow();
                }
            }
        }
    }

    pub fn spawn(&mut self, slot: Slot) {
        let generation = self.pending.map_or(self.generation, |(generation, _)| generation);
        let clients = self.below(2);
        let id = self.start_worker(slot, generation, clients);
        let (first, last) = lease(id);
        let boss = self.boss();
        boss.introduced.insert(id);
        if boss.router.serving_here(slot).is_none() {
            boss.router.serve(id);
        }
        boss.router.leased(id, first, last);
        self.reload_event(Event::Attached { id, generation });
        self.reload_event(Event::Ready(id));
    }

    pub fn commit(&mut self, worker_num: u16) {
        let Some((generation, _)) = self.pending.take() else { return };
        (self.generation, self.serving_num) = (generation, worker_num);
        let new = self.of_generation(generation);
        let boss = self.boss();
        boss.router.resize(worker_num);
        for (id, _) in new {
            boss.router.serve(id);
        }
    }

    pub fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        let third = self.third;
        if !self.is_broken(Broken::KeepsDirectLinks) && self.direct_is_up {
            if !std::mem::replace(&mut self.boss().told_indirect, true)
                && let Some(third) = self.workers.get_mut(&third)
            {
                third.down.control.push_back(Down::EndDirect);
            }
            if from == (WorkerId { slot: Slot(0), epoch: 1 }) {
                self.boss().waits_for_direct = Some((from, to));
                return;
            }
        }
        if let Some(worker) = self.workers.get_mut(&from) {
            worker.down.data.push_back(Down::HandOver);
        }
    }

    pub fn hand_over_if_undisturbed(&mut self) {
        let Some((from, to)) = self.boss().waits_for_direct.take() else { return };
        let moving = self.boss().reload.as_ref().and_then(Reload::moving);
        if moving == Some((from, to))
            && let Some(worker) = self.workers.get_mut(&from)
        {
            worker.down.data.push_back(Down::HandOver);
        }
    }

    pub fn steps(&mut self, mut steps: Vec<Step>) {
        let place = |steps: &[Step], is: fn(&Step) -> bool| steps.iter().position(is);
        let release = place(&steps, |it| matches!(it, Step::Release { .. }));
        if self.is_broken(Broken::OwnsBeforeRelease)
            && let (Some(a), Some(b)) =
                (release, steps.iter().rposition(|it| matches!(it, Step::Own { .. })))
        {
            steps.swap(a, b);
        }
        if self.is_broken(Broken::ReleasesBeforeRoute)
            && let (Some(a), Some(b)) =
                (release, place(&steps, |it| matches!(it, Step::Route { .. })))
        {
            steps.swap(a, b);
        }
        for step in steps {
            self.note(|| format!("pass: {step:?}"));
            self.step(step);
        }
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Give { from, pass, .. } => {
                self.tell(from, Down::Give { pass });
            }
            Step::Take { to, pass } => self.tell(to, Down::Take { pass }),
            Step::Settle { from, pass, taken } => {
                let at_once = self.is_broken(Broken::OwnsBeforeTold);
                // The kernel may have no room for it yet.
                let has_room = !self.one_in(3);
                if let Some(worker) = self.workers.get_mut(&from) {
                    worker.down.control.push_back(Down::Settled { pass, taken });
                    while has_room && !worker.down.control.is_empty() && worker.down.flush_one() {}
                }
                if at_once {
                    let steps = self.boss().passes.told(from, pass);
                    self.steps(steps);
                } else {
                    self.boss().untold.push((from, pass));
                    self.tell_flushed();
                }
            }
            Step::Route { to, fds } => {
                if self.workers.contains_key(&to) {
                    self.boss().router.hand_over_some(to, fds);
                }
            }
            Step::Release { ends, arriving } => self.release(&ends, &arriving),
            Step::Own { id, pass } => self.tell(id, Down::Own { pass }),
            Step::Passed(passed) => self.reload_event(Event::Passed(passed)),
            Step::GoOn => {
                let steps = self.boss().passes.go_on();
                self.steps(steps);
            }
        }
    }

    pub fn tell(&mut self, id: WorkerId, down: Down) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.down.data.push_back(down);
        }
    }
}
