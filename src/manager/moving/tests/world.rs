//! What is played: workers, their links, clients, a master and a manager.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::fd::{Fd, Slot, WorkerId};
use crate::ipc::messages::{Generation, Left, PassId};
use crate::ipc::transit::Transit;
use crate::manager::moving::pass::Passes;
use crate::manager::moving::reload::Reload;
use crate::manager::relay::router::Router;

/// Messages that the kernel queues on a link.
const KERNEL_MAX: usize = 4;
/// Messages that a data lane takes before it says `full`.
const LANE_MAX: usize = 12;

/// What the driver does wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing waits while a pass is under way.
    HoldsNothing,
    /// What the old worker sends to whom it has given does not wait.
    PassesTheOldWorkerOn,
    /// `Own` goes out before what waited.
    OwnsBeforeRelease,
    /// What waited goes out before the route changes.
    ReleasesBeforeRoute,
    /// The new worker serves a pass as soon as it has answered.
    ServesWithoutOwn,
    /// The new worker sends to clients of a pass by way of the manager, also once it has answered.
    DefersNothing,
    /// Nobody is told of broadcasts that its clients of a pass missed.
    TellsOfNothingMissed,
    /// The old worker lets go when it has given.
    LetsGoWhenGiven,
    /// The old worker serves at once what came back.
    ServesWhatCameBack,
    /// The manager does not wait until the old worker was told.
    OwnsBeforeTold,
    /// A new manager takes no notice of what was given.
    ForgetsWhatWasGiven,
    /// A new manager takes no notice of what has come.
    ForgetsWhatHasCome,
    /// Direct links go on while connections move.
    KeepsDirectLinks,
}

impl Broken {
    pub const ALL: &[Broken] = &[
        Broken::HoldsNothing,
        Broken::PassesTheOldWorkerOn,
        Broken::OwnsBeforeRelease,
        Broken::ReleasesBeforeRoute,
        Broken::ServesWithoutOwn,
        Broken::DefersNothing,
        Broken::TellsOfNothingMissed,
        Broken::LetsGoWhenGiven,
        Broken::ServesWhatCameBack,
        Broken::OwnsBeforeTold,
        Broken::ForgetsWhatWasGiven,
        Broken::ForgetsWhatHasCome,
        Broken::KeepsDirectLinks,
    ];
}

impl Broken {
    /// Whether the faults of a run can show it.
    pub fn may_show(self, seed: u64) -> bool {
        let faults = Faults::of(seed);
        match self {
            Broken::OwnsBeforeTold => {
                faults.manager_dies && faults.new_dies && !faults.old_dies && !faults.busy
            }
            Broken::ForgetsWhatWasGiven | Broken::ForgetsWhatHasCome => faults.manager_dies,
            Broken::KeepsDirectLinks => faults.direct,
            _ => true,
        }
    }
}

/// What may happen in a run.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub old_dies: bool,
    pub new_dies: bool,
    pub third_dies: bool,
    pub manager_dies: bool,
    pub direct: bool,
    pub busy: bool,
    pub partly_refused: bool,
}

impl Faults {
    /// Every mix of them comes up.
    pub fn of(seed: u64) -> Faults {
        let bit = |n: u64| seed >> n & 1 == 1;
        Faults {
            old_dies: bit(0),
            new_dies: bit(1),
            manager_dies: bit(2),
            busy: bit(3),
            third_dies: bit(4),
            // What a new manager learns of direct links is not played.
            direct: bit(5) && !bit(2),
            partly_refused: bit(6),
        }
    }
}

/// A message: the sender's, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub sender: WorkerId,
    pub number: u32,
    /// For one client, or for all.
    pub fd: Option<u64>,
}

impl Message {
    /// Which it is, whoever it is for.
    pub fn name(self) -> (WorkerId, u32) {
        (self.sender, self.number)
    }
}

#[derive(Debug, Clone)]
pub enum Down {
    Message(Message),
    Missed(Message),
    HandOver,
    Give { pass: PassId },
    Adopt { pass: PassId, from: WorkerId, fds: Vec<u64> },
    Take { pass: PassId },
    Settled { pass: PassId, taken: Vec<u64> },
    Own { pass: PassId },
    Drain,
    WhoAreYou { manager: u32 },
    EndDirect,
    PeerLeft,
}

#[derive(Debug, Clone)]
pub enum Up {
    Message(Message),
    Moving { pass: PassId, fds: Vec<u64> },
    Gave { pass: PassId, left: Left },
    Stays { fds: Vec<u64> },
    CanGive,
    Adopted { pass: PassId, fds: Vec<u64> },
    Gives { manager: u32, pass: PassId, fds: Vec<u64> },
    Holds { manager: u32, of: (PassId, WorkerId), fds: Vec<u64>, answered: bool },
    Owns { manager: u32, fds: Vec<u64> },
    Indirect,
    PeerEnded,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Pipe<T> {
    pub control: VecDeque<T>,
    pub data: VecDeque<T>,
    pub kernel: VecDeque<T>,
}

impl<T> Default for Pipe<T> {
    fn default() -> Pipe<T> {
        Pipe { control: VecDeque::new(), data: VecDeque::new(), kernel: VecDeque::new() }
    }
}

impl<T> Pipe<T> {
    pub fn is_full(&self) -> bool {
        self.data.len() >= LANE_MAX
    }

    /// Gives the kernel one message, if it takes one. True if it did.
    pub fn flush_one(&mut self) -> bool {
        if self.kernel.len() >= KERNEL_MAX {
            return false;
        }
        let next = self.control.pop_front().or_else(|| self.data.pop_front());
        next.map(|it| self.kernel.push_back(it)).is_some()
    }

    pub fn can_flush(&self) -> bool {
        self.kernel.len() < KERNEL_MAX && !(self.control.is_empty() && self.data.is_empty())
    }

    /// What the process had not given to the kernel when it died.
    pub fn lose(&mut self) -> Vec<T> {
        self.control.drain(..).chain(self.data.drain(..)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty() && self.kernel.is_empty()
    }
}

/// A connection at a worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here {
    /// It came and is not the worker's to serve yet.
    pub arriving: bool,
    pub busy: bool,
}

#[derive(Debug)]
pub struct Worker {
    pub id: WorkerId,
    pub generation: Generation,
    pub clients: BTreeMap<u64, Here>,
    pub transit: Transit<Message>,
    pub up: Pipe<Up>,
    pub down: Pipe<Down>,
    pub sent: u32,
    /// Whether its clients move: those that are not here are elsewhere.
    pub handing: bool,
    /// Whoever is busy is still waited for.
    pub patient: bool,
    /// It has said that some stay, or are busy, and will say when one is not.
    pub watches: bool,
    /// Where it sends what is for slot 0 directly.
    pub direct: Option<WorkerId>,
    /// What came directly, from the third worker.
    pub peer: VecDeque<Message>,
}

impl Worker {
    pub fn new(id: WorkerId, generation: Generation) -> Worker {
        Worker {
            id,
            generation,
            clients: BTreeMap::new(),
            transit: Transit::default(),
            up: Pipe::default(),
            down: Pipe::default(),
            sent: 0,
            handing: false,
            patient: true,
            watches: false,
            direct: None,
            peer: VecDeque::new(),
        }
    }
}

/// What waits with the manager.
#[derive(Debug)]
pub struct Held {
    pub message: Message,
    /// For a broadcast: whether its sender's clients of a pass had it, or will have it from the
    /// sender itself.
    pub had: bool,
}

#[derive(Debug)]
pub struct Manager {
    pub epoch: u32,
    pub router: Router,
    pub reload: Option<Reload>,
    pub passes: Passes,
    pub hold: VecDeque<Held>,
    /// It is new, and everything waits.
    pub settling: bool,
    pub introduced: BTreeSet<WorkerId>,
    pub draining: BTreeSet<WorkerId>,
    pub can_give: BTreeSet<WorkerId>,
    /// Settled passes whose old worker's kernel has not got the word yet.
    pub untold: Vec<(WorkerId, PassId)>,
    /// A handover that waits for the direct link to end.
    pub waits_for_direct: Option<(WorkerId, WorkerId)>,
    /// Whether the third worker was told to end its direct link.
    pub told_indirect: bool,
}

/// What a client got, and from whom.
#[derive(Debug, Default)]
pub struct Client {
    pub got: Vec<(WorkerId, u32)>,
    /// A worker that had it died.
    pub may_be_gone: bool,
    /// How much had been sent when it came.
    pub since: usize,
}

pub struct World {
    pub state: u64,
    pub faults: Faults,
    pub broken: Option<Broken>,
    pub clients: BTreeMap<u64, Client>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub manager: Option<Manager>,
    pub managers: u32,
    pub generation: Generation,
    pub pending: Option<(Generation, u16)>,
    pub new_num: u16,
    pub serving_num: u16,
    pub now: u64,
    pub epochs: BTreeMap<Slot, u32>,
    pub sent: Vec<Message>,
    /// Messages that a death or a full lane may have cost.
    pub excused: BTreeSet<(WorkerId, u32)>,
    pub violation: Option<String>,
    pub third: WorkerId,
    pub direct_is_up: bool,
    pub kills_left: u32,
    pub reloads_left: u32,
    /// What happened, where that is wanted.
    pub trace: Option<Vec<String>>,
}

pub fn lease(id: WorkerId) -> (u64, u64) {
    let first = u64::from(id.epoch) * 100;
    (first, first + 99)
}

impl World {
    pub fn new(seed: u64, broken: Option<Broken>) -> World {
        let faults = Faults::of(seed);
        let third = WorkerId { slot: Slot(3), epoch: 1 };
        let mut world = World {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed,
            faults,
            broken,
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            manager: None,
            managers: 0,
            generation: 1,
            pending: None,
            new_num: 1,
            serving_num: 1,
            now: 0,
            epochs: BTreeMap::new(),
            sent: Vec::new(),
            excused: BTreeSet::new(),
            violation: None,
            third,
            direct_is_up: false,
            kills_left: 3,
            reloads_left: 2,
            trace: None,
        };
        let old = 1 + world.below(2) as u8;
        world.serving_num = u16::from(old);
        world.new_num = 1 + world.below(u64::from(old)) as u16;
        for slot in 0..old {
            world.start_worker(Slot(slot), 1, 2 + slot as u64 * 3);
        }
        // The third is of a later generation than any: it takes no part in reloads.
        world.epochs.insert(Slot(3), 1);
        world.add_worker(third, 1000, 2);
        if faults.direct {
            let to = WorkerId { slot: Slot(0), epoch: 1 };
            world.worker(third).direct = Some(to);
            world.direct_is_up = true;
        }
        world.start_manager();
        world
    }

    pub fn is_broken(&self, how: Broken) -> bool {
        self.broken == Some(how)
    }

    /// A random number below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn worker(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("a living worker")
    }

    pub fn start_worker(&mut self, slot: Slot, generation: Generation, clients: u64) -> WorkerId {
        let epoch = self.epochs.entry(slot).or_insert(0);
        *epoch += 1;
        let id = WorkerId { slot, epoch: *epoch };
        self.add_worker(id, generation, clients);
        id
    }

    pub fn add_worker(&mut self, id: WorkerId, generation: Generation, clients: u64) {
        let mut worker = Worker::new(id, generation);
        let (first, _) = lease(id);
        for serial in first..first + clients {
            let fd = Fd::new(0, id.slot, serial).expect("a number").as_u64();
            worker.clients.insert(fd, Here::default());
            self.clients.insert(fd, Client { since: self.sent.len(), ..Client::default() });
        }
        self.workers.insert(id, worker);
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// A client is written a message.
    pub fn write(&mut self, by: WorkerId, fd: u64, message: Message) {
        self.note(|| format!("{by} writes {message:?} to {fd}"));
        let got = &mut self.clients.get_mut(&fd).expect("a client").got;
        let last = got.iter().rev().find(|(sender, _)| *sender == message.sender);
        if let Some((_, number)) = last
            && *number >= message.number
        {
            let what = format!("{fd} got {message:?} by {by} behind {number}");
            self.violate(what);
            return;
        }
        got.push((message.sender, message.number));
    }

    /// All that was sent reached who lives, and nobody is gone without a cause.
    pub fn judge(&mut self) {
        let mut found = None;
        for (fd, client) in &self.clients {
            let servers: Vec<WorkerId> = self
                .workers
                .values()
                .filter(|it| it.clients.contains_key(fd))
                .map(|it| it.id)
                .collect();
            let unserved = self.workers.values().any(|it| {
                it.transit.is_away(*fd) || it.clients.get(fd).is_some_and(|here| here.arriving)
            });
            if servers.len() > 1 || unserved {
                found = Some(format!("{fd} is with {servers:?}, and unserved: {unserved}"));
                break;
            }
            if servers.is_empty() {
                if !client.may_be_gone {
                    found = Some(format!("{fd} is gone"));
                    break;
                }
                continue;
            }
            let got: BTreeSet<(WorkerId, u32)> = client.got.iter().copied().collect();
            let missed = self.sent[client.since..].iter().find(|it| {
                it.fd.is_none_or(|to| to == *fd)
                    && !self.excused.contains(&it.name())
                    && !got.contains(&it.name())
            });
            if let Some(missed) = missed {
                found = Some(format!("{fd} with {servers:?} missed {missed:?}"));
                break;
            }
        }
        if let Some(found) = found {
            self.violate(found);
        }
    }
}
