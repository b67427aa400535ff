//! Who is present in which room, as the workers say. Pure: a user is there while any worker has a
//! connection of that user in the room.
//!
//! A worker says how many it has, and not what has changed, so hearing it twice does no harm.

use std::collections::{BTreeMap, HashMap};

use crate::api::rooms::{Present, Topic};
use crate::fd::WorkerId;

/// The connections of one user that one worker has in a room.
#[derive(Debug, Clone)]
struct Part {
    worker: WorkerId,
    count: u32,
    info: Option<String>,
}

/// The lists of all rooms that have presence.
#[derive(Debug, Default)]
pub struct Presence {
    rooms: HashMap<Topic, BTreeMap<String, Vec<Part>>>,
}

fn present(uid: &str, parts: &[Part]) -> Present {
    let count = parts.iter().map(|part| part.count).sum();
    let info = parts.iter().find_map(|part| part.info.clone());
    Present::new(uid.to_owned(), count, info)
}

impl Presence {
    /// A worker has so many connections of a user in a room. The answer is the user, if it has
    /// come by that or is gone: another count is no news.
    pub fn set(
        &mut self,
        worker: WorkerId,
        room: Topic,
        uid: String,
        count: u32,
        info: Option<String>,
    ) -> Option<Present> {
        let users = self.rooms.entry(room.clone()).or_default();
        let parts = users.entry(uid.clone()).or_default();
        let was_there = !parts.is_empty();
        match parts.iter_mut().find(|part| part.worker == worker) {
            Some(part) => (part.count, part.info) = (count, info),
            None => parts.push(Part { worker, count, info }),
        }
        parts.retain(|part| part.count > 0);
        let present = present(&uid, parts);
        self.tidy(&room, &uid);
        (was_there != (present.count > 0)).then_some(present)
    }

    /// A worker is no more. The answer is who is gone by that.
    pub fn forget(&mut self, worker: WorkerId) -> Vec<(Topic, Present)> {
        let mut changed = Vec::new();
        for (room, users) in &mut self.rooms {
            for (uid, parts) in users.iter_mut() {
                let before = parts.len();
                parts.retain(|part| part.worker != worker);
                if parts.is_empty() && before > 0 {
                    changed.push((room.clone(), present(uid, parts)));
                }
            }
        }
        for (room, user) in &changed {
            self.tidy(room, &user.uid);
        }
        changed
    }

    fn tidy(&mut self, room: &Topic, uid: &str) {
        let Some(users) = self.rooms.get_mut(room) else { return };
        if users.get(uid).is_some_and(Vec::is_empty) {
            users.remove(uid);
        }
        if users.is_empty() {
            self.rooms.remove(room);
        }
    }

    /// Who is in a room, by uid.
    pub fn list(&self, room: &Topic) -> Vec<Present> {
        let users = self.rooms.get(room).into_iter().flatten();
        users.map(|(uid, parts)| present(uid, parts)).collect()
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
            presence.set(id(slot), room.clone(), "ann".to_owned(), count, Some("{}".to_owned()))
        };
        assert_eq!(set(0, 1).map(|it| it.count), Some(1));
        assert_eq!(set(1, 2), None, "another count is no news");
        assert_eq!(set(0, 0), None);
        assert_eq!(presence.list(&room)[0].count, 2);
        let gone = presence.forget(id(1));
        assert_eq!(gone, [(room.clone(), Present::new("ann".to_owned(), 0, None))]);
        assert!(presence.list(&room).is_empty() && presence.rooms.is_empty());
    }
}
