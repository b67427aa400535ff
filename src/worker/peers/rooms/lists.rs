//! Lists of the members and of the rooms that are here, a page or all.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::whom::Whom;
use crate::api::rooms::{MEMBERS_MAX, Member, Topic};
use crate::fd::Fd;
use crate::ipc::messages::{Origin, RequestId, WorkerToManager};
use crate::worker::clients::key::Key;
use crate::worker::peers::Peers;

/// Members or rooms in one message of a list.
const PART: usize = 128;
/// Rooms that are looked at before clients have their turn.
const LOOK: usize = 1024;

impl Peers {
    /// Those that are in all of some topics, or, of none, every connection that has a user: as
    /// many as are asked for, with the smallest numbers above one, in the order of the numbers.
    pub(super) fn list_here(
        &self,
        topics: &[Topic],
        whom: Whom<'_>,
        after: u64,
        limit: u32,
    ) -> Vec<Member> {
        let keys = match topics {
            [] => self.keys(|it| it.is_open() && !it.memberships.is_empty()),
            [first, rest @ ..] => self.keys_in_all(first, rest, whom),
        };
        let table = self.table.borrow();
        let mut page: Vec<(Fd, Key)> = keys
            .into_iter()
            .filter_map(|key| Some((table.get(key)?.fd?, key)))
            .filter(|(fd, _)| fd.as_u64() > after)
            .collect();
        let limit = (limit as usize).min(MEMBERS_MAX);
        if !topics.is_empty() && limit < page.len() {
            page.select_nth_unstable_by_key(limit, |(fd, _)| *fd);
            page.truncate(limit);
        }
        page.sort_unstable_by_key(|(fd, _)| *fd);
        let members = page.into_iter().filter_map(|(fd, key)| {
            Some(Member::new(fd, self.belongings_of(table.get(key)?).uid))
        });
        let members = members.filter(|member| !topics.is_empty() || member.uid.is_some());
        members.take(limit).collect()
    }

    fn keys_in_all(&self, first: &Topic, rest: &[Topic], whom: Whom<'_>) -> Vec<Key> {
        let mut keys = self.keys_of(std::slice::from_ref(first), whom);
        if !rest.is_empty() {
            let (rooms, table) = (self.rooms.table.borrow(), self.table.borrow());
            keys.retain(|key| {
                table.get(*key).is_some_and(|connection| {
                    let is_in =
                        |topic| rooms.topics_of(&connection.memberships).any(|of| of == topic);
                    rest.iter().all(is_in)
                })
            });
        }
        keys
    }

    pub(super) fn tell_list(&self, origin: Origin, id: RequestId, members: Vec<Member>) {
        for part in members.chunks(PART) {
            let part = part.to_vec();
            self.say(&WorkerToManager::Members { origin, id, part, last: false });
        }
        self.say(&WorkerToManager::Members { origin, id, part: Vec::new(), last: true });
    }

    /// The rooms here with the smallest names above one, and how many members each has. The
    /// rooms are looked at some at a time, since there may be a million.
    pub(super) async fn rooms_here(&self, after: &[u8], limit: u32) -> Vec<(Topic, u64)> {
        let limit = (limit as usize).min(MEMBERS_MAX);
        let (mut page, mut from) = (BTreeMap::<Topic, u64>::new(), 0);
        while from < self.rooms.table.borrow().places() {
            for (topic, count) in self.rooms.table.borrow().at_places(from..from + LOOK) {
                let last = page.last_key_value().filter(|_| page.len() == limit);
                let is_beyond = last.is_some_and(|(last, _)| topic > last);
                let is_meant = !topic.is_user() && topic.as_str().as_bytes() > after;
                if is_meant && count > 0 && !is_beyond {
                    page.insert(topic.clone(), count as u64);
                    if page.len() > limit {
                        page.pop_last();
                    }
                }
            }
            from += LOOK;
            tokio::task::yield_now().await;
        }
        page.into_iter().collect()
    }

    pub(super) fn tell_rooms(
        self: &Rc<Self>,
        (origin, id): (Origin, RequestId),
        after: Bytes,
        limit: u32,
    ) {
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let rooms = worker.rooms_here(&after, limit).await;
            for part in rooms.chunks(PART) {
                let part = part.to_vec();
                worker.say(&WorkerToManager::Rooms { origin, id, part, last: false });
            }
            worker.say(&WorkerToManager::Rooms { origin, id, part: Vec::new(), last: true });
        });
    }
}
