//! What workers say of rooms.

use super::message::{Address, Reply, Routed, Wide};
use crate::api::rooms::{Present, Topic};
use crate::fd::WorkerId;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::{BODY_BYTES_MAX, codec};
use crate::manager::Manager;
use crate::sys::clock::monotonic_ms;

impl Manager {
    /// What a worker says of rooms.
    pub fn on_room_message(&mut self, from: WorkerId, message: WorkerToManager, body: Body<'_>) {
        let origin = Origin::Worker(from);
        match message {
            WorkerToManager::Change { id, fd, change } => {
                self.deliver(Address::Client(fd), Routed::Change { origin, id, change }, body);
            }
            WorkerToManager::Call { id, reach, call } => {
                let message = ManagerToWorker::Call { origin, id, only: Vec::new(), call };
                self.spread(Wide { sender: Some(from), message, reach }, body);
            }
            WorkerToManager::Tally { origin, id, queued, full } => {
                self.answer(origin, id, Reply::Tally { queued, full });
            }
            WorkerToManager::Members { origin, id, part, last } => {
                self.answer(origin, id, Reply::Members { part, last });
            }
            WorkerToManager::Rooms { origin, id, part, last } => {
                self.answer(origin, id, Reply::Rooms { part, last });
            }
            WorkerToManager::Present { room, uid, count } => {
                self.on_present(from, room, uid, count, body);
            }
            WorkerToManager::PresenceOf { id, room } => self.tell_presence(from, id, &room),
            WorkerToManager::Interest { number, joined, left, settled } => {
                self.on_interest(from, number, joined, left, settled);
            }
            _ => {}
        }
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
    ) {
        for topic in joined {
            self.interest.told(from, topic.clone());
            self.begin_presence(from, topic);
        }
        for topic in left {
            self.interest.left(from, topic);
        }
        for (topic, mark) in settled {
            self.interest.settled(from, topic, mark);
        }
        if number != 0
            && let Some(worker) = self.workers.get(from)
        {
            worker.noted(number);
        }
    }

    /// A worker says how many connections of a user it has in a room.
    fn on_present(
        &mut self,
        from: WorkerId,
        room: Topic,
        uid: String,
        count: u32,
        body: Body<'_>,
    ) {
        let info = match body.into_bytes() {
            Ok(info) if info.is_empty() => None,
            Ok(info) => String::from_utf8(info.to_vec()).ok(),
            Err(error) => {
                tracing::error!(worker = %from, %error, "the info of a user cannot be read");
                None
            }
        };
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        let user = (room.clone(), uid);
        if let Some(present) = self.presence.set(from, user, (count, info), now, linger_ms) {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    fn has_presence(&self, room: &Topic) -> bool {
        let mut prefixes = self.settings.presence.iter();
        !room.is_user() && prefixes.any(|prefix| room.name().starts_with(prefix.as_str()))
    }

    /// A worker is new to a room: its members begin with who is there, also where that is nobody.
    fn begin_presence(&mut self, worker: WorkerId, room: Topic) {
        if self.has_presence(&room) {
            let list = self.presence.list(&room);
            self.spread_presence(room, true, &list, Reach::Only(worker));
        }
    }

    /// This manager is new and has heard from all who is where: what they have told may differ.
    pub fn spread_all_presence(&mut self) {
        // Also where nobody is present: somebody may have been when the last manager died.
        let rooms: Vec<Topic> =
            self.interest.topics().filter(|room| self.has_presence(room)).cloned().collect();
        for room in rooms {
            let list = self.presence.list(&room);
            self.spread_presence(room, true, &list, Reach::AllBut(Vec::new()));
        }
    }

    /// Whoever was present by this worker alone is gone.
    pub fn forget_presence(&mut self, worker: WorkerId) {
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        for (room, present) in self.presence.forget(worker, now, linger_ms) {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    /// Tells of those who have been without a connection for `presence_linger`.
    pub fn tell_who_left(&mut self, now: u64) {
        for (room, present) in self.presence.leave_due(now) {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    fn spread_presence(&mut self, room: Topic, whole: bool, list: &[Present], reach: Reach) {
        if self.owners_due_at.is_some() {
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
        let mut body = Vec::new();
        let list = self.presence.list(room);
        if let Err(error) = codec::encode_within(BODY_BYTES_MAX as u64, &list, &mut body) {
            return tracing::error!(room = room.name(), %error, "presence is not told");
        }
        let message = ManagerToWorker::PresenceAnswer { id };
        let wide = Wide { sender: None, message, reach: Reach::Only(asker) };
        self.spread(wide, Body::Inline(&body));
    }
}
