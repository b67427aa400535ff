//! The machine of interest against a small world of workers, whose packets take their time: each
//! link keeps its order, and nothing else is promised. Whoever is put into a topic, is told
//! something and is taken out of it by one sender is to hear just what comes in between.
//!
//! What the workers' side of the machine does is modelled here; that a worker tells its first
//! member and its last one's end is kept by the tests of its table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::fd::Slot;

const WORKERS: usize = 3;
const ROOMS: usize = 2;

/// What is left out of the machine, to see that the test notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A join that is sent is no interest before the worker says so.
    NoMarks,
    /// What a worker says of its members ends the interest of joins that are on their way.
    LeftEndsMarks,
    /// A receiver of a link that ends is not counted on for what it has not taken yet.
    NoEndingLinks,
    /// A new manager is not told of what the last one knew.
    NoResync,
}

/// A client: of which worker, and in whose hands. Each worker has one for each sender, who alone
/// puts it in and takes it out.
type Client = (usize, usize);

#[derive(Debug, Clone)]
enum Packet {
    Change {
        client: Client,
        room: usize,
        join: bool,
        mark: Mark,
    },
    Publish {
        number: usize,
        room: usize,
        but: Vec<usize>,
    },
    /// Of a direct link, in the data lane of both.
    Through(usize),
    Indirect(usize),
    PeerEnded(usize, usize),
    Told(usize),
    Left(usize),
    Settled(usize, Mark),
}

#[derive(Default)]
struct Worker {
    members: [BTreeSet<Client>; ROOMS],
    told: [bool; ROOMS],
    to_manager: VecDeque<Packet>,
    from_manager: VecDeque<Packet>,
    /// From each other worker, once it is there: sent, and whether this end is read.
    direct: BTreeMap<usize, (VecDeque<Packet>, bool)>,
    /// To whom it sends directly.
    sends: BTreeSet<usize>,
}

struct World {
    broken: Broken,
    workers: [Worker; WORKERS],
    interest: Interest,
    managers: u32,
    /// Links whose sender has said that it is over, and whose receiver has not.
    ending: BTreeSet<(usize, usize)>,
    /// By client and room: what its sender believes.
    is_in: BTreeSet<(Client, usize)>,
    /// By publish: its sender, and who is to hear it.
    wanted: BTreeMap<usize, (usize, BTreeSet<Client>)>,
    heard: BTreeMap<usize, Vec<Client>>,
    last: usize,
}

fn topic(room: usize) -> Topic {
    Topic::room(&room.to_string())
}

fn id(worker: usize) -> WorkerId {
    WorkerId { slot: Slot(worker as u8), epoch: 1 }
}

impl World {
    fn new(broken: Broken) -> World {
        World {
            broken,
            workers: Default::default(),
            interest: Interest::new(1),
            managers: 1,
            ending: BTreeSet::new(),
            is_in: BTreeSet::new(),
            wanted: BTreeMap::new(),
            heard: BTreeMap::new(),
            last: 0,
        }
    }

    /// A handler of `sender` joins or takes out a client that is in its hands.
    fn change(&mut self, sender: usize, of: usize, room: usize, join: bool) {
        let client = (of, sender);
        if join {
            self.is_in.insert((client, room));
        } else {
            self.is_in.remove(&(client, room));
        }
        let packet = Packet::Change { client, room, join, mark: 0 };
        if of == sender {
            self.do_change(of, client, room, join);
        } else if self.workers[sender].sends.contains(&of) {
            self.workers[of].direct.get_mut(&sender).expect("a link").0.push_back(packet);
        } else {
            self.workers[sender].to_manager.push_back(packet);
        }
    }

    fn do_change(&mut self, worker: usize, client: Client, room: usize, join: bool) {
        let it = &mut self.workers[worker];
        if !join {
            it.members[room].remove(&client);
        } else if it.members[room].insert(client) && !std::mem::replace(&mut it.told[room], true) {
            it.to_manager.push_back(Packet::Told(room));
        }
    }

    /// The time of a room without members is over.
    fn linger_ends(&mut self, worker: usize, room: usize) {
        let it = &mut self.workers[worker];
        if it.members[room].is_empty() && std::mem::replace(&mut it.told[room], false) {
            it.to_manager.push_back(Packet::Left(room));
        }
    }

    fn publish(&mut self, sender: usize, room: usize) {
        self.last += 1;
        let number = self.last;
        let wanted = self.is_in.iter().filter(|((_, hand), of)| (*hand, *of) == (sender, room));
        self.wanted.insert(number, (sender, wanted.map(|(client, _)| *client).collect()));
        self.hear(sender, number, room);
        let but: Vec<usize> = self.workers[sender].sends.iter().copied().collect();
        for to in &but {
            let packet = Packet::Publish { number, room, but: Vec::new() };
            self.workers[*to].direct.get_mut(&sender).expect("a link").0.push_back(packet);
        }
        self.workers[sender].to_manager.push_back(Packet::Publish { number, room, but });
    }

    fn hear(&mut self, worker: usize, number: usize, room: usize) {
        let members = self.workers[worker].members[room].iter();
        self.heard.entry(number).or_default().extend(members);
    }

    fn link(&mut self, from: usize, to: usize) {
        let busy =
            self.ending.contains(&(from, to)) || self.workers[to].direct.contains_key(&from);
        if from != to && !busy {
            self.workers[from].sends.insert(to);
            self.workers[to].direct.insert(from, (VecDeque::new(), false));
            self.workers[from].to_manager.push_back(Packet::Through(to));
        }
    }

    fn unlink(&mut self, from: usize, to: usize) {
        if self.workers[from].sends.remove(&to) {
            self.workers[from].to_manager.push_back(Packet::Indirect(to));
        }
    }

    fn manager_takes(&mut self, from: usize) {
        let Some(packet) = self.workers[from].to_manager.pop_front() else { return };
        match packet {
            Packet::Change { client, room, join, .. } => {
                let mark = if join { self.interest.next_mark() } else { 0 };
                if join && self.broken != Broken::NoMarks {
                    self.interest.sent(id(client.0), topic(room), mark);
                }
                let packet = Packet::Change { client, room, join, mark };
                self.workers[client.0].from_manager.push_back(packet);
            }
            Packet::Publish { number, room, but } => {
                for to in (0..WORKERS).filter(|to| *to != from && !but.contains(to)) {
                    let ends =
                        self.ending.contains(&(from, to)) && self.broken != Broken::NoEndingLinks;
                    if ends || self.interest.has(&[topic(room)], id(to)) {
                        let packet = Packet::Publish { number, room, but: Vec::new() };
                        self.workers[to].from_manager.push_back(packet);
                    }
                }
            }
            Packet::Through(to) => self.workers[to].from_manager.push_back(Packet::Through(from)),
            Packet::Indirect(to) => {
                self.ending.insert((from, to));
                self.workers[to].from_manager.push_back(Packet::Indirect(from));
            }
            Packet::PeerEnded(sender, to) => drop(self.ending.remove(&(sender, to))),
            Packet::Told(room) => self.interest.told(id(from), topic(room)),
            Packet::Left(room) if self.broken == Broken::LeftEndsMarks => {
                self.interest.left(id(from), topic(room));
                self.interest.change(id(from), topic(room), |part| part.mark = 0);
            }
            Packet::Left(room) => self.interest.left(id(from), topic(room)),
            Packet::Settled(room, mark) => self.interest.settled(id(from), topic(room), mark),
        }
    }

    fn worker_takes(&mut self, worker: usize) {
        let Some(packet) = self.workers[worker].from_manager.pop_front() else { return };
        match packet {
            Packet::Through(from) => {
                if let Some(link) = self.workers[worker].direct.get_mut(&from) {
                    link.1 = true;
                }
            }
            Packet::Indirect(from) => {
                while self.worker_takes_directly(worker, from) {}
                self.workers[worker].direct.remove(&from);
                self.workers[worker].to_manager.push_back(Packet::PeerEnded(from, worker));
            }
            other => self.apply(worker, other),
        }
    }

    fn worker_takes_directly(&mut self, worker: usize, from: usize) -> bool {
        let link = self.workers[worker].direct.get_mut(&from).filter(|link| link.1);
        let Some(packet) = link.and_then(|link| link.0.pop_front()) else { return false };
        self.apply(worker, packet);
        true
    }

    fn apply(&mut self, worker: usize, packet: Packet) {
        match packet {
            Packet::Change { client, room, join, mark } => {
                self.do_change(worker, client, room, join);
                if mark != 0 {
                    self.workers[worker].to_manager.push_back(Packet::Settled(room, mark));
                }
            }
            Packet::Publish { number, room, .. } => self.hear(worker, number, room),
            other => panic!("{other:?}"),
        }
    }

    /// A new manager, which hears of all topics before it passes anything on, and to which each
    /// worker answers behind what the last one had sent there. Direct links end.
    fn manager_dies(&mut self) {
        self.managers += 1;
        self.interest = Interest::new(self.managers);
        for worker in 0..WORKERS {
            while !self.workers[worker].from_manager.is_empty() {
                self.worker_takes(worker);
            }
            for other in 0..WORKERS {
                self.unlink(worker, other);
                while self.worker_takes_directly(worker, other) {}
            }
            for room in (0..ROOMS).filter(|room| self.workers[worker].told[*room]) {
                if self.broken != Broken::NoResync {
                    self.interest.told(id(worker), topic(room));
                }
            }
        }
    }

    fn step(&mut self, random: &mut impl FnMut(usize) -> usize) {
        let (one, other, room) = (random(WORKERS), random(WORKERS), random(ROOMS));
        match random(30) {
            0..4 => self.change(one, other, room, true),
            4..7 => self.change(one, other, room, false),
            7..11 => self.publish(one, room),
            11..17 => self.manager_takes(one),
            17..23 => self.worker_takes(one),
            23..25 => drop(self.worker_takes_directly(one, other)),
            25..27 => self.linger_ends(one, room),
            27 => self.link(one, other),
            28 => self.unlink(one, other),
            // Not often: what it knows is to matter.
            _ if random(8) == 0 => self.manager_dies(),
            _ => {}
        }
    }

    /// All that is on its way arrives.
    fn come_to_rest(&mut self) {
        while self.has_more() {
            for worker in 0..WORKERS {
                self.manager_takes(worker);
                self.worker_takes(worker);
                for from in 0..WORKERS {
                    self.worker_takes_directly(worker, from);
                }
            }
        }
    }

    fn has_more(&self) -> bool {
        self.workers.iter().any(|it| {
            let direct = it.direct.values().any(|(queue, _)| !queue.is_empty());
            direct || !it.to_manager.is_empty() || !it.from_manager.is_empty()
        })
    }

    /// What is wrong, if anything: of each publish, its sender's clients have heard it once if
    /// they were in the room, and not if they were not.
    fn fault(&self) -> Option<String> {
        self.wanted.iter().find_map(|(number, (sender, wanted))| {
            let heard = &self.heard[number];
            let once: BTreeSet<Client> = heard.iter().copied().collect();
            let of_sender = once.iter().filter(|(_, hand)| hand == sender).copied();
            let right = *wanted == of_sender.collect() && heard.len() == once.len();
            (!right).then(|| format!("{number} of {sender}: {wanted:?}, heard {heard:?}"))
        })
    }
}

/// Runs the machine `rounds` times for 120 steps; the first fault.
fn torment(broken: Broken, rounds: u32) -> Option<String> {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    (0..rounds).find_map(|_| {
        let mut world = World::new(broken);
        for _ in 0..120 {
            world.step(&mut |below| (rng.next_u64() % below as u64) as usize);
        }
        world.come_to_rest();
        world.fault()
    })
}

#[test]
fn whoever_is_in_a_topic_hears_what_its_sender_publishes() {
    assert_eq!(torment(Broken::Nothing, 400), None);
}

#[test]
fn a_machine_without_one_of_its_rules_is_caught() {
    for broken in [Broken::NoMarks, Broken::LeftEndsMarks, Broken::NoEndingLinks, Broken::NoResync]
    {
        assert!(torment(broken, 4_000).is_some(), "{broken:?} is not noticed");
    }
}
