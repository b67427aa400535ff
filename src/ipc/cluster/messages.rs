//! Messages from and to the courier of a node. As in [`crate::ipc::messages`], the order of the
//! variants is the wire format: an upgrade leaves the courier of the old image to the new master.

use serde::{Deserialize, Serialize};

use super::nodes::{NodeId, NodeRecord};
use crate::api::rooms::Topic;
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::Hello;

/// What the packets of a courier's link name in the place of a worker.
pub fn courier_id(epoch: u32) -> WorkerId {
    WorkerId { slot: Slot(u8::MAX), epoch }
}

/// Everything a courier needs to begin.
#[derive(Clone, Serialize, Deserialize)]
pub struct CourierBoot {
    /// How many couriers there were before it, plus one.
    pub epoch: u32,
    /// Which run of which node it serves.
    pub id: NodeId,
    /// When that run began, in milliseconds since 1970.
    pub since: u64,
    /// The resolved configuration, as JSON.
    pub config: String,
    /// The engine's password.
    pub password: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for CourierBoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CourierBoot").field("epoch", &self.epoch).field("id", &self.id).finish()
    }
}

/// Master to courier, over the courier's descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToCourier {
    /// The first packet. + fd: its end of the link to the manager.
    Boot(CourierBoot),
    /// Answer with the same number.
    LivenessCheck(u64),
    /// The log file was reopened. + fds: the new one.
    Reopen,
    /// Give the lease back and leave.
    Leave,
    /// Which numbers of clients may have been given.
    Serials {
        /// By slot: the first serial that surely was not.
        next: Vec<(u8, u64)>,
    },
    /// Whether the node drains.
    Drains(bool),
}

/// Courier to master, over its descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum CourierToMaster {
    /// The answer to `Boot`.
    Hello(Hello),
    /// The node has its number, by the engine's word.
    Joined,
    /// The engine cannot be reached: whether the node starts is the master's to say.
    Alone {
        /// Why: the end of the sentence "the engine is away: ".
        why: String,
    },
    /// The node may not serve with this number.
    Refused {
        /// A whole sentence.
        why: String,
    },
    /// The answer to a liveness check.
    Alive(u64),
    /// What the engine knows of the numbers that this node has given, before `Joined`.
    Serials {
        /// By slot: the first serial that surely was not given.
        next: Vec<(u8, u64)>,
    },
}

/// To which nodes something goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    /// To this one.
    Node(u8),
    /// To all that have members of a topic.
    Members(Topic),
    /// To all others.
    All,
}

/// Manager to courier, over the link.
#[derive(Debug, Serialize, Deserialize)]
pub enum ManagerToCourier {
    /// The first message of a manager: tell all you know. What it is interested in follows.
    Begin,
    /// Everything that this manager is interested in was told. Data lane.
    Whole,
    /// Body: an envelope. Data lane.
    Send {
        /// To whom.
        to: To,
        /// To be answered with `Sent`; 0: not.
        id: u64,
    },
    /// Which topics have members on this node. Data lane.
    Interest {
        /// To be answered with `Noted`; 0: not.
        number: u64,
        /// These have members now.
        joined: Vec<Topic>,
        /// These have none since a while.
        left: Vec<Topic>,
    },
    /// What this node tells of itself.
    Load {
        /// Open connections.
        connections: u64,
        /// Topics with members.
        topics: u64,
    },
    /// So many times messages may have been lost on their way to this node since it was started.
    Gaps(u64),
    /// The node leaves: take nothing more from other nodes, and say so behind all that has come.
    /// Data lane.
    Part,
}

/// Whether the engine carries what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineState {
    /// It does.
    Ok,
    /// It cannot be reached, or this node has not its number there.
    Away {
        /// Since when, in milliseconds since 1970.
        since: u64,
        /// Why.
        why: String,
    },
}

/// What a courier has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierCounts {
    /// Messages that the engine took.
    pub sent: u64,
    /// Messages that came from other nodes.
    pub received: u64,
    /// Messages that were not given to the engine, since it was away.
    pub unsent: u64,
    /// Messages that came and were lost, since nobody took them in time.
    pub dropped: u64,
    /// What came on our channels and was no envelope of ours, and leases that no node has written,
    /// each time that they were read.
    pub garbled: u64,
    /// Times that messages may have been lost on their way here: outages, and what was dropped.
    pub gaps: u64,
    /// Connections to the engine that were made.
    pub connects: u64,
}

/// Courier to manager, over the link.
#[derive(Debug, Serialize, Deserialize)]
pub enum CourierToManager {
    /// Whether the engine is there.
    Engine(EngineState),
    /// The nodes that hold a lease, this one among them, and whether one that is not here is dead.
    Nodes {
        /// What each tells of itself.
        nodes: Vec<NodeRecord>,
        /// Whether the list can be believed: this node's own lease was whole for long enough.
        certain: bool,
    },
    /// An envelope from another node is the body. Data lane.
    Arrived,
    /// What became of a `Send`.
    Sent {
        /// Which.
        id: u64,
        /// Nodes that it went to; `None`: it was not given to the engine.
        nodes: Option<u32>,
    },
    /// The engine has what your `Interest` of this number said, or is away.
    Noted {
        /// Which.
        number: u64,
    },
    /// What this courier has counted so far.
    Counts(CourierCounts),
    /// The answer to your `Part`: no other node asks this one any more. Data lane.
    Parted,
    /// What is known of the nodes besides, at each look at the leases, and before the `Sent` of
    /// what goes to many.
    Standing {
        /// The nodes that may have clients and cannot be asked, this one among them.
        silent: Vec<u8>,
        /// The nodes that drain.
        draining: Vec<u8>,
    },
}
