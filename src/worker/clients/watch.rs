//! The epoll set: what a connection is listened to for, and what is kept of what was read.

use nix::sys::epoll::EpollEvent;

use super::Clients;
use super::connection::Connection;
use super::key::Key;

impl Clients {
    /// The client has sent something that says more than that it is alive.
    #[inline]
    pub(in crate::worker) fn heard(&self, key: Key, connection: &mut Connection) {
        let now = self.now_ms.get();
        if connection.received_at != now {
            connection.received_at = now;
            self.registry.received(key.index as usize, now);
        }
    }

    /// Keeps bytes aside until a handler has ended.
    pub(in crate::worker) fn keep_tail(&self, key: Key, bytes: &[u8]) {
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.extra().tail.extend_from_slice(bytes);
            self.reckon(connection);
        }
    }

    /// Puts a connection into the epoll set.
    pub(in crate::worker) fn watch(
        &self,
        key: Key,
        connection: &mut Connection,
    ) -> nix::Result<()> {
        let Some(socket) = connection.socket() else { return Ok(()) };
        self.epoll.add(socket, EpollEvent::new(connection.interest(), key.to_u64()))?;
        connection.deaf = false;
        Ok(())
    }

    /// Tells the epoll set what is of interest now.
    pub(in crate::worker) fn rewatch(&self, key: Key, connection: &mut Connection) {
        if connection.deaf {
            // It fails only for want of kernel memory; the deadline of the connection ends it.
            let _ = self.watch(key, connection);
            return;
        }
        let Some(socket) = connection.socket() else { return };
        let mut event = EpollEvent::new(connection.interest(), key.to_u64());
        let _ = self.epoll.modify(socket, &mut event);
        self.turn.scan_again();
    }

    /// Takes a connection out of the epoll set.
    pub(in crate::worker) fn unwatch(&self, connection: &mut Connection) {
        if let (false, Some(socket)) = (connection.deaf, connection.socket()) {
            // It is in the set, so this cannot fail.
            let _ = self.epoll.delete(socket);
        }
        connection.deaf = true;
    }
}
