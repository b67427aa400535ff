//! One connection to the engine after the other. Each begins with the lease, then subscribes to
//! what the manager is interested in, and then does what is queued and looks at the leases, until
//! the connection is lost or the node leaves.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::engine::{Claimed, Engine, Message, Session};
use super::probe::Probes;
use super::queue::{Batch, Item, Own, Publish};
use super::state::Courier;
use crate::api::rooms::Topic;
use crate::error::{Error, Result};
use crate::ipc::cluster::envelope::{self, NodeMessage};
use crate::ipc::cluster::messages::{CourierToManager, CourierToMaster, EngineState};
use crate::sys::clock;

/// Channels in one command.
const SUBSCRIBE_MAX: usize = 512;
/// Bytes of what an engine says when it fails that are told.
const WHY_BYTES_MAX: usize = 1024;
/// The longest wait before another connection is tried; the shortest is none.
const RECONNECT_MS_MAX: u64 = 1_000;
/// The channels that a session has besides topics: its node's own, and everybody's.
const OWN_CHANNELS: u64 = 2;

/// Why a session has ended.
enum Ended {
    /// The connection is lost, or is of no use.
    Lost(Error),
    /// The node has left the cluster.
    Left,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Lost(error)
    }
}

/// Serves one session after the other until the node leaves.
pub async fn serve(courier: Rc<Courier>, engine: Rc<dyn Engine>) {
    let mut failures = 0;
    loop {
        let error = match serve_once(&courier, &*engine).await {
            Ended::Left => return,
            Ended::Lost(error) => error,
        };
        failures = if courier.is_away() { failures + 1 } else { 1 };
        courier.lose(&error);
        let pause = Duration::from_millis(pause_ms(failures));
        tokio::select! {
            () = sleep(pause) => {}
            () = courier.leaves.notified() => return,
        }
    }
}

/// How long to wait after so many failures in a row: nothing at first, then up to a second, by
/// chance, so that the nodes of a cluster do not come back all at once.
fn pause_ms(failures: u64) -> u64 {
    let most = (50 << failures.min(5)).min(RECONNECT_MS_MAX);
    let chance = RandomState::new().hash_one(failures);
    if failures <= 1 { 0 } else { most / 2 + chance % (most / 2) }
}

async fn serve_once(courier: &Courier, engine: &dyn Engine) -> Ended {
    let begun = async {
        let mut session = engine.connect(courier.inbox.clone()).await?;
        courier.count(|counts| counts.connects += 1);
        courier.join(&mut *session).await?;
        courier.probes.replace(Probes::default());
        let mut live = Live { courier, session, active: HashSet::new(), is_whole: false };
        live.resubscribe().await?;
        Ok::<_, Error>(live)
    };
    let begun = tokio::select! {
        begun = begun => begun,
        () = courier.leaves.notified() => return Ended::Left,
    };
    match begun {
        Ok(mut live) => live.serve().await,
        Err(error) => Ended::Lost(error),
    }
}

/// A session that serves.
struct Live<'a> {
    courier: &'a Courier,
    session: Box<dyn Session>,
    /// The topics that it has subscribed to.
    active: HashSet<Topic>,
    /// Whether it has said by a subscription that it has subscribed to everything.
    is_whole: bool,
}

impl Courier {
    fn is_away(&self) -> bool {
        matches!(*self.state.borrow(), EngineState::Away { .. })
    }

    /// The session is over: what waits for the engine is answered.
    fn lose(&self, error: &Error) {
        self.accepts.set(false);
        self.leases.borrow_mut().broken();
        let mut why = error.to_string();
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
        let before = self.state.borrow().clone();
        if before == EngineState::Ok {
            tracing::warn!(%why, "the engine is away: this node serves its own clients alone");
            self.count(|counts| counts.gaps += 1);
            self.enter(EngineState::Away { since: clock::unix_ms(), why: why.clone() });
            self.tell_nodes();
        } else if let EngineState::Away { since, .. } = before {
            self.enter(EngineState::Away { since, why: why.clone() });
        }
        if !self.has_joined.get() {
            self.master.send(&CourierToMaster::Alone { why });
        }
        self.tell(&CourierToManager::Counts(self.all_counts()));
        for item in self.queue.drain() {
            match item {
                Item::Publish(publish) => self.unsent(publish.id),
                Item::Subscribe(_, number) => self.note(number),
                Item::Unsubscribe(_) | Item::Whole | Item::Raise => {}
                Item::Part => self.parted(),
            }
        }
    }
}

impl Live<'_> {
    /// Subscribes to everything that the manager is interested in. From here on, what it says is
    /// queued.
    async fn resubscribe(&mut self) -> Result<()> {
        let courier = self.courier;
        courier.accepts.set(true);
        let own = [courier.names.node(courier.id.node), courier.names.all()];
        self.session.subscribe(&own).await?;
        let wanted: Vec<Topic> = courier.wanted.borrow().iter().cloned().collect();
        let is_told_all = courier.told.borrow().is_none();
        self.subscribe(wanted).await?;
        if is_told_all {
            self.be_whole().await?;
        }
        let silent = self.silent().await?;
        courier.tell_standing(silent);
        tracing::info!(node = courier.id.node, topics = self.active.len(), "joined the cluster");
        courier.enter(EngineState::Ok);
        courier.tell_nodes();
        courier.has_joined.set(true);
        courier.master.send(&CourierToMaster::Joined);
        Ok(())
    }

    async fn subscribe(&mut self, mut topics: Vec<Topic>) -> Result<()> {
        topics.retain(|topic| !self.active.contains(topic));
        for part in topics.chunks(SUBSCRIBE_MAX) {
            let channels: Vec<String> =
                part.iter().map(|topic| self.courier.names.topic(topic)).collect();
            let counted = self.session.subscribe(&channels).await?;
            self.active.extend(part.iter().cloned());
            let made = self.active.len() as u64 + OWN_CHANNELS + u64::from(self.is_whole);
            if counted.is_some_and(|counted| counted != made) {
                return Err(Error::new(format!(
                    "the engine counts {counted:?} subscriptions, and {made} were made"
                )));
            }
        }
        Ok(())
    }

    /// Says that all that is for clients of this node reaches it from here on.
    async fn be_whole(&mut self) -> Result<()> {
        if !self.is_whole {
            let whole = self.courier.names.whole(self.courier.id.node);
            self.session.subscribe(&[whole]).await?;
            self.is_whole = true;
        }
        Ok(())
    }

    /// The nodes that may have clients and cannot be asked for them now.
    async fn silent(&mut self) -> Result<Vec<u8>> {
        let courier = self.courier;
        let nodes = courier.leases.borrow().numbers();
        let channels: Vec<String> = nodes.iter().map(|it| courier.names.whole(*it)).collect();
        let counts = self.session.subscribers(&channels).await?;
        // A node that leaves says so before its subscription ends.
        courier.take_arrivals();
        let subscribed = nodes.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        let subscribed: Vec<u8> = subscribed.map(|(node, _)| node).collect();
        let mut silent = courier.leases.borrow().silent(&subscribed);
        // Of itself this node knows without a lease.
        silent.retain(|node| *node != courier.id.node);
        silent.extend((!self.is_whole).then_some(courier.id.node));
        Ok(silent)
    }

    async fn unsubscribe(&mut self, mut topics: Vec<Topic>) -> Result<()> {
        topics.retain(|topic| self.active.remove(topic));
        for part in topics.chunks(SUBSCRIBE_MAX) {
            let channels: Vec<String> =
                part.iter().map(|topic| self.courier.names.topic(topic)).collect();
            self.session.unsubscribe(&channels).await?;
        }
        Ok(())
    }

    async fn serve(&mut self) -> Ended {
        match self.serve_until_lost().await {
            Ok(()) => Ended::Left,
            Err(error) => Ended::Lost(error),
        }
    }

    /// Serves until the node leaves.
    async fn serve_until_lost(&mut self) -> Result<()> {
        let courier = self.courier;
        let pace = (courier.ttl / 5).min(Duration::from_secs(1));
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = courier.leaves.notified() => {
                    if let Err(error) = self.leave().await {
                        tracing::debug!(%error, "no good-bye: the lease ends by itself");
                    }
                    return Ok(());
                }
                _ = ticks.tick() => self.tick().await?,
                batch = courier.queue.next() => self.carry(batch).await?,
            }
        }
    }

    async fn carry(&mut self, batch: Batch) -> Result<()> {
        match batch {
            Batch::Publish(publishes) => self.publish(publishes).await,
            Batch::Other(Item::Subscribe(topics, number)) => {
                let subscribed = self.subscribe(topics).await;
                self.courier.note(number);
                subscribed
            }
            Batch::Other(Item::Unsubscribe(topics)) => self.unsubscribe(topics).await,
            Batch::Other(Item::Whole) => self.be_whole().await,
            Batch::Other(Item::Raise) => self.raise().await,
            Batch::Other(Item::Part) => self.part().await,
            Batch::Other(Item::Publish(publish)) => self.publish(vec![publish]).await,
        }
    }

    /// Has the engine keep which numbers of clients were given, if that is news: at once, since
    /// the node may end any time, and lose its file.
    async fn raise(&mut self) -> Result<()> {
        if self.courier.serials_are_news.get() {
            self.courier.raise_serials(&mut *self.session).await?;
        }
        Ok(())
    }

    /// Takes nothing more from other nodes: who asks from here on is told that this node has
    /// nobody, which is the truth, so the node stays whole; and who asked before is answered.
    async fn part(&mut self) -> Result<()> {
        let unsubscribed = self.unsubscribe_all().await;
        self.courier.parted();
        unsubscribed
    }

    async fn unsubscribe_all(&mut self) -> Result<()> {
        let own = [self.courier.names.node(self.courier.id.node), self.courier.names.all()];
        self.session.unsubscribe(&own).await?;
        let all = self.active.iter().cloned().collect();
        self.unsubscribe(all).await
    }

    async fn publish(&mut self, publishes: Vec<Publish>) -> Result<()> {
        let asks_many = publishes.iter().any(|it| it.id != 0 && it.own != Own::No);
        let (messages, asked): (Vec<Message>, VecDeque<(Own, u64)>) =
            publishes.into_iter().map(|it| (it.message, (it.own, it.id))).unzip();
        let given = match asks_many {
            true => self.ask(&messages).await,
            false => self.session.publish(&messages).await,
        };
        let counts = match given {
            Ok(counts) => counts,
            Err(error) => {
                // Some may have gone; whoever asked is told that nobody knows of whom.
                asked.into_iter().for_each(|(_, id)| self.courier.unsent(id));
                return Err(error);
            }
        };
        self.courier.count(|it| it.sent += counts.len() as u64);
        self.courier.link.begin_turn();
        for (count, (own, id)) in counts.into_iter().zip(asked) {
            if id != 0 {
                let is_own = match own {
                    Own::No => false,
                    Own::Yes => true,
                    Own::Topic(topic) => self.active.contains(&topic),
                };
                let nodes = Some(count.saturating_sub(u32::from(is_own)));
                self.courier.tell(&CourierToManager::Sent { id, nodes });
            }
        }
        self.courier.link.end_turn();
        Ok(())
    }

    /// Publishes questions to many nodes, and tells the manager of the nodes that may not have
    /// heard them: whichever came or went meanwhile was silent before or behind that.
    async fn ask(&mut self, messages: &[Message]) -> Result<Vec<u32>> {
        let mut silent = self.silent().await?;
        let counts = self.session.publish(messages).await?;
        let behind = self.silent().await?;
        silent.retain(|node| !behind.contains(node));
        silent.extend(behind);
        self.courier.tell_standing(silent);
        Ok(counts)
    }

    /// Keeps the lease, looks at the others', and sees whether what is published comes back.
    async fn tick(&mut self) -> Result<()> {
        let courier = self.courier;
        let asked_at = clock::monotonic_ms();
        let lease = courier.lease();
        match self.session.claim(&lease, courier.ttl).await? {
            Claimed::Kept => {}
            // The others may have taken this node for dead, and have to be told anew who is here.
            Claimed::Taken => return Err(Error::new("this node's lease had ended")),
            Claimed::Held(holder) => return Err(courier.refused(courier.held_by(&holder))),
        }
        courier.leases.borrow_mut().renewed(asked_at);
        self.raise().await?;
        let nodes = courier.read_leases(&mut *self.session).await?;
        let look = courier.leases.borrow_mut().looked(clock::monotonic_ms(), nodes);
        for dead in &look.dead {
            tracing::warn!(node = dead.node, host = dead.host, "a node of the cluster is dead");
        }
        courier.tell(&CourierToManager::Nodes { nodes: look.nodes, certain: look.certain });
        let silent = self.silent().await?;
        courier.tell_standing(silent);
        courier.tell(&CourierToManager::Counts(courier.all_counts()));
        let now_us = clock::monotonic_us();
        if courier.probes.borrow().is_lost(now_us) {
            return Err(Error::new("what is published does not come back"));
        }
        let due = courier.probes.borrow_mut().due(now_us);
        if let Some(number) = due {
            let payload = envelope::write(courier.id, &NodeMessage::Probe { number }, &[])?;
            let channel = courier.names.node(courier.id.node);
            self.session.publish(&[Message { channel, payload }]).await?;
        }
        Ok(())
    }

    /// Does what is left to do, gives the lease back, and says good-bye.
    async fn leave(&mut self) -> Result<()> {
        while !self.courier.queue.is_empty() {
            let batch = self.courier.queue.next().await;
            self.carry(batch).await?;
        }
        let payload = envelope::write(self.courier.id, &NodeMessage::Leaving, &[])?;
        let message = Message { channel: self.courier.names.all(), payload };
        self.session.publish(&[message]).await?;
        self.session.release(&self.courier.lease()).await
    }
}
