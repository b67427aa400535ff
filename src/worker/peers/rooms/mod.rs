//! Rooms, as handlers and other workers ask for them: of members wherever these are.
//!
//! - [`change`]: joins, leaves, binds, sessions and expiry.
//! - [`call`]: publishes and questions to all members. [`gather`]: their answers.
//! - [`lists`]: members and rooms in pages, those here; [`pages`]: those of all workers.
//! - [`whom`]: which members are meant.
//! - [`presence`]: who is in rooms that have presence.

mod call;
mod change;
mod gather;
mod lists;
mod pages;
mod presence;
mod whom;

use std::rc::Rc;

use super::Peers;
use crate::api::rooms::Nodes;
use crate::error::Result;
use crate::ipc::messages::ManagerToWorker;
use crate::ipc::packet::Body;
use crate::worker::clients::rooms::presence::read_list;

impl Peers {
    /// What the manager says of rooms.
    pub(in crate::worker) fn manager_says_of_rooms(
        self: &Rc<Self>,
        message: ManagerToWorker,
        body: Body<'_>,
    ) -> Result<()> {
        match message {
            ManagerToWorker::Change { origin, id, fd, mark, change } => {
                self.change_routed((origin, id), fd, mark, change);
            }
            ManagerToWorker::Call { origin, id, only, call } => {
                self.call_routed((origin, id), &only, &call, body)?;
            }
            ManagerToWorker::Asked { id, workers, refused, last } => {
                self.gathered(id, |it| it.asked(workers, refused, last));
            }
            ManagerToWorker::Tally { id, queued, full } => {
                self.gathered(id, |it| it.counted(queued, full));
            }
            ManagerToWorker::Members { id, part, last } => {
                self.gathered(id, |it| it.listed(part, last));
            }
            ManagerToWorker::Rooms { id, part, last } => {
                self.gathered(id, |it| it.named(part, last));
            }
            ManagerToWorker::Noted { number } => self.noted(number),
            ManagerToWorker::Presence { room, whole } => self.hear_presence(&room, whole, body)?,
            ManagerToWorker::NodesAsked { id, nodes, away } => {
                self.gathered(id, |it| it.nodes_asked(nodes, away));
            }
            ManagerToWorker::NodeTally { id, queued, full, whole } => {
                self.gathered(id, |it| it.node_counted(queued, full, whole));
            }
            ManagerToWorker::PresenceAnswer { id } => {
                self.answer_presence(id, read_list(body)?);
            }
            ManagerToWorker::PresenceNodes { id, asked, answered, away } => {
                self.hear_presence_nodes(id, Nodes { asked, answered }, away);
            }
            _ => {}
        }
        Ok(())
    }
}
