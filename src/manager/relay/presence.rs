//! Who is present in which room, as the workers and the other nodes say. Pure: a user is there
//! while any worker of any node has a connection of that user in the room.
//!
//! Each says how many it has, and not what has changed, so hearing it twice does no harm.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::api::rooms::{Present, Topic};
use crate::fd::WorkerId;
use crate::ipc::cluster::nodes::NodeId;

/// Who has connections of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A worker of this node.
    Worker(WorkerId),
    /// Another node, all of its workers together.
    Node(NodeId),
}

/// The connections of one user that one holder has in a room.
#[derive(Debug, Clone)]
struct Part {
    holder: Holder,
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

fn is_own(part: &&Part) -> bool {
    matches!(part.holder, Holder::Worker(_))
}

fn present<'a>(uid: &str, parts: impl IntoIterator<Item = &'a Part>) -> Present {
    let (mut count, mut info) = (0, None);
    for part in parts {
        count += part.count;
        info = info.or_else(|| part.info.clone());
    }
    Present::new(uid.to_owned(), count, info)
}

impl User {
    fn present(&self, uid: &str) -> Present {
        let mut present = present(uid, &self.parts);
        present.info = present.info.or_else(|| self.info.clone());
        present
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
    /// A holder has so many connections of a user in a room. The answer is the user, if it has
    /// come by that or is gone: another count is no news. `linger_ms`: for how long a user without
    /// connections is still there.
    pub fn set(
        &mut self,
        holder: Holder,
        (room, uid): (Topic, String),
        (count, info): (u32, Option<String>),
        now: u64,
        linger_ms: u64,
    ) -> Option<Present> {
        let user = self.rooms.entry(room.clone()).or_default().entry(uid.clone()).or_default();
        match user.parts.iter_mut().find(|part| part.holder == holder) {
            Some(part) => (part.count, part.info) = (count, info),
            None => user.parts.push(Part { holder, count, info }),
        }
        user.parts.retain(|part| part.count > 0);
        let news = user.news(&uid, now, linger_ms);
        if let Some(at) = user.leaves_at {
            self.leaving.push_back((at, room.clone(), uid.clone()));
        }
        self.tidy(&room, &uid);
        news
    }

    /// A holder is no more. The answer is who is gone by that.
    pub fn forget(&mut self, holder: Holder, now: u64, linger_ms: u64) -> Vec<(Topic, Present)> {
        let (mut changed, mut touched) = (Vec::new(), Vec::new());
        for (room, users) in &mut self.rooms {
            for (uid, user) in users.iter_mut() {
                let before = user.parts.len();
                user.parts.retain(|part| part.holder != holder);
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

    /// Which users a holder has in which rooms.
    pub fn of(&self, holder: Holder) -> Vec<(Topic, String)> {
        let has = |user: &User| user.parts.iter().any(|part| part.holder == holder);
        let all =
            self.rooms.iter().flat_map(|(room, users)| users.iter().map(move |it| (room, it)));
        let its = all.filter(|(_, (_, user))| has(user));
        its.map(|(room, (uid, _))| (room.clone(), uid.clone())).collect()
    }

    /// A node has these in a room, and nobody else. The answer is who has come by that, or is
    /// gone.
    pub fn replace(
        &mut self,
        node: NodeId,
        room: &Topic,
        list: Vec<Present>,
        now: u64,
        linger_ms: u64,
    ) -> Vec<Present> {
        let holder = Holder::Node(node);
        let before = self.of(holder).into_iter().filter(|(its, _)| its == room);
        let here = |uid: &String| list.iter().any(|present| present.uid == *uid);
        let gone: Vec<String> = before.map(|(_, uid)| uid).filter(|uid| !here(uid)).collect();
        let gone = gone.into_iter().map(|uid| Present::new(uid, 0, None));
        let all: Vec<Present> = gone.chain(list).collect();
        let set = |it: Present| {
            self.set(holder, (room.clone(), it.uid), (it.count, it.info), now, linger_ms)
        };
        all.into_iter().filter_map(set).collect()
    }

    /// The nodes that have somebody anywhere.
    pub fn nodes(&self) -> Vec<NodeId> {
        let users = self.rooms.values().flat_map(BTreeMap::values);
        let mut nodes: Vec<NodeId> = Vec::new();
        for part in users.flat_map(|user| &user.parts) {
            if let Holder::Node(node) = part.holder
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
        nodes
    }

    /// What nodes have said of a room is not wanted any more.
    pub fn forget_nodes_in(&mut self, room: &Topic) {
        let Some(users) = self.rooms.get_mut(room) else { return };
        users.retain(|_, user| {
            user.parts.retain(|part| is_own(&part));
            !user.parts.is_empty() || user.leaves_at.is_some()
        });
        if users.is_empty() {
            self.rooms.remove(room);
        }
    }

    /// The rooms that somebody is in by connections of this node.
    pub fn own_rooms(&self) -> Vec<Topic> {
        let parts = |user: &User| user.parts.iter().any(|part| is_own(&part));
        let rooms = self.rooms.iter().filter(|(_, users)| users.values().any(parts));
        rooms.map(|(room, _)| room.clone()).collect()
    }

    /// Who is in a room by connections of this node.
    pub fn own(&self, room: &Topic) -> Vec<Present> {
        let users = self.rooms.get(room).into_iter().flatten();
        let own = users.map(|(uid, user)| present(uid, user.parts.iter().filter(is_own)));
        own.filter(|present| present.count > 0).collect()
    }

    /// One user, as far as connections of this node go.
    pub fn own_user(&self, room: &Topic, uid: &str) -> Present {
        let user = self.rooms.get(room).and_then(|users| users.get(uid));
        present(uid, user.into_iter().flat_map(|user| &user.parts).filter(is_own))
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

    fn id(slot: u8) -> Holder {
        Holder::Worker(WorkerId { slot: Slot(slot), epoch: 1 })
    }

    #[test]
    fn a_list_of_a_node_that_comes_again_is_no_news_and_what_it_lacks_is_gone() {
        let (mut presence, room) = (Presence::default(), Topic::room("r"));
        let node = NodeId { node: 1, boot: 5 };
        let user = |uid: &str, count| Present::new(uid.to_owned(), count, None);
        presence.set(id(0), (room.clone(), "ann".to_owned()), (1, None), 0, 0);
        let both = || vec![user("ann", 2), user("bob", 1)];
        assert_eq!(presence.replace(node, &room, both(), 0, 0), [user("bob", 1)]);
        assert_eq!(presence.replace(node, &room, both(), 0, 0), []);
        assert_eq!(
            (presence.list(&room)[0].count, presence.own(&room)),
            (3, vec![user("ann", 1)])
        );
        assert_eq!(presence.nodes(), [node]);
        assert_eq!(presence.replace(node, &room, vec![user("ann", 2)], 0, 0), [user("bob", 0)]);
        assert_eq!(presence.forget(Holder::Node(node), 0, 0), [], "ann is here as well");
        presence.replace(node, &room, both(), 0, 0);
        presence.forget_nodes_in(&room);
        assert_eq!(presence.list(&room), [user("ann", 1)]);
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
