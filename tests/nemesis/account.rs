//! The account: whether every message that is missing is one that a verdict, a counter or a kill
//! accounts for, and whether opens and closes are paired.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use wsd::api::Verdict;
use wsd::ipc::control::Status;

use crate::ledger::{Ask, End, Fault, Harm, Ledger, STALL_LAG, node_of};
use crate::wire::Kind;
use crate::world::DRAINED;

/// How long a message may have been on its way when the manager that had it was killed: it may
/// have waited for a worker that was stopped.
const ON_ITS_WAY: Duration = Duration::from_secs(4);
/// How long after nodes see each other again something may be lost.
const HEAL_LAG: Duration = Duration::from_secs(3);
/// How long a member goes on with what it has not heard of presence.
const UNHEARD: Duration = Duration::from_secs(60);
/// How much later than others a client may see that its worker was killed: all of them read when
/// they get the processor.
const SEEN_LATE: Duration = Duration::from_secs(1);
/// How long after a kill its messages may still be asked for.
const KILL_LAG: Duration = Duration::from_secs(1);

/// What the handlers noted.
#[derive(Default)]
pub struct History {
    read: usize,
    opens: HashMap<u64, u64>,
    closes: HashMap<u64, u64>,
    crashed: HashSet<u64>,
    refused: HashSet<(u64, u64)>,
    /// Rooms with presence whose members did not all hear of a user, and when that was read.
    unheard: Vec<(Instant, u64)>,
    strange: Vec<String>,
}

impl History {
    /// Goes on reading where it stopped.
    pub fn read(&mut self, text: &str) {
        let new = text.get(self.read..).unwrap_or_default();
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole;
        for line in new[..whole].lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| words.get(index).and_then(|word| word.parse().ok());
            match (words[0], number(1), number(2)) {
                ("open", Some(fd), _) => *self.opens.entry(fd).or_default() += 1,
                ("close", Some(fd), _) => {
                    *self.closes.entry(fd).or_default() += 1;
                    if words.get(2) == Some(&"worker_crashed") {
                        self.crashed.insert(fd);
                    }
                }
                ("refused", Some(fd), Some(n)) => drop(self.refused.insert((fd, n))),
                // All of a node's processes have died: nobody closes its clients.
                ("dead", Some(node), _) => {
                    for fd in self.opens.keys().filter(|fd| node_of(**fd) == node) {
                        self.closes.entry(*fd).or_insert(1);
                    }
                }
                ("unheard", Some(room), _) => self.unheard.push((Instant::now(), room)),
                ("trace", ..) => {}
                _ => self.strange.push(line.to_owned()),
            }
        }
    }

    /// Whether every open has its close already.
    pub fn is_even(&self) -> bool {
        self.opens.keys().all(|fd| self.closes.contains_key(fd))
    }

    /// Opens and closes go in pairs. A kill may come between the call of one `on_open` or
    /// `on_close` and the line it would have written, so each kill of a worker may cost one.
    pub fn judge(&self, ledger: &mut Ledger) {
        for line in &self.strange {
            ledger.violation(format!("a handler noted: {line}"));
        }
        let mut cut = 0;
        let fds: HashSet<u64> = self.opens.keys().chain(self.closes.keys()).copied().collect();
        for fd in fds {
            let count = |map: &HashMap<u64, u64>| map.get(&fd).copied().unwrap_or(0);
            match (count(&self.opens), count(&self.closes)) {
                (1, 1) => ledger.count("opens with their close"),
                (1, 0) => cut += 1,
                (0, 1) if self.crashed.contains(&fd) => cut += 1,
                (opens, closes) => {
                    ledger.violation(format!("{fd}: {opens} opens and {closes} closes"));
                }
            }
        }
        ledger.count_many("opens or closes cut short by a kill", cut);
        let kills = ledger.faults.iter().filter(|it| it.what == Harm::KilledWorker).count();
        if cut > kills as u64 {
            ledger.violation(format!("{cut} opens or closes without the other, {kills} kills"));
        }
        let unknown: Vec<u64> =
            ledger.lives.keys().filter(|fd| !self.opens.contains_key(fd)).copied().collect();
        for fd in unknown {
            ledger.violation(format!("{fd} was served and never opened"));
        }
    }
}

/// Judges what members were told of presence that did not fit, once that is older than `age`.
fn judge_presence(ledger: &mut Ledger, history: &History, age: Duration) {
    for doubt in std::mem::take(&mut ledger.doubts) {
        if doubt.at.elapsed() < age {
            ledger.doubts.push(doubt);
            continue;
        }
        // A member whose queue was full was told something else than what is.
        let since = |read: &Instant| *read + UNHEARD >= doubt.at;
        if history.unheard.iter().any(|(read, of)| *of == doubt.room && since(read)) {
            ledger.count("presence: a member's queue was full");
        } else if doubt.stayed.is_some_and(|fd| ended_by(ledger, fd, doubt.at + SEEN_LATE)) {
            ledger.count("presence: an end was told before its client saw it");
        } else {
            ledger.violation(doubt.what);
        }
    }
}

/// Whether the server has ended a client by then, and something explains that: a client that leaves
/// notes its end itself, before anybody is told.
fn ended_by(ledger: &Ledger, fd: u64, at: Instant) -> bool {
    let is_of = |it: &Fault, what: Harm| it.what == what && it.node == node_of(fd);
    let was = |before, what: Harm| ledger.was(at, before, Duration::ZERO, |it| is_of(it, what));
    let end = ledger.lives.get(&fd).and_then(|life| life.ended);
    end.is_some_and(|(when, end)| end == End::Dropped && when <= at)
        && (was(KILL_LAG + SEEN_LATE, Harm::KilledWorker) || was(DRAINED, Harm::Reload))
}

/// Judges every ask that is older than `age` and not settled, and forgets it.
pub fn sweep(ledger: &mut Ledger, history: &History, age: Duration) {
    judge_presence(ledger, history, age);
    let now = Instant::now();
    let old: Vec<(u64, u64)> = ledger
        .asks
        .iter()
        .filter(|(_, ask)| now.duration_since(ask.at) >= age)
        .map(|(key, _)| *key)
        .collect();
    for key in old {
        let Some(ask) = ledger.asks.remove(&key) else { continue };
        if !ask.answered {
            ledger.memberships.answered(ask.kind, key.0, ask.to, None);
            match unanswered(ledger, history, key, &ask) {
                Some(reason) => ledger.count(reason),
                None => ledger.violation(format!("no answer to {}", brief(key, &ask))),
            }
        }
        for target in &ask.missing {
            match missing(ledger, key, &ask, *target) {
                Some(reason) => ledger.count(reason),
                None => {
                    let what = brief(key, &ask);
                    ledger.violation(format!("lost at {target}: {what}"));
                }
            }
        }
    }
    ledger.forget(2 * age + Duration::from_secs(30));
}

fn brief((from, n): (u64, u64), ask: &Ask) -> String {
    let ago = ask.at.elapsed().as_secs_f64();
    format!("{:?} {n} from {from}, told {:?}, asked {ago:.3} s ago", ask.kind, ask.verdict)
}

fn ended(ledger: &Ledger, fd: u64) -> Option<End> {
    ledger.lives.get(&fd).and_then(|life| life.ended).map(|(_, end)| end)
}

fn manager_killed(ledger: &Ledger, ask: &Ask, fd: u64) -> bool {
    let killed = Harm::KilledManager;
    let its = |it: &Fault| it.what == killed && it.node == node_of(fd);
    ledger.was(ask.at, KILL_LAG, ON_ITS_WAY, its)
}

/// Whether what went from one node to the other may be lost, or one was dead for the other.
fn parted(ledger: &Ledger, ask: &Ask, from: u64, to: u64) -> bool {
    let (from, to) = (node_of(from), node_of(to));
    from != to && ledger.was(ask.at, HEAL_LAG, ON_ITS_WAY, |it| it.parts(from) || it.parts(to))
}

fn stalled(ledger: &Ledger, fd: u64, at: Instant) -> bool {
    let stalls = ledger.lives.get(&fd).map_or(&[][..], |life| &life.stalls);
    stalls.iter().any(|(from, until)| *from <= at + KILL_LAG && at <= *until + STALL_LAG)
}

fn unanswered(
    ledger: &Ledger,
    history: &History,
    key: (u64, u64),
    ask: &Ask,
) -> Option<&'static str> {
    if ended(ledger, key.0).is_some() {
        Some("unanswered: the asker is gone")
    } else if history.refused.contains(&key) {
        Some("unanswered: the asker's queue was full")
    } else if manager_killed(ledger, ask, key.0) {
        Some("unanswered: the manager was killed")
    } else if stalled(ledger, key.0, ask.at) {
        Some("silent: an answer to a full queue")
    } else {
        None
    }
}

fn missing(ledger: &Ledger, key: (u64, u64), ask: &Ask, target: u64) -> Option<&'static str> {
    let (sender_end, target_end) = (ended(ledger, key.0), ended(ledger, target));
    match ask.verdict {
        Some(Verdict::Full) => return Some("missing: told full"),
        Some(Verdict::TooBig) => return Some("missing: told too big"),
        // Who was to join is gone, or on a node that is cut off: nothing was published.
        Some(Verdict::Gone)
            if ask.kind == Kind::Enlist
                && (ended(ledger, ask.to).is_some() || parted(ledger, ask, key.0, ask.to)) =>
        {
            return Some("missing: who was to join is gone");
        }
        // Never of one who lives, unless its node was dead for the asker's.
        Some(Verdict::Gone) if target_end.is_none() && parted(ledger, ask, key.0, target) => {
            return Some("missing: told gone of a node that was cut off");
        }
        Some(Verdict::Gone) => return target_end.map(|_| "missing: told gone"),
        Some(Verdict::LocalOnly) if node_of(key.0) != node_of(target) => {
            return Some("missing: told local_only");
        }
        Some(Verdict::Unknown) => return Some("missing: told unknown"),
        _ => {}
    }
    if target_end.is_some() {
        return Some("missing: the target is gone");
    }
    if ask.topic.is_some_and(|topic| ledger.memberships.has_left(target, topic, ask.at)) {
        return Some("missing: the target has left the room");
    }
    // The engine's word is that a node that is cut off has no members.
    if ask.kind == Kind::Tallied && parted(ledger, ask, key.0, target) {
        return Some("missing: the engine counted no members of a node that was cut off");
    }
    // The owner's own word, with an owner that lives.
    if matches!(ask.kind, Kind::Confirmed | Kind::Tallied) && ask.verdict == Some(Verdict::Queued)
    {
        return None;
    }
    if !ask.answered && sender_end.is_some() {
        Some("missing: the asker is gone, and was not answered")
    } else if sender_end == Some(End::Dropped) {
        Some("missing: the asker's worker was killed")
    } else if manager_killed(ledger, ask, key.0) || manager_killed(ledger, ask, target) {
        Some("missing: the manager was killed")
    } else if parted(ledger, ask, key.0, target) {
        Some(PARTED)
    } else if ask.verdict == Some(Verdict::Queued) {
        None
    } else if stalled(ledger, target, ask.at) {
        Some("silent: the target's queue was full")
    } else if ask.verdict == Some(Verdict::Relayed) {
        Some("silent: a lane was full")
    } else {
        None
    }
}

/// What was lost without a word to anybody has to be counted by the servers.
pub fn judge_counters(ledger: &mut Ledger, of_all: &[Status], refused_before: u64) {
    let sum = |of: &dyn Fn(&Status) -> u64| of_all.iter().map(of).sum::<u64>();
    let counter = |name: &str| sum(&|it| it.counters.get(name).copied().unwrap_or(0));
    let refused = sum(&|it| it.manager.refused) + refused_before;
    let silent = |names: &[&str], counts: &BTreeMap<&'static str, u64>| -> u64 {
        names.iter().map(|name| counts.get(name).copied().unwrap_or(0)).sum()
    };
    let lanes = counter("lane_full") + refused;
    let queues = counter("push_full");
    let lost_by_lane = silent(&["silent: a lane was full"], &ledger.counts);
    let told = ["silent: the target's queue was full", "silent: an answer to a full queue"];
    let lost_by_queue = silent(&told, &ledger.counts);
    if lost_by_lane > lanes {
        ledger.violation(format!("{lost_by_lane} lost by full lanes, {lanes} counted"));
    }
    if lost_by_queue + lost_by_lane > queues + lanes {
        let counted = queues + lanes;
        ledger.violation(format!("{lost_by_queue} lost by full queues, {counted} counted"));
    }
    let parted = silent(&[PARTED], &ledger.counts);
    if parted > 0 && silent(&[GAPS_TOLD], &ledger.counts) == 0 {
        ledger.violation(format!("{parted} lost between nodes, of which none tells a gap"));
    }
    for name in ["push_full", "lane_full", "push_gone", "push_lost", "stale_packets", "panics"] {
        ledger.count_many(counted_as(name), counter(name));
    }
    ledger.count_many("server: manager refused", refused);
}

/// What was lost between nodes.
const PARTED: &str = "silent: the engine was away";
/// What nodes have told of that.
pub const GAPS_TOLD: &str = "gaps that nodes told";

fn counted_as(name: &str) -> &'static str {
    match name {
        "push_full" => "server: push_full",
        "lane_full" => "server: lane_full",
        "push_gone" => "server: push_gone",
        "push_lost" => "server: push_lost",
        "stale_packets" => "server: stale_packets",
        _ => "server: panics",
    }
}
