//! What workers say of rooms.

use super::Manager;
use super::broadcast::Wide;
use super::switch::{Address, Reply, Routed};
use crate::api::rooms::Topic;
use crate::fd::WorkerId;
use crate::ipc::messages::{ManagerToWorker, Origin, WorkerToManager};
use crate::ipc::packet::Body;

impl Manager {
    /// What a worker says of rooms.
    pub fn on_room_message(&mut self, from: WorkerId, message: WorkerToManager, body: Body<'_>) {
        let origin = Origin::Worker(from);
        match message {
            WorkerToManager::Change { id, fd, change } => {
                self.deliver(Address::Client(fd), Routed::Change { origin, id, change }, body);
            }
            WorkerToManager::Call { id, reach, call } => {
                let message = ManagerToWorker::Call { origin, id, only: Vec::new(), call };
                self.spread(Wide { sender: Some(from), message, reach }, body);
            }
            WorkerToManager::Tally { origin, id, queued, full } => {
                self.answer(origin, id, Reply::Tally { queued, full });
            }
            WorkerToManager::Members { origin, id, part, last } => {
                self.answer(origin, id, Reply::Members { part, last });
            }
            WorkerToManager::Interest { number, joined, left, settled } => {
                self.on_interest(from, number, joined, left, settled);
            }
            _ => {}
        }
    }

    /// A worker says which topics have members there, and which of the changes are done that
    /// were to give it one.
    fn on_interest(
        &mut self,
        from: WorkerId,
        number: u64,
        joined: Vec<Topic>,
        left: Vec<Topic>,
        settled: Vec<(Topic, u64)>,
    ) {
        for topic in joined {
            self.interest.told(from, topic);
        }
        for topic in left {
            self.interest.left(from, topic);
        }
        for (topic, mark) in settled {
            self.interest.settled(from, topic, mark);
        }
        if number != 0
            && let Some(worker) = self.workers.get(from)
        {
            worker.noted(number);
        }
    }
}
