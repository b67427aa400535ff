//! What the manager of the play brings to workers, and what waits with it.

use super::world::{Broken, Down, Held, Message, World};
use crate::fd::{Fd, WorkerId};

impl World {
    pub fn waits(&self, message: Message, target: Option<WorkerId>) -> bool {
        let Some(manager) = &self.manager else { return false };
        if self.is_broken(Broken::HoldsNothing) {
            return manager.settling;
        }
        let is_ours = |id| manager.reload.as_ref().is_some_and(|it| it.is_from(id));
        if self.is_broken(Broken::PassesTheOldWorkerOn) && is_ours(message.sender) {
            return manager.settling;
        }
        manager.settling || manager.passes.waits(Some(message.sender), target, message.fd)
    }

    pub fn deliver(&mut self, number: u64, message: Message) {
        let fd = Fd::try_from(number).expect("a number");
        let target = self.boss().router.owner(fd);
        if self.waits(message, target) {
            self.boss().hold.push_back(Held { message, had: false });
        } else if let Some(target) = target {
            self.send_down(target, Down::Message(message), message);
        }
    }

    /// In the data lane, if there is room.
    pub fn send_down(&mut self, target: WorkerId, down: Down, message: Message) {
        let Some(worker) = self.workers.get_mut(&target) else { return };
        if worker.down.is_full() {
            self.excused.insert(message.name());
        } else {
            worker.down.data.push_back(down);
        }
    }

    pub fn broadcast(&mut self, message: Message) {
        let sender = message.sender;
        let targets: Vec<WorkerId> =
            self.workers.keys().copied().filter(|id| *id != sender).collect();
        let (held, now): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|id| self.waits(message, Some(*id)));
        for id in now {
            self.send_down(id, Down::Message(message), message);
        }
        let boss = self.boss();
        if !held.is_empty() || boss.settling || boss.passes.keeps(Some(sender)) {
            let had = boss.passes.has_answered(Some(sender));
            boss.hold.push_back(Held { message, had });
        }
    }

    pub fn release(&mut self, ends: &[WorkerId], arriving: &[(WorkerId, Vec<u64>)]) {
        let was_settling = std::mem::take(&mut self.boss().settling);
        for Held { message, had } in std::mem::take(&mut self.boss().hold) {
            if let Some(fd) = message.fd {
                self.deliver(fd, message);
                continue;
            }
            if was_settling {
                self.broadcast(message);
            } else {
                for id in ends.iter().filter(|id| **id != message.sender) {
                    self.send_down(*id, Down::Message(message), message);
                }
            }
            let tells = !self.is_broken(Broken::TellsOfNothingMissed);
            if tells && !had && arriving.iter().any(|(id, _)| *id == message.sender) {
                self.send_down(message.sender, Down::Missed(message), message);
            }
        }
    }
}
