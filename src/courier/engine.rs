//! What an engine has to do: carry messages to whoever has subscribed, and keep leases. Nothing
//! here knows which engine it is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::inbox::Inbox;
use crate::error::Result;

/// What an engine is asked, answered when the engine has.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// An engine that may be connected to.
pub trait Engine {
    /// Connects. What is published on the channels that the session subscribes to comes into
    /// `inbox`, in the order of the publishes, until the session is dropped. The inbox is closed
    /// when the connection is lost.
    fn connect(&self, inbox: Arc<Inbox>) -> Asked<'_, Box<dyn Session>>;
}

/// A connection to an engine. What is asked is done in the order in which it is asked. After an
/// error the session is of no use any more.
pub trait Session {
    /// Publishes, in the order of the list. The answer is how many sessions have each on its way,
    /// this one among them where it has subscribed.
    fn publish<'a>(&'a mut self, messages: &'a [Message]) -> Asked<'a, Vec<u32>>;

    /// Subscribes. The answer is how many channels the engine thinks that this session has.
    fn subscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Option<u64>>;

    /// Unsubscribes.
    fn unsubscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, ()>;

    /// How many sessions have subscribed to each of these channels.
    fn subscribers<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Vec<u32>>;

    /// Takes a lease, or keeps it: it is the owner's from now on for `ttl`, unless another has it.
    fn claim<'a>(&'a mut self, lease: &'a Lease, ttl: Duration) -> Asked<'a, Claimed>;

    /// Gives a lease back, if it is the owner's.
    fn release<'a>(&'a mut self, lease: &'a Lease) -> Asked<'a, ()>;

    /// Raises numbers to at least these. The answer is all that are kept under the key.
    fn raise<'a>(
        &'a mut self,
        key: &'a str,
        numbers: &'a [(u8, u64)],
    ) -> Asked<'a, Vec<(u8, u64)>>;

    /// Forgets the numbers that are kept under a key.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line alone tries"))]
    fn forget<'a>(&'a mut self, key: &'a str) -> Asked<'a, ()>;

    /// What the engine says of itself.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line alone asks"))]
    fn describe(&mut self) -> Asked<'_, Description>;

    /// What the holders of leases wrote down; `None` where there is none. Of what is longer than a
    /// record of a node, no more than that is read.
    fn holders<'a>(&'a mut self, keys: &'a [String]) -> Asked<'a, Vec<Option<Vec<u8>>>>;
}

/// What an engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Its name and version.
    pub what: String,
    /// Whole sentences about its settings.
    pub doubts: Vec<String>,
}

/// What has become of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The owner had the lease, and has it still.
    Kept,
    /// Nobody had the lease: it was never taken, or had ended.
    Taken,
    /// Another has it, and wrote this down.
    Held(Vec<u8>),
}

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub channel: String,
    /// What.
    pub payload: Vec<u8>,
}

/// A lease on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub key: String,
    /// Who holds it: [`OWNER_BYTES`] bytes that nobody else has.
    pub owner: String,
    /// What others may read of it.
    pub record: Vec<u8>,
}

/// Bytes of an owner: a number in hexadecimal digits.
pub const OWNER_BYTES: usize = 16;
