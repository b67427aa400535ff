//! Plain HTTP connections as an application sees them: each has a number from its first request on.
//!
//! The number is of the same kind as a WebSocket client's, and an upgrade keeps it, as in Swoole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Worker;
use crate::api::{HttpRequest, Info};
use crate::fd::{Fd, Slot};
use crate::sys::clock;

/// Those that have a number.
#[derive(Default)]
pub(super) struct Visitors(RefCell<HashMap<Fd, Visitor>>);

struct Visitor {
    peer: Option<SocketAddr>,
    since_ms: u64,
    leave: Rc<Notify>,
}

/// One plain HTTP connection, for as long as it is one.
pub(super) struct Visit {
    worker: Rc<Worker>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    fd: Cell<Option<Fd>>,
    leave: Rc<Notify>,
}

impl Visitors {
    /// Has a connection close after the answer at hand. False where there is none of that number.
    pub(super) fn close(&self, fd: Fd) -> bool {
        let visitors = self.0.borrow();
        let visitor = visitors.get(&fd);
        if let Some(visitor) = visitor {
            visitor.leave.notify_one();
        }
        visitor.is_some()
    }

    /// What is known of one.
    pub(super) fn info(&self, fd: Fd, worker: Slot) -> Option<Info> {
        let visitors = self.0.borrow();
        let visitor = visitors.get(&fd)?;
        let peer = visitor.peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        Some(Info { peer, connected_at: visitor.since_ms, plain: true, ..Info::new(fd, worker) })
    }
}

impl Visit {
    pub(super) fn new(
        worker: &Rc<Worker>,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        fd: Option<Fd>,
    ) -> Visit {
        let leave = Rc::new(Notify::new());
        let visit = Visit { worker: worker.clone(), peer, local, fd: Cell::new(None), leave };
        visit.become_known(fd);
        visit
    }

    /// Tells a request which connection it came on; the first one gives the connection its number.
    pub(super) fn mark(&self, request: &mut HttpRequest) {
        if self.fd.get().is_none() {
            self.become_known(self.worker.next_fd());
        }
        request.fd = self.fd.get();
        request.local = self.local;
    }

    /// Resolves when somebody closes the connection by its number.
    pub(super) fn left(&self) -> impl Future<Output = ()> + 'static {
        let leave = self.leave.clone();
        async move { leave.notified().await }
    }

    /// The number, which goes on with an upgrade.
    pub(super) fn number(&self) -> Option<Fd> {
        self.fd.get()
    }

    fn become_known(&self, fd: Option<Fd>) {
        let Some(fd) = fd else { return };
        self.fd.set(Some(fd));
        let since_ms = clock::unix_ms();
        let visitor = Visitor { peer: self.peer, since_ms, leave: self.leave.clone() };
        self.worker.visitors.0.borrow_mut().insert(fd, visitor);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.get() {
            self.worker.visitors.0.borrow_mut().remove(&fd);
        }
    }
}
