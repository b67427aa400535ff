//! Does what [`super::pass`] decides, and tells it what workers say.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::reload::Event;
use super::step::{Moving, Step};
use crate::fd::WorkerId;
use crate::ipc::messages::{ManagerToMaster, PassId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::manager::Manager;
use crate::manager::relay::hold::Scope;
use crate::sys::point;

impl Manager {
    /// What a worker says of a pass.
    pub fn on_pass_message(
        &mut self,
        from: WorkerId,
        message: WorkerToManager,
        body: Body<'_>,
        sockets: &mut Vec<OwnedFd>,
    ) {
        match message {
            WorkerToManager::Moving { pass, fds } => {
                self.on_moving(from, pass, fds, body, std::mem::take(sockets));
            }
            WorkerToManager::Stays { fds } => self.on_stays(from, fds),
            WorkerToManager::Gave { pass, left } => {
                point::reached("manager-hears-all-is-given");
                let steps = self.exchange.passes.gave(from, pass, left);
                self.carry_out(steps);
            }
            WorkerToManager::Adopted { pass, fds } => {
                point::reached("manager-hears-the-answer");
                let steps = self.exchange.passes.adopted(from, pass, &fds);
                self.carry_out(steps);
            }
            // What it has given to a manager that died.
            WorkerToManager::Gives { manager, pass, fds } => {
                let is_believed = self.exchange.workers.believes(from, fds.len());
                if is_believed && manager == self.epoch {
                    self.exchange.passes.gives(from, pass, fds);
                }
            }
            // What it was given by a manager that died.
            WorkerToManager::Holds { manager, pass, from: source, fds, answered } => {
                if self.exchange.passes.answers(from, answered) {
                    self.exchange.hold.mark_had(from);
                }
                if self.exchange.workers.believes(from, fds.len()) && manager == self.epoch {
                    self.exchange.passes.holds(from, (pass, source), fds);
                }
            }
            _ => {}
        }
    }

    /// Connections of a pass, from the worker that gives them.
    fn on_moving(
        &mut self,
        from: WorkerId,
        pass: PassId,
        fds: Vec<u64>,
        state: Body<'_>,
        sockets: Vec<OwnedFd>,
    ) {
        if fds.len() != sockets.len() {
            tracing::error!(worker = %from, "a batch of connections is incomplete");
            self.master.send(&ManagerToMaster::Kill(from));
            return;
        }
        if let Some(stolen) = self.exchange.router.not_of(from, &fds) {
            let what = "the worker gives a client that is not its own";
            tracing::error!(worker = %from, fd = stolen, "{what}");
            self.master.send(&ManagerToMaster::Kill(from));
            return;
        }
        if self.exchange.passes.is_beyond(from, pass, &fds, state.len()) {
            tracing::error!(worker = %from, "a worker gives more than a pass has, or one twice");
            self.master.send(&ManagerToMaster::Kill(from));
            return;
        }
        point::reached("manager-is-given-a-batch");
        match self.exchange.passes.moving(from, pass, &fds) {
            Moving::To(to) => {
                if let Some(to) = self.exchange.workers.get(to) {
                    to.adopt((pass, from), fds, state, sockets);
                }
            }
            Moving::ToNobody => {}
            Moving::Outdated => self.exchange.hold.mark_had(from),
        }
    }

    /// Connections that stay where they are, as far as they are the worker's.
    fn on_stays(&mut self, from: WorkerId, mut fds: Vec<(u64, String)>) {
        // Else a manager that died had asked, and this one may not know yet whose clients they are.
        if !self.reloads.current.as_ref().is_some_and(|reload| reload.is_from(from)) {
            return;
        }
        let named = fds.len();
        fds.retain(|(fd, _)| self.exchange.router.not_of(from, &[*fd]).is_none());
        if fds.len() < named {
            let count = named - fds.len();
            tracing::error!(worker = %from, count, "clients of others are to stay with a worker");
        }
        for (fd, why) in &fds {
            tracing::info!(worker = %from, fd, why, "a connection stays on its old worker");
        }
        let fds = fds.into_iter().map(|(fd, _)| fd).collect();
        self.reload_event(Event::Stays { from, fds });
    }

    /// Decides what can be decided of passes that a manager has left which died.
    pub fn resolve_passes(&mut self) {
        let is_unknown = |worker: &crate::manager::worker_handle::WorkerHandle| {
            worker.may_claim && !worker.introduced
        };
        let any_unknown = self.exchange.workers.iter().any(is_unknown);
        let workers = &self.exchange.workers;
        let steps = self
            .exchange
            .passes
            .resolve(|id| workers.get(id).is_some_and(is_unknown), any_unknown);
        self.carry_out(steps);
    }

    /// Does these steps, in their order.
    pub fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            tracing::debug!(?step, "a pass");
            match step {
                Step::Give { from, pass, .. } => {
                    self.exchange.hold.scope = Scope::Pass;
                    if let Some(worker) = self.exchange.workers.get(from) {
                        worker.give(pass);
                    }
                    point::reached("manager-has-asked");
                }
                Step::Take { to, pass } => {
                    if let Some(worker) = self.exchange.workers.get(to) {
                        worker.take(pass);
                    }
                }
                Step::Settle { from, pass, taken } => self.tell_settled(from, pass, taken),
                // What a worker that died had taken over is gone.
                Step::Route { to, .. } if self.exchange.workers.get(to).is_none() => {}
                Step::Route { to, fds } => self.exchange.router.hand_over_some(to, fds),
                Step::Release { ends, arriving } => self.exchange.release(&ends, &arriving),
                Step::Own { id, pass } => {
                    point::reached("manager-has-released");
                    if let Some(worker) = self.exchange.workers.get(id) {
                        worker.own(pass);
                        worker.link.hurry();
                    }
                    point::reached("manager-has-said-own");
                }
                Step::Passed(passed) => self.reload_event(Event::Passed(passed)),
                Step::GoOn => {
                    // Behind `Own`, with which handlers hear of those who came.
                    self.exchange.deliver_to_slots();
                    let steps = self.exchange.passes.go_on();
                    self.carry_out(steps);
                }
            }
        }
    }

    /// Tells the old worker what was taken, and the pass when the kernel has that message: what a
    /// manager has in its memory dies with it.
    fn tell_settled(&mut self, from: WorkerId, pass: PassId, taken: Vec<u64>) {
        let me = self.me.clone();
        let Some(worker) = self.exchange.workers.get_mut(from) else { return };
        if worker.settled(pass, taken) {
            point::reached("manager-has-told-what-was-taken");
            let steps = self.exchange.passes.told(from, pass);
            return self.carry_out(steps);
        }
        let link = Rc::clone(&worker.link);
        worker.own_task(spawn_local(async move {
            link.flushed().await;
            let Some(manager) = me.upgrade() else { return };
            let mut manager = manager.borrow_mut();
            let steps = manager.exchange.passes.told(from, pass);
            manager.carry_out(steps);
            manager.check_owners_known();
        }));
    }
}
