//! What a node tells of itself to the others, beside its lease.

use serde::{Deserialize, Serialize};

/// Nodes of a cluster: the first part of a client's number says which one opened it.
pub const NODES_MAX: u8 = 64;

/// One run of a node: its number, and a number that no other run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// Which node of the cluster.
    pub node: u8,
    /// Drawn by the master when it started, and kept over upgrades.
    pub boot: u64,
}

/// What a node writes down beside its lease. It travels as JSON, where unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// Which node of the cluster.
    pub node: u8,
    /// Which run of it.
    pub boot: u64,
    /// The name of its machine.
    pub host: String,
    /// The version of its image.
    pub version: String,
    /// The version of the envelopes that it writes and reads.
    pub envelope: u8,
    /// When it joined, in milliseconds since 1970.
    pub since: u64,
    /// Its open connections.
    pub connections: u64,
    /// The rooms and users that it has members of.
    pub topics: u64,
    /// Microseconds from its last probe to the return of that; 0: none has come back yet.
    pub lag_us: u64,
    /// Times that messages may have been lost on their way to it since it was started.
    pub gaps: u64,
}

impl NodeRecord {
    /// As it is written beside the lease.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers and texts alone: nothing that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a lease says, as far as that can be read.
    pub fn from_bytes(bytes: &[u8]) -> Option<NodeRecord> {
        serde_json::from_slice(bytes).ok()
    }
}
