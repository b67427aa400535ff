//! What the metrics are told of the application's processes.

use std::rc::Rc;

use super::shared::Shared;
use crate::api::{AppReport, Context};

/// Tells how the processes are now.
pub fn report(shared: &Rc<Shared>, ctx: &Context) {
    let pids: Vec<u32> = shared.links.all().iter().map(|link| link.pid).collect();
    let memory_bytes = shared.memory.look(&pids);
    let pool = shared.pool.borrow();
    let (busy, events) = (pool.busy() as u64, pool.events() as u64);
    drop(pool);
    ctx.reactor().report_app(AppReport::Now { busy, events, memory_bytes });
}
