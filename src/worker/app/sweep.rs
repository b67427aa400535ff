//! The sweep for idle clients.

use std::rc::Rc;

use super::App;
use crate::close::{Cause, Close};
use crate::sys::clock;

/// Connections looked at in a sweep before others get to run.
const SWEEP_SLICE: usize = 4096;

impl App {
    /// Closes every client that has sent nothing for `idle_ms`.
    pub(in crate::worker) fn sweep(self: &Rc<Self>, idle_ms: u64) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let keys = worker.table.borrow().keys();
            for slice in keys.chunks(SWEEP_SLICE) {
                let now = clock::monotonic_ms();
                for &key in slice {
                    let idle = worker.table.borrow().get(key).is_some_and(|connection| {
                        connection.is_open()
                            && !connection.busy
                            && !connection.protected
                            && !connection.arriving
                            && now.saturating_sub(connection.received_at) >= idle_ms
                    });
                    if idle {
                        worker.start_close(key, Close::because(Cause::IdleTimeout));
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
}
