//! How much each worker and each node has said of who is present, and of whom. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::api::rooms::Topic;
use crate::fd::WorkerId;
use crate::ipc::cluster::nodes::NodeId;

/// Bytes that what one worker says may take: some hundred thousand users with a short info.
const WORKER_BYTES_MAX: usize = 64 << 20;
/// Bytes that what all other nodes say may take together.
const NODES_BYTES_MAX: usize = 128 << 20;
/// Runs of nodes of which anything is kept, workers counted as well. There are 64 nodes at once.
pub const HOLDERS_MAX: usize = 1024;
/// What a user in a room takes besides its names and its info.
const USER_BYTES: usize = 400;

/// Who has connections of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A worker of this node.
    Worker(WorkerId),
    /// Another node, all of its workers together.
    Node(NodeId),
}

/// Bytes that a user takes in a room: both names stand with the holder as well.
pub fn weight(room: &Topic, uid: &str, info: Option<&str>) -> usize {
    USER_BYTES + 2 * (room.as_str().len() + uid.len()) + info.map_or(0, str::len)
}

/// Users by their rooms.
pub type Users = HashMap<Topic, BTreeSet<String>>;

/// What one holder has said.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    users: Users,
}

/// What each has said; who has said nothing is not here.
#[derive(Debug, Default)]
pub struct Holders {
    held: HashMap<Holder, Held>,
    /// Bytes of all nodes.
    nodes_bytes: usize,
}

impl Holders {
    /// Whether there is room for what a holder says of a user, which took so many bytes and would
    /// take so many now.
    pub fn has_room(&self, holder: Holder, (had, has): (usize, usize)) -> bool {
        let held = self.held.get(&holder);
        has <= had
            || match holder {
                Holder::Worker(_) => {
                    held.map_or(0, |held| held.bytes) - had + has <= WORKER_BYTES_MAX
                }
                Holder::Node(_) => {
                    let known = held.is_some() || self.held.len() < HOLDERS_MAX;
                    known && self.nodes_bytes - had + has <= NODES_BYTES_MAX
                }
            }
    }

    /// What a holder has said of a user in a room took so many bytes, and takes so many now.
    pub fn weigh(
        &mut self,
        holder: Holder,
        (room, uid): (&Topic, &str),
        (had, has): (usize, usize),
    ) {
        if had == has {
            return;
        }
        let held = self.held.entry(holder).or_default();
        held.bytes = held.bytes - had + has;
        if had == 0 {
            held.users.entry(room.clone()).or_default().insert(uid.to_owned());
        } else if has == 0
            && let Some(users) = held.users.get_mut(room)
        {
            users.remove(uid);
            if users.is_empty() {
                held.users.remove(room);
            }
        }
        if held.bytes == 0 {
            self.held.remove(&holder);
        }
        if let Holder::Node(_) = holder {
            self.nodes_bytes = self.nodes_bytes - had + has;
        }
    }

    /// A holder is no more. The answer is which users it had.
    pub fn forget(&mut self, holder: Holder) -> Users {
        let held = self.held.remove(&holder).unwrap_or_default();
        if let Holder::Node(_) = holder {
            self.nodes_bytes -= held.bytes;
        }
        held.users
    }

    /// The users of a holder, by the rooms.
    pub fn users_of(&self, holder: Holder) -> Option<&Users> {
        self.held.get(&holder).map(|held| &held.users)
    }

    /// In which rooms workers of this node have users.
    pub fn own_rooms(&self) -> Vec<Topic> {
        let own = self.held.iter().filter(|(holder, _)| matches!(holder, Holder::Worker(_)));
        let rooms: HashSet<&Topic> = own.flat_map(|(_, held)| held.users.keys()).collect();
        rooms.into_iter().cloned().collect()
    }

    /// The numbers of the nodes that have somebody in a room.
    pub fn nodes_in(&self, room: &Topic) -> HashSet<u8> {
        let number = |(holder, held): (&Holder, &Held)| match holder {
            Holder::Node(id) if held.users.contains_key(room) => Some(id.node),
            _ => None,
        };
        self.held.iter().filter_map(number).collect()
    }

    /// The nodes that have somebody anywhere.
    pub fn nodes(&self) -> Vec<NodeId> {
        let node = |holder: &Holder| match holder {
            Holder::Node(node) => Some(*node),
            Holder::Worker(_) => None,
        };
        self.held.keys().filter_map(node).collect()
    }

    /// Whether nobody has said anything that is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.nodes_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    #[test]
    fn whom_a_holder_has_in_which_rooms_is_known_without_a_look_at_the_others() {
        let mut holders = Holders::default();
        let worker = |slot| Holder::Worker(WorkerId { slot: Slot(slot), epoch: 1 });
        let node = Holder::Node(NodeId { node: 1, boot: 5 });
        let (ours, both) = (Topic::room("ours"), Topic::room("both"));
        let users = |room: &Topic, uid: &str| (room.clone(), BTreeSet::from([uid.to_owned()]));
        holders.weigh(worker(0), (&ours, "ann"), (0, 10));
        holders.weigh(worker(0), (&both, "ann"), (0, 10));
        // Another info, and gone.
        for change in [(0, 10), (10, 20), (20, 0), (0, 0)] {
            holders.weigh(worker(0), (&both, "bob"), change);
        }
        holders.weigh(worker(1), (&both, "bob"), (0, 10));
        holders.weigh(node, (&both, "cid"), (0, 10));
        assert_eq!((holders.own_rooms().len(), holders.nodes_bytes), (2, 10));
        let of_first = Users::from([users(&ours, "ann"), users(&both, "ann")]);
        assert_eq!(holders.users_of(worker(0)), Some(&of_first));
        assert_eq!(holders.forget(worker(0)), of_first);
        assert_eq!((holders.own_rooms(), holders.nodes().len()), (vec![both.clone()], 1));
        holders.weigh(worker(1), (&both, "bob"), (10, 0));
        assert_eq!(holders.own_rooms(), []);
        assert_eq!(holders.forget(node), Users::from([users(&both, "cid")]));
        assert!(holders.is_empty());
    }
}
