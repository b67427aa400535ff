//! What a worker knows of connections on their way, as a state machine without I/O: which it has
//! given and has not heard of, which it has and may not serve yet, and what its handlers send to
//! those meanwhile.
//!
//! `P` is what waits for a connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::messages::PassId;
use crate::fd::WorkerId;

/// The connections of one worker that are on their way.
#[derive(Debug)]
pub struct Transit<P> {
    away: Option<Away>,
    arriving: BTreeMap<PassId, Arriving>,
    deferred: VecDeque<(PassId, usize, P)>,
    deferred_bytes: usize,
}

/// What was given, and is ours until we hear what became of it.
#[derive(Debug)]
struct Away {
    pass: PassId,
    fds: BTreeSet<u64>,
}

/// What came, or came back, and is not ours to serve yet.
#[derive(Debug)]
struct Arriving {
    from: WorkerId,
    fds: BTreeSet<u64>,
    /// Whether the manager was told: what we send to them waits here from then on. What we sent
    /// before is with the manager.
    answered: bool,
}

/// What a new manager is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The pass that was given, and is not settled.
    pub gives: Option<(PassId, Vec<u64>)>,
    /// The passes that came.
    pub holds: Vec<Held>,
}

/// A pass that came, as a new manager is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub pass: PassId,
    /// From whom.
    pub from: WorkerId,
    /// Its connections.
    pub fds: Vec<u64>,
    /// Whether a manager was told before that they are here.
    pub answered: bool,
}

/// What becomes of a pass that was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// The new worker has these.
    pub let_go: Vec<u64>,
    /// These are here again, once the manager says so.
    pub back: Vec<u64>,
}

impl<P> Default for Transit<P> {
    fn default() -> Transit<P> {
        Transit {
            away: None,
            arriving: BTreeMap::new(),
            deferred: VecDeque::new(),
            deferred_bytes: 0,
        }
    }
}

// The old worker.
impl<P> Transit<P> {
    /// Begins to give a pass. False while another is not settled.
    #[must_use]
    pub fn give(&mut self, pass: PassId) -> bool {
        let begins = self.away.is_none();
        if begins {
            self.away = Some(Away { pass, fds: BTreeSet::new() });
        }
        begins
    }

    /// A connection goes with the pass.
    pub fn gives(&mut self, fd: u64) {
        if let Some(away) = &mut self.away {
            away.fds.insert(fd);
        }
    }

    /// All of the pass was given. If that is nothing, nobody will say what became of it.
    pub fn gave(&mut self) {
        self.away = self.away.take().filter(|away| !away.fds.is_empty());
    }

    /// Whether a connection was given, and nobody has said yet what became of it.
    pub fn is_away(&self, fd: u64) -> bool {
        self.away.as_ref().is_some_and(|away| away.fds.contains(&fd))
    }

    /// The manager says which of a pass the new worker `me` gave it to has. The rest is here
    /// again, and the answer to this says so.
    pub fn settle(&mut self, me: WorkerId, pass: PassId, taken: &[u64]) -> Option<Settled> {
        let away = self.away.take_if(|away| away.pass == pass)?;
        let taken: BTreeSet<u64> = taken.iter().copied().collect();
        let (let_go, back): (Vec<_>, Vec<_>) =
            away.fds.into_iter().partition(|fd| taken.contains(fd));
        if !back.is_empty() {
            let fds = back.iter().copied().collect();
            self.arriving.insert(pass, Arriving { from: me, fds, answered: true });
        }
        Some(Settled { let_go, back })
    }
}

// The new worker.
impl<P> Transit<P> {
    /// A connection of a pass has come.
    pub fn adopt(&mut self, pass: PassId, from: WorkerId, fd: u64) {
        let arriving = self.arriving.entry(pass).or_insert_with(|| Arriving {
            from,
            fds: BTreeSet::new(),
            answered: false,
        });
        arriving.fds.insert(fd);
    }

    /// All of a pass has come. The answer names what is here.
    pub fn take(&mut self, pass: PassId) -> Vec<u64> {
        let Some(arriving) = self.arriving.get_mut(&pass) else { return Vec::new() };
        arriving.answered = true;
        arriving.fds.iter().copied().collect()
    }

    /// The pass whose clients' messages wait here, if this is one of them.
    pub fn defers(&self, fd: u64) -> Option<PassId> {
        let of = |(pass, it): (&PassId, &Arriving)| {
            (it.answered && it.fds.contains(&fd)).then_some(*pass)
        };
        self.arriving.iter().find_map(of)
    }

    /// The connections whose messages wait here, by pass.
    pub fn deferring(&self) -> impl Iterator<Item = (PassId, &BTreeSet<u64>)> {
        let answered = self.arriving.iter().filter(|(_, it)| it.answered);
        answered.map(|(pass, it)| (*pass, &it.fds))
    }

    /// Has something wait until a pass is ours. False if more than `bytes_max` would wait.
    #[must_use]
    pub fn defer(&mut self, pass: PassId, send: P, weight: usize, bytes_max: usize) -> bool {
        if self.deferred_bytes > 0 && self.deferred_bytes + weight > bytes_max {
            return false;
        }
        self.deferred_bytes += weight;
        self.deferred.push_back((pass, weight, send));
        true
    }

    /// A pass is ours: its connections, and what has waited for them.
    pub fn own(&mut self, pass: PassId) -> (Vec<u64>, Vec<P>) {
        let Some(arriving) = self.arriving.remove(&pass) else { return Default::default() };
        let mut sends = Vec::new();
        for (of, weight, send) in std::mem::take(&mut self.deferred) {
            if of == pass {
                self.deferred_bytes -= weight;
                sends.push(send);
            } else {
                self.deferred.push_back((of, weight, send));
            }
        }
        (arriving.fds.into_iter().collect(), sends)
    }

    /// The passes that have come and are not ours yet.
    pub fn passes(&self) -> Vec<PassId> {
        self.arriving.keys().copied().collect()
    }
}

impl<P> Transit<P> {
    /// What a new manager is told, which is the answer for each pass that has come. Nothing more
    /// of it can come.
    pub fn introduce(&mut self) -> Introduction {
        let gives = self.away.as_ref().map(|it| (it.pass, it.fds.iter().copied().collect()));
        let mut holds = Vec::new();
        for (pass, it) in &mut self.arriving {
            let answered = std::mem::replace(&mut it.answered, true);
            let fds = it.fds.iter().copied().collect();
            holds.push(Held { pass: *pass, from: it.from, fds, answered });
        }
        Introduction { gives, holds }
    }
}
