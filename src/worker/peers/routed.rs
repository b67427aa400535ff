//! What others send to clients of ours: by the manager, or straight from their worker.

use std::rc::Rc;

use bytes::Bytes;

use super::Peers;
use crate::api::rooms::{Belongings, TOPICS_MAX};
use crate::api::{Info, Verdict};
use crate::close::{Cause, REASON_BYTES_MAX};
use crate::error::Result;
use crate::fd::Fd;
use crate::ipc::DATA_LANE_BYTES_MAX;
use crate::ipc::messages::{ManagerToWorker, WorkerToManager};
use crate::ipc::packet::Body;
use crate::worker::clients::key::Key;
use crate::worker::clients::rooms::INFO_ROOMS_MAX;

impl Peers {
    /// Refuses a message that is longer than anybody here takes, or for more topics; true if it
    /// did. The body is not read then: another worker says how long it is.
    pub(in crate::worker) fn refuses_length(
        &self,
        message: &ManagerToWorker,
        body: &Body<'_>,
    ) -> bool {
        let bytes_max = match message {
            ManagerToWorker::Push { .. }
            | ManagerToWorker::Broadcast { .. }
            | ManagerToWorker::Call { .. } => self.settings.push_bytes,
            ManagerToWorker::WorkerMessage { .. } => DATA_LANE_BYTES_MAX,
            _ => return false,
        };
        let topics = match message {
            ManagerToWorker::Call { call, .. } => call.topics.len(),
            _ => 0,
        };
        if body.len() <= bytes_max && topics <= TOPICS_MAX {
            return false;
        }
        let verdict = self.count_verdict(Verdict::TooBig);
        match message {
            ManagerToWorker::Push { origin, id, .. } => self.tell_verdict(*origin, *id, verdict),
            ManagerToWorker::Call { origin, id, .. } if *id != 0 => {
                let (origin, id) = (*origin, *id);
                self.say(&WorkerToManager::Tally { origin, id, queued: 0, full: 0 });
            }
            _ => {}
        }
        true
    }

    /// A message or a question for one client of ours, or a message for all.
    pub(in crate::worker) fn manager_says_to_clients(
        self: &Rc<Self>,
        message: ManagerToWorker,
        body: Body<'_>,
    ) -> Result<()> {
        match message {
            ManagerToWorker::Push { origin, id, fd, opcode } => {
                let verdict = match self.routed(fd) {
                    Ok(key) => self.push_here(key, opcode, &body.into_bytes()?.into()),
                    Err(verdict) => self.count_verdict(verdict),
                };
                self.tell_verdict(origin, id, verdict);
            }
            ManagerToWorker::Broadcast { opcode, except } => {
                let except = Fd::try_from(except).ok();
                self.broadcast_here(opcode, &body.into_bytes()?, |it| it.fd != except);
            }
            ManagerToWorker::Close { origin, id, fd, code, operator } => {
                // The sender has cut it: a longer one is of no worker of ours, and is not read.
                let too_long = body.len() > REASON_BYTES_MAX;
                let reason = if too_long { Bytes::new() } else { body.into_bytes()? };
                let cause = if operator { Cause::OperatorClosed } else { Cause::HandlerClosed };
                let verdict = self.close_routed(fd, code, &reason, cause);
                self.tell_verdict(origin, id, verdict);
            }
            ManagerToWorker::Protect { origin, id, fd, on } => {
                let verdict = self.routed(fd).map(|key| self.protect_here(key, on));
                self.tell_verdict(origin, id, verdict.unwrap_or_else(|verdict| verdict));
            }
            ManagerToWorker::Info { origin, id, fd } => {
                let info = Fd::try_from(fd).ok().and_then(|fd| self.info_here(fd));
                self.say(&WorkerToManager::InfoAnswer { origin, id, info });
            }
            _ => {}
        }
        Ok(())
    }

    /// Closes a client, or a plain HTTP connection, that another process named.
    fn close_routed(self: &Rc<Self>, fd: u64, code: u16, reason: &[u8], cause: Cause) -> Verdict {
        if Fd::try_from(fd).is_ok_and(|fd| self.http.close(fd)) {
            return Verdict::Queued;
        }
        match self.routed(fd) {
            Ok(key) => self.close_here(key, code, &String::from_utf8_lossy(reason), cause),
            Err(verdict) => verdict,
        }
    }

    /// Whom a routed push or close is for. One that is on its way elsewhere can take nothing
    /// now: nothing was queued, so the pusher may try again.
    pub(in crate::worker) fn routed(&self, fd: u64) -> std::result::Result<Key, Verdict> {
        let fd = Fd::try_from(fd).map_err(|_| Verdict::Gone)?;
        match self.table.borrow().find(fd) {
            Some(key) => Ok(key),
            None if self.transit.borrow().is_away(fd.as_u64()) => Err(Verdict::Full),
            None => Err(Verdict::Gone),
        }
    }

    pub(in crate::worker) fn info_here(&self, fd: Fd) -> Option<Info> {
        let table = self.table.borrow();
        let Some(connection) = table.find(fd).and_then(|key| table.get(key)) else {
            return self.http.info(fd, self.slot());
        };
        let process = self.handler.process_of(fd);
        let Belongings { mut rooms, uid, session } = self.belongings_of(connection);
        rooms.truncate(INFO_ROOMS_MAX);
        let info = connection.info(self.slot(), self.now_ms.get())?;
        Some(Info { process, rooms, uid, session, ..info })
    }
}
