//! After a crash: the clients of the dead process get their `on_close` here.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::Worker;
use crate::close::{Cause, Close};
use crate::error::Result;
use crate::ipc::registry::Registry;

impl Worker {
    /// Calls `on_close` for each client of the dead process whose `on_close` had not begun.
    pub(super) fn bury(self: &Rc<Self>, dead: OwnedFd) -> Result<()> {
        let registry = Registry::open(dead.as_fd())?;
        let mut count = 0u64;
        for index in 0..registry.capacity() {
            let Some(entry) = registry.entry(index).filter(|entry| !entry.closing) else {
                continue;
            };
            // Should this process die as well, nobody hears of it twice.
            registry.closing(index);
            count += 1;
            let (handler, fd) = (self.handler.clone(), entry.fd);
            self.call_aside("on_close", move |context| {
                handler.on_close(context, fd, Close::because(Cause::WorkerCrashed))
            });
            registry.closed(index);
        }
        tracing::warn!(count, "the slot's last worker died; its clients were closed");
        Ok(())
    }
}
