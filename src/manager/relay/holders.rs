//! How much each worker and each node has said of who is present, and in which rooms. Pure.

use std::collections::{HashMap, HashSet};

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
const USER_BYTES: usize = 320;

/// Who has connections of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A worker of this node.
    Worker(WorkerId),
    /// Another node, all of its workers together.
    Node(NodeId),
}

/// Bytes that a user takes in a room, whose name stands with its holder as well.
pub fn weight(room: &Topic, uid: &str, info: Option<&str>) -> usize {
    USER_BYTES + 2 * room.as_str().len() + uid.len() + info.map_or(0, str::len)
}

/// What one holder has said.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// In which rooms it has users, and how many.
    rooms: HashMap<Topic, usize>,
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
    pub fn weigh(&mut self, holder: Holder, room: &Topic, (had, has): (usize, usize)) {
        if had == has {
            return;
        }
        let held = self.held.entry(holder).or_default();
        held.bytes = held.bytes - had + has;
        if had == 0 {
            *held.rooms.entry(room.clone()).or_default() += 1;
        } else if has == 0
            && let Some(users) = held.rooms.get_mut(room)
        {
            *users -= 1;
            if *users == 0 {
                held.rooms.remove(room);
            }
        }
        if held.bytes == 0 {
            self.held.remove(&holder);
        }
        if let Holder::Node(_) = holder {
            self.nodes_bytes = self.nodes_bytes - had + has;
        }
    }

    /// A holder is no more. The answer is in which rooms it had users.
    pub fn forget(&mut self, holder: Holder) -> Vec<Topic> {
        let Some(held) = self.held.remove(&holder) else { return Vec::new() };
        if let Holder::Node(_) = holder {
            self.nodes_bytes -= held.bytes;
        }
        held.rooms.into_keys().collect()
    }

    /// In which rooms a holder has users.
    pub fn rooms_of(&self, holder: Holder) -> impl Iterator<Item = &Topic> {
        self.held.get(&holder).into_iter().flat_map(|held| held.rooms.keys())
    }

    /// In which rooms workers of this node have users.
    pub fn own_rooms(&self) -> Vec<Topic> {
        let own = self.held.iter().filter(|(holder, _)| matches!(holder, Holder::Worker(_)));
        let rooms: HashSet<&Topic> = own.flat_map(|(_, held)| held.rooms.keys()).collect();
        rooms.into_iter().cloned().collect()
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
    fn in_which_rooms_a_holder_has_users_is_known_without_a_look_at_the_others() {
        let mut holders = Holders::default();
        let worker = |slot| Holder::Worker(WorkerId { slot: Slot(slot), epoch: 1 });
        let node = Holder::Node(NodeId { node: 1, boot: 5 });
        let (ours, both) = (Topic::room("ours"), Topic::room("both"));
        holders.weigh(worker(0), &ours, (0, 10));
        // Two users, of whom one gets another info and goes.
        for change in [(0, 10), (0, 10), (10, 20), (20, 0), (0, 0)] {
            holders.weigh(worker(0), &both, change);
        }
        holders.weigh(worker(1), &both, (0, 10));
        holders.weigh(node, &both, (0, 10));
        assert_eq!(holders.rooms_of(worker(0)).count(), 2);
        assert_eq!((holders.own_rooms().len(), holders.nodes_bytes), (2, 10));
        assert_eq!(holders.forget(worker(0)).len(), 2);
        assert_eq!((holders.own_rooms(), holders.nodes().len()), (vec![both.clone()], 1));
        holders.weigh(worker(1), &both, (10, 0));
        assert_eq!((holders.own_rooms(), holders.forget(node)), (vec![], vec![both]));
        assert!(holders.is_empty());
    }
}
