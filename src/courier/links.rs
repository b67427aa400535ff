//! What master and manager say, and the way of what comes for the manager.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::engine::Message;

use super::queue::{Item, Own, Publish};
use super::state::Courier;
use crate::api::rooms::Topic;
use crate::error::{Error, Result};
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::cluster::envelope::{self, NodeMessage};
use crate::ipc::cluster::messages::{
    CourierToManager, CourierToMaster, ManagerToCourier, MasterToCourier, To,
};
use crate::ipc::link::{Lane, Sent};
use crate::ipc::packet::{Body, Frames};
use crate::sys::{clock, process};

/// Does what the master says until it says to leave, or is gone.
pub async fn follow_master(courier: &Courier) -> Result<()> {
    while let Some((message, fds)) = courier.master.receive().await? {
        match message {
            MasterToCourier::Boot(_) => return Err(Error::new("the master sent Boot twice")),
            MasterToCourier::LivenessCheck(number) => {
                courier.master.send(&CourierToMaster::Alive(number));
            }
            MasterToCourier::Serials { next } => {
                courier.serials.borrow_mut().extend(next);
                courier.serials_are_news.set(true);
                // Where there is no session, the next begins with it.
                if courier.accepts.get() {
                    courier.queue.add(Item::Raise);
                }
            }
            MasterToCourier::Drains(drains) => courier.record.borrow_mut().drains = drains,
            MasterToCourier::Reopen => {
                if let Some(log) = fds.first() {
                    process::take_log(log.as_fd(), false)?;
                }
            }
            MasterToCourier::Leave => return Ok(()),
        }
    }
    Ok(())
}

/// Reads what the manager says, for ever. Nothing is read while much waits for the engine.
pub async fn read_manager(courier: Rc<Courier>) -> Error {
    let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
    loop {
        courier.queue.room().await;
        courier.link.room().await;
        let read = match courier.link.receive(&mut buffer).await {
            Ok(Some(arrival)) => courier.on_packet(&buffer[..arrival.len], arrival.fds),
            Ok(None) => return Error::new("the link to the manager is gone"),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            return error;
        }
    }
}

/// Passes what comes from other nodes on to the manager, for ever.
pub async fn pass_on(courier: Rc<Courier>) {
    let inbox = courier.inbox.clone();
    loop {
        let messages = inbox.take().await;
        courier.all_arrived(messages);
        tokio::task::yield_now().await;
    }
}

impl Courier {
    /// What the manager said before it left is still to be done.
    pub fn take_last_words(&self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        while let Ok(Some(arrival)) = self.link.try_receive(&mut buffer) {
            if self.on_packet(&buffer[..arrival.len], arrival.fds).is_err() {
                return;
            }
        }
    }

    fn on_packet(&self, packet: &[u8], mut fds: Vec<OwnedFd>) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != self.link.id() {
            return Ok(());
        }
        while let Some(frame) = frames.next::<ManagerToCourier>(&mut fds)? {
            self.on_message(frame.message, frame.body)?;
        }
        Ok(())
    }

    fn on_message(&self, message: ManagerToCourier, body: Body<'_>) -> Result<()> {
        match message {
            ManagerToCourier::Begin => self.begin(),
            ManagerToCourier::Whole => self.know_whole(),
            ManagerToCourier::Send { to, id } => {
                let payload = match body {
                    Body::Inline(bytes) => bytes.to_vec(),
                    beside => beside.into_bytes()?.to_vec(),
                };
                self.send(to, id, payload);
            }
            ManagerToCourier::Interest { number, joined, left } => {
                self.change_interest(number, joined, left);
            }
            ManagerToCourier::Load { connections, topics } => {
                let mut record = self.record.borrow_mut();
                (record.connections, record.topics) = (connections, topics);
            }
            ManagerToCourier::Gaps(gaps) => self.record.borrow_mut().gaps = gaps,
            ManagerToCourier::Part => match self.accepts.get() {
                true => self.queue.add(Item::Part),
                false => self.parted(),
            },
        }
        Ok(())
    }

    /// A new manager: it knows nothing yet, and says what it is interested in.
    fn begin(&self) {
        self.told.replace(Some(HashSet::new()));
        self.tell(&CourierToManager::Engine(self.state.borrow().clone()));
        self.tell_nodes();
        self.tell(&CourierToManager::Counts(self.all_counts()));
    }

    /// Tells the manager which nodes there are.
    pub fn tell_nodes(&self) {
        let look = self.leases.borrow().look(clock::monotonic_ms());
        self.tell(&CourierToManager::Nodes { nodes: look.nodes, certain: look.certain });
    }

    /// Tells the manager which nodes cannot be asked, and which drain.
    pub fn tell_standing(&self, silent: Vec<u8>) {
        let draining = self.leases.borrow().draining();
        self.tell(&CourierToManager::Standing { silent, draining });
    }

    /// What the manager has not told it is not interested in: its predecessor was.
    fn know_whole(&self) {
        let Some(told) = self.told.take() else { return };
        let left: Vec<Topic> = {
            let wanted = self.wanted.borrow();
            wanted.iter().filter(|topic| !told.contains(topic)).cloned().collect()
        };
        self.change_interest(0, Vec::new(), left);
        if self.accepts.get() {
            self.queue.add(Item::Whole);
        }
    }

    fn change_interest(&self, number: u64, mut joined: Vec<Topic>, mut left: Vec<Topic>) {
        {
            let mut wanted = self.wanted.borrow_mut();
            if let Some(told) = &mut *self.told.borrow_mut() {
                told.extend(joined.iter().cloned());
                for topic in &left {
                    told.remove(topic);
                }
            }
            joined.retain(|topic| wanted.insert(topic.clone()));
            left.retain(|topic| wanted.remove(topic));
        }
        if !self.accepts.get() {
            // Whoever joins while the engine is away is a member on this node alone.
            return self.note(number);
        }
        if !left.is_empty() {
            self.queue.add(Item::Unsubscribe(left));
        }
        if !joined.is_empty() || number != 0 {
            self.queue.add(Item::Subscribe(joined, number));
        }
    }

    /// What the manager said of its interest is as true as it can be.
    pub fn note(&self, number: u64) {
        if number != 0 {
            self.tell(&CourierToManager::Noted { number });
        }
    }

    fn send(&self, to: To, id: u64, payload: Vec<u8>) {
        if !self.accepts.get() {
            return self.unsent(id);
        }
        let (channel, own) = match to {
            To::Node(node) => (self.names.node(node), Own::No),
            To::All => (self.names.all(), Own::Yes),
            To::Members(topic) => (self.names.topic(&topic), Own::Topic(topic)),
        };
        let message = Message { channel, payload };
        self.queue.add(Item::Publish(Publish { message, own, id }));
    }

    /// A message was not given to the engine.
    pub fn unsent(&self, id: u64) {
        self.count(|counts| counts.unsent += 1);
        if id != 0 {
            self.tell(&CourierToManager::Sent { id, nodes: None });
        }
    }

    /// What has come so far goes to the manager now.
    pub fn take_arrivals(&self) {
        if let Some(messages) = self.inbox.try_take() {
            self.all_arrived(messages);
        }
    }

    fn all_arrived(&self, messages: VecDeque<Vec<u8>>) {
        self.link.begin_turn();
        for message in messages {
            self.arrived(&message);
        }
        self.link.end_turn();
    }

    /// Nothing comes from other nodes any more: the manager is told so, behind all that has come.
    pub fn parted(&self) {
        self.take_arrivals();
        let parted = CourierToManager::Parted;
        if let Err(error) = self.link.insist(&parted, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the manager is not told that nothing comes any more");
        }
    }

    /// Something has come on one of our channels.
    fn arrived(&self, bytes: &[u8]) {
        let header = match envelope::read_header(bytes) {
            Ok(header) => header,
            Err(error) => {
                tracing::debug!(%error, "garbled");
                return self.count(|counts| counts.garbled += 1);
            }
        };
        if header.from == self.id {
            if let Ok((_, NodeMessage::Probe { number }, _)) = envelope::read(bytes) {
                self.probes.borrow_mut().came_back(number, clock::monotonic_us());
            }
            return;
        }
        if header.is_bare()
            && let Ok((from, NodeMessage::Leaving, _)) = envelope::read(bytes)
            && self.leases.borrow_mut().left(from.node, from.boot).is_some()
        {
            tracing::info!(node = from.node, "a node has left the cluster");
            self.tell_nodes();
        }
        match self.link.send(Lane::Data, &CourierToManager::Arrived, Body::Inline(bytes), vec![]) {
            Ok(Sent::Queued) => self.count(|counts| counts.received += 1),
            Ok(Sent::Full) => self.lost_one(),
            Err(error) => {
                tracing::error!(%error, "a message of another node is lost");
                self.lost_one();
            }
        }
    }

    fn lost_one(&self) {
        self.count(|counts| {
            counts.dropped += 1;
            counts.gaps += 1;
        });
    }
}
