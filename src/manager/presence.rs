//! Who is present in which room, as the workers and the other nodes say. Pure: a user is there
//! while any worker of any node has a connection of that user in the room.
//!
//! Each says how many it has, and not what has changed, so hearing it twice does no harm.

use std::collections::{BTreeMap, HashMap};

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

/// The lists of all rooms that have presence.
#[derive(Debug, Default)]
pub struct Presence {
    rooms: HashMap<Topic, BTreeMap<String, Vec<Part>>>,
}

fn present<'a>(uid: &str, parts: impl IntoIterator<Item = &'a Part>) -> Present {
    let (mut count, mut info) = (0, None);
    for part in parts {
        count += part.count;
        info = info.or_else(|| part.info.clone());
    }
    Present::new(uid.to_owned(), count, info)
}

fn is_own(part: &&Part) -> bool {
    matches!(part.holder, Holder::Worker(_))
}

impl Presence {
    /// A holder has so many connections of a user in a room. The answer is the user, if it has
    /// come by that or is gone: another count is no news.
    pub fn set(
        &mut self,
        holder: Holder,
        room: Topic,
        uid: String,
        count: u32,
        info: Option<String>,
    ) -> Option<Present> {
        let users = self.rooms.entry(room.clone()).or_default();
        let parts = users.entry(uid.clone()).or_default();
        let was_there = !parts.is_empty();
        match parts.iter_mut().find(|part| part.holder == holder) {
            Some(part) => (part.count, part.info) = (count, info),
            None => parts.push(Part { holder, count, info }),
        }
        parts.retain(|part| part.count > 0);
        let present = present(&uid, &*parts);
        self.tidy(&room, &uid);
        (was_there != (present.count > 0)).then_some(present)
    }

    /// A holder is no more. The answer is who is gone by that.
    pub fn forget(&mut self, holder: Holder) -> Vec<(Topic, Present)> {
        let mut changed = Vec::new();
        for (room, users) in &mut self.rooms {
            for (uid, parts) in users.iter_mut() {
                let before = parts.len();
                parts.retain(|part| part.holder != holder);
                if parts.is_empty() && before > 0 {
                    changed.push((room.clone(), present(uid, &*parts)));
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

    /// Which users a holder has in which rooms.
    pub fn of(&self, holder: Holder) -> Vec<(Topic, String)> {
        let has = |parts: &[Part]| parts.iter().any(|part| part.holder == holder);
        let all =
            self.rooms.iter().flat_map(|(room, users)| users.iter().map(move |it| (room, it)));
        let its = all.filter(|(_, (_, parts))| has(parts));
        its.map(|(room, (uid, _))| (room.clone(), uid.clone())).collect()
    }

    /// A node has these in a room, and nobody else. The answer is who has come by that, or is
    /// gone.
    pub fn replace(&mut self, node: NodeId, room: &Topic, list: Vec<Present>) -> Vec<Present> {
        let holder = Holder::Node(node);
        let before = self.of(holder).into_iter().filter(|(its, _)| its == room);
        let here = |uid: &String| list.iter().any(|present| present.uid == *uid);
        let gone: Vec<String> = before.map(|(_, uid)| uid).filter(|uid| !here(uid)).collect();
        let gone = gone.into_iter().map(|uid| Present::new(uid, 0, None));
        let all: Vec<Present> = gone.chain(list).collect();
        let set = |it: Present| self.set(holder, room.clone(), it.uid, it.count, it.info);
        all.into_iter().filter_map(set).collect()
    }

    /// The nodes that have somebody anywhere.
    pub fn nodes(&self) -> Vec<NodeId> {
        let parts = self.rooms.values().flat_map(BTreeMap::values).flatten();
        let mut nodes: Vec<NodeId> = Vec::new();
        for part in parts {
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
        users.retain(|_, parts| {
            parts.retain(|part| is_own(&part));
            !parts.is_empty()
        });
        if users.is_empty() {
            self.rooms.remove(room);
        }
    }

    /// Who is in a room by connections of this node.
    pub fn own(&self, room: &Topic) -> Vec<Present> {
        let users = self.rooms.get(room).into_iter().flatten();
        let own = users.map(|(uid, parts)| present(uid, parts.iter().filter(is_own)));
        own.filter(|present| present.count > 0).collect()
    }

    /// One user, as far as connections of this node go.
    pub fn own_user(&self, room: &Topic, uid: &str) -> Present {
        let parts = self.rooms.get(room).and_then(|users| users.get(uid)).into_iter().flatten();
        present(uid, parts.filter(is_own))
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

    fn id(slot: u8) -> Holder {
        Holder::Worker(WorkerId { slot: Slot(slot), epoch: 1 })
    }

    #[test]
    fn a_list_of_a_node_that_comes_again_is_no_news_and_what_it_lacks_is_gone() {
        let (mut presence, room) = (Presence::default(), Topic::room("r"));
        let node = NodeId { node: 1, boot: 5 };
        let user = |uid: &str, count| Present::new(uid.to_owned(), count, None);
        presence.set(id(0), room.clone(), "ann".to_owned(), 1, None);
        let both = || vec![user("ann", 2), user("bob", 1)];
        assert_eq!(presence.replace(node, &room, both()), [user("bob", 1)]);
        assert_eq!(presence.replace(node, &room, both()), []);
        assert_eq!(
            (presence.list(&room)[0].count, presence.own(&room)),
            (3, vec![user("ann", 1)])
        );
        assert_eq!(presence.nodes(), [node]);
        assert_eq!(presence.replace(node, &room, vec![user("ann", 2)]), [user("bob", 0)]);
        assert_eq!(presence.forget(Holder::Node(node)), [], "ann is here as well");
        presence.replace(node, &room, both());
        presence.forget_nodes_in(&room);
        assert_eq!(presence.list(&room), [user("ann", 1)]);
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
