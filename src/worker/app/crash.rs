//! After a crash: the clients of the dead process get their `on_close` here.

use std::rc::Rc;

use super::App;
use crate::close::{Cause, Close};
use crate::fd::Fd;
use crate::ipc::messages::WorkerToMaster;
use crate::ipc::registry::Registry;

impl App {
    /// Calls `on_close` for each client of the dead process whose `on_close` had not begun, one
    /// after the other and not before `on_worker_start` has ended. Tells the master when done.
    pub(in crate::worker) fn close_lost(self: &Rc<Self>, dead: Registry) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            worker.started().await;
            let mut count = 0u64;
            for index in 0..dead.capacity() {
                let Some(entry) = dead.entry(index).filter(|entry| !entry.closing) else {
                    continue;
                };
                if worker.lives(entry.fd).await {
                    continue;
                }
                // Should this process die as well, or another look after the same clients since a
                // reload replaces this one, nobody hears of it twice.
                if !dead.claim(index, entry.fd) {
                    continue;
                }
                count += 1;
                let (handler, fd) = (worker.handler.clone(), entry.fd);
                let close = Close::because(Cause::WorkerCrashed);
                let told =
                    worker.call_alone("on_close", |context| handler.on_close(context, fd, close));
                // A panic was logged, and there is no connection for it to cost.
                let _ = told.await;
                dead.closed(index);
            }
            tracing::info!(count, "on_close was called for the clients of a worker that died");
            worker.master.send(&WorkerToMaster::LostClosed);
        });
    }

    /// Whether a client of a dead process lives: it may have come over, to this process or to
    /// another, before the dead one let go of it.
    async fn lives(&self, fd: Fd) -> bool {
        let here = self.table.borrow().find(fd).is_some();
        match self.context() {
            Some(context) if !here => context.exists(fd).await,
            _ => here,
        }
    }
}
