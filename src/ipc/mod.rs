//! How the processes of one server talk to each other.
//!
//! - [`messages`]: one enum per direction, and what each means.
//! - [`codec`]: the one file that knows bincode.
//! - [`packet`]: how frames share a datagram.
//! - [`link`]: a socket to a peer with two bounded lanes, and [`master_link`], the one to the
//!   master, for the roles that run tokio.
//! - [`registry`] and [`scoreboard`], with [`places`]: shared memory that outlives its writer.
//! - [`transit`]: what a worker knows of its connections on their way; pure.
//! - [`gather`]: the answers of several workers to one question.
//! - [`control`]: what the command line says to the manager.
//!
//! `docs/ipc.md` is the prose; a test keeps its table of messages equal to the enums.

pub mod codec;
pub mod control;
pub mod gather;
#[cfg(test)]
pub(crate) mod golden;
pub mod link;
pub mod master_link;
pub mod messages;
pub mod packet;
pub mod places;
pub mod registry;
pub mod scoreboard;
pub mod transit;

/// The version of everything in this module. A process that speaks another is refused before it
/// is ready.
pub const IPC_VERSION: u8 = 1;

/// Bytes of a packet that carries several frames; the kernel's largest is 212,960.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Bytes up to which broadcasts share a packet: its receiver takes all of it at once, and each
/// means a write for every client.
pub const BROADCASTS_BYTES_MAX: usize = 8 * 1024;

/// A body larger than this travels in a sealed memfd beside its packet.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;

/// Bytes that may wait in a link's data lane before `full` is the answer.
pub const DATA_LANE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes in a link's control lane beyond which the manager reads no more of its worker, who would
/// ask for yet more answers.
pub const CONTROL_LANE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes in a link's control lane beyond which answers are dropped: a worker is answered also for
/// what other workers have still to say.
pub const ANSWERS_BYTES_MAX: usize = 4 * CONTROL_LANE_BYTES_MAX;

/// Bytes of the largest body: the largest `package_max_length`, which is far more than a batch of
/// connections has.
pub const BODY_BYTES_MAX: usize = 1024 * 1024 * 1024;
