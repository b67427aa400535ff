//! What the processes of a server say to each other about other nodes, and what nodes say to each
//! other. Nothing here knows by which engine it travels.
//!
//! - [`messages`]: master, manager and courier of one node.
//! - [`envelope`]: the format between nodes, which outlives versions.
//! - [`nodes`]: what a node tells of itself.

pub mod envelope;
pub mod messages;
pub mod nodes;
