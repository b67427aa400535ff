//! Presence: which users this worker has in the rooms that have presence, and what its members
//! have been told of everybody.
//!
//! The list is the manager's. An event is a difference between what this worker has told and what
//! the manager sends, so a list that comes twice, from whatever manager, is no event.

use std::collections::{BTreeMap, HashMap};

use crate::api::rooms::{PresenceEvent, Present, Topic, missing};
use crate::error::Result;
use crate::ipc::codec;
use crate::ipc::link::Lane;
use crate::ipc::messages::{RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::worker::clients::Clients;
use crate::worker::clients::key::Key;
use crate::worker::clients::table::Table;

/// Connections of one user in one room here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Own {
    count: u32,
    /// What the first of them gave, or one of them since by joining again.
    info: Option<String>,
}

/// What the members of a room here have been told.
#[derive(Debug, Default)]
struct Told {
    list: BTreeMap<String, Present>,
    /// Whether the manager has sent all of it once.
    is_whole: bool,
}

/// The users here, and what was told.
#[derive(Debug, Default)]
pub struct Presence {
    own: HashMap<Topic, BTreeMap<String, Own>>,
    told: HashMap<Topic, Told>,
    /// Questions that wait for the first whole list of their room.
    pub unanswered: Vec<(Topic, RequestId)>,
}

impl Presence {
    /// One more connection of a user is in a room; how many are now.
    fn enter(&mut self, room: &Topic, uid: &str, info: Option<String>) -> Own {
        let users = self.own.entry(room.clone()).or_default();
        let own = users.entry(uid.to_owned()).or_default();
        own.count += 1;
        if own.info.is_none() {
            own.info = info;
        }
        own.clone()
    }

    /// A connection of a user shows something else in a room; how many there are.
    fn show(&mut self, room: &Topic, uid: &str, info: Option<String>) -> Option<Own> {
        let own = self.own.get_mut(room)?.get_mut(uid)?;
        own.info = info;
        Some(own.clone())
    }

    /// One less; how many are now.
    fn exit(&mut self, room: &Topic, uid: &str) -> Own {
        let Some(users) = self.own.get_mut(room) else { return Own::default() };
        let Some(own) = users.get_mut(uid) else { return Own::default() };
        own.count -= 1;
        let left = own.clone();
        if left.count == 0 {
            users.remove(uid);
        }
        if users.is_empty() {
            self.own.remove(room);
        }
        left
    }

    /// The manager's list of a room as the members here know it: it may be older, and later lists
    /// are told them as what has changed since. `None`: they have not been told any list yet.
    pub fn as_told(&self, room: &Topic, list: Vec<Present>) -> Option<Vec<Present>> {
        if !self.own.contains_key(room) {
            return Some(list);
        }
        let told = self.told.get(room).filter(|told| told.is_whole)?;
        let newer: HashMap<&str, &Present> = list.iter().map(|it| (it.uid.as_str(), it)).collect();
        let known = told.list.values();
        Some(known.map(|it| newer.get(it.uid.as_str()).copied().unwrap_or(it).clone()).collect())
    }

    /// The manager sends the list of a room, or what has changed of it. The answer is what the
    /// members here have not been told yet.
    pub fn hear(
        &mut self,
        room: &Topic,
        is_whole: bool,
        list: Vec<Present>,
    ) -> Vec<PresenceEvent> {
        let told = self.told.entry(room.clone()).or_default();
        let mut events = Vec::new();
        let event = |present: Present, joined| {
            let Present { uid, info, .. } = present;
            PresenceEvent { room: room.name().to_owned(), uid, info, joined }
        };
        if is_whole {
            let gone = missing(told.list.keys(), list.iter().map(|it| &it.uid));
            let gone: Vec<String> = gone.into_iter().cloned().collect();
            for uid in gone {
                events.extend(told.list.remove(&uid).map(|present| event(present, false)));
            }
        }
        for present in list {
            match (present.count, told.list.contains_key(&present.uid)) {
                (0, _) => {
                    let gone = told.list.remove(&present.uid);
                    // Of whom nobody here was told, somebody who has just come over may have been.
                    if gone.is_some() || !told.is_whole {
                        events.push(event(present, false));
                    }
                }
                (_, was_told) => {
                    // The first whole list is what those who come in begin with, and no news.
                    if !was_told && (told.is_whole || !is_whole) {
                        events.push(event(present.clone(), true));
                    }
                    told.list.insert(present.uid.clone(), present);
                }
            }
        }
        told.is_whole |= is_whole;
        events
    }
}

impl Clients {
    /// Whether a room has presence.
    pub(in crate::worker) fn has_presence(&self, topic: &Topic) -> bool {
        let prefixes = &self.settings.config.rooms_presence;
        !topic.is_user() && prefixes.iter().any(|prefix| topic.name().starts_with(prefix.as_str()))
    }

    /// A connection has come into a room that has presence.
    pub(in crate::worker) fn enter_presence(&self, table: &Table, key: Key, room: &Topic) {
        let Some(user) = self.user_of(table, key) else { return };
        let info = table.get(key).and_then(|it| it.info_in(room));
        let own = self.rooms.presence.borrow_mut().enter(room, user.name(), info);
        self.say_present(room, user.name(), &own);
    }

    /// A member of a room that has presence shows something else from now on: the lists have that,
    /// and since nobody has come or left, there is no event.
    pub(in crate::worker) fn show_presence(&self, table: &Table, key: Key, room: &Topic) {
        let Some(user) = self.user_of(table, key) else { return };
        let info = table.get(key).and_then(|it| it.info_in(room));
        let own = self.rooms.presence.borrow_mut().show(room, user.name(), info);
        if let Some(own) = own {
            self.say_present(room, user.name(), &own);
        }
    }

    /// A connection is about to leave a room that has presence.
    pub(in crate::worker) fn exit_presence(&self, room: &Topic, uid: &str) {
        let own = self.rooms.presence.borrow_mut().exit(room, uid);
        self.say_present(room, uid, &own);
    }

    /// Has the user of a connection that is made anew be present where it is, until the answer is
    /// given to [`stay_no_longer`](Self::stay_no_longer).
    pub(in crate::worker) fn stay_present(&self, key: Key) -> Vec<(Topic, String)> {
        let table = self.table.borrow();
        let Some(user) = self.user_of(&table, key) else { return Vec::new() };
        let rooms = self.presence_rooms_of(&table, key);
        let mut presence = self.rooms.presence.borrow_mut();
        let stay = |room: Topic| {
            presence.enter(&room, user.name(), None);
            (room, user.name().to_owned())
        };
        rooms.into_iter().map(stay).collect()
    }

    /// The connection is made.
    pub(in crate::worker) fn stay_no_longer(&self, stays: &[(Topic, String)]) {
        stays.iter().for_each(|(room, uid)| self.exit_presence(room, uid));
    }

    fn say_present(&self, room: &Topic, uid: &str, own: &Own) {
        self.say_present_in(Lane::Data, room, uid, own);
    }

    fn say_present_in(&self, lane: Lane, room: &Topic, uid: &str, own: &Own) {
        let (room, uid, count) = (room.clone(), uid.to_owned(), own.count);
        let message = WorkerToManager::Present { room, uid, count };
        let info = own.info.as_deref().unwrap_or_default();
        let body = Body::Inline(info.as_bytes());
        let said = match lane {
            Lane::Control => self.link.send(lane, &message, body, Vec::new()).map(|_| ()),
            Lane::Data => self.link.insist(&message, body, Vec::new()),
        };
        if let Err(error) = said {
            tracing::error!(%error, "the manager was not told who is present");
        }
    }

    /// The rooms with presence that a connection is in.
    pub(in crate::worker) fn presence_rooms_of(&self, table: &Table, key: Key) -> Vec<Topic> {
        if self.settings.config.rooms_presence.is_empty() {
            return Vec::new();
        }
        let Some(connection) = table.get(key) else { return Vec::new() };
        let rooms = self.rooms.table.borrow();
        let topics = rooms.topics_of(&connection.memberships);
        topics.filter(|topic| self.has_presence(topic)).cloned().collect()
    }

    /// Tells a new manager who is present here.
    pub(in crate::worker) fn introduce_presence(&self) {
        let presence = self.rooms.presence.borrow();
        for (room, users) in &presence.own {
            for (uid, own) in users {
                // Before it is told what this worker owns: then the manager sends whole lists.
                self.say_present_in(Lane::Control, room, uid, own);
            }
        }
    }

    /// A room has no members here any more.
    pub(in crate::worker) fn forget_presence(&self, room: &Topic) {
        self.rooms.presence.borrow_mut().told.remove(room);
    }
}

/// A list as the manager sends it.
pub(in crate::worker) fn read_list(body: Body<'_>) -> Result<Vec<Present>> {
    codec::decode_within(crate::ipc::BODY_BYTES_MAX as u64, &body.into_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Topic {
        Topic::room("r")
    }

    fn present(uid: &str, count: u32) -> Present {
        Present::new(uid.to_owned(), count, None)
    }

    fn told(events: &[PresenceEvent]) -> Vec<(&str, bool)> {
        events.iter().map(|event| (event.uid.as_str(), event.joined)).collect()
    }

    #[test]
    fn a_list_that_comes_again_is_no_event() {
        let mut presence = Presence::default();
        let list = || vec![present("ann", 1), present("bob", 2)];
        assert!(
            presence.hear(&room(), true, list()).is_empty(),
            "what one begins with is no news"
        );
        assert!(presence.hear(&room(), true, list()).is_empty());
        let events = presence.hear(&room(), false, vec![present("cid", 1)]);
        assert_eq!(told(&events), [("cid", true)]);
        assert!(presence.hear(&room(), false, vec![present("cid", 2)]).is_empty());
        // A new manager has another list.
        let events = presence.hear(&room(), true, vec![present("bob", 1), present("dan", 1)]);
        assert_eq!(told(&events), [("ann", false), ("cid", false), ("dan", true)]);
        let events = presence.hear(&room(), false, vec![present("bob", 0), present("bob", 0)]);
        assert_eq!(told(&events), [("bob", false)], "once");
    }

    #[test]
    fn of_a_long_list_that_comes_again_only_what_differs_is_told() {
        let mut presence = Presence::default();
        let list = |from: usize| -> Vec<Present> {
            (from..from + 500).map(|n| present(&format!("u{n}"), 1)).collect()
        };
        assert!(presence.hear(&room(), true, list(0)).is_empty());
        let events = presence.hear(&room(), true, list(1));
        assert_eq!(told(&events), [("u0", false), ("u500", true)]);
    }

    #[test]
    fn who_comes_before_the_first_list_is_told_and_the_list_is_not() {
        let mut presence = Presence::default();
        let events = presence.hear(&room(), false, vec![present("ann", 1)]);
        assert_eq!(told(&events), [("ann", true)]);
        let list = vec![present("ann", 1), present("bob", 1)];
        assert!(presence.hear(&room(), true, list).is_empty());
        assert_eq!(
            told(&presence.hear(&room(), false, vec![present("bob", 0)])),
            [("bob", false)]
        );
    }

    #[test]
    fn members_here_begin_with_what_they_have_been_told() {
        let mut presence = Presence::default();
        let list = || vec![present("ann", 2), present("bob", 1)];
        assert_eq!(presence.as_told(&room(), list()), Some(list()), "nobody here is told events");
        presence.enter(&room(), "ann", None);
        assert_eq!(presence.as_told(&room(), list()), None);
        presence.hear(&room(), true, vec![present("ann", 1)]);
        // Of bob they will hear an event.
        assert_eq!(presence.as_told(&room(), list()), Some(vec![present("ann", 2)]));
    }

    #[test]
    fn users_here_are_counted_by_connection() {
        let mut presence = Presence::default();
        assert_eq!(presence.enter(&room(), "ann", None).count, 1);
        let second = presence.enter(&room(), "ann", Some("{}".to_owned()));
        assert_eq!(second, Own { count: 2, info: Some("{}".to_owned()) });
        let shown = presence.show(&room(), "ann", Some("[]".to_owned()));
        assert_eq!(shown, Some(Own { count: 2, info: Some("[]".to_owned()) }));
        assert_eq!(presence.show(&room(), "bob", None), None, "who is not there shows nothing");
        assert_eq!(presence.exit(&room(), "ann").count, 1);
        assert_eq!(presence.exit(&room(), "ann").count, 0);
        assert!(presence.own.is_empty());
        assert_eq!(presence.exit(&room(), "ann").count, 0);
    }
}
