//! Which members of some topics are meant.

use crate::api::rooms::Topic;
use crate::fd::Fd;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;
use crate::worker::clients::rooms::table::RoomMember;
use crate::worker::peers::Peers;

/// Which members of a topic are meant.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::worker) struct Whom<'a> {
    /// Not this one; 0: nobody.
    pub except: u64,
    /// These alone; empty: all.
    pub only: &'a [u64],
    /// A handler of ours asks, whose messages to those that are not ours yet have to wait.
    pub ours_alone: bool,
}

impl Whom<'_> {
    pub fn is(&self, connection: &Connection) -> bool {
        if self.ours_alone && connection.arriving {
            return false;
        }
        let fd = connection.fd.map_or(0, Fd::as_u64);
        fd != self.except && (self.only.is_empty() || self.only.contains(&fd))
    }
}

impl Peers {
    /// The members that are open and meant, each once.
    pub(super) fn keys_of(&self, topics: &[Topic], whom: Whom<'_>) -> Vec<Key> {
        let (rooms, table) = (self.rooms.table.borrow(), self.table.borrow());
        let union = union_of(topics.iter().map(|topic| rooms.members(topic)));
        let entries = union.iter().map(|member| table.entry(member.holder));
        let meant = entries.filter(|(_, it)| it.is_open() && whom.is(it));
        meant.map(|(key, _)| key).collect()
    }
}

/// Who is a member of any of these, once.
pub(super) fn union_of<'a>(rooms: impl Iterator<Item = &'a [RoomMember]>) -> Vec<RoomMember> {
    let mut rooms: Vec<&[RoomMember]> = rooms.collect();
    // One that is named a hundred times would take a hundred times its memory here.
    rooms.sort_unstable_by_key(|members| members.as_ptr());
    rooms.dedup_by_key(|members| members.as_ptr());
    let mut union = rooms.concat();
    union.sort_unstable_by_key(|member| member.holder);
    union.dedup_by_key(|member| member.holder);
    union
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::clients::rooms::table::{Holders, Memberships, Rooms};

    struct People(Vec<Memberships>);

    impl Holders for People {
        fn memberships(&mut self, holder: u32) -> &mut Memberships {
            &mut self.0[holder as usize]
        }
    }

    #[test]
    fn a_room_that_is_named_often_is_there_once() {
        let (mut rooms, mut people) = (Rooms::default(), People(vec![Memberships::default(); 3]));
        for (holder, room) in [(0, "a"), (1, "a"), (1, "b"), (2, "b")] {
            rooms.join(&mut people, holder, &Topic::room(room));
        }
        let named = ["a", "b", "nobody's"].map(Topic::room);
        let often = named.iter().cycle().take(3 * 1000);
        let union = union_of(often.map(|topic| rooms.members(topic)));
        let holders: Vec<u32> = union.iter().map(|member| member.holder).collect();
        assert_eq!(holders, [0, 1, 2]);
        assert!(union.capacity() < 16, "{}", union.capacity());
    }
}
