//! Plain HTTP connections as an application sees them: each has a number from its first request on.
//!
//! The number is of the same kind as a WebSocket client's, and an upgrade keeps it, as in Swoole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Door;
use crate::api::{HttpRequest, Info};
use crate::fd::{Fd, Slot};
use crate::sys::clock;

/// Those that have a number.
#[derive(Default)]
pub(in crate::worker) struct HttpConnections(RefCell<HashMap<Fd, HttpEntry>>);

struct HttpEntry {
    peer: Option<SocketAddr>,
    since_ms: u64,
    leave: Rc<Notify>,
}

/// One plain HTTP connection, for as long as it is one.
pub(in crate::worker) struct HttpConnection {
    worker: Rc<Door>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    fd: Cell<Option<Fd>>,
    leave: Rc<Notify>,
}

impl HttpConnections {
    /// Has a connection close after the answer at hand. The connection is gone for everybody at
    /// once, as in Swoole, however long its end takes. False where there is none of that number.
    pub(in crate::worker) fn close(&self, fd: Fd) -> bool {
        let entry = self.0.borrow_mut().remove(&fd);
        if let Some(entry) = &entry {
            entry.leave.notify_one();
        }
        entry.is_some()
    }

    /// What is known of one.
    pub(in crate::worker) fn info(&self, fd: Fd, worker: Slot) -> Option<Info> {
        let entries = self.0.borrow();
        let entry = entries.get(&fd)?;
        let peer = entry.peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        Some(Info { peer, connected_at: entry.since_ms, plain: true, ..Info::new(fd, worker) })
    }
}

impl HttpConnection {
    pub(in crate::worker) fn new(
        worker: &Rc<Door>,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        fd: Option<Fd>,
    ) -> HttpConnection {
        let leave = Rc::new(Notify::new());
        let http =
            HttpConnection { worker: worker.clone(), peer, local, fd: Cell::new(None), leave };
        http.become_known(fd);
        http
    }

    /// Tells a request which connection it came on; the first one gives the connection its number.
    pub(in crate::worker) fn mark(&self, request: &mut HttpRequest) {
        if self.fd.get().is_none() {
            self.become_known(self.worker.next_fd());
        }
        request.fd = self.fd.get();
        request.local = self.local;
    }

    /// Resolves when somebody closes the connection by its number.
    pub(in crate::worker) fn left(&self) -> impl Future<Output = ()> + 'static {
        let leave = self.leave.clone();
        async move { leave.notified().await }
    }

    /// The number, which goes on with an upgrade.
    pub(in crate::worker) fn number(&self) -> Option<Fd> {
        self.fd.get()
    }

    /// The connection is gone for everybody, as in Swoole, however long the client stays.
    pub(in crate::worker) fn end(&self) {
        if let Some(fd) = self.fd.get() {
            self.worker.http.0.borrow_mut().remove(&fd);
        }
    }

    fn become_known(&self, fd: Option<Fd>) {
        let Some(fd) = fd else { return };
        self.fd.set(Some(fd));
        let since_ms = clock::unix_ms();
        let entry = HttpEntry { peer: self.peer, since_ms, leave: self.leave.clone() };
        self.worker.http.0.borrow_mut().insert(fd, entry);
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.end();
    }
}
