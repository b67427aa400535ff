//! `on_close`: the handler is told of the end of a connection, once.

use std::rc::Rc;

use super::App;
use super::dispatch::Panicked;
use crate::close::{Cause, Close};
use crate::ipc::scoreboard::Counter;
use crate::log;
use crate::worker::clients::connection::Stage;
use crate::worker::clients::key::Key;

impl App {
    /// Tells the handler that a connection has ended, once.
    pub(in crate::worker) fn finish(self: &Rc<Self>, key: Key) {
        let (fd, close) = {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            // Whoever came and is not ours yet is told of when it is.
            if connection.busy || connection.arriving || connection.stage != Stage::Ended {
                return;
            }
            let close = connection.extra.as_mut().and_then(|extra| extra.close.take());
            let Some(fd) = connection.fd.filter(|_| connection.opened) else {
                self.forget(&mut table, key);
                return;
            };
            let close = close.unwrap_or_else(|| Close::because(Cause::ClientVanished));
            self.codec.borrow_mut().release(connection.engine.params());
            (fd, close)
        };
        let cause = close.cause.as_str();
        if log::admits_close(cause) {
            let (fd, code, reason) = (fd.as_u64(), close.code, &close.reason);
            tracing::info!(target: log::ADMITTED, fd, code, cause, ?reason, "closed");
        }
        self.registry.closing(key.index as usize);
        self.board.sub(Counter::Connections, 1);
        self.add(Counter::Closed, 1);
        self.board.row.closed(close.cause);
        let handler = self.handler.clone();
        self.call(
            key,
            fd,
            "on_close",
            move |context| handler.on_close(context, fd, close),
            |worker, key, _: Result<(), Panicked>| {
                worker.registry.closed(key.index as usize);
                worker.forget(&mut worker.table.borrow_mut(), key);
                worker.left();
            },
        );
    }
}
