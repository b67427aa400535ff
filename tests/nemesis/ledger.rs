//! The ledger: what was asked, answered and delivered, checked as it comes in.
//!
//! What is wrong by itself (a packet at the wrong client, twice, out of order, corrupt) is a
//! violation at once. What is missing is judged later, by `account.rs`, when it is known which
//! clients left, what was killed and what the server counted.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use wsd::api::Verdict;

use crate::daemon::LEASE;
use crate::membership::{Memberships, Topic};
use crate::wire::{Kind, PRESENCE_ROOMS, Packet};

/// How long after a client reads again its queue may be full.
pub const STALL_LAG: Duration = Duration::from_secs(5);
/// How long presence is in doubt when a manager is killed while connections move: what it was
/// sending reaches one end and perhaps not the other.
const DOUBT: Duration = Duration::from_secs(8);
/// How long before the kill the connections may have moved.
const JUST_MOVED: Duration = Duration::from_secs(1);
/// A handler that runs so long may keep its connection from moving in a reload.
const SLOW_ANSWER: Duration = Duration::from_millis(1500);
/// What a member is told of who left is no older than that.
const STAYED: Duration = Duration::from_secs(8);
/// Violations that are told in full; the rest is only counted.
const TOLD_MAX: usize = 40;
const LEFT_MAX: usize = 64;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client left.
    Left,
    /// The server, or a process of it, ended it.
    Dropped,
}

/// One connection, from its Hello on.
#[derive(Debug)]
pub struct Life {
    /// The worker that answered last.
    pub pid: i32,
    /// When it did.
    pub heard: Instant,
    pub ended: Option<(Instant, End)>,
    /// Asks so far.
    pub asked: u64,
    /// The number of the last answer.
    pub answered: u64,
    /// When it did not read.
    pub stalls: Vec<(Instant, Instant)>,
    /// When the last answer came that was long in coming: the handler may have run all the while.
    pub slow: Option<Instant>,
}

/// What a member was told of presence that does not fit.
#[derive(Debug)]
pub struct Doubt {
    pub at: Instant,
    pub room: u64,
    /// Who had stayed, where somebody was told to have left.
    pub stayed: Option<u64>,
    pub what: String,
}

/// An ask that is not settled yet.
#[derive(Debug)]
pub struct Ask {
    pub kind: Kind,
    pub to: u64,
    /// The topic that it is about.
    pub topic: Option<Topic>,
    pub at: Instant,
    /// When its last bytes were about to be written.
    sent: Instant,
    pub verdict: Option<Verdict>,
    pub answered: bool,
    /// Who has not had it yet.
    pub missing: Vec<u64>,
}

/// What the nemesis did that may cost something.
#[derive(Debug, Clone)]
pub struct Fault {
    pub what: Harm,
    pub pid: i32,
    /// Of which node; [`ALL`]: of each.
    pub node: u64,
    pub from: Instant,
    pub until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    KilledWorker,
    KilledManager,
    /// Kills nobody; connections are between processes meanwhile.
    Reload,
    /// The node has ended, or stands still, and is started again or goes on.
    Node,
    /// The node cannot reach the engine, or its courier is dead.
    CutOff,
    /// Nobody can reach the engine.
    Away,
}

/// In the place of a node: each.
pub const ALL: u64 = u64::MAX;

/// Which node has opened a connection.
pub fn node_of(fd: u64) -> u64 {
    fd >> 47
}

impl Fault {
    /// Whether it may cost what goes to a node or comes from there.
    pub fn parts(&self, node: u64) -> bool {
        matches!(self.what, Harm::Node | Harm::CutOff | Harm::Away)
            && (self.node == node || self.node == ALL)
    }

    /// Whether the node is dead for the others by that, for a while.
    fn seems_dead(&self, node: u64) -> bool {
        let lasted = self.until.unwrap_or_else(Instant::now) - self.from;
        self.node == node && (self.what == Harm::Node || self.parts(node) && lasted > LEASE / 2)
    }
}

#[derive(Debug)]
pub struct Ledger {
    pub began: Instant,
    pub lives: HashMap<u64, Life>,
    pub asks: HashMap<(u64, u64), Ask>,
    pub memberships: Memberships,
    /// By asker and target, the number that came last.
    last: HashMap<(u64, u64), u64>,
    /// Some who are gone; a push to them has to say so.
    pub left: Vec<u64>,
    pub faults: Vec<Fault>,
    pub counts: BTreeMap<&'static str, u64>,
    /// By client, reload or upgrade, and whether during it or between it and the next, the
    /// longest that it waited for an answer.
    pub silences: HashMap<(u64, usize, bool), Duration>,
    /// Until when what members are told of presence is not judged.
    doubt: Option<Instant>,
    /// What members were told of presence that does not fit.
    pub doubts: Vec<Doubt>,
    told: Vec<String>,
    pub violations: u64,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            began: Instant::now(),
            lives: HashMap::new(),
            asks: HashMap::new(),
            memberships: Memberships::default(),
            last: HashMap::new(),
            left: Vec::new(),
            faults: Vec::new(),
            counts: BTreeMap::new(),
            silences: HashMap::new(),
            doubt: None,
            doubts: Vec::new(),
            told: Vec::new(),
            violations: 0,
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub fn count_many(&mut self, what: &'static str, number: u64) {
        *self.counts.entry(what).or_default() += number;
    }

    pub fn violation(&mut self, what: String) {
        self.violations += 1;
        if self.told.len() < TOLD_MAX {
            let at = self.began.elapsed().as_secs_f64();
            println!("{at:9.3} VIOLATION {what}");
            self.told.push(what);
        }
    }

    /// A client has come in.
    pub fn opened(&mut self, fd: u64, pid: i32) {
        self.count("connections");
        let heard = Instant::now();
        let life = Life {
            pid,
            heard,
            ended: None,
            asked: 0,
            answered: 0,
            stalls: Vec::new(),
            slow: None,
        };
        if self.lives.insert(fd, life).is_some() {
            self.violation(format!("fd {fd} was given to two clients"));
        }
    }

    /// A client leaves, or was dropped.
    pub fn ended(&mut self, fd: u64, end: End) {
        if let Some(life) = self.lives.get_mut(&fd)
            && life.ended.is_none()
        {
            life.ended = Some((Instant::now(), end));
            self.memberships.ended(fd);
            if self.left.len() >= LEFT_MAX {
                self.left.remove(0);
            }
            self.left.push(fd);
        }
    }

    /// Forgets the order of pairs of which one is gone for long.
    pub fn forget(&mut self, age: Duration) {
        let lives = &self.lives;
        let lives_on = |fd: &u64| {
            let ended = lives.get(fd).and_then(|life| life.ended);
            ended.is_none_or(|(at, _)| at.elapsed() < age)
        };
        self.last.retain(|(from, to), _| lives_on(from) && lives_on(to));
    }

    /// A client stops reading until then.
    pub fn stalls(&mut self, fd: u64, until: Instant) {
        if let Some(life) = self.lives.get_mut(&fd) {
            life.stalls.push((Instant::now(), until));
        }
        self.memberships.missed(fd);
    }

    /// Everybody who is connected.
    pub fn open(&self) -> Vec<u64> {
        let mut open: Vec<u64> = self
            .lives
            .iter()
            .filter(|(_, life)| life.ended.is_none())
            .map(|(fd, _)| *fd)
            .collect();
        open.sort_unstable();
        open
    }

    /// A client is about to ask; the number of the ask.
    pub fn asks(&mut self, kind: Kind, from: u64, to: u64, extra: u64) -> u64 {
        let topic = Topic::of(kind, to, extra);
        let mut missing = match (kind, topic) {
            (Kind::Echo | Kind::Join | Kind::Leave | Kind::Bind, _) => Vec::new(),
            (Kind::Broadcast, _) => self.open(),
            (_, Some(topic)) => self.memberships.members(topic),
            _ => vec![to],
        };
        // On another node a join that is not confirmed is known to the engine only later.
        if kind == Kind::Enlist && node_of(to) == node_of(from) && !missing.contains(&to) {
            missing.push(to);
        }
        self.memberships.asks(kind, from, to, extra);
        self.count(counted_as(kind));
        let Some(life) = self.lives.get_mut(&from) else { return 0 };
        life.asked += 1;
        let (n, at) = (life.asked, Instant::now());
        let ask = Ask { kind, to, topic, at, sent: at, verdict: None, answered: false, missing };
        self.asks.insert((from, n), ask);
        n
    }

    /// A client is about to write the last bytes of its last ask.
    pub fn sends(&mut self, from: u64) {
        let Some(life) = self.lives.get(&from) else { return };
        if let Some(ask) = self.asks.get_mut(&(from, life.asked)) {
            ask.sent = Instant::now();
        }
    }

    /// A packet came to the client `me`.
    pub fn came(&mut self, me: u64, packet: &Packet) {
        if !packet.is_whole() {
            return self.violation(format!("corrupt at {me}: {}", brief(packet)));
        }
        match packet.kind {
            Kind::Hello => self.violation(format!("a second hello at {me}")),
            Kind::Echo | Kind::Verdict | Kind::Joined => self.answer(me, packet),
            Kind::Presence => self.presence(me, packet),
            _ => self.delivery(me, packet),
        }
    }

    /// Whether what this member is told of presence is not judged now; behind that its list is
    /// unknown. The queue of one that has not read may have been full.
    fn is_in_doubt(&mut self, fd: u64) -> bool {
        let last = self.lives.get(&fd).and_then(|life| life.stalls.last());
        if last.is_some_and(|(_, until)| until.elapsed() < STALL_LAG || *until > Instant::now()) {
            self.memberships.missed(fd);
            return true;
        }
        self.is_all_in_doubt()
    }

    fn is_all_in_doubt(&mut self) -> bool {
        if self.doubt.is_some() {
            let open = self.open();
            open.into_iter().for_each(|fd| self.memberships.missed(fd));
        }
        self.doubt = self.doubt.filter(|until| Instant::now() < *until);
        self.doubt.is_some()
    }

    fn is_open(&self, fd: u64) -> bool {
        self.lives.get(&fd).is_some_and(|life| life.ended.is_none())
    }

    /// Who is told of users is a member, and is told of each once.
    fn presence(&mut self, me: u64, packet: &Packet) {
        if !self.is_open(me) {
            return;
        }
        self.count("presence events");
        let Packet { from: uid, to: room, extra: joined, .. } = packet;
        let what =
            format!("room {room}, user {uid}, {}", if *joined == 1 { "came" } else { "left" });
        if !self.memberships.came(me, Topic::Room(*room), packet) {
            self.violation(format!("presence at {me}, which is no member: {what}"));
        } else if self.is_in_doubt(me) {
            // Not judged.
        } else if !self.memberships.present(me, packet) {
            self.does_not_fit(me, *room, None, format!("presence twice at {me}: {what}"));
        } else if *joined == 0
            && let Some(fd) = self.memberships.stayed(*uid, *room, STAYED)
            && !self.was(Instant::now(), STAYED, Duration::ZERO, |it| it.seems_dead(node_of(fd)))
        {
            let what = format!("{fd} stayed, and {me} was told: {what}");
            self.does_not_fit(me, *room, Some(fd), what);
        }
    }

    /// A node of a cluster is upgraded: to the new manager and the new workers everybody on other
    /// nodes has just come.
    pub fn doubts(&mut self) {
        self.doubt = Some(Instant::now() + DOUBT);
    }

    /// Judged when it is known whose queue was full, and who had ended just then.
    fn does_not_fit(&mut self, me: u64, room: u64, stayed: Option<u64>, what: String) {
        let what = format!("{:.3}: {what}", self.began.elapsed().as_secs_f64());
        self.memberships.missed(me);
        self.doubts.push(Doubt { at: Instant::now(), room, stayed, what });
    }

    /// What an answer says of memberships.
    fn changed(&mut self, me: u64, kind: Kind, packet: &Packet) {
        if !self.is_open(me) {
            return;
        }
        let verdict = packet.verdict();
        if verdict == Some(Verdict::NoUser) && self.memberships.is_user(me) {
            self.violation(format!("a user is told to be none at {me}: {}", brief(packet)));
        }
        self.memberships.answered(kind, me, packet.to, verdict);
        let has_list = kind == Kind::Join && packet.to < PRESENCE_ROOMS;
        if has_list
            && verdict == Some(Verdict::Queued)
            && !self.is_in_doubt(me)
            && let Some(told) = self.memberships.listed(me, packet.to, &packet.body)
        {
            let what = format!("room {}, {:?}", packet.to, packet.body);
            let what = format!("a list at {me} that was told of {told:?}: {what}");
            self.does_not_fit(me, packet.to, None, what);
        }
    }

    /// Everything has come to rest: what was told of presence is what is.
    pub fn judge_presence(&mut self) {
        let open = self.open();
        for fd in open {
            self.is_in_doubt(fd);
        }
        if !self.is_all_in_doubt() {
            let (wrong, now) = (self.memberships.wrong_lists(), Instant::now());
            let doubt = |(room, what)| Doubt { at: now, room, stayed: None, what };
            self.doubts.extend(wrong.into_iter().map(doubt));
        }
        self.count_many("memberships at the end", self.memberships.count() as u64);
    }

    fn answer(&mut self, me: u64, packet: &Packet) {
        if packet.from != me {
            return self.violation(format!("answer to another at {me}: {}", brief(packet)));
        }
        self.count("answers");
        let key = (me, packet.n);
        let Some(life) = self.lives.get_mut(&me) else { return };
        life.pid = packet.pid();
        life.heard = Instant::now();
        let before = life.answered;
        life.answered = packet.n.max(before);
        let Some(ask) = self.asks.get_mut(&key).filter(|ask| !ask.answered) else {
            return self.violation(format!("answer again at {me}: {}", brief(packet)));
        };
        let (sent, kind) = (ask.sent, ask.kind);
        life.slow = if sent.elapsed() > SLOW_ANSWER { Some(Instant::now()) } else { life.slow };
        ask.answered = true;
        ask.verdict = packet.verdict();
        let refused = matches!(ask.verdict, Some(Verdict::Full | Verdict::Gone));
        if refused && ask.kind == Kind::Confirmed && ask.missing.is_empty() {
            self.violation(format!("refused and yet delivered: {}", brief(packet)));
        }
        if packet.n <= before {
            let what = brief(packet);
            self.violation(format!("answer out of order at {me}, which had {before}: {what}"));
        }
        self.settle(key);
        self.changed(me, kind, packet);
        self.note_silence(me, sent);
    }

    fn note_silence(&mut self, fd: u64, sent: Instant) {
        let last = self.faults.iter().rposition(|fault| fault.what == Harm::Reload);
        let Some((number, fault)) = last.map(|number| (number, &self.faults[number])) else {
            return;
        };
        let during = fault.until.is_none_or(|until| sent <= until);
        let longest = self.silences.entry((fd, number, during)).or_default();
        *longest = sent.elapsed().max(*longest);
    }

    fn delivery(&mut self, me: u64, packet: &Packet) {
        let topic = Topic::of(packet.kind, packet.to, packet.extra);
        if let Some(topic) = topic {
            if !self.memberships.came(me, topic, packet) && self.is_open(me) {
                return self.violation(format!("{me} is no member: {}", brief(packet)));
            }
        } else if packet.kind != Kind::Broadcast && packet.to != me {
            return self.violation(format!("wrong addressee {me}: {}", brief(packet)));
        }
        self.count("deliveries");
        let last = self.last.entry((packet.from, me)).or_default();
        let (key, before) = ((packet.from, packet.n), *last);
        *last = packet.n.max(before);
        let ask = self.asks.get_mut(&key);
        let place = ask.as_ref().and_then(|ask| ask.missing.iter().position(|fd| *fd == me));
        let (Some(ask), Some(place)) = (ask, place) else {
            if packet.n <= before {
                self.violation(format!("doubled at {me}, which had {before}: {}", brief(packet)));
            }
            // A broadcast or publish reaches those, too, who came in after it was asked for.
            return;
        };
        ask.missing.swap_remove(place);
        let refused = matches!(ask.verdict, Some(Verdict::Full | Verdict::Gone));
        if refused && ask.kind == Kind::Confirmed {
            self.violation(format!("delivered and yet refused: {}", brief(packet)));
        }
        if packet.n <= before {
            let what = brief(packet);
            self.violation(format!("out of order at {me}, which had {before}: {what}"));
        }
        self.settle(key);
    }

    fn settle(&mut self, key: (u64, u64)) {
        if self.asks.get(&key).is_some_and(|ask| ask.answered && ask.missing.is_empty()) {
            self.asks.remove(&key);
        }
    }

    /// The nemesis begins something; the number is for [`fault_over`](Self::fault_over).
    pub fn fault(&mut self, what: Harm, node: u64, pid: i32) -> usize {
        let now = Instant::now();
        let moves = |it: &Fault| it.what == Harm::Reload;
        if what == Harm::KilledManager && self.was(now, JUST_MOVED, Duration::ZERO, moves) {
            self.doubt = Some(now + DOUBT);
        }
        self.faults.push(Fault { what, pid, node, from: Instant::now(), until: None });
        self.faults.len() - 1
    }

    pub fn fault_over(&mut self, number: usize) {
        if let Some(fault) = self.faults.get_mut(number) {
            fault.until = Some(Instant::now());
        }
    }

    /// Whether such a fault was under way at `at`, or began up to `later` after it, or ended up
    /// to `before` before it.
    pub fn was(
        &self,
        at: Instant,
        before: Duration,
        later: Duration,
        which: impl Fn(&Fault) -> bool,
    ) -> bool {
        self.faults.iter().rev().any(|fault| {
            let over = fault.until.is_none_or(|until| at <= until + before);
            which(fault) && fault.from <= at + later && over
        })
    }
}

fn counted_as(kind: Kind) -> &'static str {
    match kind {
        Kind::Echo => "echoes",
        Kind::Broadcast => "broadcasts",
        Kind::Confirmed => "confirmed pushes",
        Kind::Join => "joins",
        Kind::Leave => "leaves",
        Kind::Bind => "binds",
        Kind::Publish => "publishes",
        Kind::Tallied => "confirmed publishes",
        Kind::PushUid => "pushes to a uid",
        Kind::Enlist => "joins of another's client",
        _ => "pushes",
    }
}

fn brief(packet: &Packet) -> String {
    let Packet { kind, n, from, to, .. } = packet;
    format!("{kind:?} {n} from {from} to {to}, {} bytes", packet.body.len())
}
