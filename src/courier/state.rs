//! What the courier knows, as its tasks share it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::inbox::Inbox;
use super::leases::Leases;
use super::probe::Probes;
use super::queue::Queue;
use crate::api::rooms::Topic;
use crate::config::Config;
use crate::error::{Result, Subject};
use crate::ipc::cluster::envelope::ENVELOPE_VERSION;
use crate::ipc::cluster::messages::{
    CourierBoot, CourierCounts, CourierToManager, EngineState, courier_id,
};
use crate::ipc::cluster::nodes::{NodeId, NodeRecord};
use crate::ipc::link::Link;
use crate::ipc::master_link::MasterLink;
use crate::sys::clock;

/// Everything the courier knows.
pub(super) struct Courier {
    pub id: NodeId,
    pub names: Names,
    pub ttl: Duration,
    /// The way to the manager.
    pub link: Link,
    pub master: MasterLink,
    /// What goes out.
    pub queue: Queue,
    /// What comes in.
    pub inbox: Arc<Inbox>,
    pub state: RefCell<EngineState>,
    /// Whether what the manager says is queued, for a session that will do it.
    pub accepts: Cell<bool>,
    pub leases: RefCell<Leases>,
    pub probes: RefCell<Probes>,
    /// The topics with members on this node, as the manager says.
    pub wanted: RefCell<HashSet<Topic>>,
    /// Those of them that a manager has told that is new to this courier, until it has told all.
    pub told: RefCell<Option<HashSet<Topic>>>,
    /// What others are told of this node.
    pub record: RefCell<NodeRecord>,
    pub counts: Cell<CourierCounts>,
    /// By slot: the first number of a client that surely was not given, as the master says, and
    /// whether the engine has not heard that yet.
    pub serials: RefCell<BTreeMap<u8, u64>>,
    pub serials_are_news: Cell<bool>,
    /// Whether the engine has said once that this node may have its number.
    pub has_joined: Cell<bool>,
    pub leaves: Notify,
}

/// The names of channels and keys of one cluster.
pub(super) struct Names(String);

impl Names {
    /// Of a cluster whose keys are in a database. An engine's channels are the same in all of its
    /// databases, so the names say which is meant, but for the first.
    pub fn of(config: &Config) -> Names {
        let cluster = &config.cluster.name;
        match config.cluster.engine.as_ref().map_or(0, |engine| engine.database) {
            0 => Names(format!("wsd:{cluster}:")),
            database => Names(format!("wsd:{cluster}@{database}:")),
        }
    }

    /// What goes to one node.
    pub fn node(&self, node: u8) -> String {
        format!("{}n:{node}", self.0)
    }

    /// Nothing is published here. A node has subscribed to this while all that is for its clients
    /// reaches it, so that the others can see whom they cannot ask.
    pub fn whole(&self, node: u8) -> String {
        format!("{}w:{node}", self.0)
    }

    /// What goes to all.
    pub fn all(&self) -> String {
        format!("{}a", self.0)
    }

    /// What goes to all that have members of a topic.
    pub fn topic(&self, topic: &Topic) -> String {
        format!("{}t:{}", self.0, topic.as_str())
    }

    /// The numbers that a node has given, by slot.
    pub fn serials(&self, node: u8) -> String {
        format!("{}serials:{node}", self.0)
    }

    /// What `wsd check --connect` tries: a lease and a channel, and numbers of clients.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line alone tries"))]
    pub fn trial(&self) -> [String; 2] {
        [format!("{}check", self.0), format!("{}check:serials", self.0)]
    }

    /// The lease of a node.
    pub fn lease(&self, node: u8) -> String {
        format!("{}lease:{node}", self.0)
    }
}

impl Courier {
    pub fn boot(
        boot: CourierBoot,
        config: &Config,
        link: OwnedFd,
        master: MasterLink,
    ) -> Result<Courier> {
        let ttl = config.cluster.lease_ttl;
        let machine = nix::sys::utsname::uname().subject(|| "uname".to_owned())?;
        let record = NodeRecord {
            node: boot.id.node,
            boot: boot.id.boot,
            host: machine.nodename().to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            envelope: ENVELOPE_VERSION,
            since: boot.since,
            ..NodeRecord::default()
        };
        let why = "no connection was made yet".to_owned();
        Ok(Courier {
            id: boot.id,
            names: Names::of(config),
            ttl,
            link: Link::new(link, courier_id(boot.epoch))?,
            master,
            queue: Queue::default(),
            inbox: Arc::default(),
            state: RefCell::new(EngineState::Away { since: clock::unix_ms(), why }),
            accepts: Cell::new(false),
            leases: RefCell::new(Leases::new(ttl.as_millis() as u64)),
            probes: RefCell::default(),
            wanted: RefCell::default(),
            told: RefCell::new(Some(HashSet::new())),
            record: RefCell::new(record),
            counts: Cell::default(),
            serials: RefCell::default(),
            serials_are_news: Cell::new(false),
            has_joined: Cell::new(false),
            leaves: Notify::new(),
        })
    }

    /// The engine is there, or is away.
    pub fn enter(&self, state: EngineState) {
        if *self.state.borrow() != state {
            self.state.replace(state.clone());
            self.tell(&CourierToManager::Engine(state));
        }
    }

    /// Tells the manager something that may not be lost.
    pub fn tell(&self, message: &CourierToManager) {
        if let Err(error) = self.link.control(message) {
            tracing::error!(%error, "a message to the manager is lost");
        }
    }

    /// Counts something.
    pub fn count(&self, add: impl FnOnce(&mut CourierCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }

    /// What was counted, also by the inbox.
    pub fn all_counts(&self) -> CourierCounts {
        let mut counts = self.counts.get();
        let dropped = self.inbox.dropped();
        counts.dropped += dropped;
        counts.gaps += dropped;
        counts
    }
}
