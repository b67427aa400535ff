//! A pass becomes ours: what was deferred for its connections is sent, and then these go on.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Peers;
use crate::api::{Message, Verdict};
use crate::close::Cause;
use crate::error::Result;
use crate::fd::Fd;
use crate::ipc::messages::{ManagerToWorker, PassId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::sys::point;
use crate::worker::base::phase::Phase;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;
use crate::worker::moving::adopt::Arriving;
use crate::worker::moving::deferred::DeferredSend;

impl Peers {
    fn send_deferred(self: &Rc<Self>, send: DeferredSend) {
        match send {
            DeferredSend::Push { fd, message, id } => {
                let verdict = self.push_to(fd, &message);
                if id != 0 {
                    self.answer_verdict(id, verdict);
                }
            }
            DeferredSend::Broadcast { fds, message } => {
                for fd in fds {
                    // One that has ended meanwhile has missed nothing.
                    if self.key_of(fd).is_some() {
                        self.push_to(fd, &message);
                    }
                }
            }
            DeferredSend::Close { fd, code, reason } => {
                if let Some(key) = self.key_of(fd) {
                    self.close_here(key, code, &reason, Cause::HandlerClosed);
                }
            }
            DeferredSend::Protect { fd, on } => {
                if let Some(key) = self.key_of(fd) {
                    self.protect_here(key, on);
                }
            }
            DeferredSend::Change { fd, change, id } => {
                let joins = change.joins().is_some();
                let key = self.key_of(fd);
                let verdict = key.map_or(Verdict::Gone, |key| self.change_here(key, change));
                self.when_noted(joins && verdict == Verdict::Queued, id, move |worker| {
                    worker.answer_verdict(id, verdict);
                });
            }
            DeferredSend::Call { fds, call, body, id } => {
                self.send_deferred_call(&fds, &call, &body, id)
            }
        }
    }

    fn key_of(&self, fd: Fd) -> Option<Key> {
        self.table.borrow().find(fd)
    }

    fn push_to(self: &Rc<Self>, fd: Fd, message: &Message<'_>) -> Verdict {
        match self.key_of(fd) {
            Some(key) => self.push_here(key, message.opcode, &message.data),
            None => self.count_verdict(Verdict::Gone),
        }
    }

    /// What we have of a pass is ours, and what was sent to it before has been sent here. What our
    /// own handlers sent to it meanwhile follows, and then the connections go on.
    pub(in crate::worker) fn own(self: &Rc<Self>, pass: PassId) {
        point::reached("new-hears-own");
        let (_, sends) = self.transit.borrow_mut().own(pass);
        let arriving = self.arriving.borrow_mut().remove(&pass).unwrap_or_default();
        for one in &arriving {
            if let Arriving::Open { key, .. } = one
                && let Some(connection) = self.table.borrow_mut().get_mut(*key)
            {
                (connection.arriving, connection.held) = (false, false);
                self.look_again(*key, connection);
                if connection.outbox.is_some() {
                    self.turn.flush_later(*key, connection);
                }
            }
        }
        self.own_rooms();
        for send in sends {
            self.send_deferred(send);
        }
        let is_any = !arriving.is_empty();
        for one in arriving {
            match one {
                Arriving::Open { key, fd, frozen } => self.attach(key, fd, frozen),
                Arriving::Pending { fd, socket, request } => {
                    self.adopt_pending(fd, socket, request);
                }
            }
        }
        point::reached("new-serves");
        if is_any && self.phase.get() == Phase::HandedOver {
            // They came back, and can be given again.
            self.say_in_order(&WorkerToManager::CanGive);
        }
    }

    /// Takes what has come as ours, since this process leaves: whoever it came from has it no more,
    /// or leaves as well.
    pub(in crate::worker) fn own_all(self: &Rc<Self>) {
        let passes = self.transit.borrow().passes();
        for pass in passes {
            self.own(pass);
        }
    }

    /// The manager says something of connections on their way.
    pub(in crate::worker) fn moves(
        self: &Rc<Self>,
        message: ManagerToWorker,
        body: Body<'_>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        match message {
            ManagerToWorker::Give { pass } => self.give(pass),
            ManagerToWorker::Adopt { pass, from, fds: numbers } => {
                let sockets = std::mem::take(fds);
                self.adopt((pass, from), &numbers, &self.read_batch(body)?, sockets)?;
            }
            ManagerToWorker::Take { pass } => self.take(pass),
            ManagerToWorker::Settled { pass, taken } => self.settled(pass, &taken),
            ManagerToWorker::Own { pass } => self.own(pass),
            ManagerToWorker::Missed { opcode, except } => {
                let except = Fd::try_from(except).ok();
                let to = |it: &Connection| it.arriving && it.fd != except;
                self.broadcast_here(opcode, &body.into_bytes()?, to);
            }
            _ => {}
        }
        Ok(())
    }
}
