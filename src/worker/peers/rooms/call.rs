//! Publishes and questions to all members of some topics: to those here at once, to all others in
//! one packet to the manager, which passes the packet on to every worker that has members. Who can
//! be sent to directly is, so that a publish keeps its place among what goes there already.

use std::rc::Rc;

use bytes::Bytes;

use super::whom::{Whom, union_of};
use crate::api::rooms::{Act, Call, Publish, TOPICS_MAX, Tally, Topic};
use crate::api::{LocalFuture, Verdict};
use crate::close::Cause;
use crate::fd::Fd;
use crate::ipc::messages::{Origin, PassId, Reach, RequestId, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::worker::clients::broadcast_buffer::Shared;
use crate::worker::clients::connection::Stage;
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::peers::Peers;

/// How many members were reached, and how many were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Counted {
    pub queued: u64,
    pub full: u64,
}

impl Peers {
    /// Sends a message to the members of some topics. `gather` is told of what becomes of it,
    /// under its number.
    pub(in crate::worker) fn publish(
        self: &Rc<Self>,
        publish: Publish,
        gather: Option<RequestId>,
    ) -> Verdict {
        let Publish { topics, except, opcode, data } = publish;
        if self.is_too_big(opcode, &data) || self.is_beyond_names(&topics) {
            return self.count_verdict(Verdict::TooBig);
        }
        self.add(Counter::Publishes, 1);
        if topics.is_empty() && gather.is_none() {
            // Nobody is a member of no room, and a call of no topic goes to every worker and node.
            return Verdict::Relayed;
        }
        let except = except.map_or(0, Fd::as_u64);
        self.ask_all(Call { topics, except, act: Act::Publish(opcode) }, &data, gather)
    }

    /// Sends a message to the members of some topics that are here, and to nobody elsewhere.
    pub(in crate::worker) fn publish_to_own(self: &Rc<Self>, publish: Publish) -> Tally {
        let mut tally = Tally { workers: 1, answered: 1, ..Tally::default() };
        let Publish { topics, except, opcode, data } = publish;
        if self.is_too_big(opcode, &data) {
            self.count_verdict(Verdict::TooBig);
            return tally;
        }
        let whom = Whom { except: except.map_or(0, Fd::as_u64), only: &[], ours_alone: false };
        let counted = self.publish_here(&topics, opcode, &data, whom);
        (tally.queued, tally.full) = (counted.queued, counted.full);
        tally
    }

    /// Whether no member can be of these.
    fn is_beyond_names(&self, topics: &[Topic]) -> bool {
        let config = &self.settings.config;
        let longest = config.room_name_max.max(config.uid_max);
        topics.len() > TOPICS_MAX || topics.iter().any(|topic| topic.name().len() > longest)
    }

    /// Asks the members of some topics for something, wherever they are.
    pub(super) fn ask_all(
        self: &Rc<Self>,
        call: Call,
        body: &Bytes,
        gather: Option<RequestId>,
    ) -> Verdict {
        // What asks changes nothing, so it need not wait until a connection is ours for everybody.
        let waits = matches!(call.act, Act::Publish(_) | Act::Close { .. });
        let whom = Whom { except: call.except, only: &[], ours_alone: waits };
        let counted = self.call_here(&call, body, whom);
        let id = gather.unwrap_or(0);
        if let Some(id) = gather {
            self.gathered(id, |it| it.asked(1, 0, false));
            match call.act {
                Act::List { after, limit } => {
                    let members = self.list_here(&call.topics, whom, after, limit);
                    self.gathered(id, |it| it.listed(members, true));
                }
                Act::Rooms { limit } => {
                    let (peers, after) = (self.clone(), body.clone());
                    tokio::task::spawn_local(async move {
                        let rooms = peers.rooms_here(&after, limit).await;
                        peers.gathered(id, |it| it.named(rooms, true));
                    });
                }
                _ => self.gathered(id, |it| it.counted(counted.queued, counted.full)),
            }
        }
        if waits && self.rooms.has_arrivals.get() {
            self.defer_call(&call, body, id);
        }
        self.send_call(id, call, body)
    }

    fn send_call(&self, id: RequestId, call: Call, body: &[u8]) -> Verdict {
        let message = WorkerToWorker::Call { id, call };
        let local_only = self.engine_away.get();
        let (direct, refused) = self.direct.send_to_each(&message, body);
        if refused > 0 {
            self.add(Counter::LaneFull, u64::from(refused));
        }
        if id != 0 {
            self.gathered(id, |it| it.asked(direct.len() as u32, refused, false));
        }
        let verdict = self.relay(&message.by_manager(Reach::AllBut(direct)), body);
        if id != 0 && verdict != Verdict::Relayed {
            // Whom the manager would have asked nobody knows.
            self.gathered(id, |it| {
                it.asked(1, 1, true);
                if self.settings.in_cluster {
                    it.nodes_asked(None, local_only);
                }
            });
        }
        if local_only && verdict == Verdict::Relayed { Verdict::LocalOnly } else { verdict }
    }

    /// Keeps it for those that are not ours yet, until they are. Those for which we have not
    /// answered yet hear of it by the manager.
    fn defer_call(&self, call: &Call, body: &Bytes, id: RequestId) {
        let passes: Vec<(PassId, Vec<u64>)> = {
            let transit = self.transit.borrow();
            let deferring = transit.deferring();
            deferring.map(|(pass, fds)| (pass, fds.iter().copied().collect())).collect()
        };
        for (pass, fds) in passes {
            let send = DeferredSend::Call { fds, call: call.clone(), body: body.clone(), id };
            let deferred = self.defer(pass, send) == Verdict::Relayed;
            if id != 0 {
                self.gathered(id, |it| it.asked(1, u32::from(!deferred), false));
            }
        }
    }

    /// What was kept goes to those that were not ours then, and are members now.
    pub(in crate::worker) fn send_deferred_call(
        self: &Rc<Self>,
        fds: &[u64],
        call: &Call,
        body: &Bytes,
        id: RequestId,
    ) {
        let whom = Whom { except: call.except, only: fds, ours_alone: false };
        let counted = self.call_here(call, body, whom);
        if id != 0 {
            self.gathered(id, |it| it.counted(counted.queued, counted.full));
        }
    }

    /// Another worker, or an operator, asks our members for something.
    pub(in crate::worker) fn call_routed(
        self: &Rc<Self>,
        (origin, id): (Origin, RequestId),
        only: &[u64],
        call: &Call,
        body: Body<'_>,
    ) -> crate::error::Result<()> {
        let whom = Whom { except: call.except, only, ours_alone: false };
        match call.act {
            Act::List { after, limit } => {
                self.tell_list(origin, id, self.list_here(&call.topics, whom, after, limit));
                return Ok(());
            }
            Act::Rooms { limit } => {
                // Who moves is with one of the workers that are asked in full.
                let limit = if only.is_empty() { limit } else { 0 };
                self.tell_rooms((origin, id), body.into_bytes()?, limit);
                return Ok(());
            }
            _ => {}
        }
        let Counted { queued, full } = self.call_here(call, &body.into_bytes()?, whom);
        if id != 0 {
            self.say(&WorkerToManager::Tally { origin, id, queued, full });
        }
        Ok(())
    }

    /// Asks our own members.
    fn call_here(self: &Rc<Self>, call: &Call, body: &Bytes, whom: Whom<'_>) -> Counted {
        match call.act {
            Act::Publish(opcode) => self.publish_here(&call.topics, opcode, body, whom),
            Act::Close { code, operator } => {
                let cause = if operator { Cause::OperatorClosed } else { Cause::HandlerClosed };
                let reason = String::from_utf8_lossy(body);
                let keys = self.keys_of(&call.topics, whom);
                let closed = keys
                    .into_iter()
                    .filter(|key| self.close_here(*key, code, &reason, cause) == Verdict::Queued);
                Counted { queued: closed.count() as u64, full: 0 }
            }
            Act::Count => {
                Counted { queued: self.keys_of(&call.topics, whom).len() as u64, full: 0 }
            }
            Act::List { .. } | Act::Rooms { .. } => Counted::default(),
        }
    }

    /// Pushes to every member of this worker that is meant, each once.
    fn publish_here(
        self: &Rc<Self>,
        topics: &[Topic],
        opcode: crate::api::Opcode,
        data: &Bytes,
        whom: Whom<'_>,
    ) -> Counted {
        let (mut counted, mut lost, mut rest) = (Counted::default(), 0, Vec::new());
        {
            let rooms = self.rooms.table.borrow();
            let mut union = Vec::new();
            let members = match topics {
                [one] => rooms.members(one),
                several => {
                    union = union_of(several.iter().map(|topic| rooms.members(topic)));
                    &union[..]
                }
            };
            if members.is_empty() {
                return counted;
            }
            let frame = self.frame(opcode, data);
            let mut table = self.table.borrow_mut();
            for member in members {
                let (key, connection) = table.entry_mut(member.holder);
                if !whom.is(connection) {
                    continue;
                }
                // What is on its way to another worker can take nothing now. What we ourselves
                // publish meanwhile the manager keeps for there.
                if !connection.is_open() {
                    lost += u64::from(connection.stage == Stage::Moving && !whom.ours_alone);
                    continue;
                }
                match self.share_frame(frame, key, connection) {
                    Shared::Yes => counted.queued += 1,
                    Shared::No => counted.full += 1,
                    Shared::Later => rest.push(key),
                }
            }
            drop(union);
        }
        self.add(Counter::PushQueued, counted.queued);
        self.add(Counter::PushFull, counted.full + lost);
        counted.full += lost;
        for verdict in self.offer_to_all(&rest, opcode, data) {
            match verdict {
                Verdict::Queued => counted.queued += 1,
                Verdict::Full => counted.full += 1,
                _ => {}
            }
        }
        counted
    }

    /// As [`publish`](Self::publish), with what became of it everywhere.
    pub(in crate::worker) fn publish_confirmed(
        self: &Rc<Self>,
        publish: Publish,
    ) -> LocalFuture<Result<Tally, Verdict>> {
        let (question, gather) = self.ask_gather();
        match self.publish(publish, Some(question.id)) {
            Verdict::TooBig => Box::pin(std::future::ready(Err(Verdict::TooBig))),
            _ => Box::pin(async move {
                question.answer().await;
                Ok(gather.take().finish().0)
            }),
        }
    }

    /// Asks all members for something but a message, and says how many there were.
    pub(in crate::worker) fn count_all(
        self: &Rc<Self>,
        call: Call,
        reason: &str,
    ) -> LocalFuture<Tally> {
        let (question, gather) = self.ask_gather();
        self.ask_all(call, &Bytes::copy_from_slice(reason.as_bytes()), Some(question.id));
        Box::pin(async move {
            question.answer().await;
            gather.take().finish().0
        })
    }
}
