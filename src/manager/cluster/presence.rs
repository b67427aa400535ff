//! Who is present on other nodes. Each node is the only one that says who is present by its own
//! clients: a change at once, and the whole list to whoever asks, which is a node that comes to a
//! room, has been cut off, or has a new manager. What a node said is forgotten with the node.
//!
//! A list is compared with what was known of that node, so hearing it again is no event. Members
//! of a room that are new to this node begin with one list of all nodes: until the others have
//! answered, what they say is kept and not told.

use std::collections::HashSet;

use super::{Cluster, NodeMessage};
use crate::api::rooms::{Present, Topic};
use crate::fd::WorkerId;
use crate::ipc::cluster::messages::To;
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::messages::{Reach, RequestId};
use crate::ipc::{BODY_BYTES_MAX, codec};
use crate::manager::Exchange;
use crate::manager::relay::holders::Holder;
use crate::manager::relay::presence::is_short;
use crate::sys::clock::monotonic_ms;

/// For the other nodes to say who is present there.
const PATIENCE_MS: u64 = 2_000;

impl Cluster {
    /// Asks the others who is present in a room; `None` where nobody can be asked now. A room of
    /// this node is asked about later then: once the engine is back, or when there is room.
    fn ask_presence(&mut self, room: &Topic, elsewhere: bool) -> Option<u64> {
        if !self.is_up() {
            return None;
        }
        // The subscription goes first, so that what changes meanwhile comes here.
        if !elsewhere && self.topics.is_untold(room) {
            self.presence.untold.insert(room.clone());
            return None;
        }
        let asked = self.try_ask_presence(room, elsewhere);
        match asked {
            _ if elsewhere => {}
            Some(_) => _ = self.presence.unasked.remove(room),
            None => _ = self.presence.unasked.insert(room.clone()),
        }
        asked
    }

    fn try_ask_presence(&mut self, room: &Topic, elsewhere: bool) -> Option<u64> {
        if !self.presence.asked.has_room(elsewhere) {
            return None;
        }
        self.last_asked += 1;
        let id = self.last_asked;
        let message = NodeMessage::PresenceAsk { id, room: room.clone() };
        if !self.send(To::Members(room.clone()), id, &message, &[]) {
            return None;
        }
        self.presence.asked.begin(id, room.clone(), elsewhere, monotonic_ms() + PATIENCE_MS);
        Some(id)
    }

    /// Asks about rooms for whose question there was no room.
    pub(super) fn ask_unasked(&mut self) {
        if !self.is_up() {
            return;
        }
        while self.presence.asked.has_room(false)
            && let Some(room) = self.presence.unasked.pop_first()
        {
            // Also of a room that is known: behind an outage all is asked anew.
            if self.presence.asked.about(&room).is_none() {
                self.ask_presence(&room, false);
            }
            if self.presence.unasked.contains(&room) {
                return;
            }
        }
    }
}

impl Exchange {
    /// Whether a room's list has to be asked for before its members are told: then they are told
    /// when it is there.
    pub(in crate::manager) fn asks_presence(&mut self, room: &Topic) -> bool {
        if !self.settings.has_presence(room) {
            return false;
        }
        let Some(cluster) = &mut self.cluster else { return false };
        if cluster.presence.known.contains(room) {
            return false;
        }
        cluster.presence.asked.about(room).is_some() || {
            self.follow_topics();
            let asked = self.cluster.as_mut().and_then(|it| it.ask_presence(room, false));
            asked.is_some()
        }
    }

    /// Whether what other nodes say of a room is heard.
    fn follows(&self, room: &Topic) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.topics.is_subscribed(room))
    }

    /// Whether the answer to a worker's question waits for what other nodes say.
    pub(in crate::manager) fn waits_for_presence(
        &mut self,
        asker: WorkerId,
        id: RequestId,
        room: &Topic,
    ) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let is_followed = cluster.topics.is_subscribed(room);
        if is_followed && cluster.presence.known.contains(room) {
            return false;
        }
        if !cluster.presence.asked.may_wait() {
            return false;
        }
        let question = match is_followed {
            true => cluster.presence.asked.about(room),
            false => cluster.ask_presence(room, true),
        };
        question.map(|question| cluster.presence.asked.wait(question, (asker, id))).is_some()
    }

    /// The engine is there again, or this manager is new: others are told what is here, and asked
    /// what is there. What they know of other rooms is over: the last to leave one may have done
    /// so while nobody could be told, or had been told to a manager that has died.
    pub(in crate::manager) fn resync_presence(&mut self) {
        if self.awaits_presence() {
            return;
        }
        let rooms = self.rooms_with_presence();
        if let Some(cluster) = &mut self.cluster {
            cluster.presence.unsaid.extend(rooms);
        }
        self.ask_anew();
    }

    /// Others are asked anew who is there in each room of this node, and in which rooms at all.
    pub(super) fn ask_anew(&mut self) {
        if self.cluster.is_none() || self.awaits_presence() {
            return;
        }
        let rooms = self.rooms_with_presence();
        let Some(cluster) = &mut self.cluster else { return };
        // A room in which nobody has been for a moment is asked about when somebody comes back.
        let (interest, settings) = (&self.interest, &self.settings);
        let known = &mut cluster.presence.known;
        known.retain(|room| interest.has_any(room) && settings.has_presence(room));
        cluster.presence.rooms_unsaid = true;
        self.say_unsaid();
        let Some(cluster) = &mut self.cluster else { return };
        for room in rooms {
            if cluster.presence.asked.about(&room).is_none() {
                cluster.ask_presence(&room, false);
            }
        }
    }

    /// The rooms with presence that clients of this node are in.
    fn rooms_with_presence(&self) -> Vec<Topic> {
        let rooms = self.interest.topics().filter(|room| self.settings.has_presence(room));
        rooms.cloned().collect()
    }

    pub(super) fn on_node_present(
        &mut self,
        from: NodeId,
        room: Topic,
        uid: String,
        count: u32,
        info: &[u8],
    ) {
        let info = String::from_utf8(info.to_vec()).ok().filter(|info| !info.is_empty());
        let said = Present::new(uid, count, info);
        // Also where nobody has been in the room for a moment: whoever comes back to it begins with
        // what is known.
        if !self.follows(&room) || said.is_too_long() {
            return;
        }
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        let user = (room.clone(), said.uid);
        let changed = self.presence.hear(from, user, (count, said.info), now, linger_ms);
        if let Some(present) = changed {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    pub(super) fn on_presence_ask(&mut self, from: NodeId, id: u64, room: &Topic) {
        // A new manager tells all of them once it knows who is here. Whoever asks for more than the
        // engine takes is not answered, and asks again.
        if self.awaits_presence() || self.cluster.as_ref().is_none_or(Cluster::is_full) {
            return;
        }
        let list = self.presence.own(room);
        if let Some(cluster) = &self.cluster {
            cluster.say_presence_list(To::Node(from.node), id, room, &list);
        }
    }

    /// A node says in which rooms somebody is present by its clients: in others nobody is any more.
    pub(super) fn on_presence_rooms(&mut self, from: NodeId, is_answer: bool, body: &[u8]) {
        let rooms: HashSet<Topic> = match codec::decode_within(BODY_BYTES_MAX as u64, body) {
            Ok(rooms) => rooms,
            Err(error) => {
                return tracing::warn!(node = from.node, %error, "a list of rooms is garbled");
            }
        };
        let known = self.presence.rooms_of(Holder::Node(from));
        let over: Vec<Topic> = known.filter(|room| !rooms.contains(room)).cloned().collect();
        for room in over {
            self.take_presence_list(from, room, Vec::new());
        }
        let is_known = !self.awaits_presence();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.presence.heard.insert(from.node, from.boot);
        // Whoever was cut off has missed what was said here, and a new manager has heard nothing.
        if !is_answer && is_known {
            let rooms = self.presence.own_rooms();
            cluster.say_presence_rooms(To::Node(from.node), true, &rooms);
        }
        let asked = cluster.presence.asked.ids();
        asked.into_iter().for_each(|id| self.check_presence(id));
    }

    /// The list of a room at a node takes the place of what was known of that.
    fn take_presence_list(&mut self, from: NodeId, room: Topic, list: Vec<Present>) {
        let Some(cluster) = &self.cluster else { return };
        let is_known = cluster.presence.known.contains(&room);
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        let changed = self.presence.replace(from, &room, list, now, linger_ms);
        if is_known && !changed.is_empty() {
            self.spread_presence(room, false, &changed, Reach::AllBut(Vec::new()));
        }
    }

    /// A node says all who are present by its clients.
    pub(super) fn on_presence_list(&mut self, from: NodeId, id: u64, room: Topic, body: &[u8]) {
        let mut list: Vec<Present> = match codec::decode_within(BODY_BYTES_MAX as u64, body) {
            Ok(list) => list,
            Err(error) => {
                return tracing::warn!(node = from.node, %error, "a list of presence is garbled");
            }
        };
        list.retain(|present| !present.is_too_long());
        let Some(cluster) = &mut self.cluster else { return };
        match cluster.presence.asked.answer(id, list) {
            Ok(unheard) => self.presence.count_unheard(unheard),
            Err(list) if self.follows(&room) => self.take_presence_list(from, room, list),
            Err(_) => {}
        }
        self.check_presence(id);
    }

    /// The engine has a question of ours; true if it was one about presence.
    pub(super) fn on_presence_sent(&mut self, id: u64, nodes: Option<u32>) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let Some(asked) = cluster.presence.asked.get_mut(id) else { return false };
        asked.nodes = nodes;
        // A node that comes back later was not asked.
        asked.misses_some = !cluster.silent.is_empty() || !cluster.unheard.is_empty();
        match nodes {
            Some(_) => self.check_presence(id),
            None => self.end_presence(id, false),
        }
        true
    }

    /// Ends a question that all have answered.
    fn check_presence(&mut self, id: u64) {
        let Some(cluster) = self.cluster.as_ref().filter(|it| it.has_heard_all()) else { return };
        let asked = cluster.presence.asked.get(id);
        if asked.is_some_and(|asked| asked.nodes.is_some_and(|nodes| asked.answered >= nodes)) {
            self.end_presence(id, true);
        }
    }

    /// The answers to a question are all there, or are not waited for any longer. A list of which
    /// a part is missing would say of somebody who is there that they are gone, so it is for those
    /// alone who asked for it.
    fn end_presence(&mut self, id: u64, whole: bool) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(asked) = cluster.presence.asked.end(id) else { return };
        let nodes = cluster.asked_presence_nodes(&asked, whole, self.presence.cut_in(&asked.room));
        let mut list = self.presence.list(&asked.room);
        if let Some(elsewhere) = asked.elsewhere {
            elsewhere.add_to(&mut list);
        } else if whole {
            cluster.presence.known.insert(asked.room.clone());
            self.spread_presence(asked.room, true, &list, Reach::AllBut(Vec::new()));
        }
        for (asker, id) in asked.waiting {
            if self.takes_list(asker, is_short(&list)) {
                self.answer_presence(asker, id, &list, nodes);
            }
        }
    }

    /// Nobody of this node is in these rooms any more: what others say of them is not heard.
    pub(super) fn leave_presence(&mut self, rooms: &[Topic]) {
        for room in rooms {
            // The answers are of a time until which this node has heard of the room: a room that
            // they made known would not be asked about when somebody comes to it again.
            let question = self.cluster.as_ref().and_then(|it| it.presence.asked.about(room));
            if let Some(question) = question {
                self.end_presence(question, false);
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.presence.known.remove(room);
                cluster.presence.unasked.remove(room);
                cluster.presence.untold.remove(room);
            }
            self.presence.forget_nodes_in(room);
        }
    }

    /// A run of a node is over: whoever was present by its clients alone is gone.
    pub(super) fn forget_node_presence(&mut self, node: NodeId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.presence.heard.retain(|it, boot| (*it, *boot) != (node.node, node.boot));
        }
        let (now, linger_ms) = (monotonic_ms(), self.settings.presence_linger_ms);
        for (room, present) in self.presence.forget(Holder::Node(node), now, linger_ms) {
            self.spread_presence(room, false, &[present], Reach::AllBut(Vec::new()));
        }
    }

    /// Forgets what dead nodes have said.
    pub(super) fn forget_dead_nodes(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let is_over = |id: &NodeId| match cluster.nodes.iter().find(|it| it.node == id.node) {
            Some(record) => record.boot != id.boot,
            None => cluster.certain,
        };
        let heard = cluster.presence.heard.iter().map(|(&node, &boot)| NodeId { node, boot });
        let known = self.presence.nodes().into_iter().chain(heard);
        let dead: HashSet<NodeId> = known.filter(is_over).collect();
        dead.into_iter().for_each(|node| self.forget_node_presence(node));
    }

    /// Where some have not answered in time, all are asked again.
    pub(super) fn tick_presence(&mut self, now: u64) {
        let Some(cluster) = &self.cluster else { return };
        let due = cluster.presence.asked.due(now);
        if !due.is_empty() && !self.awaits_presence() {
            self.ask_unheard();
        }
        due.into_iter().for_each(|id| self.give_up_presence(id));
        self.say_unsaid();
        if let Some(cluster) = &mut self.cluster {
            cluster.ask_unasked();
        }
    }

    /// Asks the nodes that have not said in which rooms they have somebody: they may have been cut
    /// off when all were asked.
    fn ask_unheard(&self) {
        let Some(cluster) = &self.cluster else { return };
        let mut unheard = cluster.unheard_runs().peekable();
        if unheard.peek().is_none() {
            return;
        }
        let rooms = self.presence.own_rooms();
        for node in unheard {
            cluster.say_presence_rooms(To::Node(node.node), false, &rooms);
        }
    }

    fn give_up_presence(&mut self, id: u64) {
        let Some(cluster) = &self.cluster else { return };
        let Some(asked) = cluster.presence.asked.get(id) else { return };
        // A run that hangs still has its subscriptions when it is dead for everybody.
        let others = cluster.nodes.len().saturating_sub(1) as u32;
        let whole = asked.nodes.is_some() && asked.answered >= others && cluster.has_heard_all();
        let again = (!whole && asked.elsewhere.is_none()).then(|| asked.room.clone());
        self.end_presence(id, whole);
        if let (Some(cluster), Some(room)) = (&mut self.cluster, again)
            && self.interest.has_any(&room)
        {
            cluster.ask_presence(&room, false);
        }
    }

    /// The courier is gone, and with it what was asked: all is asked again when the next is there.
    pub(super) fn lose_presence(&mut self) {
        let asked = self.cluster.as_ref().map(|it| it.presence.asked.ids());
        asked.into_iter().flatten().for_each(|id| self.end_presence(id, false));
    }
}
