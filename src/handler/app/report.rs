//! What the metrics are told of the application's processes.

use std::rc::Rc;

use super::pool::Pool;
use super::shared::Shared;
use crate::api::{AppReport, Context, ProcessId};

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
