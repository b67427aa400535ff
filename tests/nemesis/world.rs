//! What the clients and the nemesis share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use wsd::websocket::{Codec, DeflateOptions};

use crate::ledger::{End, Fault, Harm, Ledger, node_of};

/// How long after a kill its clients may see their connection end.
const DROP_LAG: Duration = Duration::from_secs(5);
/// How long after a reload an old worker may close those who have stayed.
pub const DRAINED: Duration = Duration::from_secs(40);
/// With broadcasts, and then without.
const TIDE_SECS: u64 = 2;

/// How a client is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// With a close frame.
    Politely,
    /// By ending the TCP connection.
    Abruptly,
}

/// A place from which one client after the other connects.
#[derive(Default)]
pub struct Seat {
    /// The client that sits there; 0 is nobody.
    pub fd: Cell<u64>,
    pub leave: Cell<Option<Leave>>,
    /// Until when it does not read.
    pub stalled: Cell<Option<Instant>>,
}

pub struct World {
    pub ledger: RefCell<Ledger>,
    /// Of each node.
    pub addresses: RefCell<Vec<String>>,
    /// The first seats are for clients that stay: so many.
    pub staying: u64,
    pub codec: RefCell<Codec>,
    pub seats: Vec<Rc<Seat>>,
    pub seed: u64,
    /// The mean pause of a client between two asks.
    pub pause_micros: u64,
    /// Nobody asks any more.
    pub quiet: Cell<bool>,
    /// Nobody comes any more.
    pub over: Cell<bool>,
    /// A client that everybody writes to, until it gets well again.
    pub hot: Cell<Option<(u64, Instant)>>,
}

/// What a client offers and how it compresses.
pub fn deflate() -> DeflateOptions {
    DeflateOptions {
        enabled: true,
        threshold: 64,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        ..DeflateOptions::default()
    }
}

impl World {
    pub fn new(seed: u64, clients: u64, staying: u64, pause: Duration) -> World {
        World {
            ledger: RefCell::new(Ledger::new()),
            addresses: RefCell::default(),
            staying,
            codec: RefCell::new(Codec::new(deflate())),
            seats: (0..clients).map(|_| Rc::default()).collect(),
            seed,
            pause_micros: pause.as_micros() as u64,
            quiet: Cell::new(false),
            over: Cell::new(false),
            hot: Cell::new(None),
        }
    }

    /// Whether clients ask for broadcasts now. Half of the time nobody does, so that workers send
    /// to each other directly, and begin and cease to time and again.
    pub fn broadcasts(&self) -> bool {
        let tides = self.ledger.borrow().began.elapsed().as_secs() / TIDE_SECS;
        tides.is_multiple_of(2)
    }

    /// At which node the clients of a seat are.
    pub fn node_of_seat(&self, index: usize) -> u64 {
        (index % self.addresses.borrow().len().max(1)) as u64
    }

    /// A line of the story.
    pub fn tell(&self, what: &str) {
        println!("{:9.3} {what}", self.ledger.borrow().began.elapsed().as_secs_f64());
    }

    pub fn violation(&self, what: String) {
        self.ledger.borrow_mut().violation(what);
    }

    /// A connection ended that its client did not end. Only a kill of its worker may do that.
    pub fn dropped(&self, fd: u64, how: &str) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.ended(fd, End::Dropped);
        ledger.count("connections dropped");
        let now = Instant::now();
        let life = ledger.lives.get(&fd);
        let (pid, heard) = life.map_or((0, now), |life| (life.pid, life.heard));
        // It may be with another process by now than with the one that answered last.
        let silence = now.duration_since(heard);
        let moved = ledger.was(heard, DROP_LAG, silence, |it| it.what == Harm::Reload);
        // A connection whose handler runs, since another node does not answer, stays with its old
        // worker until that worker has waited long enough.
        let ran = life.and_then(|life| life.slow).is_some_and(|at| at.elapsed() < DRAINED);
        let drained = ran
            && how.contains("1012")
            && ledger.was(now, DRAINED, Duration::ZERO, |it| {
                it.what == Harm::Reload && it.node == node_of(fd)
            });
        if drained {
            return ledger.count("connections dropped: their handlers ran when the others moved");
        }
        let killed = ledger.was(now, DROP_LAG, Duration::ZERO, |fault| match fault.what {
            Harm::KilledWorker => fault.pid == pid || moved,
            Harm::Node => fault.node == node_of(fd),
            _ => false,
        });
        if !killed {
            ledger.violation(format!("{fd} of worker process {pid} was dropped: {how}"));
        }
    }

    /// A handshake failed at a node. Only a kill of a worker may do that.
    pub fn refused(&self, node: u64, how: &str) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.count("handshakes failed");
        let now = Instant::now();
        let explains =
            |it: &Fault| it.what == Harm::KilledWorker || it.what == Harm::Node && it.node == node;
        if !ledger.was(now, DROP_LAG, Duration::ZERO, explains) {
            ledger.violation(format!("a handshake at node {node} failed: {how}"));
        }
    }
}
