//! What the metrics are told of the application's processes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::pool::Pool;
use super::resident_bytes;
use super::shared::Shared;
use crate::api::{AppReport, Context, ProcessId};

/// Memory of the processes as it was looked at last: one process each time, so that many cost no
/// turn more than one does.
#[derive(Default)]
pub struct Memory {
    bytes: RefCell<HashMap<u32, u64>>,
    turn: Cell<usize>,
}

impl Memory {
    /// Looks at the next process; the answer is what all of them hold.
    fn look(&self, pids: &[u32]) -> u64 {
        let mut bytes = self.bytes.borrow_mut();
        bytes.retain(|pid, _| pids.contains(pid));
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        // One that is not known yet comes first.
        let new = pids.iter().find(|pid| !bytes.contains_key(pid));
        let next = new.or_else(|| pids.get(turn % pids.len().max(1)));
        if let Some(pid) = next {
            bytes.insert(*pid, resident_bytes(*pid).unwrap_or(0));
        }
        bytes.values().sum()
    }
}

impl Pool {
    /// Since when a process is at its event, in milliseconds; says something only while it has one.
    pub fn since(&mut self, id: ProcessId) -> Option<u64> {
        self.queues[usize::from(id.place)].running(id).map(|process| process.since)
    }

    /// How many processes have events that they have not finished.
    pub fn busy(&self) -> usize {
        let processes = self.queues.iter().filter_map(|queue| queue.process.as_ref());
        processes.filter(|process| !process.sent.is_empty()).count()
    }
}

/// Tells how the processes are now.
pub fn report(shared: &Rc<Shared>, ctx: &Context) {
    let pids: Vec<u32> = shared.links.all().iter().map(|link| link.pid).collect();
    let memory_bytes = shared.memory.look(&pids);
    let pool = shared.pool.borrow();
    let (busy, events) = (pool.busy() as u64, pool.events() as u64);
    drop(pool);
    ctx.reactor().report_app(AppReport::Now { busy, events, memory_bytes });
}
