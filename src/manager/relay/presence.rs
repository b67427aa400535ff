//! Who is present in which room, as the workers and the other nodes say. Pure: a user is there
//! while any worker of any node has a connection of that user in the room.
//!
//! Each says how many it has, and not what has changed, so hearing it twice does no harm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::holders::{Holder, Holders, weight};
use crate::api::rooms::{Present, Topic, missing};
use crate::fd::WorkerId;
use crate::ipc::cluster::nodes::NodeId;

/// Bytes of users without connections who are still there. Beyond, who leaves has left at once.
const LEAVING_BYTES_MAX: usize = 32 << 20;

/// The connections of one user that one holder has in a room.
#[derive(Debug, Clone)]
struct Part {
    holder: Holder,
    count: u32,
    info: Option<Rc<str>>,
}

/// One user in one room.
#[derive(Debug, Default)]
struct User {
    parts: Vec<Part>,
    /// What the room was told when the user came.
    info: Option<Rc<str>>,
    /// Whether the room knows that the user is there.
    is_told: bool,
    /// When it is told that the user has left, in milliseconds of the monotonic clock.
    leaves_at: Option<u64>,
}

fn is_own(part: &&Part) -> bool {
    matches!(part.holder, Holder::Worker(_))
}

fn present<'a>(uid: &str, parts: impl IntoIterator<Item = &'a Part>) -> Present {
    let (mut count, mut info) = (0_u32, None);
    for part in parts {
        count = count.saturating_add(part.count);
        info = info.or(part.info.as_deref());
    }
    Present::new(uid.to_owned(), count, info.map(str::to_owned))
}

/// Whether a list costs little to make.
pub fn is_short(list: &[Present]) -> bool {
    are_few(list.iter().map(|it| it.uid.len() + it.info.as_ref().map_or(0, String::len)))
}

/// Whether these are few users, each with so many bytes.
fn are_few(users: impl ExactSizeIterator<Item = usize>) -> bool {
    const USERS: usize = 256;
    const BYTES: usize = 32 << 10;
    users.len() <= USERS && users.sum::<usize>() <= BYTES
}

impl User {
    fn present(&self, uid: &str) -> Present {
        let mut present = present(uid, &self.parts);
        present.info = present.info.or_else(|| self.info.as_deref().map(str::to_owned));
        present
    }

    fn part(&self, holder: Holder) -> Option<&Part> {
        self.parts.iter().find(|part| part.holder == holder)
    }

    /// A holder has these connections, and no others. Of several that give an info the first is
    /// shown. Where no connection has come or left and the info is another, one that was in the
    /// room has joined again, and is shown from then on.
    fn hear(&mut self, now: Part) {
        let Some(at) = self.parts.iter().position(|part| part.holder == now.holder) else {
            return self.parts.push(now);
        };
        let before = &self.parts[at];
        let shows_else = now.count == before.count && now.info != before.info;
        self.parts[at] = now;
        if shows_else {
            self.parts[..=at].rotate_right(1);
        }
    }

    /// What the room has to be told now that the connections have changed. Who has no connection
    /// left is told to have left only after `linger_ms`.
    fn news(&mut self, uid: &str, now: u64, linger_ms: u64) -> Option<Present> {
        let present = self.present(uid);
        if present.count > 0 {
            self.leaves_at = None;
            self.info = self.parts.iter().find_map(|part| part.info.clone());
            return (!std::mem::replace(&mut self.is_told, true)).then_some(present);
        }
        if self.leaves_at.is_some() {
            return None;
        }
        if linger_ms > 0 && self.is_told {
            self.leaves_at = Some(now.saturating_add(linger_ms));
            return None;
        }
        std::mem::replace(&mut self.is_told, false).then_some(present)
    }
}

/// The lists of all rooms that have presence.
#[derive(Debug, Default)]
pub struct Presence {
    rooms: HashMap<Topic, BTreeMap<String, User>>,
    holders: Holders,
    /// What nodes have said of users for which there was no room.
    unheard: usize,
    /// Nodes of whose users in a room some found no room here, by their numbers.
    cut: HashMap<Topic, HashSet<u8>>,
    /// Workers that were silent when a new manager waited no longer for the word of its workers.
    /// Until they have spoken or are gone, their users must not seem to be gone.
    pub awaited: BTreeSet<WorkerId>,
    /// Until when they are awaited, in milliseconds of the monotonic clock.
    pub awaited_until: u64,
    /// Workers that have missed something of these rooms, since their lanes were full.
    pub missed: BTreeMap<WorkerId, BTreeSet<Topic>>,
    /// Who is to be told to have left, and when, in that order, and the bytes that each takes.
    leaving: BTreeMap<(u64, Topic, String), usize>,
    leaving_bytes: usize,
}

impl Presence {
    /// Whether there is room for what a worker or a node says of a user.
    pub fn has_room(
        &self,
        holder: Holder,
        (room, uid): &(Topic, String),
        info: Option<&str>,
    ) -> bool {
        let user = self.rooms.get(room).and_then(|users| users.get(uid));
        let before = user.and_then(|user| user.part(holder));
        let before = before.map_or(0, |part| weight(room, uid, part.info.as_deref()));
        self.holders.has_room(holder, (before, weight(room, uid, info)))
    }

    /// A node says how many connections of a user it has in a room. As [`set`](Self::set), but
    /// what has no room is not kept.
    pub fn hear(
        &mut self,
        node: NodeId,
        user: (Topic, String),
        (count, info): (u32, Option<String>),
        now: u64,
        linger_ms: u64,
    ) -> Option<Present> {
        let holder = Holder::Node(node);
        if count > 0 && !self.has_room(holder, &user, info.as_deref()) {
            self.unheard += 1;
            self.cut.entry(user.0).or_default().insert(node.node);
            return None;
        }
        self.set(holder, user, (count, info), now, linger_ms)
    }

    /// Nodes have said something of so many users for which there was no room.
    pub fn count_unheard(&mut self, users: usize) {
        self.unheard += users;
    }

    /// How often nodes have said something since the last time for which there was no room.
    pub fn take_unheard(&mut self) -> usize {
        std::mem::take(&mut self.unheard)
    }

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
        let linger_ms = self.linger_ms(linger_ms);
        let info: Option<Rc<str>> = info.map(Rc::from);
        let user = self.rooms.entry(room.clone()).or_default().entry(uid.clone()).or_default();
        let bytes = |part: &Part| weight(&room, &uid, part.info.as_deref());
        let (had, left_at) = (user.part(holder).map_or(0, bytes), user.leaves_at);
        user.hear(Part { holder, count, info });
        user.parts.retain(|part| part.count > 0);
        let has = user.part(holder).map_or(0, bytes);
        let news = user.news(&uid, now, linger_ms);
        let leaves_at = user.leaves_at;
        self.holders.weigh(holder, (&room, &uid), (had, has));
        self.note_leaving((left_at, leaves_at), &room, &uid);
        self.tidy(&room, &uid);
        news
    }

    /// For how long a user without connections is still there.
    fn linger_ms(&self, wanted_ms: u64) -> u64 {
        if self.leaving_bytes < LEAVING_BYTES_MAX { wanted_ms } else { 0 }
    }

    /// A user was to leave then, or is now.
    fn note_leaving(
        &mut self,
        (before, now): (Option<u64>, Option<u64>),
        room: &Topic,
        uid: &str,
    ) {
        if before == now {
            return;
        }
        if let Some(at) = before {
            let bytes = self.leaving.remove(&(at, room.clone(), uid.to_owned()));
            self.leaving_bytes -= bytes.unwrap_or_default();
        }
        if let Some(at) = now {
            let user = self.rooms.get(room).and_then(|users| users.get(uid));
            let info = user.and_then(|user| user.info.as_deref());
            let bytes = 2 * weight(room, uid, None) + info.map_or(0, str::len);
            self.leaving.insert((at, room.clone(), uid.to_owned()), bytes);
            self.leaving_bytes += bytes;
        }
    }

    /// A holder is no more. The answer is who is gone by that.
    pub fn forget(&mut self, holder: Holder, now: u64, linger_ms: u64) -> Vec<(Topic, Present)> {
        if let Holder::Node(id) = holder {
            self.cut.values_mut().for_each(|cut| _ = cut.remove(&id.node));
        }
        let (mut changed, mut touched) = (Vec::new(), Vec::new());
        let linger_ms = self.linger_ms(linger_ms);
        for (room, uids) in self.holders.forget(holder) {
            let Some(users) = self.rooms.get_mut(&room) else { continue };
            for uid in uids {
                let Some(user) = users.get_mut(&uid) else { continue };
                user.parts.retain(|part| part.holder != holder);
                let left_at = user.leaves_at;
                changed.extend(user.news(&uid, now, linger_ms).map(|it| (room.clone(), it)));
                touched.push(((left_at, user.leaves_at), room.clone(), uid));
            }
        }
        for (leaves_at, room, uid) in touched {
            self.note_leaving(leaves_at, &room, &uid);
            self.tidy(&room, &uid);
        }
        changed
    }

    /// Those who have been without a connection for long enough, and have left.
    pub fn leave_due(&mut self, now: u64) -> Vec<(Topic, Present)> {
        let mut left = Vec::new();
        while let Some(first) = self.leaving.first_entry().filter(|it| it.key().0 <= now) {
            let ((at, room, uid), bytes) = first.remove_entry();
            self.leaving_bytes -= bytes;
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
        let rooms = self.holders.users_of(holder).into_iter().flatten();
        let all = rooms.flat_map(|(room, uids)| uids.iter().map(move |uid| (room, uid)));
        all.map(|(room, uid)| (room.clone(), uid.clone())).collect()
    }

    /// In which rooms a holder has users.
    pub fn rooms_of(&self, holder: Holder) -> impl Iterator<Item = &Topic> {
        self.holders.users_of(holder).into_iter().flat_map(|users| users.keys())
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
        if let Some(cut) = self.cut.get_mut(room) {
            cut.remove(&node.node);
        }
        let holder = Holder::Node(node);
        let users = self.holders.users_of(holder);
        let before = users.and_then(|users| users.get(room)).into_iter().flatten();
        let gone = missing(before, list.iter().map(|it| &it.uid)).into_iter();
        let gone: Vec<Present> = gone.map(|uid| Present::new(uid.clone(), 0, None)).collect();
        let all: Vec<Present> = gone.into_iter().chain(list).collect();
        let hear = |it: Present| {
            self.hear(node, (room.clone(), it.uid), (it.count, it.info), now, linger_ms)
        };
        all.into_iter().filter_map(hear).collect()
    }

    /// How many nodes have somebody in a room, and of how many of these all are in the list.
    pub fn nodes_in(&self, room: &Topic) -> (u32, u32) {
        let mut nodes = self.holders.nodes_in(room);
        nodes.extend(self.cut.get(room).into_iter().flatten());
        let count = nodes.len() as u32;
        (count, count - self.cut_in(room))
    }

    /// Of how many nodes some users in a room found no room here.
    pub fn cut_in(&self, room: &Topic) -> u32 {
        self.cut.get(room).map_or(0, HashSet::len) as u32
    }

    /// The nodes that have somebody anywhere.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.holders.nodes()
    }

    /// What nodes have said of a room is not wanted any more.
    pub fn forget_nodes_in(&mut self, room: &Topic) {
        self.cut.remove(room);
        let Some(users) = self.rooms.get_mut(room) else { return };
        let mut forgotten = Vec::new();
        users.retain(|uid, user| {
            for part in user.parts.extract_if(.., |part| !is_own(&&*part)) {
                let bytes = weight(room, uid, part.info.as_deref());
                forgotten.push((part.holder, uid.clone(), bytes));
            }
            !user.parts.is_empty() || user.leaves_at.is_some()
        });
        if users.is_empty() {
            self.rooms.remove(room);
        }
        for (holder, uid, bytes) in forgotten {
            self.holders.weigh(holder, (room, &uid), (bytes, 0));
        }
    }

    /// The rooms that somebody is in by connections of this node.
    pub fn own_rooms(&self) -> Vec<Topic> {
        self.holders.own_rooms()
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

    /// Whether the list of a room is short.
    pub fn is_short(&self, room: &Topic) -> bool {
        let Some(users) = self.rooms.get(room) else { return true };
        let info = |part: &Part| part.info.as_ref().map_or(0, |info| info.len());
        let infos = |user: &User| user.parts.iter().map(info).sum::<usize>();
        are_few(users.iter().map(|(uid, user)| uid.len() + infos(user)))
    }

    /// Who is in a room, by uid. Who is about to leave is there with one connection.
    pub fn list(&self, room: &Topic) -> Vec<Present> {
        #[cfg(test)]
        LISTS_MADE.set(LISTS_MADE.get() + 1);
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
thread_local! {
    /// Lists that were made: a long one costs much.
    pub static LISTS_MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use crate::manager::relay::holders::HOLDERS_MAX;

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
    fn a_list_shows_what_a_user_gave_last_by_joining_again_on_whichever_worker() {
        let (mut presence, room) = (Presence::default(), Topic::room("r"));
        let user = || (room.clone(), "ann".to_owned());
        let mut shown_after = |holder, count, info: &str| {
            let news = presence.set(holder, user(), (count, Some(info.to_owned())), 0, 0);
            (news.is_some(), presence.list(&room)[0].info.clone().unwrap())
        };
        let node = Holder::Node(NodeId { node: 1, boot: 5 });
        assert_eq!(shown_after(id(0), 1, "a"), (true, "a".to_owned()));
        assert_eq!(shown_after(id(1), 1, "b"), (false, "a".to_owned()), "who came first is shown");
        assert_eq!(shown_after(id(1), 2, "b"), (false, "a".to_owned()), "another connection");
        assert_eq!(shown_after(node, 1, "c"), (false, "a".to_owned()));
        assert_eq!(shown_after(id(1), 2, "d"), (false, "d".to_owned()), "it has joined again");
        assert_eq!(shown_after(id(0), 1, "a"), (false, "d".to_owned()), "that is told again");
        assert_eq!(shown_after(id(0), 1, "e"), (false, "e".to_owned()));
        assert_eq!(shown_after(node, 1, "f"), (false, "f".to_owned()));
    }

    #[test]
    fn lists_of_a_node_are_compared_with_what_it_has_in_that_room_alone() {
        let mut presence = Presence::default();
        let (one, two) = (NodeId { node: 1, boot: 5 }, NodeId { node: 2, boot: 6 });
        let list = |from: usize, count: usize| -> Vec<Present> {
            (from..from + count).map(|n| Present::new(format!("u{n}"), 1, None)).collect()
        };
        let (large, small) = (Topic::room("large"), Topic::room("small"));
        assert_eq!(presence.replace(one, &large, list(0, 500), 0, 0).len(), 500);
        assert_eq!(presence.replace(two, &large, list(500, 500), 0, 0).len(), 500);
        assert_eq!(presence.replace(one, &small, list(7, 1), 0, 0).len(), 1);
        let changed = presence.replace(one, &large, list(1, 500), 0, 0);
        assert_eq!(changed, [Present::new("u0".to_owned(), 0, None)], "u500 was there");
        assert_eq!((presence.list(&large).len(), presence.list(&small).len()), (999, 1));
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
    fn what_a_worker_says_has_room_for_so_much_and_what_it_takes_back_makes_room() {
        let mut presence = Presence::default();
        let info = "i".repeat(64 * 1024);
        let user = |n: usize| (Topic::room("presence-r"), format!("u{n}"));
        let mut said = 0;
        while presence.has_room(id(0), &user(said), Some(&info)) {
            presence.set(id(0), user(said), (1, Some(info.clone())), 0, 0);
            said += 1;
        }
        assert!((900..1024).contains(&said), "{said}: each of them may be long");
        assert!(presence.has_room(id(0), &user(0), Some(&info)), "the same again");
        assert!(presence.has_room(id(1), &user(said), Some(&info)), "each has its own");
        presence.set(id(0), user(0), (0, None), 0, 0);
        assert!(presence.has_room(id(0), &user(said), Some(&info)));
        presence.forget(id(0), 0, 0);
        assert!(presence.holders.is_empty() && presence.rooms.is_empty());
    }

    #[test]
    fn what_all_nodes_say_has_room_for_so_much_and_what_is_forgotten_makes_room() {
        let mut presence = Presence::default();
        let (info, room) = ("i".repeat(64 * 1024), Topic::room("presence-r"));
        let node = |boot| NodeId { node: 1, boot };
        let hear = |presence: &mut Presence, boot: u64, n: usize, count: u32| {
            let (user, info) = ((room.clone(), format!("u{n}")), Some(info.clone()));
            presence.hear(node(boot), user, (count, info), 0, 0)
        };
        let mut said = 0;
        while hear(&mut presence, said as u64 % 2, said, 1).is_some() {
            said += 1;
        }
        assert!((1800..2048).contains(&said), "{said}: each of them may be long");
        assert_eq!((presence.take_unheard(), presence.take_unheard()), (1, 0));
        assert!(presence.has_room(id(0), &(room.clone(), "u".to_owned()), Some(&info)));
        hear(&mut presence, 0, 0, 0);
        assert!(hear(&mut presence, 1, said, 1).is_some(), "what is taken back makes room");
        let list = |count: usize| -> Vec<Present> {
            let user = |n: usize| Present::new(format!("l{n}"), 1, Some("i".repeat(64 * 1024)));
            (0..count).map(user).collect()
        };
        assert_eq!(presence.replace(node(2), &room, list(9), 0, 0), []);
        assert_eq!(presence.take_unheard(), 9);
        presence.forget(Holder::Node(node(0)), 0, 0);
        assert_eq!(presence.nodes(), [node(1)]);
        assert_eq!(presence.replace(node(2), &room, list(9), 0, 0).len(), 9);
        presence.forget_nodes_in(&room);
        assert!(presence.holders.is_empty() && presence.rooms.is_empty());
    }

    #[test]
    fn a_list_for_a_part_of_which_there_was_no_room_has_not_all_of_that_node() {
        let (mut presence, room) = (Presence::default(), Topic::room("presence-r"));
        let [one, two, long] = [1, 2, 3].map(|node| NodeId { node, boot: 5 });
        let info = "i".repeat(64 * 1024);
        let ann = || vec![Present::new("ann".to_owned(), 1, Some(info.clone()))];
        presence.replace(one, &room, ann(), 0, 0);
        let mut said = 0;
        let hall = |n: u32| (Topic::room("presence-hall"), n.to_string());
        while presence.hear(long, hall(said), (1, Some(info.clone())), 0, 0).is_some() {
            said += 1;
        }
        presence.replace(two, &room, ann(), 0, 0);
        assert_eq!((presence.nodes_in(&room), presence.cut_in(&room)), ((2, 1), 1));
        presence.forget(Holder::Node(two), 0, 0);
        assert_eq!((presence.nodes_in(&room), presence.cut_in(&room)), ((1, 1), 0));
        presence.replace(two, &room, ann(), 0, 0);
        presence.forget_nodes_in(&room);
        assert_eq!((presence.nodes_in(&room), presence.cut_in(&room)), ((0, 0), 0));
        presence.replace(one, &room, ann(), 0, 0);
        presence.replace(two, &room, ann(), 0, 0);
        presence.forget(Holder::Node(long), 0, 0);
        assert_eq!((presence.nodes_in(&room), presence.cut_in(&room)), ((2, 1), 1));
        presence.replace(two, &room, ann(), 0, 0);
        assert_eq!((presence.nodes_in(&room), presence.cut_in(&room)), ((2, 2), 0));
    }

    #[test]
    fn of_more_nodes_than_there_are_nothing_is_kept() {
        let (mut presence, room) = (Presence::default(), Topic::room("r"));
        for boot in 0..2 * HOLDERS_MAX as u64 {
            let user = (room.clone(), format!("u{boot}"));
            presence.hear(NodeId { node: 1, boot }, user, (1, None), 0, 0);
        }
        let (nodes, users) = (presence.nodes().len(), presence.list(&room).len());
        assert_eq!(
            (nodes, users, presence.take_unheard()),
            (HOLDERS_MAX, HOLDERS_MAX, HOLDERS_MAX)
        );
    }

    #[test]
    fn who_leaves_over_and_over_waits_once_and_not_all_of_them_wait() {
        let mut presence = Presence::default();
        let room = Topic::room("r");
        for now in 0..1000 {
            for count in [1, 0, 0] {
                presence.set(id(0), (room.clone(), "ann".to_owned()), (count, None), now, 5000);
            }
        }
        assert_eq!(presence.leaving.len(), 1);
        assert_eq!(presence.leave_due(6000).len(), 1);
        assert_eq!((presence.leaving_bytes, presence.rooms.len()), (0, 0));
        let info = "i".repeat(64 * 1024);
        let mut at_once = 0;
        for n in 0..1000 {
            let user = || (room.clone(), format!("u{n}"));
            presence.set(id(0), user(), (1, Some(info.clone())), 0, 5000);
            at_once += usize::from(presence.set(id(0), user(), (0, None), 0, 5000).is_some());
        }
        assert!(at_once > 0 && presence.leaving_bytes < LEAVING_BYTES_MAX + 2 * info.len());
        assert_eq!(presence.leave_due(6000).len(), 1000 - at_once);
        assert_eq!((presence.leaving_bytes, presence.rooms.len()), (0, 0));
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
