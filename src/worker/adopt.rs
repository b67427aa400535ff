//! Taking over connections from another process.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;

use super::Worker;
use super::admission::{CountsAs, network};
use super::connection::{Connection, Stage};
use super::head::KeptRequest;
use super::outbox::Outbox;
use super::snapshot::{OpenV1, Snapshot};
use super::table::Key;
use super::timers::NEVER;
use crate::error::{Error, Result};
use crate::fd::{Fd, WorkerId};
use crate::ipc::messages::WorkerToManager;
use crate::ipc::registry::Entry;
use crate::ipc::scoreboard::Counter;
use crate::websocket::Engine;

impl Worker {
    /// A batch has come. What is here already (the batch was sent twice) is only acknowledged;
    /// what cannot be read is not, and stays where it was.
    pub(super) fn adopt(
        self: &Rc<Self>,
        from: WorkerId,
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
        let (mut taken, mut had) = (Vec::with_capacity(numbers.len()), Vec::new());
        let mut begun = Vec::with_capacity(numbers.len());
        for (&number, socket) in numbers.iter().zip(sockets) {
            let snapshot = Snapshot::unpack(&mut batch)?;
            let fd = Fd::try_from(number).map_err(|error| Error::new(error.to_string()))?;
            if self.table.borrow().find(fd).is_some() || self.deferred.borrow().has_ended(fd) {
                had.push(number);
                continue;
            }
            match self.adopt_one(fd, snapshot, socket) {
                Ok(attached) => {
                    taken.push(number);
                    begun.extend(attached);
                }
                Err(error) => tracing::error!(fd = number, %error, "a connection was not adopted"),
            }
        }
        self.add(Counter::Adopted, begun.len() as u64);
        // The sooner they are ours for everyone, the shorter their pushes wait.
        self.say_in_order(&WorkerToManager::Adopted { from, fds: taken, had });
        // Before their clients are written anything: should we die, whoever was not named goes to
        // another, and would be written it twice.
        self.link.hurry();
        for (key, fd, frozen) in begun {
            self.attach(key, fd, frozen);
        }
        Ok(())
    }

    /// Puts a connection into the table. `None` unless its handler is to be told.
    pub(super) fn adopt_one(
        self: &Rc<Self>,
        fd: Fd,
        snapshot: Snapshot,
        socket: OwnedFd,
    ) -> Result<Option<(Key, Fd, Option<Bytes>)>> {
        match snapshot {
            Snapshot::PendingV1 { bytes, peer, to_loopback, deadline } => {
                // It has no name before it is open, and should its batch come again, it is here.
                self.deferred.borrow_mut().ended(fd);
                self.adopt_pending(fd, socket, bytes, (peer, to_loopback), deadline);
                Ok(None)
            }
            Snapshot::OpenV1(open) => self.adopt_open(fd, socket, *open).map(Some),
        }
    }

    fn adopt_pending(
        self: &Rc<Self>,
        fd: Fd,
        socket: OwnedFd,
        mut bytes: Vec<u8>,
        (peer, to_loopback): (Option<std::net::SocketAddr>, bool),
        deadline: super::timers::Tick,
    ) {
        let Some(key) = self.admit(socket, peer, to_loopback) else { return };
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.fd = Some(fd);
            connection.deadline = deadline;
            self.look_again(key, connection);
        }
        self.feed(key, &mut bytes);
    }

    pub(super) fn adopt_open(
        self: &Rc<Self>,
        fd: Fd,
        socket: OwnedFd,
        open: OpenV1,
    ) -> Result<(Key, Fd, Option<Bytes>)> {
        let bad = |what: &str| Error::new(format!("its {what} cannot be read"));
        let kept = KeptRequest::from_bytes(&open.kept).ok_or_else(|| bad("request"))?;
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
        self.look_again(key, connection);
        if connection.outbox.is_some() {
            self.turn.flush_later(key, connection);
        }
        table.name(fd, key);
        self.rejoin(&mut table, key, open.topics);
        drop(table);
        self.registry.opened(key.index as usize, &entry);
        self.add(Counter::Connections, 1);
        Ok((key, fd, open.frozen.map(Bytes::from)))
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
        let now = super::timers::tick(self.now_ms.get());
        match self.settings.ping {
            None => connection.ping_at = NEVER,
            Some(interval) => connection.ping_at = connection.ping_at.min(now + interval),
        }
        if self.settings.age.is_none() {
            connection.deadline = NEVER;
        }
    }

    /// Tells the handler, and goes on where the old process stopped.
    pub(super) fn attach(self: &Rc<Self>, key: Key, fd: Fd, frozen: Option<Bytes>) {
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
