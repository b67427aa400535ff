//! What the other nodes are told of who is present by clients of this one: changes at once, and
//! lists, as far as the courier takes them.

use super::{Cluster, NodeMessage};
use crate::api::rooms::{Present, Topic};
use crate::ipc::cluster::messages::To;
use crate::ipc::{BODY_BYTES_MAX, codec};
use crate::manager::Exchange;

/// Rooms in which somebody has come or left of whom the others have still to be told. What changes
/// in others meanwhile is told with the next outage.
const UNSAID_MAX: usize = 1 << 18;

impl Cluster {
    fn say_present(&mut self, room: &Topic, present: &Present) {
        let (uid, count) = (present.uid.clone(), present.count);
        let message = NodeMessage::Present { room: room.clone(), uid, count };
        let info = present.info.as_deref().unwrap_or_default();
        let is_lost =
            self.is_up() && !self.send(To::Members(room.clone()), 0, &message, info.as_bytes());
        if is_lost && self.presence.unsaid.len() < UNSAID_MAX {
            self.presence.unsaid.insert(room.clone());
        }
    }

    /// Whether what is long to make for other nodes would be made in vain.
    pub(super) fn is_full(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.is_full())
    }

    pub(super) fn say_presence_list(
        &self,
        to: To,
        id: u64,
        room: &Topic,
        list: &[Present],
    ) -> bool {
        let mut body = Vec::new();
        if let Err(error) = codec::encode_within(BODY_BYTES_MAX as u64, &list, &mut body) {
            tracing::error!(room = room.name(), %error, "presence is not told to other nodes");
            return false;
        }
        self.send(to, 0, &NodeMessage::PresenceList { id, room: room.clone() }, &body)
    }

    /// Says in which rooms somebody is present by clients of this node; false where there was no
    /// room for that.
    pub(super) fn say_presence_rooms(&self, to: To, is_answer: bool, rooms: &[Topic]) -> bool {
        let mut body = Vec::new();
        if let Err(error) = codec::encode_within(BODY_BYTES_MAX as u64, &rooms, &mut body) {
            tracing::error!(%error, "rooms with presence are not told to other nodes");
            return true;
        }
        self.send(to, 0, &NodeMessage::PresenceRooms { is_answer }, &body)
    }
}

impl Exchange {
    /// Who is present in a room by clients of this node has changed.
    pub(in crate::manager) fn tell_present_abroad(&mut self, room: &Topic, uid: &str) {
        if let Some(cluster) = &mut self.cluster {
            let present = self.presence.own_user(room, uid);
            cluster.say_present(room, &present);
        }
    }

    /// Says who is present by clients of this node in the rooms of which others have still to be
    /// told, as far as the courier takes that; then which rooms these are.
    pub(super) fn say_unsaid(&mut self) {
        if self.owners_due_at.is_some() || !self.presence.awaited.is_empty() {
            // Whoever a new manager has not been told of yet would seem to be gone.
            return;
        }
        let Some(cluster) = self.cluster.as_mut().filter(|it| it.is_up()) else { return };
        while !cluster.is_full()
            && let Some(room) = cluster.presence.unsaid.pop_first()
        {
            let list = self.presence.own(&room);
            let to = To::Members(room.clone());
            if !cluster.say_presence_list(to, 0, &room, &list) && cluster.is_full() {
                cluster.presence.unsaid.insert(room);
            }
        }
        if cluster.presence.rooms_unsaid && cluster.presence.unsaid.is_empty() {
            let rooms = self.presence.own_rooms();
            let is_said = cluster.say_presence_rooms(To::All, false, &rooms);
            cluster.presence.rooms_unsaid = !is_said;
        }
    }
}
