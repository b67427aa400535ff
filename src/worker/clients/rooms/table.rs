//! Who is in which room: a slab of rooms with vectors of members, and on each connection where it
//! stands in them. Pure: it knows indices, and no socket.
//!
//! A member knows where its connection keeps the membership and the membership knows where the
//! member stands, so a leave is two swaps with the last. A room stays for a while behind its last
//! member, since whoever leaves often comes back: until then the manager need not be told.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use slab::Slab;

use crate::api::rooms::Topic;
use crate::worker::base::ticks::Tick;

/// Where a connection stands in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    room: u32,
    place: u32,
}

/// The rooms of a connection: none, one, or where the worker keeps the list of several. Every
/// connection has one of these, so it is as small as a single membership.
#[derive(Debug, Clone, Copy)]
pub struct Memberships(Membership);

/// In the place of a room's index: there is none.
const NONE: u32 = u32::MAX;
/// In the place of a room's index: `place` is that of a list.
const SEVERAL: u32 = u32::MAX - 1;

impl Default for Memberships {
    fn default() -> Memberships {
        Memberships(Membership { room: NONE, place: 0 })
    }
}

impl Memberships {
    pub fn is_empty(self) -> bool {
        self.0.room == NONE
    }

    fn list(self) -> Option<usize> {
        (self.0.room == SEVERAL).then_some(self.0.place as usize)
    }
}

/// A member of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomMember {
    /// The connection's index.
    pub holder: u32,
    /// Which of its memberships it is.
    membership: u32,
}

/// Those who have memberships, by their index.
pub trait Holders {
    /// The memberships of one, who is there.
    fn memberships(&mut self, holder: u32) -> &mut Memberships;
}

#[derive(Debug)]
struct Room {
    topic: Topic,
    members: Vec<RoomMember>,
    /// Which of its times without members it is.
    vacancy: u32,
}

/// What a join has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It was a member already.
    Again,
    /// It is a member, and nobody outside knows of the room.
    First,
    /// It is a member.
    Another,
}

/// All rooms of a worker.
#[derive(Default)]
pub struct Rooms {
    slab: Slab<Room>,
    /// The memberships of connections that have several.
    lists: Slab<Vec<Membership>>,
    by_topic: HashTable<u32>,
    /// Names may come from clients, who must not be able to make them collide.
    key: RandomState,
    /// Rooms without members: since when, and which time it is.
    vacant: VecDeque<(Tick, u32, u32)>,
    vacancies: u32,
}

/// Vectors grow by an eighth: they are many, and what they have too much is paid for each.
fn push_tight<T>(vec: &mut Vec<T>, item: T) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(vec.len() / 8 + 1);
    }
    vec.push(item);
}

fn shrink_loose<T>(vec: &mut Vec<T>) {
    if vec.len() < vec.capacity() / 2 {
        vec.shrink_to(vec.len() + vec.len() / 8);
    }
}

impl Rooms {
    /// How many rooms there are, those without members among them.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    fn find(&self, topic: &str) -> Option<u32> {
        let hash = self.key.hash_one(topic);
        let is_it = |room: &u32| self.slab[*room as usize].topic.as_str() == topic;
        self.by_topic.find(hash, is_it).copied()
    }

    /// Whether there is a room of that name, with members or lately without.
    pub fn has(&self, topic: &Topic) -> bool {
        self.find(topic.as_str()).is_some()
    }

    /// The members of a room.
    pub fn members(&self, topic: &Topic) -> &[RoomMember] {
        match self.find(topic.as_str()) {
            Some(room) => &self.slab[room as usize].members,
            None => &[],
        }
    }

    /// The topics somebody is in, or lately was.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.slab.iter().map(|(_, room)| &room.topic)
    }

    /// The places at which there may be rooms: below this number.
    pub fn places(&self) -> usize {
        self.slab.capacity()
    }

    /// What stands at some of the places, and how many members each has.
    pub fn at_places(
        &self,
        places: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (&Topic, usize)> {
        let rooms = places.filter_map(|place| self.slab.get(place));
        rooms.map(|room| (&room.topic, room.members.len()))
    }

    /// The topics of a connection.
    pub fn topics_of<'a>(&'a self, of: &'a Memberships) -> impl Iterator<Item = &'a Topic> {
        self.all_of(of).iter().map(|membership| &self.slab[membership.room as usize].topic)
    }

    /// How many topics a connection is in.
    pub fn count_of(&self, of: &Memberships) -> usize {
        self.all_of(of).len()
    }

    fn all_of<'a>(&'a self, of: &'a Memberships) -> &'a [Membership] {
        match of.list() {
            Some(list) => &self.lists[list],
            None if of.is_empty() => &[],
            None => std::slice::from_ref(&of.0),
        }
    }

    fn all_of_mut<'a>(
        lists: &'a mut Slab<Vec<Membership>>,
        of: &'a mut Memberships,
    ) -> &'a mut [Membership] {
        match of.list() {
            Some(list) => &mut lists[list],
            None if of.is_empty() => &mut [],
            None => std::slice::from_mut(&mut of.0),
        }
    }

    fn add_to(&mut self, of: &mut Memberships, membership: Membership) {
        match of.list() {
            Some(list) => push_tight(&mut self.lists[list], membership),
            None if of.is_empty() => of.0 = membership,
            None => {
                let list = self.lists.insert(vec![of.0, membership]);
                of.0 = Membership { room: SEVERAL, place: list as u32 };
            }
        }
    }

    fn remove_from(&mut self, of: &mut Memberships, index: usize) {
        let Some(list) = of.list() else { return *of = Memberships::default() };
        let several = &mut self.lists[list];
        several.swap_remove(index);
        if let [one] = several[..] {
            of.0 = one;
            self.lists.remove(list);
            if self.lists.is_empty() {
                self.lists.shrink_to_fit();
            }
        } else {
            shrink_loose(several);
        }
    }

    /// Puts a connection into a room.
    pub fn join(&mut self, holders: &mut impl Holders, holder: u32, topic: &Topic) -> Joined {
        let (room, first) = match self.find(topic.as_str()) {
            Some(room) => (room, false),
            None => (self.open(topic.clone()), true),
        };
        let of = holders.memberships(holder);
        let its = self.all_of(of);
        if its.iter().any(|it| it.room == room) {
            return Joined::Again;
        }
        let membership = its.len() as u32;
        let members = &mut self.slab[room as usize].members;
        let place = members.len() as u32;
        push_tight(members, RoomMember { holder, membership });
        self.add_to(of, Membership { room, place });
        if first { Joined::First } else { Joined::Another }
    }

    fn open(&mut self, topic: Topic) -> u32 {
        let hash = self.key.hash_one(topic.as_str());
        let room = self.slab.insert(Room { topic, members: Vec::new(), vacancy: 0 }) as u32;
        let (slab, key) = (&self.slab, &self.key);
        let rehash = |room: &u32| key.hash_one(slab[*room as usize].topic.as_str());
        self.by_topic.insert_unique(hash, room, rehash);
        room
    }

    /// Takes a connection out of a room; whether it was in it.
    pub fn leave(
        &mut self,
        holders: &mut impl Holders,
        holder: u32,
        topic: &Topic,
        now: Tick,
    ) -> bool {
        let Some(room) = self.find(topic.as_str()) else { return false };
        let its = self.all_of(holders.memberships(holder));
        let Some(index) = its.iter().position(|it| it.room == room) else { return false };
        self.take_out(holders, holder, index, now);
        true
    }

    /// Takes a connection out of all its rooms; how many they were.
    pub fn leave_all(&mut self, holders: &mut impl Holders, holder: u32, now: Tick) -> usize {
        let count = self.all_of(holders.memberships(holder)).len();
        for index in (0..count).rev() {
            self.take_out(holders, holder, index, now);
        }
        count
    }

    fn take_out(&mut self, holders: &mut impl Holders, holder: u32, index: usize, now: Tick) {
        let of = holders.memberships(holder);
        let Membership { room, place } = self.all_of(of)[index];
        self.remove_from(of, index);
        // Which stood last stands here now, and its member has to know.
        if let Some(&Membership { room, place }) = self.all_of(of).get(index) {
            self.slab[room as usize].members[place as usize].membership = index as u32;
        }
        let members = &mut self.slab[room as usize].members;
        members.swap_remove(place as usize);
        if let Some(moved) = members.get(place as usize) {
            let of_moved = holders.memberships(moved.holder);
            let its = Rooms::all_of_mut(&mut self.lists, of_moved);
            its[moved.membership as usize].place = place;
        }
        shrink_loose(members);
        if members.is_empty() {
            self.vacancies = self.vacancies.wrapping_add(1).max(1);
            self.slab[room as usize].vacancy = self.vacancies;
            self.vacant.push_back((now, room, self.vacancies));
        }
    }

    /// Removes the rooms that have been without members since before `since`; what they were.
    pub fn close_vacant(&mut self, since: Tick) -> Vec<Topic> {
        let mut closed = Vec::new();
        while let Some((_, room, vacancy)) = self.vacant.pop_front_if(|it| it.0 < since) {
            let is_it = |it: &Room| it.vacancy == vacancy && it.members.is_empty();
            if self.slab.get(room as usize).is_some_and(is_it) {
                closed.push(self.close(room));
            }
        }
        closed
    }

    fn close(&mut self, room: u32) -> Topic {
        let gone = self.slab.remove(room as usize);
        let hash = self.key.hash_one(gone.topic.as_str());
        if let Ok(entry) = self.by_topic.find_entry(hash, |it| *it == room) {
            entry.remove();
        }
        if self.slab.is_empty() {
            // Gives memory back after a crowd has left.
            self.slab.shrink_to_fit();
            self.by_topic = HashTable::new();
        }
        gone.topic
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::sys::heap::held_bytes;

    #[derive(Default)]
    struct Some8([Memberships; 8]);

    impl Holders for Some8 {
        fn memberships(&mut self, holder: u32) -> &mut Memberships {
            &mut self.0[holder as usize]
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u32, u8),
        Leave(u32, u8),
        LeaveAll(u32),
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8u32, 0..6u8).prop_map(|(who, room)| Step::Join(who, room)),
            3 => (0..8u32, 0..6u8).prop_map(|(who, room)| Step::Leave(who, room)),
            1 => (0..8u32).prop_map(Step::LeaveAll),
            1 => Just(Step::Wait),
        ]
    }

    fn topic(room: u8) -> Topic {
        if room == 0 { Topic::user("0") } else { Topic::room(&room.to_string()) }
    }

    /// Every pair of member and membership points at each other, and they are those of `model`.
    fn check(rooms: &Rooms, holders: &Some8, model: &BTreeMap<u8, BTreeSet<u32>>) {
        for (room, want) in model {
            let members = rooms.members(&topic(*room));
            let have: BTreeSet<u32> = members.iter().map(|member| member.holder).collect();
            assert_eq!((&have, members.len()), (want, want.len()), "room {room}");
            for (place, member) in members.iter().enumerate() {
                let theirs = rooms.all_of(&holders.0[member.holder as usize]);
                let membership = theirs[member.membership as usize];
                assert_eq!(membership.place as usize, place);
                assert_eq!(rooms.slab[membership.room as usize].topic, topic(*room));
            }
        }
        let all: usize = model.values().map(BTreeSet::len).sum();
        assert_eq!(holders.0.iter().map(|it| rooms.all_of(it).len()).sum::<usize>(), all);
    }

    proptest! {
        #[test]
        fn who_is_in_which_room_is_what_was_asked_for(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mut rooms, mut holders) = (Rooms::default(), Some8::default());
            let mut model: BTreeMap<u8, BTreeSet<u32>> = BTreeMap::new();
            let mut known: BTreeSet<Topic> = BTreeSet::new();
            for (now, step) in (0..).zip(steps) {
                match step {
                    Step::Join(who, room) => {
                        let new = model.entry(room).or_default().insert(who);
                        let joined = rooms.join(&mut holders, who, &topic(room));
                        prop_assert_eq!(joined == Joined::Again, !new);
                        // Whatever is outside knows of every room with members.
                        if new {
                            prop_assert_eq!(joined == Joined::First, known.insert(topic(room)));
                        }
                    }
                    Step::Leave(who, room) => {
                        let was = model.entry(room).or_default().remove(&who);
                        prop_assert_eq!(rooms.leave(&mut holders, who, &topic(room), now), was);
                    }
                    Step::LeaveAll(who) => {
                        let was = model.values_mut().filter_map(|it| it.take(&who)).count();
                        prop_assert_eq!(rooms.leave_all(&mut holders, who, now), was);
                    }
                    Step::Wait => {
                        for closed in rooms.close_vacant(now.saturating_sub(3)) {
                            prop_assert!(known.remove(&closed));
                            prop_assert!(!rooms.has(&closed));
                        }
                    }
                }
                check(&rooms, &holders, &model);
            }
            for who in 0..8 {
                rooms.leave_all(&mut holders, who, 1000);
            }
            for closed in rooms.close_vacant(1001) {
                prop_assert!(known.remove(&closed));
            }
            prop_assert!(known.is_empty() && rooms.len() == 0 && rooms.lists.is_empty());
        }
    }

    #[test]
    fn a_membership_is_small() {
        assert_eq!(size_of::<Memberships>(), 8);
        assert_eq!(size_of::<Room>(), 48);
    }

    struct Crowd(Vec<Memberships>);

    impl Holders for Crowd {
        fn memberships(&mut self, holder: u32) -> &mut Memberships {
            &mut self.0[holder as usize]
        }
    }

    /// Bytes of rooms, names, index, lists and the fields of connections, for each membership, as
    /// the allocator counts them.
    fn bytes_each(clients: u32, rooms: u32, in_each: u32) -> f64 {
        let mut crowd = Crowd(Vec::new());
        crowd.0.resize_with(clients as usize, Memberships::default);
        let before = held_bytes();
        let mut table = Rooms::default();
        for client in 0..clients {
            for nth in 0..in_each {
                let room = (client * in_each + nth * 7) % rooms;
                table.join(&mut crowd, client, &Topic::room(&format!("room:{room}")));
            }
        }
        let fields = crowd.0.len() * size_of::<Memberships>();
        let bytes = held_bytes() - before + fields as isize;
        let memberships: usize = crowd.0.iter().map(|it| table.all_of(it).len()).sum();
        bytes as f64 / memberships as f64
    }

    /// uWebSockets takes 92, 88 and 249.
    #[test]
    fn a_membership_takes_few_bytes() {
        for (clients, rooms, in_each, most) in
            [(10_000, 1_000, 10, 24.0), (10_000, 1, 1, 40.0), (100_000, 100_000, 1, 150.0)]
        {
            let bytes = bytes_each(clients, rooms, in_each);
            println!("{clients} clients, {in_each} of {rooms} rooms each: {bytes:.1} bytes");
            assert!(bytes <= most, "{bytes:.1} bytes, not {most}");
        }
    }
}
