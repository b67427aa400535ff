//! What a node tells of itself to the others, beside its lease.

use serde::{Deserialize, Serialize};

/// Nodes of a cluster: the first part of a client's number says which one opened it.
pub const NODES_MAX: u8 = 64;

/// Bytes of the longest record that is read: five times what two long texts and the numbers take.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a text in a record: with all of them the list of all nodes fits a message.
const TEXT_BYTES_MAX: usize = 255;

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
    /// Whether it drains. The lease says so; on a link, where the bytes of a record stay as they
    /// were released, `Standing` does.
    #[serde(skip)]
    pub drains: bool,
}

/// A record as it is written beside the lease.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    record: NodeRecord,
    #[serde(default)]
    drains: bool,
}

impl NodeRecord {
    /// As it is written beside the lease.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers and texts alone: nothing that JSON cannot hold.
        let written = Written { record: self.clone(), drains: self.drains };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// What a lease says, as far as that can be read and no node says more.
    pub fn from_bytes(bytes: &[u8]) -> Option<NodeRecord> {
        if bytes.len() > RECORD_BYTES_MAX {
            return None;
        }
        let Written { record, drains } = serde_json::from_slice(bytes).ok()?;
        let record = NodeRecord { drains, ..record };
        let is_short = |text: &str| text.len() <= TEXT_BYTES_MAX;
        Some(record).filter(|it| is_short(&it.host) && is_short(&it.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_no_node_writes_is_none() {
        let record = |host: &str| NodeRecord { host: host.to_owned(), ..NodeRecord::default() };
        let ours = record("a machine");
        assert_eq!(NodeRecord::from_bytes(&ours.to_bytes()), Some(ours));
        let drains = NodeRecord { drains: true, ..record("another") };
        assert_eq!(NodeRecord::from_bytes(&drains.to_bytes()), Some(drains));
        // A node that knows nothing of a field, and one that knows more.
        let other = NodeRecord::from_bytes(br#"{"node":3,"host":"h","more":[1]}"#);
        assert_eq!(other, Some(NodeRecord { node: 3, ..record("h") }));
        // The list of all nodes would be too long for its message, and nobody would hear of any.
        assert_eq!(NodeRecord::from_bytes(&record(&"x".repeat(70_000)).to_bytes()), None);
        assert_eq!(NodeRecord::from_bytes(b"{"), None);
        // What is longer than any record is not even parsed.
        let long = [&record("h").to_bytes()[..], &[b' '; RECORD_BYTES_MAX]].concat();
        assert_eq!(NodeRecord::from_bytes(&long), None);
    }
}
