//! Presence, as handlers hear of it and ask for it.

use std::rc::Rc;

use crate::api::rooms::{EngineWord, Nodes, PresenceList, Present, Topic};
use crate::api::{Context, LocalFuture, Verdict};
use crate::error::Result;
use crate::ipc::messages::{RequestId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::worker::clients::rooms::presence::read_list;
use crate::worker::peers::Peers;
use crate::worker::peers::requests::Waiting;

impl Peers {
    /// The manager sends who is present in a room.
    pub(in crate::worker) fn hear_presence(
        self: &Rc<Self>,
        room: &Topic,
        is_whole: bool,
        body: Body<'_>,
    ) -> Result<()> {
        let list = read_list(body)?;
        if !self.rooms.table.borrow().has(room) {
            return Ok(());
        }
        let (events, asked) = {
            let mut presence = self.rooms.presence.borrow_mut();
            let events = presence.hear(room, is_whole, list);
            let is_due = |(of, _): &mut (Topic, RequestId)| is_whole && of == room;
            (events, presence.unanswered.extract_if(.., is_due).collect::<Vec<_>>())
        };
        for event in events {
            let handler = self.handler.clone();
            self.call_aside("on_presence", move |context: &Context| {
                handler.on_presence(context, event)
            });
        }
        asked.into_iter().for_each(|(_, id)| self.answer_presence(id, Vec::new()));
        Ok(())
    }

    /// The manager says who is present, behind all that it has sent of presence before. Members of
    /// the room here are told what they have been told, so that the events go on from the list.
    pub(in crate::worker) fn answer_presence(&self, id: RequestId, users: Vec<Present>) {
        let mut waiting = self.requests.waiting.borrow_mut();
        let Some(Waiting::Presence(_, room, _)) = waiting.get(&id) else { return };
        let mut presence = self.rooms.presence.borrow_mut();
        if presence.as_told(room, Vec::new()).is_none() {
            // Who has given up waiting is forgotten here.
            presence.unanswered.retain(|(_, id)| waiting.contains_key(id));
            return presence.unanswered.push((room.clone(), id));
        }
        if let Some(Waiting::Presence(sender, _, known)) = waiting.remove(&id) {
            // Who asked may have given up.
            let _ = sender.send(PresenceList { users, ..known });
        }
    }

    /// The manager says what other nodes have to do with a list, before it sends that.
    pub(super) fn hear_presence_nodes(&self, id: RequestId, nodes: Nodes, away: bool) {
        let mut waiting = self.requests.waiting.borrow_mut();
        if let Some(Waiting::Presence(_, _, known)) = waiting.get_mut(&id) {
            known.nodes = Some(nodes);
            known.engine = Some(if away { EngineWord::Away } else { EngineWord::Ok });
        }
    }

    /// Who is present in a room, everywhere; `Unknown` where nobody says in time.
    pub(in crate::worker) fn presence(
        self: &Rc<Self>,
        room: Topic,
    ) -> LocalFuture<std::result::Result<PresenceList, Verdict>> {
        if !self.has_presence(&room) {
            return Box::pin(std::future::ready(Ok(PresenceList::default())));
        }
        let known = PresenceList::of(self.settings.in_cluster);
        let question = self.ask(|sender| Waiting::Presence(sender, room.clone(), known));
        self.say_in_order(&WorkerToManager::PresenceOf { id: question.id, room: room.clone() });
        let peers = self.clone();
        Box::pin(async move {
            let mut list = question.answer().await.ok_or(Verdict::Unknown)?;
            // Of now, and not of when the answer came: events may have been told since.
            let presence = peers.rooms.presence.borrow();
            let users = std::mem::take(&mut list.users);
            list.users = presence.as_told(&room, users).ok_or(Verdict::Unknown)?;
            Ok(list)
        })
    }

    /// Asks a new manager what the last one has not answered.
    pub(in crate::worker) fn ask_presence_again(&self) {
        let waiting = self.requests.waiting.borrow();
        for (id, question) in waiting.iter() {
            if let Waiting::Presence(_, room, _) = question {
                self.say_in_order(&WorkerToManager::PresenceOf { id: *id, room: room.clone() });
            }
        }
    }
}
