//! Broadcasts: to the clients of all workers but the sender, whatever becomes of those clients.

use std::collections::HashSet;
use std::os::fd::AsFd;

use bytes::Bytes;

use super::Manager;
use super::hold::{Item, OwnedBody, Scope};
use super::switch::{Address, Routed};
use crate::api::{Opcode, Verdict};
use crate::error::Error;
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::Sent;
use crate::ipc::messages::{ManagerToWorker, Origin};
use crate::ipc::packet::Body;

impl Manager {
    /// Brings a message to the clients of all workers but the sender. Answers with how many slots
    /// that is.
    pub fn broadcast(
        &mut self,
        sender: Option<WorkerId>,
        opcode: Opcode,
        except: u64,
        body: Body<'_>,
    ) -> usize {
        let scope = self.hold.scope;
        let targets = self.workers.iter().filter(|w| w.may_have_clients());
        let targets = targets.map(|worker| worker.id()).filter(|id| Some(*id) != sender);
        let has_given = self.given_now().is_some();
        let waits_for = |id: &WorkerId| match scope {
            // The clients that the old worker gave have not had it, and will be with the new one.
            Scope::Handover { from, to } if sender == Some(from) => has_given && *id == to,
            scope => scope.holds(sender, Some(*id)),
        };
        let (held, now): (Vec<_>, Vec<_>) = targets.partition(waits_for);
        let is_giver = matches!(scope, Scope::Handover { from, .. } if sender == Some(from));
        let waits = scope == Scope::All || !held.is_empty() || (is_giver && has_given);
        // During a reload a slot has two processes.
        let reached: HashSet<Slot> = held.iter().chain(&now).map(|id| id.slot).collect();
        let reached = reached.len();
        let kept = match body {
            Body::Inline(bytes) => {
                self.broadcast_to(&now, opcode, except, |_| Ok(Body::Inline(bytes)));
                if !waits {
                    return reached;
                }
                OwnedBody::Bytes(Bytes::copy_from_slice(bytes))
            }
            Body::Beside(memfd, len) => {
                self.broadcast_to(&now, opcode, except, |_| {
                    Ok(Body::Beside(memfd.as_fd().try_clone_to_owned()?, len))
                });
                OwnedBody::Memfd(memfd, len)
            }
        };
        if waits {
            let (adopted, len) = (self.adopted_so_far(), kept.len());
            let item = Item::All { opcode, except, sender, adopted, body: kept };
            if self.hold.add(item, len).is_err() {
                self.refuse_broadcast(sender, 1);
            }
        }
        reached
    }

    /// Sends a broadcast to these; `body` makes the body for each.
    pub fn broadcast_to<'a>(
        &mut self,
        targets: &[WorkerId],
        opcode: Opcode,
        except: u64,
        body: impl Fn(WorkerId) -> std::io::Result<Body<'a>>,
    ) {
        let message = ManagerToWorker::Broadcast { opcode, except };
        for id in targets {
            let Some(worker) = self.workers.get(*id) else { continue };
            let sent = body(*id)
                .map_err(|error| Error::io("dup a message's memfd", error))
                .and_then(|body| worker.link.send_to_all(&message, body));
            match sent {
                Ok(Sent::Queued) => self.traffic.relayed += 1,
                Ok(Sent::Full) => self.traffic.refused += 1,
                Err(error) => {
                    tracing::error!(worker = %id, %error, "a broadcast could not be passed on");
                    self.traffic.refused += 1;
                }
            }
        }
    }

    pub fn refuse_broadcast(&mut self, sender: Option<WorkerId>, count: u64) {
        self.traffic.refused += count;
        if let Some(worker) = sender.and_then(|id| self.workers.get_mut(id)) {
            worker.refused += count;
        }
    }

    /// A broadcast that waited for a handover: each client is now at one end of it.
    pub fn release_broadcast(
        &mut self,
        scope: Scope,
        sender: Option<WorkerId>,
        late: &[u64],
        opcode: Opcode,
        except: u64,
        kept: &OwnedBody,
    ) {
        let Scope::Handover { from, to } = scope else {
            match kept.body() {
                Ok(body) => {
                    self.broadcast(sender, opcode, except, body);
                }
                Err(_) => self.refuse_broadcast(sender, 1),
            }
            return;
        };
        if sender == Some(from) && self.workers.get(to).is_none() {
            // Whom the old worker had given and nobody took has missed it.
            self.refuse_broadcast(sender, 1);
        }
        let ends: Vec<_> = [from, to].into_iter().filter(|id| Some(*id) != sender).collect();
        self.broadcast_to(&ends, opcode, except, |_| kept.body());
        if sender == Some(to) {
            // The new owner has served the clients it had then, and not those that came later.
            for fd in late.iter().filter(|fd| **fd != except) {
                let origin = Origin::Worker(to);
                let routed = Routed::Push { origin, id: 0, opcode };
                match kept.body() {
                    Ok(body) => self.deliver(Address::Client(*fd), routed, body),
                    Err(_) => self.refuse(routed, Verdict::Full),
                }
            }
        }
    }
}
