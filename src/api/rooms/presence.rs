//! Who is present in a room, as handlers, workers, the manager and other nodes tell it.

use std::collections::HashSet;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::{EngineWord, INFO_BYTES_MAX, NAME_BYTES_MAX, Nodes};

/// A user who is present in a room: [`Context::presence`](crate::api::Context::presence).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Present {
    /// Who.
    pub uid: String,
    /// By how many connections.
    pub count: u32,
    /// What the first of these gave as its info when it joined, or one of them since by joining
    /// again, as JSON.
    pub info: Option<String>,
}

impl Present {
    /// A user who is present.
    pub fn new(uid: String, count: u32, info: Option<String>) -> Present {
        Present { uid, count, info }
    }

    /// Whether no configuration allows a uid or an info that is so long.
    pub(crate) fn is_too_long(&self) -> bool {
        let info = self.info.as_ref().map_or(0, String::len);
        self.uid.len() > NAME_BYTES_MAX || info > INFO_BYTES_MAX
    }
}

/// Who is present in a room: the answer of [`Context::presence`](crate::api::Context::presence).
/// Nothing in it is a guess: of a node that could not be asked it says so, as a
/// [`Tally`](super::Tally) does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PresenceList {
    /// The users, by uid.
    pub users: Vec<Present>,
    /// The other nodes of the cluster: how many have somebody in the room, and of how many all are
    /// among the users. `None` without a cluster, and for a room that has no presence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// Whether the cluster's engine was there; `None` as for the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineWord>,
}

impl PresenceList {
    /// Nobody yet; in a cluster, what is not said of the other nodes is not known.
    pub(crate) fn of(cluster: bool) -> PresenceList {
        let mut list = PresenceList::default();
        if cluster {
            list.nodes = Some(Nodes::default());
            list.engine = Some(EngineWord::Away);
        }
        list
    }

    /// Whether nobody can be missing: each other node that has somebody there has said so.
    pub fn is_whole(&self) -> bool {
        self.nodes.is_none_or(|nodes| nodes.asked == Some(nodes.answered))
    }
}

/// Somebody has come into a room that has presence, or has left it: the first connection of a
/// user, or the last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceEvent {
    /// The room.
    pub room: String,
    /// Who.
    pub uid: String,
    /// What the user gave as info when joining, as JSON.
    pub info: Option<String>,
    /// Whether the user has come; else left.
    pub joined: bool,
}

/// Those of `before` that are not among `now`. Lists of presence are long and come again and again,
/// so none is compared with each.
pub(crate) fn missing<K: Eq + Hash>(
    before: impl IntoIterator<Item = K>,
    now: impl IntoIterator<Item = K>,
) -> Vec<K> {
    let now: HashSet<K> = now.into_iter().collect();
    before.into_iter().filter(|it| !now.contains(it)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::api::counted::Counted;

    #[test]
    fn who_is_missing_is_found_without_a_comparison_of_each_with_each() {
        let compared = &Cell::new(0);
        let uids = |from: u32| (from..from + 1_000).map(move |n| Counted(n, compared));
        let gone: Vec<u32> = missing(uids(0), uids(1)).into_iter().map(|it| it.0).collect();
        assert_eq!(gone, [0]);
        assert!((999..4_000).contains(&compared.get()), "{}", compared.get());
    }
}
