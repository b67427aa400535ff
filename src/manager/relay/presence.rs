//! Who is present in which room, as the workers say. Pure: a user is there while any worker has a
//! connection of that user in the room.
//!
//! A worker says how many it has, and not what has changed, so hearing it twice does no harm.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::api::rooms::{Present, Topic};
use crate::fd::WorkerId;

/// The connections of one user that one worker has in a room.
#[derive(Debug, Clone)]
struct Part {
    worker: WorkerId,
    count: u32,
    info: Option<String>,
}

/// One user in one room.
#[derive(Debug, Default)]
struct User {
    parts: Vec<Part>,
    /// What the room was told when the user came.
    info: Option<String>,
    /// Whether the room knows that the user is there.
    is_told: bool,
    /// When it is told that the user has left, in milliseconds of the monotonic clock.
    leaves_at: Option<u64>,
}

impl User {
    fn present(&self, uid: &str) -> Present {
        let count = self.parts.iter().map(|part| part.count).sum();
        let info = self.parts.iter().find_map(|part| part.info.clone());
        Present::new(uid.to_owned(), count, info.or_else(|| self.info.clone()))
    }

    /// What the room has to be told now that the connections have changed. Who has no connection
    /// left is told to have left only after `linger_ms`.
    fn news(&mut self, uid: &str, now: u64, linger_ms: u64) -> Option<Present> {
        let present = self.present(uid);
        if present.count > 0 {
            self.leaves_at = None;
            self.info.clone_from(&present.info);
            return (!std::mem::replace(&mut self.is_told, true)).then_some(present);
        }
        if linger_ms > 0 && self.is_told {
            self.leaves_at.get_or_insert(now.saturating_add(linger_ms));
            return None;
        }
        std::mem::replace(&mut self.is_told, false).then_some(present)
    }
}

/// The lists of all rooms that have presence.
#[derive(Debug, Default)]
pub struct Presence {
    rooms: HashMap<Topic, BTreeMap<String, User>>,
    /// Who is to be told to have left, and when, in that order.
    leaving: VecDeque<(u64, Topic, String)>,
}

impl Presence {
    /// A worker has so many connections of a user in a room. The answer is the user, if it has
    /// come by that or is gone: another count is no news. `linger_ms`: for how long a user without
    /// connections is still there.
    pub fn set(
        &mut self,
        worker: WorkerId,
        (room, uid): (Topic, String),
        (count, info): (u32, Option<String>),
        now: u64,
        linger_ms: u64,
    ) -> Option<Present> {
        let user = self.rooms.entry(room.clone()).or_default().entry(uid.clone()).or_default();
        match user.parts.iter_mut().find(|part| part.worker == worker) {
            Some(part) => (part.count, part.info) = (count, info),
            None => user.parts.push(Part { worker, count, info }),
        }
        user.parts.retain(|part| part.count > 0);
        let news = user.news(&uid, now, linger_ms);
        if let Some(at) = user.leaves_at {
            self.leaving.push_back((at, room.clone(), uid.clone()));
        }
        self.tidy(&room, &uid);
        news
    }

    /// A worker is no more. The answer is who is gone by that.
    pub fn forget(&mut self, worker: WorkerId, now: u64, linger_ms: u64) -> Vec<(Topic, Present)> {
        let (mut changed, mut touched) = (Vec::new(), Vec::new());
        for (room, users) in &mut self.rooms {
            for (uid, user) in users.iter_mut() {
                let before = user.parts.len();
                user.parts.retain(|part| part.worker != worker);
                if user.parts.len() == before {
                    continue;
                }
                changed.extend(user.news(uid, now, linger_ms).map(|it| (room.clone(), it)));
                touched.push((user.leaves_at, room.clone(), uid.clone()));
            }
        }
        for (leaves_at, room, uid) in touched {
            self.tidy(&room, &uid);
            self.leaving.extend(leaves_at.map(|at| (at, room, uid)));
        }
        changed
    }

    /// Those who have been without a connection for long enough, and have left.
    pub fn leave_due(&mut self, now: u64) -> Vec<(Topic, Present)> {
        let mut left = Vec::new();
        while let Some((at, room, uid)) = self.leaving.pop_front_if(|it| it.0 <= now) {
            let user = self.rooms.get_mut(&room).and_then(|users| users.get_mut(&uid));
            let Some(user) = user.filter(|user| user.leaves_at == Some(at)) else { continue };
            let present = user.present(&uid);
            (user.is_told, user.leaves_at) = (false, None);
            self.tidy(&room, &uid);
            left.push((room, present));
        }
        left
    }

    fn tidy(&mut self, room: &Topic, uid: &str) {
        let Some(users) = self.rooms.get_mut(room) else { return };
        let is_gone = |user: &User| user.parts.is_empty() && user.leaves_at.is_none();
        if users.get(uid).is_some_and(is_gone) {
            users.remove(uid);
        }
        if users.is_empty() {
            self.rooms.remove(room);
        }
    }

    /// Who is in a room, by uid. Who is about to leave is there with one connection.
    pub fn list(&self, room: &Topic) -> Vec<Present> {
        let users = self.rooms.get(room).into_iter().flatten();
        let list = users.map(|(uid, user)| {
            let mut present = user.present(uid);
            present.count = present.count.max(1);
            present
        });
        list.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    fn id(slot: u8) -> WorkerId {
        WorkerId { slot: Slot(slot), epoch: 1 }
    }

    #[test]
    fn a_user_is_there_while_any_worker_has_one_of_its_connections() {
        let mut presence = Presence::default();
        let room = Topic::room("r");
        let mut set = |slot, count| {
            let user = (room.clone(), "ann".to_owned());
            presence.set(id(slot), user, (count, Some("{}".to_owned())), 0, 0)
        };
        assert_eq!(set(0, 1).map(|it| it.count), Some(1));
        assert_eq!(set(1, 2), None, "another count is no news");
        assert_eq!(set(0, 0), None);
        assert_eq!(presence.list(&room)[0].count, 2);
        let gone = presence.forget(id(1), 0, 0);
        let ann = Present::new("ann".to_owned(), 0, Some("{}".to_owned()));
        assert_eq!(gone, [(room.clone(), ann)]);
        assert!(presence.list(&room).is_empty() && presence.rooms.is_empty());
    }

    #[test]
    fn who_comes_back_within_the_linger_has_not_left() {
        let mut presence = Presence::default();
        let room = Topic::room("r");
        let set = |presence: &mut Presence, uid: &str, count, now| {
            let user = (room.clone(), uid.to_owned());
            presence.set(id(0), user, (count, None), now, 1000).map(|it| it.count)
        };
        assert_eq!(set(&mut presence, "ann", 1, 0), Some(1));
        assert_eq!(set(&mut presence, "bob", 1, 0), Some(1));
        assert_eq!(set(&mut presence, "ann", 0, 10), None);
        assert_eq!(set(&mut presence, "bob", 0, 20), None);
        assert_eq!(set(&mut presence, "ann", 1, 500), None, "she has not left");
        assert_eq!(presence.list(&room).len(), 2);
        assert!(presence.leave_due(1019).is_empty());
        let left = presence.leave_due(1020);
        assert_eq!(left[0].1, Present::new("bob".to_owned(), 0, None));
        assert_eq!((left.len(), presence.list(&room).len()), (1, 1));
        assert!(presence.forget(id(0), 2000, 1000).is_empty());
        assert_eq!(presence.leave_due(3000).len(), 1);
        assert!(presence.rooms.is_empty() && presence.leaving.is_empty());
    }
}
