//! Who is in which room and of which uid, as far as the answers say, and what members were told of
//! presence.
//!
//! A client's own changes are done by its worker in the order of its asks. A join that another
//! client asked for is under way until what was published right behind it comes.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use wsd::api::Verdict;

use crate::wire::{Kind, PRESENCE_ROOMS, Packet, ROOMS, UIDS_ALL};

/// How long a join of another's client may be on its way: its worker may be stopped.
const ON_ITS_WAY: Duration = Duration::from_secs(20);
/// How long leaves are remembered: longer than an ask is judged after.
const REMEMBERED: Duration = Duration::from_secs(120);

/// A room or a uid, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Room(u64),
    User(u64),
}

impl Topic {
    /// What an ask of this kind is about, if it is a topic.
    pub fn of(kind: Kind, to: u64, extra: u64) -> Option<Topic> {
        match kind {
            Kind::Join | Kind::Leave | Kind::Publish | Kind::Tallied => Some(Topic::Room(to)),
            Kind::Enlist => Some(Topic::Room(extra)),
            Kind::Bind | Kind::PushUid => Some(Topic::User(to)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Out,
    /// Whatever is published reaches the member.
    In,
    /// A change is not answered yet.
    Asked,
    /// In or out, or in and not known to everybody.
    Unsure,
}

#[derive(Debug, Default)]
struct Membership {
    state: State,
    /// Since when, if it is in.
    since: Option<Instant>,
    /// When leaves were asked for.
    left: Vec<Instant>,
    /// When another client asked for a join that is under way.
    enlisted: Option<Instant>,
    /// Who is present, as the member was told.
    told: Option<BTreeSet<u64>>,
}

impl Membership {
    fn is_in(&mut self) {
        self.state = State::In;
        self.since.get_or_insert_with(Instant::now);
    }

    fn asked(&mut self, leaves: bool) {
        (self.state, self.since) = (State::Asked, None);
        if leaves {
            self.left.retain(|at| at.elapsed() < REMEMBERED);
            self.left.push(Instant::now());
            self.told = None;
        }
    }

    fn is_enlisted(&self) -> bool {
        self.enlisted.is_some_and(|at| at.elapsed() < ON_ITS_WAY)
    }

    fn is_out(&mut self) {
        self.state = if self.is_enlisted() { State::Unsure } else { State::Out };
        (self.since, self.told) = (None, None);
    }
}

#[derive(Debug, Default)]
pub struct Memberships(HashMap<(u64, Topic), Membership>);

impl Memberships {
    fn of(&mut self, fd: u64, topic: Topic) -> &mut Membership {
        self.0.entry((fd, topic)).or_default()
    }

    fn state(&self, fd: u64, topic: Topic) -> State {
        self.0.get(&(fd, topic)).map_or(State::Out, |it| it.state)
    }

    /// The topics that a change of this one changes: who is bound anew leaves the uid before.
    fn touched(topic: Topic) -> Vec<Topic> {
        match topic {
            Topic::Room(_) => vec![topic],
            Topic::User(_) => (0..UIDS_ALL).map(Topic::User).collect(),
        }
    }

    /// Whether no change is under way that this one could overtake.
    pub fn may_change(&self, fd: u64, topic: Topic) -> bool {
        Memberships::touched(topic).iter().all(|topic| self.state(fd, *topic) != State::Asked)
    }

    /// Whether another client may ask for this join.
    pub fn may_enlist(&self, fd: u64, room: u64) -> bool {
        let topic = Topic::Room(room);
        let is_enlisted = self.0.get(&(fd, topic)).is_some_and(Membership::is_enlisted);
        room >= PRESENCE_ROOMS && !is_enlisted && self.may_change(fd, topic)
    }

    /// Whether the client is surely bound, to whatever uid.
    pub fn is_user(&self, fd: u64) -> bool {
        (0..UIDS_ALL).any(|uid| self.state(fd, Topic::User(uid)) == State::In)
    }

    /// A client of this user that has surely been in the room for so long.
    pub fn stayed(&self, uid: u64, room: u64, long: Duration) -> Option<u64> {
        let stays = |fd: u64, topic: Topic| {
            let since = self.0.get(&(fd, topic)).and_then(|it| it.since);
            since.is_some_and(|since| since.elapsed() > long)
        };
        let bound = self.0.keys().filter(|(_, topic)| *topic == Topic::User(uid));
        bound
            .map(|(fd, _)| *fd)
            .find(|fd| stays(*fd, Topic::User(uid)) && stays(*fd, Topic::Room(room)))
    }

    /// What a client that stays has still to ask for: to be bound to its user, or to be in a room
    /// with presence.
    pub fn missing_of(&self, fd: u64, uid: u64) -> Option<(Kind, u64)> {
        if self.state(fd, Topic::User(uid)) != State::In {
            return Some((Kind::Bind, uid));
        }
        let is_out = |room: &u64| self.state(fd, Topic::Room(*room)) != State::In;
        (0..PRESENCE_ROOMS).find(is_out).map(|room| (Kind::Join, room))
    }

    /// Who is surely a member.
    pub fn members(&self, of: Topic) -> Vec<u64> {
        let all = self.0.iter().filter(|((_, topic), it)| *topic == of && it.state == State::In);
        all.map(|((fd, _), _)| *fd).collect()
    }

    /// A change is asked for.
    pub fn asks(&mut self, kind: Kind, from: u64, to: u64, extra: u64) {
        let Some(topic) = Topic::of(kind, to, extra) else { return };
        match kind {
            Kind::Join | Kind::Leave => self.of(from, topic).asked(kind == Kind::Leave),
            Kind::Bind => {
                for touched in Memberships::touched(topic) {
                    let was_in = self.state(from, touched) != State::Out;
                    if touched == topic || was_in {
                        self.of(from, touched).asked(touched != topic);
                    }
                }
            }
            Kind::Enlist => {
                let it = self.of(to, topic);
                it.enlisted = Some(Instant::now());
                if it.state == State::Out {
                    it.state = State::Unsure;
                }
            }
            _ => {}
        }
    }

    /// A change of the asker's own is answered, or will not be.
    pub fn answered(&mut self, kind: Kind, fd: u64, to: u64, verdict: Option<Verdict>) {
        let Some(topic) = Topic::of(kind, to, 0) else { return };
        let is_done = verdict == Some(Verdict::Queued);
        match kind {
            Kind::Join if verdict == Some(Verdict::NoUser) => self.of(fd, topic).is_out(),
            Kind::Join if is_done => self.of(fd, topic).is_in(),
            Kind::Leave if is_done => self.of(fd, topic).is_out(),
            Kind::Bind => {
                for touched in Memberships::touched(topic) {
                    let it = self.of(fd, touched);
                    match verdict {
                        Some(_) if touched != topic => it.is_out(),
                        Some(Verdict::Queued) => it.is_in(),
                        _ => it.state = State::Unsure,
                    }
                }
            }
            Kind::Join | Kind::Leave => self.of(fd, topic).state = State::Unsure,
            _ => {}
        }
    }

    /// Something for the members of a topic came to a client; whether it may be one.
    pub fn came(&mut self, fd: u64, topic: Topic, packet: &Packet) -> bool {
        // Those who are members already hear of it, too.
        let joins = packet.kind == Kind::Enlist && packet.to == fd;
        if joins && self.0.contains_key(&(fd, topic)) {
            self.of(fd, topic).enlisted = None;
        }
        self.state(fd, topic) != State::Out
    }

    /// Whether the client has asked to leave since.
    pub fn has_left(&self, fd: u64, topic: Topic, since: Instant) -> bool {
        let left = self.0.get(&(fd, topic)).map_or(&[][..], |it| &it.left);
        left.iter().any(|at| *at >= since)
    }

    /// A confirmed join was answered with who is present. The answer is what the member had been
    /// told before, if that was something else.
    pub fn listed(&mut self, fd: u64, room: u64, uids: &[u8]) -> Option<BTreeSet<u64>> {
        let list = uids.iter().copied().map(u64::from).collect();
        let it = self.of(fd, Topic::Room(room));
        let told = it.told.replace(list);
        told.filter(|told| Some(told) != it.told.as_ref())
    }

    /// A user has come or left, as a member is told; whether that is news there.
    pub fn present(&mut self, fd: u64, packet: &Packet) -> bool {
        let Some(told) = &mut self.of(fd, Topic::Room(packet.to)).told else { return true };
        match packet.extra {
            0 => told.remove(&packet.from),
            _ => told.insert(packet.from),
        }
    }

    /// A client may have missed something.
    pub fn missed(&mut self, fd: u64) {
        for room in 0..PRESENCE_ROOMS {
            self.of(fd, Topic::Room(room)).told = None;
        }
    }

    /// A client is gone.
    pub fn ended(&mut self, fd: u64) {
        self.0.retain(|(of, _), _| *of != fd);
    }

    /// When everything has come to rest, what a member was told is who is there; what is wrong.
    pub fn wrong_lists(&self) -> Vec<(u64, String)> {
        let mut wrong = Vec::new();
        for room in 0..PRESENCE_ROOMS {
            let topic = Topic::Room(room);
            let (mut here, mut unsure) = (BTreeSet::new(), BTreeSet::new());
            for uid in 0..UIDS_ALL {
                for ((fd, _), it) in self.0.iter().filter(|((_, of), _)| *of == Topic::User(uid)) {
                    match (self.state(*fd, topic), it.state) {
                        (State::Out, _) | (_, State::Out) => false,
                        (State::In, State::In) => here.insert(uid),
                        _ => unsure.insert(uid),
                    };
                }
            }
            for ((fd, _), it) in self.0.iter().filter(|((_, of), _)| *of == topic) {
                let Some(told) = it.told.as_ref().filter(|_| it.state == State::In) else {
                    continue;
                };
                let is_wrong = |uid: &&u64| here.contains(uid) || !unsure.contains(uid);
                if told.symmetric_difference(&here).any(|uid| is_wrong(&uid)) {
                    let what = format!("{fd} in room {room} was told of {told:?}, not {here:?}");
                    wrong.push((room, what));
                }
            }
        }
        wrong
    }

    /// How many memberships there surely are.
    pub fn count(&self) -> usize {
        (0..ROOMS).map(|room| self.members(Topic::Room(room)).len()).sum()
    }
}
