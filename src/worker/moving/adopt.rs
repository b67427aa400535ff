//! Taking over connections from another process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;

use super::Moving;
use super::snapshot::{OpenV1, Snapshot};
use crate::api::rooms::{INFO_BYTES_MAX, NAME_BYTES_MAX, Topic};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fd::{Fd, WorkerId};
use crate::ipc::messages::{PassId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::registry::Entry;
use crate::ipc::scoreboard::Counter;
use crate::sys::address::network;
use crate::sys::point;
use crate::websocket::Engine;
use crate::worker::base::ticks::{NEVER, Tick};
use crate::worker::clients::admission::CountsAs;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::key::Key;
use crate::worker::clients::outbox::Outbox;
use crate::worker::head::KeptRequest;

/// A connection of a pass that is not ours to serve yet.
pub(in crate::worker) enum Arriving {
    /// An open WebSocket: it stands in the table, and is not read.
    Open { key: Key, fd: Fd, frozen: Option<Bytes> },
    /// A request that is half read.
    Pending { fd: Fd, socket: OwnedFd, request: Pending },
}

/// A request that is half read.
pub(in crate::worker) struct Pending {
    bytes: Vec<u8>,
    peer: Option<SocketAddr>,
    to_loopback: bool,
    deadline: Tick,
}

/// Rooms that a connection may be in, whatever the configuration says.
const ROOMS_MAX: usize = 65_535;
/// Bytes of a batch for all but its largest connection, and for what a handler keeps of that.
const BATCH_BYTES: usize = 64 << 20;

/// Bytes of the longest batch that is read: an unfinished message, what is read behind it, a
/// message being sent and what waits behind that are one connection's, and its rooms.
fn batch_bytes_max(config: &Config) -> usize {
    let messages = 4 * config.push_bytes_max() as usize;
    BATCH_BYTES + messages + config.rooms_per_client * (NAME_BYTES_MAX + INFO_BYTES_MAX)
}

/// Whether a connection can be in these. The manager ends a worker that tells of what no worker
/// has, and would not know who gave it.
fn may_be_in(topics: &[(Topic, Option<String>)]) -> bool {
    let fits = |(topic, info): &(Topic, Option<String>)| {
        !topic.is_too_long() && info.as_ref().is_none_or(|info| info.len() <= INFO_BYTES_MAX)
    };
    let users = topics.iter().filter(|(topic, _)| topic.is_user()).count();
    users <= 1 && topics.len() - users <= ROOMS_MAX && topics.iter().all(fits)
}

impl Moving {
    /// The state of connections of a pass. Where it is longer than any batch, it is not read:
    /// whoever gives it says how long it is.
    pub(in crate::worker) fn read_batch(&self, body: Body<'_>) -> Result<Bytes> {
        let (len, most) = (body.len(), batch_bytes_max(&self.settings.config));
        if len > most {
            return Err(Error::new(format!("a batch of connections has {len} of {most} bytes")));
        }
        body.into_bytes()
    }

    /// Whether this worker may have these rooms as well. The manager ends a worker that tells of
    /// more, and would not know who gave them.
    fn may_have(&self, topics: &[(Topic, Option<String>)]) -> bool {
        let rooms = self.rooms.table.borrow();
        let new = topics.iter().filter(|(topic, _)| !rooms.has(topic)).count();
        new == 0 || rooms.len() + new <= 2 * self.settings.config.rooms_max
    }

    /// Connections of a pass have come. What cannot be read is not named in our answer, and goes
    /// back to where it was.
    pub(in crate::worker) fn adopt(
        self: &Rc<Self>,
        (pass, from): (PassId, WorkerId),
        numbers: &[u64],
        mut batch: &[u8],
        sockets: Vec<OwnedFd>,
    ) -> Result<()> {
        if numbers.len() != sockets.len() {
            return Err(Error::new(format!(
                "{} descriptors came for {} connections",
                sockets.len(),
                numbers.len()
            )));
        }
        point::reached("new-is-given-a-batch");
        for (&number, socket) in numbers.iter().zip(sockets) {
            let snapshot = Snapshot::unpack(&mut batch)?;
            let fd = Fd::try_from(number).map_err(|error| Error::new(error.to_string()))?;
            let is_open = matches!(snapshot, Snapshot::OpenV1(_));
            match self.adopt_one(pass, fd, snapshot, socket) {
                Ok(()) => {
                    self.transit.borrow_mut().adopt(pass, from, number);
                    self.add(Counter::Adopted, u64::from(is_open));
                }
                Err(error) => tracing::error!(fd = number, %error, "a connection was not adopted"),
            }
        }
        Ok(())
    }

    /// All of a pass has come: the answer says what is here.
    pub(in crate::worker) fn take(&self, pass: PassId) {
        point::reached("new-is-asked");
        let fds = self.transit.borrow_mut().take(pass);
        self.say_in_order(&WorkerToManager::Adopted { pass, fds });
        self.link.hurry();
        point::reached("new-has-answered");
    }

    /// Puts a connection of a pass aside until it is ours.
    pub(in crate::worker) fn adopt_one(
        self: &Rc<Self>,
        pass: PassId,
        fd: Fd,
        snapshot: Snapshot,
        socket: OwnedFd,
    ) -> Result<()> {
        let arriving = match snapshot {
            Snapshot::PendingV1 { bytes, peer, to_loopback, deadline } => {
                let request = Pending { bytes, peer, to_loopback, deadline };
                Arriving::Pending { fd, socket, request }
            }
            Snapshot::OpenV1(open) => self.adopt_open(fd, socket, *open)?,
        };
        self.arriving.borrow_mut().entry(pass).or_default().push(arriving);
        Ok(())
    }

    pub(in crate::worker) fn adopt_pending(
        self: &Rc<Self>,
        fd: Fd,
        socket: OwnedFd,
        request: Pending,
    ) {
        let Pending { mut bytes, peer, to_loopback, deadline } = request;
        let Some(key) = self.admit(socket, peer, to_loopback) else { return };
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.fd = Some(fd);
            connection.deadline = deadline;
            self.look_again(key, connection);
        }
        self.feed(key, &mut bytes);
    }

    fn adopt_open(self: &Rc<Self>, fd: Fd, socket: OwnedFd, open: OpenV1) -> Result<Arriving> {
        let bad = |what: &str| Error::new(format!("its {what} cannot be read"));
        let kept = KeptRequest::from_bytes(&open.kept).ok_or_else(|| bad("request"))?;
        if !may_be_in(&open.topics) {
            return Err(bad("list of rooms"));
        }
        if !self.may_have(&open.topics) {
            return Err(Error::new("with its rooms there are more than twice rooms_max"));
        }
        let engine = Engine::thaw(open.engine).map_err(|error| Error::new(error.to_string()))?;
        let outbox = match open.unsent {
            Some(unsent) => Some(Outbox::thaw(unsent).ok_or_else(|| bad("outbox"))?),
            None => None,
        };
        let entry = Entry {
            fd,
            closing: false,
            connected_at: open.opened_at,
            received_at: open.received_at,
            peer: kept.peer(),
        };
        let mut table = self.table.borrow_mut();
        let key = table.insert(|key| {
            let mut connection = Connection::accepted(socket, None, key.version, open.received_at);
            connection.stage = Stage::Open;
            connection.opened = true;
            (connection.arriving, connection.adopted) = (true, true);
            connection.held = true;
            connection.fd = Some(fd);
            connection.kept = Some(kept);
            connection.protected = open.protected;
            connection.outbox = outbox.map(Box::new);
            connection.extra().opening = None;
            connection.extra().tail = open.tail;
            connection.opened_at = open.opened_at;
            connection.bytes_in = open.bytes_in;
            connection.bytes_out = open.bytes_out;
            (connection.deadline, connection.ping_at) = (open.deadline, open.ping_at);
            (connection.pong_by, connection.message_by) = (open.pong_by, open.message_by);
            connection
        });
        self.codec.borrow_mut().book(engine.params());
        let Some(connection) = table.get_mut(key) else { return Err(bad("place")) };
        connection.engine = engine;
        connection.drop_empty_extra();
        if let Err(error) = self.watch(key, connection) {
            self.forget(&mut table, key);
            return Err(Error::io("watch an adopted connection", error));
        }
        self.count_adopted(connection);
        connection.take_personal(open.session, open.expires_at);
        self.reckon(connection);
        self.mind_settings(connection);
        table.name(fd, key);
        self.rejoin(&mut table, key, open.topics);
        drop(table);
        self.registry.opened(key.index as usize, &entry);
        self.add(Counter::Connections, 1);
        Ok(Arriving::Open { key, fd, frozen: open.frozen.map(Bytes::from) })
    }

    /// It has its place already, so nothing is asked.
    fn count_adopted(&self, connection: &mut Connection) {
        match (self.counted(connection.peer()), connection.client()) {
            (Some(peer), _) => self.count_as(connection, CountsAs::Peer, Some(peer)),
            (None, client) => self.count_as(connection, CountsAs::Client, client.map(network)),
        }
    }

    /// The new configuration may have pings where the old had none, or the other way round.
    fn mind_settings(&self, connection: &mut Connection) {
        let now = crate::worker::base::ticks::tick(self.now_ms.get());
        match self.settings.ping {
            None => connection.ping_at = NEVER,
            Some(interval) => connection.ping_at = connection.ping_at.min(now + interval),
        }
        if self.settings.age.is_none() {
            connection.deadline = NEVER;
        }
    }

    /// Tells the handler, and goes on where the old process stopped.
    pub(in crate::worker) fn attach(self: &Rc<Self>, key: Key, fd: Fd, frozen: Option<Bytes>) {
        let request = {
            let table = self.table.borrow();
            let kept = table.get(key).and_then(|it| it.kept.as_ref());
            let Some(request) = kept.map(|kept| Rc::new(kept.request(fd))) else { return };
            request
        };
        let handler = self.handler.clone();
        self.call(
            key,
            fd,
            "on_attach",
            move |context| handler.on_attach(context, request, frozen),
            |worker, key, answer| worker.panic_closes(key, answer),
        );
        self.resume(key);
    }
}

impl Moving {
    /// A pass is ours.
    pub(in crate::worker) fn own_rooms(&self) {
        self.rooms.has_arrivals.set(!self.transit.borrow().passes().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_long_as_the_largest_connection_makes_it() {
        let small = batch_bytes_max(&Config::default());
        assert!((64 << 20..128 << 20).contains(&small), "{small}");
        let large = Config { package_max_length: 1 << 30, ..Config::default() };
        assert!(batch_bytes_max(&large) > 4 << 30);
    }

    #[test]
    fn what_no_worker_tells_of_a_connection_is_not_taken_over() {
        let room = |bytes| (Topic::room(&"r".repeat(bytes)), None);
        let user = || (Topic::user("ann"), None);
        assert!(may_be_in(&[]));
        assert!(may_be_in(&[user(), room(255), (Topic::room("s"), Some("{}".to_owned()))]));
        assert!(!may_be_in(&[user(), room(256)]));
        assert!(!may_be_in(&[user(), user()]));
        let info = |bytes| [(Topic::room("r"), Some("i".repeat(bytes)))];
        assert!(may_be_in(&info(INFO_BYTES_MAX)) && !may_be_in(&info(INFO_BYTES_MAX + 1)));
        let many = |count: usize| -> Vec<(Topic, Option<String>)> {
            (0..count).map(|n| (Topic::room(&n.to_string()), None)).collect()
        };
        assert!(may_be_in(&many(ROOMS_MAX)) && !may_be_in(&many(ROOMS_MAX + 1)));
    }
}
