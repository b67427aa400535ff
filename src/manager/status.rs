//! The answer to `status`: from the scoreboard, so it also tells of workers that hang.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Pid;

use super::Manager;
use super::worker_handle::WorkerHandle;
use crate::ipc::control::{
    CourierReport, ManagerReport, ProcessReport, ReloadVerdict, Restarts, Status, Throttled,
    WorkerReport,
};
use crate::ipc::messages::CourierState;
use crate::ipc::scoreboard::{Board, Counter, Histogram, Row};
use crate::sys::clock::{monotonic_ms, unix_ms};
use crate::sys::process::parent_and_user;
use crate::sys::usage::Usage;

impl Manager {
    /// The whole status.
    pub fn status(&self) -> Status {
        let now = monotonic_ms();
        let state = &self.state;
        // With what the manager itself refused on the way.
        self.exchange.row.set(Counter::HeldBytes, self.exchange.hold.bytes() as u64);
        let total =
            |counter| self.exchange.scoreboard.sum(counter) + self.exchange.row.get(counter);
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let master = Usage::of(state.pid).unwrap_or_default();
        let manager = Usage::of(own).unwrap_or_default();
        Status {
            version: state.version.clone(),
            master_pid: state.pid,
            manager_pid: own,
            started_at: state.started_at,
            uptime_ms: unix_ms().saturating_sub(state.started_at),
            listen: state.listen.clone(),
            api: state.api.clone(),
            generation: self.reloads.generation(),
            worker_num: state.worker_num,
            connections: self.exchange.scoreboard.sum(Counter::Connections),
            workers: self
                .exchange
                .workers
                .iter()
                .map(|w| report(&self.exchange.scoreboard, w, state.pid, now))
                .collect(),
            counters: counters(total),
            reload: self.reloads.report(),
            throttled: state
                .throttled
                .iter()
                .map(|(slot, retry_ms)| Throttled { slot: *slot, retry_ms: *retry_ms })
                .collect(),
            troubles: state.troubles.clone(),
            draining: state.draining,
            max_wait_ms: self.exchange.settings.max_wait_ms,
            cluster: self.exchange.cluster.as_ref().map(|cluster| cluster.report(total)),
            restarts: Restarts {
                workers: state.worker_restarts,
                managers: state.manager_restarts,
            },
            manager: ManagerReport {
                epoch: self.epoch,
                relayed: self.exchange.row.get(Counter::Relayed),
                refused: self.exchange.row.get(Counter::LaneFull),
                gone: self.exchange.row.get(Counter::PushGone),
                held_bytes: self.exchange.hold.bytes() as u64,
                control_clients: self.control_clients,
                memory_bytes: manager.memory_bytes,
                cpu_ms: manager.cpu_ms,
            },
            courier: state.courier.as_ref().map(courier),
            memory_bytes: master.memory_bytes,
            cpu_ms: master.cpu_ms,
        }
    }
}

fn report(board: &Board, worker: &WorkerHandle, master: i32, now: u64) -> WorkerReport {
    let usage = Usage::of(worker.record.pid).unwrap_or_default();
    WorkerReport {
        memory_bytes: usage.memory_bytes,
        cpu_ms: usage.cpu_ms,
        processes: processes(board, worker, master),
        slot: worker.id().slot,
        pid: worker.record.pid,
        epoch: worker.id().epoch,
        generation: worker.record.generation,
        state: worker.state(),
        connections: board.get(worker.id(), Counter::Connections),
        silent_ms: worker.liveness.silent_ms(now),
        lane_bytes: worker.link.data_bytes() as u64,
        counters: counters(|counter| board.get(worker.id(), counter)),
    }
}

/// The application processes of a worker. Those alone are believed in that the master has
/// started, which is their parent.
fn processes(board: &Board, worker: &WorkerHandle, master: i32) -> Vec<ProcessReport> {
    let Some(page) = board.page(worker.id()) else { return Vec::new() };
    page.places()
        .filter_map(|(place, state)| {
            let pid = i32::try_from(state.pid).ok()?;
            let (parent, _) = parent_and_user(Pid::from_raw(pid))?;
            let usage = Usage::of(pid).filter(|_| parent.as_raw() == master)?;
            Some(ProcessReport {
                place,
                pid: state.pid,
                task: state.task,
                ready: state.ready,
                events: state.events,
                restarts: state.restarts,
                memory_bytes: usage.memory_bytes,
                cpu_ms: usage.cpu_ms,
            })
        })
        .collect()
}

/// A reload is over.
pub fn count_reload(row: &Row, verdict: &ReloadVerdict) {
    let counter = if verdict.is_ok() { Counter::Reloads } else { Counter::ReloadsFailed };
    row.add(counter, 1);
    row.measure(Histogram::Reload, Duration::from_millis(verdict.took_ms));
}

fn courier(state: &CourierState) -> CourierReport {
    let CourierState { pid, restarts } = *state;
    let usage = Usage::of(pid).unwrap_or_default();
    let pid = (pid != 0).then_some(pid);
    CourierReport { pid, restarts, memory_bytes: usage.memory_bytes, cpu_ms: usage.cpu_ms }
}

fn counters(count: impl Fn(Counter) -> u64) -> BTreeMap<String, u64> {
    Counter::ALL.iter().map(|counter| (counter.as_str().to_owned(), count(*counter))).collect()
}
