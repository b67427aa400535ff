//! For whom a connection counts, from the time it comes until it leaves the table.

use std::net::{IpAddr, SocketAddr};

use super::Clients;
use super::admission::CountsAs;
use super::connection::Connection;
use super::key::Key;
use super::table::Table;
use crate::ipc::scoreboard::Counter;
use crate::sys::address::network;

impl Clients {
    /// The network a connection counts for; a trusted proxy's is nobody's own.
    pub(in crate::worker) fn counted(&self, peer: Option<SocketAddr>) -> Option<IpAddr> {
        let ip = peer?.ip();
        (!self.settings.trusts(ip)).then(|| network(ip))
    }

    /// A connection counts for this network from now on.
    pub(in crate::worker) fn count_as(
        &self,
        connection: &mut Connection,
        counts_as: CountsAs,
        counted: Option<IpAddr>,
    ) {
        // Without the limit it is not worth the memory.
        if let (true, Some(network)) = (self.settings.config.connections_per_ip > 0, counted) {
            self.gate.admitted.add(network);
            connection.counts_as = counts_as;
        }
    }

    /// A connection counts for nobody any more.
    pub(in crate::worker) fn uncount(&self, connection: &mut Connection) {
        let ip = match std::mem::replace(&mut connection.counts_as, CountsAs::None) {
            CountsAs::None => None,
            CountsAs::Peer => connection.peer().map(|peer| peer.ip()),
            CountsAs::Client => connection.client(),
            CountsAs::Lingering => {
                self.board.sub(Counter::Lingering, 1);
                return self.gate.admitted.linger_no_more();
            }
        };
        if let Some(ip) = ip {
            self.gate.admitted.remove(network(ip));
        }
    }

    /// Takes a connection out of the table, with its place.
    pub(in crate::worker) fn forget(&self, table: &mut Table, key: Key) -> Option<Connection> {
        self.leave_rooms(table, key);
        let mut connection = table.remove(key)?;
        self.drop_belongings(&connection);
        self.no_longer_pending(&mut connection);
        self.uncount(&mut connection);
        self.budget.give_back(connection.counted as usize);
        Some(connection)
    }

    /// A connection left the handshake, one way or the other.
    pub(in crate::worker) fn no_longer_pending(&self, connection: &mut Connection) {
        if std::mem::take(&mut connection.pending) {
            self.board.sub(Counter::Handshakes, 1);
            self.gate.admitted.end_handshake(self.counted(connection.peer()));
        }
    }

    /// A connection is refused and has its answer queued: it lingers while the client reads that.
    /// False if too many do, so that it is to end at once.
    pub(in crate::worker) fn lingers(&self, connection: &mut Connection) -> bool {
        self.no_longer_pending(connection);
        self.uncount(connection);
        if self.gate.admitted.lingering() as u64 >= self.gate.lingering_max {
            return false;
        }
        connection.extra = None;
        self.reckon(connection);
        connection.counts_as = CountsAs::Lingering;
        self.gate.admitted.linger();
        self.board.add(Counter::Lingering, 1);
        true
    }

    /// Whether nobody of the server has counted this since it was started.
    pub(in crate::worker) fn is_first(&self, counter: Counter) -> bool {
        self.board.total(counter) == 0
    }

    /// A connection of a trusted proxy counts for the client that this has named.
    pub(in crate::worker) fn count_client(&self, key: Key, client: Option<IpAddr>) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return };
        if self.counted(connection.peer()).is_some() {
            return;
        }
        if let Some(opening) = connection.extra.as_mut().and_then(|it| it.opening.as_mut()) {
            opening.client = client;
            self.count_as(connection, CountsAs::Client, client.map(network));
        }
    }
}
