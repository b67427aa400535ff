//! Application processes as the worker passes them on: wishes to the master, events from it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Worker;
use crate::api::{ProcessEvent, ProcessId};
use crate::ipc::messages::WorkerToMaster;

/// What became of processes, until the handler asks.
#[derive(Default)]
pub(super) struct Processes {
    events: RefCell<VecDeque<ProcessEvent>>,
    wake: Notify,
}

impl Processes {
    /// The master tells of one.
    pub fn happened(&self, event: ProcessEvent) {
        self.events.borrow_mut().push_back(event);
        self.wake.notify_one();
    }
}

impl Worker {
    pub(super) fn start_process(&self, id: ProcessId, descriptors: &[OwnedFd]) {
        self.master.send_with(&WorkerToMaster::StartApp { id }, descriptors);
    }

    pub(super) fn kill_process(&self, id: ProcessId) {
        self.master.send(&WorkerToMaster::KillApp { id });
    }

    pub(super) async fn process_event(self: Rc<Self>) -> ProcessEvent {
        loop {
            let event = self.processes.events.borrow_mut().pop_front();
            match event {
                Some(event) => return event,
                None => self.processes.wake.notified().await,
            }
        }
    }
}
