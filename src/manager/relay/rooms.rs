//! What workers say of rooms.

use std::collections::BTreeSet;

use super::holders::Holder;
use super::message::{Address, Reply, Routed, Wide};
use crate::api::rooms::{INFO_BYTES_MAX, NAME_BYTES_MAX, Nodes, Present, TOPICS_MAX, Topic};
use crate::error::{Error, Result};
use crate::fd::WorkerId;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::ipc::{BODY_BYTES_MAX, codec};
use crate::manager::Exchange;
use crate::manager::settings::Settings;
use crate::sys::clock::monotonic_ms;

/// A name that is longer than any configuration allows.
fn too_long(bytes: usize) -> Error {
    Error::new(format!("a name of {bytes} bytes"))
}

/// That none of these names is longer than any configuration allows.
fn check_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    match names.find(|name| name.len() > NAME_BYTES_MAX) {
        Some(name) => Err(too_long(name.len())),
        None => Ok(()),
    }
}

impl Exchange {
    /// What a worker says of rooms.
    ///
    /// # Errors
    /// It tells more, or longer names, than any worker has.
    pub fn on_room_message(
        &mut self,
        from: WorkerId,
        message: WorkerToManager,
        body: Body<'_>,
    ) -> Result<()> {
        let origin = Origin::Worker(from);
        match message {
            WorkerToManager::Change { id, fd, change } => {
                self.deliver(Address::Client(fd), Routed::Change { origin, id, change }, body);
            }
            WorkerToManager::Call { id, reach, call } => {
                let topics = call.topics.len();
                if topics > TOPICS_MAX {
                    return Err(Error::new(format!("a call of the members of {topics} topics")));
                }
                let message = ManagerToWorker::Call { origin, id, only: Vec::new(), call };
                self.spread_everywhere(Wide { sender: Some(from), message, reach }, body);
            }
            WorkerToManager::Tally { origin, id, queued, full } => {
                self.answer(origin, id, Reply::Tally { queued, full });
            }
            WorkerToManager::Members { origin, id, part, last } => {
                check_names(part.iter().filter_map(|member| member.uid.as_deref()))?;
                self.answer(origin, id, Reply::Members { part, last });
            }
            WorkerToManager::Rooms { origin, id, part, last } => {
                check_names(part.iter().map(|(room, _)| room.name()))?;
                self.answer(origin, id, Reply::Rooms { part, last });
            }
            WorkerToManager::Present { room, uid, count } => {
                self.on_present(from, room, uid, count, body)?;
            }
            WorkerToManager::PresenceOf { id, room } => self.tell_presence(from, id, &room),
            WorkerToManager::Interest { number, joined, left, settled } => {
                self.on_interest(from, number, joined, left, settled)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A worker says which topics have members there, and which of the changes are done that
    /// were to give it one.
    fn on_interest(
        &mut self,
        from: WorkerId,
        number: u64,
        joined: Vec<Topic>,
        left: Vec<Topic>,
        settled: Vec<(Topic, u64)>,
    ) -> Result<()> {
        check_names(joined.iter().map(Topic::name))?;
        for topic in joined {
            self.interest.told(from, topic.clone());
            self.begin_presence(from, topic);
        }
        // What moves to a worker comes to what that has itself.
        let (told, rooms_max) = (self.interest.told_by(from), self.settings.rooms_max);
        if told > 2 * rooms_max {
            return Err(Error::new(format!("members of {told} topics: more than rooms_max")));
        }
        for topic in left {
            self.interest.left(from, topic);
        }
        for (topic, mark) in settled {
            self.interest.settled(from, topic, mark);
        }
        match number {
            0 => self.follow_topics(),
            number => self.note_interest(from, number),
        }
        Ok(())
    }

    /// A worker says how many connections of a user it has in a room.
    fn on_present(
        &mut self,
        from: WorkerId,
        room: Topic,
        uid: String,
        count: u32,
        body: Body<'_>,
    ) -> Result<()> {
        check_names([room.name(), &uid].into_iter())?;
        if body.len() > INFO_BYTES_MAX {
            return Err(Error::new(format!("an info of {} bytes", body.len())));
        }
        let info = match body.into_bytes() {
            Ok(info) if info.is_empty() => None,
            Ok(info) => String::from_utf8(info.to_vec()).ok(),
            Err(error) => {
                tracing::error!(worker = %from, %error, "the info of a user cannot be read");
                None
            }
        };
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        let user = (room.clone(), uid.clone());
        let holder = Holder::Worker(from);
        if count > 0 && !self.presence.has_room(holder, &user, info.as_deref()) {
            let room = room.name();
            tracing::error!(worker = %from, room, uid, "presence is not told: no room for it");
            return Ok(());
        }
        let changed = self.presence.set(holder, user, (count, info), now, linger_ms);
        self.tell_present_abroad(&room, &uid);
        if let Some(present) = changed {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
        Ok(())
    }

    /// A worker is new to a room: its members begin with who is there, also where that is nobody.
    fn begin_presence(&mut self, worker: WorkerId, room: Topic) {
        if !self.settings.has_presence(&room) || self.asks_presence(&room) {
            return;
        }
        if self.takes_list(worker, self.presence.is_short(&room)) {
            let list = self.presence.list(&room);
            self.spread_presence(room, true, &list, Reach::Only(worker));
        } else {
            self.presence.missed.entry(worker).or_default().insert(room);
        }
    }

    /// Sends the lists of rooms of which workers have missed something, where there is room again.
    pub fn tell_missed(&mut self) {
        let behind: Vec<WorkerId> = self.presence.missed.keys().copied().collect();
        for worker in behind {
            if !self.has_room_again(worker) {
                // A worker that hangs may have missed something of a million rooms.
                continue;
            }
            let mut rooms = self.presence.missed.remove(&worker).unwrap_or_default();
            while self.has_room_again(worker)
                && let Some(room) = rooms.pop_first()
            {
                if self.interest.has(std::slice::from_ref(&room), worker) {
                    self.begin_presence(worker, room);
                }
            }
            // With those that have found no room again.
            rooms.extend(self.presence.missed.remove(&worker).unwrap_or_default());
            if !rooms.is_empty() {
                self.presence.missed.insert(worker, rooms);
            }
        }
    }

    /// Whether what a worker has missed may be sent now. A worker that is gone misses nothing.
    fn has_room_again(&self, worker: WorkerId) -> bool {
        let link_is_full = self.workers.get(worker).is_some_and(|it| it.link.is_full());
        !link_is_full && !self.hold.is_full()
    }

    /// Whether a list is made for a worker. One that finds no room is made in vain, and a worker
    /// may ask for a thousand of the longest in one packet. A short one is always made.
    pub fn takes_list(&self, worker: WorkerId, is_short: bool) -> bool {
        if is_short {
            return true;
        }
        let waits = self.waits(None, Some(worker), None);
        let is_full = match self.workers.get(worker) {
            Some(worker) if !waits => worker.link.is_full(),
            _ => waits && self.hold.is_full(),
        };
        self.row.add(Counter::LaneFull, u64::from(is_full));
        !is_full
    }

    /// Whether this manager is new and has not heard from all of its workers who is with them.
    pub fn awaits_presence(&self) -> bool {
        self.owners_due_at.is_some() || !self.presence.awaited.is_empty()
    }

    /// This manager is new and waits no longer to hear which worker has which clients. Presence
    /// waits for the word of workers that were silent, which stand still or are hung.
    pub fn begin_all_presence(&mut self, silent: BTreeSet<WorkerId>, now: u64) {
        self.presence.awaited_until = now + self.settings.worker_timeout_ms;
        self.presence.awaited = silent;
        self.presence_known();
    }

    /// A worker has told a new manager who is with it, or is gone.
    pub fn await_no_more(&mut self, worker: WorkerId) {
        if self.presence.awaited.remove(&worker) {
            self.presence_known();
        }
    }

    /// A worker that never speaks holds presence up for `worker_timeout` at most.
    pub fn tick_awaited(&mut self, now: u64) {
        if !self.presence.awaited.is_empty() && now >= self.presence.awaited_until {
            self.presence.awaited.clear();
            self.presence_known();
        }
    }

    fn presence_known(&mut self) {
        if !self.awaits_presence() {
            self.spread_all_presence();
            self.resync_presence();
        }
    }

    /// This manager is new and has heard from all who is where: what they have told may differ.
    fn spread_all_presence(&mut self) {
        // Also where nobody is present: somebody may have been when the last manager died.
        let rooms = self.interest.topics().filter(|room| self.settings.has_presence(room));
        let rooms: Vec<Topic> = rooms.cloned().collect();
        for room in rooms {
            // Whoever is present on other nodes is not known yet, and must not seem to be gone.
            if self.cluster.is_some() {
                self.asks_presence(&room);
                continue;
            }
            let list = self.presence.list(&room);
            self.spread_presence(room, true, &list, Reach::AllBut(Vec::new()));
        }
    }

    /// A reload is over, in which members have moved to rooms that had no presence before: these
    /// begin with who is there.
    pub fn begin_new_presence(&mut self, before: &Settings) {
        if self.settings.presence == before.presence {
            return;
        }
        let is_new =
            |room: &&Topic| self.settings.has_presence(room) && !before.has_presence(room);
        let rooms: Vec<Topic> = self.interest.topics().filter(is_new).cloned().collect();
        for room in rooms {
            if !self.asks_presence(&room) {
                let list = self.presence.list(&room);
                self.spread_presence(room, true, &list, Reach::AllBut(Vec::new()));
            }
        }
    }

    /// Whoever was present by this worker alone is gone.
    pub fn forget_presence(&mut self, worker: WorkerId) {
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        let holder = Holder::Worker(worker);
        let had = if self.cluster.is_some() { self.presence.of(holder) } else { Vec::new() };
        let gone = self.presence.forget(holder, now, linger_ms);
        for (room, uid) in had {
            self.tell_present_abroad(&room, &uid);
        }
        for (room, present) in gone {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
        self.await_no_more(worker);
    }

    /// Tells of those who have been without a connection for `presence_linger`.
    pub fn tell_who_left(&mut self, now: u64) {
        for (room, present) in self.presence.leave_due(now) {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    pub fn spread_presence(&mut self, room: Topic, whole: bool, list: &[Present], reach: Reach) {
        if self.awaits_presence() {
            // A new manager sends whole lists once it has heard everybody.
            return;
        }
        let mut body = Vec::new();
        if let Err(error) = codec::encode_within(BODY_BYTES_MAX as u64, &list, &mut body) {
            return tracing::error!(room = room.name(), %error, "presence is not told");
        }
        let message = ManagerToWorker::Presence { room, whole };
        self.spread(Wide { sender: None, message, reach }, Body::Inline(&body));
    }

    /// Answers behind all that the asker was sent of presence, also where that is held.
    fn tell_presence(&mut self, asker: WorkerId, id: RequestId, room: &Topic) {
        if !room.is_too_long() && self.waits_for_presence(asker, id, room) {
            return;
        }
        if self.takes_list(asker, self.presence.is_short(room)) {
            let list = self.presence.list(room);
            let nodes = self.known_presence_nodes(room);
            self.answer_presence(asker, id, &list, nodes);
        }
    }

    /// A worker asked who is present in a room, and is told; in a cluster, also of how many nodes
    /// that is.
    pub fn answer_presence(
        &mut self,
        asker: WorkerId,
        id: RequestId,
        list: &[Present],
        nodes: Nodes,
    ) {
        self.tell_presence_nodes(asker, id, nodes);
        let mut body = Vec::new();
        if let Err(error) = codec::encode_within(BODY_BYTES_MAX as u64, &list, &mut body) {
            return tracing::error!(%error, "presence is not told");
        }
        let message = ManagerToWorker::PresenceAnswer { id };
        let wide = Wide { sender: None, message, reach: Reach::Only(asker) };
        self.spread(wide, Body::Inline(&body));
    }
}
