//! Presence, as handlers hear of it and ask for it.

use std::rc::Rc;

use crate::api::Context;
use crate::api::rooms::{Present, Topic};
use crate::error::Result;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::packet::Body;
use crate::worker::clients::rooms::presence::read_list;
use crate::worker::peers::Peers;

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
        let events = self.rooms.presence.borrow_mut().hear(room, is_whole, list);
        for event in events {
            let handler = self.handler.clone();
            self.call_aside("on_presence", move |context: &Context| {
                handler.on_presence(context, event)
            });
        }
        Ok(())
    }

    /// Who is present in a room, everywhere.
    pub(in crate::worker) fn presence(
        self: &Rc<Self>,
        room: Topic,
    ) -> crate::api::LocalFuture<Vec<Present>> {
        if !self.has_presence(&room) {
            return Box::pin(std::future::ready(Vec::new()));
        }
        let question = self.ask(crate::worker::peers::requests::Waiting::Presence);
        self.say_in_order(&WorkerToManager::PresenceOf { id: question.id, room });
        Box::pin(async move { question.answer().await.unwrap_or_default() })
    }
}
