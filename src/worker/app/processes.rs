//! Application processes as the worker passes them on: wishes to the master, events from it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::Notify;

use super::App;
use crate::api::{ProcessEvent, ProcessId, ProcessState};
use crate::ipc::messages::WorkerToMaster;
use crate::ipc::places::PlaceState;

/// What became of processes, until the handler asks.
#[derive(Default)]
pub(in crate::worker) struct Processes {
    events: RefCell<VecDeque<ProcessEvent>>,
    wake: Notify,
    /// Those that run, by their pids.
    running: RefCell<HashMap<ProcessId, u32>>,
}

impl Processes {
    /// The master tells of one.
    pub fn happened(&self, event: ProcessEvent) {
        match &event {
            ProcessEvent::Started { id, pid } => {
                self.running.borrow_mut().insert(*id, *pid);
            }
            ProcessEvent::Exited { id, .. } => {
                self.running.borrow_mut().remove(id);
            }
        }
        self.events.borrow_mut().push_back(event);
        self.wake.notify_one();
    }

    /// The master is dead, and each process with it, but not what these have started.
    pub fn end_groups(&self) {
        for pid in self.running.borrow().values() {
            let group = Pid::from_raw(*pid as i32);
            // Nothing may be left of it, or it may be another user's.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl App {
    pub(in crate::worker) fn start_process(&self, id: ProcessId, descriptors: Vec<OwnedFd>) {
        self.master.send_with(&WorkerToMaster::StartApp { id }, descriptors);
    }

    pub(in crate::worker) fn kill_process(&self, id: ProcessId) {
        self.master.send(&WorkerToMaster::KillApp { id });
    }

    pub(in crate::worker) fn show_process(&self, place: u16, state: Option<ProcessState>) {
        let state = state.map(|ProcessState { pid, ready, task, restarts, events }| PlaceState {
            pid,
            ready,
            task,
            restarts,
            events,
        });
        self.board.row.show(usize::from(place), state);
    }

    pub(in crate::worker) async fn process_event(self: Rc<Self>) -> ProcessEvent {
        loop {
            let event = self.processes.events.borrow_mut().pop_front();
            match event {
                Some(event) => return event,
                None => self.processes.wake.notified().await,
            }
        }
    }
}
