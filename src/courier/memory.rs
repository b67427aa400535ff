//! An engine in memory, for tests: it keeps the trait honest, and does what a test tells it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Asked, Claimed, Description, Engine, Lease, Message, OWNER_BYTES, Session};
use super::inbox::Inbox;
use crate::error::{Error, Result};
use crate::ipc::cluster::nodes::RECORD_BYTES_MAX;

/// An engine that several couriers share.
#[derive(Clone, Default)]
pub struct MemoryEngine(Rc<Shared>);

#[derive(Default)]
struct Shared {
    is_down: Cell<bool>,
    /// Whether what is published reaches nobody, though all seems well.
    is_deaf: Cell<bool>,
    last_session: Cell<u64>,
    sessions: RefCell<BTreeMap<u64, Subscriber>>,
    /// By key: owner and record. They end when a test says so.
    leases: RefCell<BTreeMap<String, (String, Vec<u8>)>>,
    numbers: RefCell<BTreeMap<String, BTreeMap<u8, u64>>>,
}

impl MemoryEngine {
    /// Is not there any more, or is again and knows nothing.
    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.set(is_down);
        self.0.sessions.borrow_mut().clear();
        self.0.leases.borrow_mut().clear();
        self.0.numbers.borrow_mut().clear();
    }

    /// Somebody writes a lease that no node would write.
    pub fn write_lease(&self, key: &str, record: &[u8]) {
        let owner = "0".repeat(OWNER_BYTES);
        self.0.leases.borrow_mut().insert(key.to_owned(), (owner, record.to_vec()));
    }

    /// All leases have ended.
    pub fn end_leases(&self) {
        self.0.leases.borrow_mut().clear();
    }

    /// The connection that was made as the how many-th is cut, and no other is taken until
    /// `take_again`.
    pub fn cut(&self, number: u64) {
        self.0.is_down.set(true);
        self.0.sessions.borrow_mut().remove(&number);
    }

    /// Takes connections again, and has lost nothing.
    pub fn take_again(&self) {
        self.0.is_down.set(false);
    }

    /// Brings nothing any more, and says nothing of that.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.0.is_deaf.set(is_deaf);
    }

    /// The channels that somebody has subscribed to.
    pub fn channels(&self) -> BTreeSet<String> {
        let sessions = self.0.sessions.borrow();
        sessions.values().flat_map(|(_, channels)| channels.iter().cloned()).collect()
    }
}

/// Where what is published goes, and on which channels.
type Subscriber = (Arc<Inbox>, BTreeSet<String>);

struct MemorySession {
    engine: MemoryEngine,
    number: u64,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.engine.0.sessions.borrow_mut().remove(&self.number);
    }
}

impl Engine for MemoryEngine {
    fn connect(&self, inbox: Arc<Inbox>) -> Asked<'_, Box<dyn Session>> {
        if self.0.is_down.get() {
            return Box::pin(ready(Err(Error::new("it is down"))));
        }
        let number = self.0.last_session.get() + 1;
        self.0.last_session.set(number);
        self.0.sessions.borrow_mut().insert(number, (inbox, BTreeSet::new()));
        let session = MemorySession { engine: self.clone(), number };
        Box::pin(ready(Ok(Box::new(session) as Box<dyn Session>)))
    }
}

impl MemorySession {
    fn answer<T: 'static>(&self, done: impl FnOnce(&Shared) -> T) -> Asked<'static, T> {
        let lives = self.engine.0.sessions.borrow().contains_key(&self.number);
        let answer: Result<T> = match lives {
            true => Ok(done(&self.engine.0)),
            false => Err(Error::new("the connection is lost")),
        };
        Box::pin(ready(answer))
    }
}

impl Session for MemorySession {
    fn publish<'a>(&'a mut self, messages: &'a [Message]) -> Asked<'a, Vec<u32>> {
        self.answer(|shared| {
            let sessions = shared.sessions.borrow();
            let publish = |message: &Message| {
                let having = sessions.values().filter(|(_, it)| it.contains(&message.channel));
                let having: Vec<_> = having.map(|(inbox, _)| inbox).collect();
                if !shared.is_deaf.get() {
                    having.iter().for_each(|inbox| inbox.put(message.payload.clone()));
                }
                having.len() as u32
            };
            messages.iter().map(publish).collect()
        })
    }

    fn subscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Option<u64>> {
        let number = self.number;
        self.answer(|shared| {
            let mut sessions = shared.sessions.borrow_mut();
            let (_, mine) = sessions.get_mut(&number)?;
            mine.extend(channels.iter().cloned());
            Some(mine.len() as u64)
        })
    }

    fn unsubscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, ()> {
        let number = self.number;
        self.answer(|shared| {
            let mut sessions = shared.sessions.borrow_mut();
            if let Some((_, mine)) = sessions.get_mut(&number) {
                mine.retain(|channel| !channels.contains(channel));
            }
        })
    }

    fn subscribers<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Vec<u32>> {
        self.answer(|shared| {
            let sessions = shared.sessions.borrow();
            let having = |channel: &String| {
                sessions.values().filter(|(_, it)| it.contains(channel)).count() as u32
            };
            channels.iter().map(having).collect()
        })
    }

    fn claim<'a>(&'a mut self, lease: &'a Lease, _: Duration) -> Asked<'a, Claimed> {
        self.answer(|shared| {
            let mut leases = shared.leases.borrow_mut();
            let claimed = match leases.get(&lease.key) {
                Some((owner, record)) if *owner != lease.owner => {
                    return Claimed::Held(record.clone());
                }
                Some(_) => Claimed::Kept,
                None => Claimed::Taken,
            };
            leases.insert(lease.key.clone(), (lease.owner.clone(), lease.record.clone()));
            claimed
        })
    }

    fn release<'a>(&'a mut self, lease: &'a Lease) -> Asked<'a, ()> {
        self.answer(|shared| {
            let mut leases = shared.leases.borrow_mut();
            if leases.get(&lease.key).is_some_and(|(owner, _)| *owner == lease.owner) {
                leases.remove(&lease.key);
            }
        })
    }

    fn raise<'a>(
        &'a mut self,
        key: &'a str,
        numbers: &'a [(u8, u64)],
    ) -> Asked<'a, Vec<(u8, u64)>> {
        self.answer(|shared| {
            let mut all = shared.numbers.borrow_mut();
            let kept = all.entry(key.to_owned()).or_default();
            for (name, number) in numbers {
                let kept = kept.entry(*name).or_default();
                *kept = (*kept).max(*number);
            }
            kept.iter().map(|(name, number)| (*name, *number)).collect()
        })
    }

    fn forget<'a>(&'a mut self, key: &'a str) -> Asked<'a, ()> {
        self.answer(|shared| {
            shared.numbers.borrow_mut().remove(key);
        })
    }

    fn describe(&mut self) -> Asked<'_, Description> {
        self.answer(|_| Description { what: "memory".to_owned(), doubts: Vec::new() })
    }

    fn holders<'a>(&'a mut self, keys: &'a [String]) -> Asked<'a, Vec<Option<Vec<u8>>>> {
        self.answer(|shared| {
            let leases = shared.leases.borrow();
            let beginning = |(_, record): &(String, Vec<u8>)| {
                record.iter().take(RECORD_BYTES_MAX + 1).copied().collect::<Vec<u8>>()
            };
            keys.iter().map(|key| leases.get(key).map(beginning)).collect()
        })
    }
}
