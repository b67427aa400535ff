//! Rooms on this worker: who is a member, and what the manager is told of that.
//!
//! A user is a room in another namespace, of which a connection has at most one. The worker knows
//! its members; the manager knows by worker whether there are any, and need not know more. The
//! manager is told of a room's first member at once, in the order of everything else, and of the
//! last one's end a second later.
//!
//! - [`table`]: the members, pure.
//! - [`change`]: joins, leaves, binds, sessions and expiry, of clients here.
//! - [`personal`]: what few connections have besides.
//! - [`presence`]: who is in rooms that have presence.

pub(in crate::worker) mod change;
pub(in crate::worker) mod personal;
pub(in crate::worker) mod presence;
pub(in crate::worker) mod table;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tokio::sync::oneshot;

use self::table::Memberships;
use crate::api::rooms::{Belongings, Topic};
use crate::fd::Fd;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::scoreboard::Counter;
use crate::worker::base::ticks::ticks;
use crate::worker::clients::Clients;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;
use crate::worker::clients::table::Table;

/// How long the manager goes on counting on members behind the last.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of topics in one `Interest`, well below a frame's 64 KiB.
const INTEREST_BYTES: usize = 32 * 1024;
/// How many rooms [`crate::api::Info`] names.
pub(in crate::worker) const INFO_ROOMS_MAX: usize = 128;

/// The rooms of this worker, and who waits until the manager knows of them.
#[derive(Default)]
pub(in crate::worker) struct Rooms {
    pub table: RefCell<table::Rooms>,
    /// The number of the last `Interest` that is to be answered.
    last_number: Cell<u64>,
    waiting: RefCell<Vec<(u64, oneshot::Sender<()>)>>,
    pub presence: RefCell<presence::Presence>,
    /// Whether there may be connections that came over and are not ours yet for everybody.
    pub has_arrivals: Cell<bool>,
    /// Connections that have ended and what they were in, for their `on_close`.
    parting: RefCell<HashMap<Fd, (Key, Belongings)>>,
}

impl table::Holders for Table {
    fn memberships(&mut self, holder: u32) -> &mut Memberships {
        &mut self.entry_mut(holder).1.memberships
    }
}

impl Clients {
    /// Whose a connection is.
    pub(in crate::worker) fn user_of(&self, table: &Table, key: Key) -> Option<Topic> {
        let rooms = self.rooms.table.borrow();
        rooms.topics_of(&table.get(key)?.memberships).find(|topic| topic.is_user()).cloned()
    }

    /// A connection is not a member of anything any more.
    pub(in crate::worker) fn leave_rooms(&self, table: &mut Table, key: Key) {
        if table.get(key).is_some_and(|it| !it.memberships.is_empty()) {
            let rooms = self.presence_rooms_of(table, key);
            if let (false, Some(user)) = (rooms.is_empty(), self.user_of(table, key)) {
                rooms.iter().for_each(|room| self.exit_presence(room, user.name()));
            }
            let now = crate::worker::base::ticks::tick(self.now_ms.get());
            let left = self.rooms.table.borrow_mut().leave_all(table, key.index, now);
            self.board.sub(Counter::Memberships, left as u64);
        }
    }

    /// What a connection has, as it is told to handlers.
    pub(in crate::worker) fn belongings_of(&self, connection: &Connection) -> Belongings {
        Belongings { session: session_of(connection), ..self.memberships_of(connection) }
    }

    fn memberships_of(&self, connection: &Connection) -> Belongings {
        let rooms = self.rooms.table.borrow();
        let mut of = Belongings::default();
        for topic in rooms.topics_of(&connection.memberships) {
            match topic.is_user() {
                true => of.uid = Some(topic.name().to_owned()),
                false => of.rooms.push(topic.name().to_owned()),
            }
        }
        of
    }

    /// A connection ends: its `on_close` still reads what the connection was in, and the session,
    /// which stays with the connection until then.
    pub(in crate::worker) fn keep_belongings(&self, key: Key, connection: &Connection) {
        let has_some = !connection.memberships.is_empty() || connection.personal.is_some();
        if let Some(fd) = connection.fd.filter(|_| connection.opened && has_some) {
            let had = self.memberships_of(connection);
            self.rooms.parting.borrow_mut().insert(fd, (key, had));
        }
    }

    /// A connection is forgotten.
    pub(in crate::worker) fn drop_belongings(&self, connection: &Connection) {
        let mut parting = self.rooms.parting.borrow_mut();
        if let Some(fd) = connection.fd.filter(|_| !parting.is_empty()) {
            parting.remove(&fd);
        }
    }

    pub(in crate::worker) fn belongings_here(&self, fd: Fd) -> Option<Belongings> {
        let table = self.table.borrow();
        if let Some(key) = table.find(fd) {
            return Some(self.belongings_of(table.get(key)?));
        }
        let parting = self.rooms.parting.borrow();
        let (key, had) = parting.get(&fd)?;
        Some(Belongings { session: session_of(table.get(*key)?), ..had.clone() })
    }

    /// The topics of a connection, with what presence shows of it in each: as they travel.
    pub(in crate::worker) fn topics_of(
        &self,
        connection: &Connection,
    ) -> Vec<(Topic, Option<String>)> {
        let rooms = self.rooms.table.borrow();
        let topics = rooms.topics_of(&connection.memberships).cloned();
        topics.map(|topic| (topic.clone(), connection.info_in(&topic))).collect()
    }

    /// Puts a connection that came over where it was.
    pub(in crate::worker) fn rejoin(
        &self,
        table: &mut Table,
        key: Key,
        topics: Vec<(Topic, Option<String>)>,
    ) {
        self.rooms.has_arrivals.set(true);
        // Whose it is first: the others may have presence.
        let (user, rooms): (Vec<_>, Vec<_>) =
            topics.into_iter().partition(|(topic, _)| topic.is_user());
        for (topic, info) in user.into_iter().chain(rooms) {
            self.enter_room(table, key, topic, info);
        }
    }

    /// Puts a connection into a room, and has the manager know.
    fn enter_room(&self, table: &mut Table, key: Key, topic: Topic, info: Option<String>) {
        let joined = self.rooms.table.borrow_mut().join(table, key.index, &topic);
        // A member who joins again with nothing to show shows the same as before.
        let shows_more = info.is_some();
        if let Some(connection) = table.get_mut(key).filter(|_| shows_more) {
            connection.set_info(&topic, info);
            self.reckon(connection);
        }
        if joined != table::Joined::Again {
            self.add(Counter::Memberships, 1);
        }
        if joined == table::Joined::First {
            self.say_interest(0, vec![topic.clone()], Vec::new(), Vec::new());
        }
        if !self.has_presence(&topic) {
            return;
        }
        if joined != table::Joined::Again {
            self.enter_presence(table, key, &topic);
        } else if shows_more {
            self.show_presence(table, key, &topic);
        }
    }

    /// Tells the manager, behind all that was said before.
    pub(in crate::worker) fn say_interest(
        &self,
        number: u64,
        joined: Vec<Topic>,
        left: Vec<Topic>,
        settled: Vec<(Topic, u64)>,
    ) {
        self.say_in_order(&WorkerToManager::Interest { number, joined, left, settled });
    }

    /// Tells the manager of the rooms that have been without members for a while.
    pub(in crate::worker) fn tell_vacant(&self) {
        let since =
            crate::worker::base::ticks::tick(self.now_ms.get()).saturating_sub(ticks(LINGER));
        let closed = self.rooms.table.borrow_mut().close_vacant(since);
        closed.iter().for_each(|room| self.forget_presence(room));
        for part in parts(closed) {
            self.say_interest(0, Vec::new(), part, Vec::new());
        }
    }

    /// A manager is new to this worker: it is told of every room, and whoever waits until the
    /// manager knows of one waits for this manager.
    pub(in crate::worker) fn introduce_rooms(&self) {
        let topics: Vec<Topic> = self.rooms.table.borrow().topics().cloned().collect();
        let interest = |number, joined| WorkerToManager::Interest {
            number,
            joined,
            left: Vec::new(),
            settled: Vec::new(),
        };
        for part in parts(topics) {
            self.say(&interest(0, part));
        }
        self.introduce_presence();
        if !self.rooms.waiting.borrow().is_empty() {
            self.say(&interest(self.rooms.last_number.get(), Vec::new()));
        }
    }

    /// Waits until the manager knows of all that was said before.
    pub(in crate::worker) fn until_noted(&self) -> oneshot::Receiver<()> {
        let number = self.rooms.last_number.get() + 1;
        self.rooms.last_number.set(number);
        let (sender, noted) = oneshot::channel();
        let mut waiting = self.rooms.waiting.borrow_mut();
        // Who has given up waiting is forgotten here, lest they pile up without a manager.
        waiting.retain(|(_, sender)| !sender.is_closed());
        waiting.push((number, sender));
        drop(waiting);
        self.say_interest(number, Vec::new(), Vec::new(), Vec::new());
        noted
    }

    /// The manager knows of all that was said up to this number.
    pub(in crate::worker) fn noted(&self, number: u64) {
        let mut waiting = self.rooms.waiting.borrow_mut();
        for (_, sender) in waiting.extract_if(.., |(waits_for, _)| *waits_for <= number) {
            // Who has given up waiting needs not to be told.
            let _ = sender.send(());
        }
    }
}

fn session_of(connection: &Connection) -> Option<String> {
    let personal = connection.personal.as_ref()?;
    personal.session.as_deref().map(str::to_owned)
}

/// Topics in parts that fit a message.
fn parts(topics: Vec<Topic>) -> Vec<Vec<Topic>> {
    let mut parts: Vec<Vec<Topic>> = Vec::new();
    let mut bytes = INTEREST_BYTES;
    for topic in topics {
        let weight = topic.as_str().len() + 8;
        if bytes + weight > INTEREST_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += weight;
        if let Some(part) = parts.last_mut() {
            part.push(topic);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_go_in_parts_that_fit_a_message() {
        let topics: Vec<Topic> = (0..1000).map(|n| Topic::room(&format!("{n:0>200}"))).collect();
        let parts = parts(topics.clone());
        assert_eq!(parts.concat(), topics);
        let bytes = |part: &Vec<Topic>| part.iter().map(|it| it.as_str().len() + 8).sum::<usize>();
        assert!(parts.len() > 1 && parts.iter().all(|part| bytes(part) <= INTEREST_BYTES));
    }
}
