//! Rooms on this worker: who is a member, and what the manager is told of that.
//!
//! A user is a room in another namespace, of which a connection has at most one. The worker knows
//! its members; the manager knows by worker whether there are any, and need not know more. The
//! manager is told of a room's first member at once, in the order of everything else, and of the
//! last one's end a second later.
//!
//! - [`table`]: the members, pure.
//! - [`change`]: joins, leaves, binds, sessions and expiry, of clients here and elsewhere.
//! - [`call`]: publishes and questions to all members, here and elsewhere.
//! - [`gather`]: their answers.
//! - [`presence`]: who is in rooms that have presence.

mod call;
mod change;
mod gather;
mod presence;
mod table;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::oneshot;

pub(super) use table::Memberships;

use super::Worker;
use super::connection::Connection;
use super::table::{Key, Table};
use super::timers::{NEVER, Tick, ticks};
use crate::api::rooms::{Belongings, Topic};
use crate::error::Result;
use crate::fd::Fd;
use crate::ipc::messages::{ManagerToWorker, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

/// How long the manager goes on counting on members behind the last.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of topics in one `Interest`, well below a frame's 64 KiB.
const INTEREST_BYTES: usize = 32 * 1024;
/// How many rooms [`crate::api::Info`] names.
pub(super) const INFO_ROOMS_MAX: usize = 128;

/// The rooms of this worker, and who waits until the manager knows of them.
#[derive(Default)]
pub(super) struct Rooms {
    table: RefCell<table::Rooms>,
    /// The number of the last `Interest` that is to be answered.
    last_number: Cell<u64>,
    waiting: RefCell<Vec<(u64, oneshot::Sender<()>)>>,
    presence: RefCell<presence::Presence>,
    /// Whether there may be connections that came over and are not ours yet for everybody.
    has_arrivals: Cell<bool>,
}

/// What few connections have besides their rooms.
#[derive(Debug)]
pub(super) struct Personal {
    /// What the application keeps of it, as JSON.
    pub session: Option<Box<str>>,
    /// When it is to be closed.
    pub expires_at: Tick,
    /// What presence shows of it, by room.
    pub infos: Vec<(Topic, Box<str>)>,
}

impl Default for Personal {
    fn default() -> Personal {
        Personal { session: None, expires_at: NEVER, infos: Vec::new() }
    }
}

impl Personal {
    fn is_needed(&self) -> bool {
        self.session.is_some() || self.expires_at != NEVER || !self.infos.is_empty()
    }
}

impl table::Holders for Table {
    fn memberships(&mut self, holder: u32) -> &mut Memberships {
        &mut self.entry_mut(holder).1.memberships
    }
}

impl Worker {
    /// A connection is not a member of anything any more.
    pub(super) fn leave_rooms(&self, table: &mut Table, key: Key) {
        if table.get(key).is_some_and(|it| !it.memberships.is_empty()) {
            let rooms = self.presence_rooms_of(table, key);
            if let (false, Some(user)) = (rooms.is_empty(), self.user_of(table, key)) {
                rooms.iter().for_each(|room| self.exit_presence(room, user.name()));
            }
            let now = super::timers::tick(self.now_ms.get());
            let left = self.rooms.table.borrow_mut().leave_all(table, key.index, now);
            self.board.sub(Counter::Memberships, left as u64);
        }
    }

    /// What a connection has, as it is told to handlers.
    pub(super) fn belongings_of(&self, connection: &Connection) -> Belongings {
        let rooms = self.rooms.table.borrow();
        let mut of = Belongings::default();
        for topic in rooms.topics_of(&connection.memberships) {
            match topic.is_user() {
                true => of.uid = Some(topic.name().to_owned()),
                false => of.rooms.push(topic.name().to_owned()),
            }
        }
        let personal = connection.personal.as_ref();
        of.session = personal.and_then(|it| it.session.as_deref()).map(str::to_owned);
        of
    }

    pub(super) fn belongings_here(&self, fd: Fd) -> Option<Belongings> {
        let table = self.table.borrow();
        Some(self.belongings_of(table.get(table.find(fd)?)?))
    }

    /// The topics of a connection, with what presence shows of it in each: as they travel.
    pub(super) fn topics_of(&self, connection: &Connection) -> Vec<(Topic, Option<String>)> {
        let rooms = self.rooms.table.borrow();
        let topics = rooms.topics_of(&connection.memberships).cloned();
        topics.map(|topic| (topic.clone(), connection.info_in(&topic))).collect()
    }

    /// Puts a connection that came over where it was.
    pub(super) fn rejoin(
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

    /// A pass is ours.
    pub(super) fn own_rooms(&self) {
        self.rooms.has_arrivals.set(!self.transit.borrow().passes().is_empty());
    }

    /// Puts a connection into a room, and has the manager know.
    fn enter_room(&self, table: &mut Table, key: Key, topic: Topic, info: Option<String>) {
        let joined = self.rooms.table.borrow_mut().join(table, key.index, topic.clone());
        if let Some(connection) = table.get_mut(key) {
            connection.set_info(&topic, info);
        }
        if joined != table::Joined::Again {
            self.add(Counter::Memberships, 1);
        }
        if joined == table::Joined::First {
            self.say_interest(0, vec![topic.clone()], Vec::new(), Vec::new());
        }
        if joined != table::Joined::Again && self.has_presence(&topic) {
            self.enter_presence(table, key, &topic);
        }
    }

    /// What the manager says of rooms.
    pub(super) fn manager_says_of_rooms(
        self: &Rc<Self>,
        message: ManagerToWorker,
        body: Body<'_>,
    ) -> Result<()> {
        match message {
            ManagerToWorker::Change { origin, id, fd, mark, change } => {
                self.change_routed((origin, id), fd, mark, change);
            }
            ManagerToWorker::Call { origin, id, only, call } => {
                self.call_routed((origin, id), &only, &call, body)?;
            }
            ManagerToWorker::Asked { id, workers, refused, last } => {
                self.gathered(id, |it| it.asked(workers, refused, last));
            }
            ManagerToWorker::Tally { id, queued, full } => {
                self.gathered(id, |it| it.counted(queued, full));
            }
            ManagerToWorker::Members { id, part, last } => {
                self.gathered(id, |it| it.listed(part, last));
            }
            ManagerToWorker::NodesAsked { id, nodes, away } => {
                self.gathered(id, |it| it.nodes_asked(nodes, away));
            }
            ManagerToWorker::NodeTally { id, queued, full, whole } => {
                self.gathered(id, |it| it.node_counted(queued, full, whole));
            }
            ManagerToWorker::Noted { number } => self.noted(number),
            ManagerToWorker::Presence { room, whole } => self.hear_presence(&room, whole, body)?,
            ManagerToWorker::PresenceAnswer { id } => {
                self.answer_presence(id, presence::read_list(body)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the manager, behind all that was said before.
    fn say_interest(
        &self,
        number: u64,
        joined: Vec<Topic>,
        left: Vec<Topic>,
        settled: Vec<(Topic, u64)>,
    ) {
        self.say_in_order(&WorkerToManager::Interest { number, joined, left, settled });
    }

    /// Tells the manager of the rooms that have been without members for a while.
    pub(super) fn tell_vacant(&self) {
        let since = super::timers::tick(self.now_ms.get()).saturating_sub(ticks(LINGER));
        let closed = self.rooms.table.borrow_mut().close_vacant(since);
        closed.iter().for_each(|room| self.forget_presence(room));
        for part in parts(closed) {
            self.say_interest(0, Vec::new(), part, Vec::new());
        }
    }

    /// A manager is new to this worker: it is told of every room, and whoever waits until the
    /// manager knows of one waits for this manager.
    pub(super) fn introduce_rooms(&self) {
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
    pub(super) fn until_noted(&self) -> oneshot::Receiver<()> {
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
    pub(super) fn noted(&self, number: u64) {
        let mut waiting = self.rooms.waiting.borrow_mut();
        for (_, sender) in waiting.extract_if(.., |(waits_for, _)| *waits_for <= number) {
            // Who has given up waiting needs not to be told.
            let _ = sender.send(());
        }
    }
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

impl Connection {
    fn personal(&mut self) -> &mut Personal {
        self.personal.get_or_insert_default()
    }

    /// What presence shows of it in a room.
    fn info_in(&self, topic: &Topic) -> Option<String> {
        let infos = &self.personal.as_ref()?.infos;
        let info = infos.iter().find(|(of, _)| of == topic);
        info.map(|(_, info)| info.to_string())
    }

    fn set_info(&mut self, topic: &Topic, info: Option<String>) {
        if info.is_none() && self.personal.is_none() {
            return;
        }
        let infos = &mut self.personal().infos;
        infos.retain(|(of, _)| of != topic);
        infos.extend(info.map(|info| (topic.clone(), info.into_boxed_str())));
        self.drop_needless_personal();
    }

    fn drop_needless_personal(&mut self) {
        if self.personal.as_ref().is_some_and(|it| !it.is_needed()) {
            self.personal = None;
        }
    }

    /// Takes what it had in the process it came from.
    pub fn take_personal(&mut self, session: Option<String>, expires_at: Tick) {
        if session.is_some() || expires_at != NEVER {
            let personal = self.personal();
            personal.session = session.map(String::into_boxed_str);
            personal.expires_at = expires_at;
        }
    }

    /// When a handler wants it closed.
    pub fn expires_at(&self) -> Tick {
        self.personal.as_ref().map_or(NEVER, |it| it.expires_at)
    }
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
