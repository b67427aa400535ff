//! Publishes and questions to all members of some topics: to those here at once, to all others in
//! one packet to the manager, which passes the packet on to every worker that has members. Who can
//! be sent to directly is, so that a publish keeps its place among what goes there already.

use std::rc::Rc;

use bytes::Bytes;

use crate::api::rooms::{Act, Call, MEMBERS_MAX, Member, Publish, TOPICS_MAX, Tally, Topic};
use crate::api::{LocalFuture, Verdict};
use crate::close::Cause;
use crate::fd::Fd;
use crate::ipc::messages::{Origin, PassId, Reach, RequestId, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;
use crate::worker::clients::broadcast_buffer::Shared;
use crate::worker::clients::connection::{Connection, Stage};
use crate::worker::clients::key::Key;
use crate::worker::clients::rooms::table::RoomMember;
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::peers::Peers;

/// Members in one message of a list.
const PART: usize = 128;

/// Which members of a topic are meant.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::worker) struct Whom<'a> {
    /// Not this one; 0: nobody.
    pub except: u64,
    /// These alone; empty: all.
    pub only: &'a [u64],
    /// A handler of ours asks, whose messages to those that are not ours yet have to wait.
    pub ours_alone: bool,
}

impl Whom<'_> {
    fn is(&self, connection: &Connection) -> bool {
        if self.ours_alone && connection.arriving {
            return false;
        }
        let fd = connection.fd.map_or(0, Fd::as_u64);
        fd != self.except && (self.only.is_empty() || self.only.contains(&fd))
    }
}

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
        let except = except.map_or(0, Fd::as_u64);
        self.ask_all(Call { topics, except, act: Act::Publish(opcode) }, &data, gather)
    }

    /// Sends a message to the members of some topics that are here, and to nobody elsewhere.
    pub(in crate::worker) fn publish_to_own(self: &Rc<Self>, publish: Publish) {
        let Publish { topics, except, opcode, data } = publish;
        if self.is_too_big(opcode, &data) {
            self.count_verdict(Verdict::TooBig);
            return;
        }
        let whom = Whom { except: except.map_or(0, Fd::as_u64), only: &[], ours_alone: false };
        self.publish_here(&topics, opcode, &data, whom);
    }

    /// Whether no member can be of these.
    fn is_beyond_names(&self, topics: &[Topic]) -> bool {
        let config = &self.settings.config;
        let longest = config.room_name_max.max(config.uid_max);
        topics.len() > TOPICS_MAX || topics.iter().any(|topic| topic.name().len() > longest)
    }

    /// Asks the members of some topics for something, wherever they are.
    fn ask_all(self: &Rc<Self>, call: Call, body: &Bytes, gather: Option<RequestId>) -> Verdict {
        // What asks changes nothing, so it need not wait until a connection is ours for everybody.
        let waits = matches!(call.act, Act::Publish(_) | Act::Close { .. });
        let whom = Whom { except: call.except, only: &[], ours_alone: waits };
        let counted = self.call_here(&call, body, whom);
        let id = gather.unwrap_or(0);
        if let Some(id) = gather {
            self.gathered(id, |it| it.asked(1, 0, false));
            match call.act {
                Act::List => {
                    let members = self.list_here(&call.topics, whom);
                    self.gathered(id, |it| it.listed(members, true));
                }
                _ => self.gathered(id, |it| it.counted(counted.queued, counted.full)),
            }
        }
        if waits && self.rooms.has_arrivals.get() {
            self.park_call(&call, body, id);
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
    fn park_call(&self, call: &Call, body: &Bytes, id: RequestId) {
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
    pub(in crate::worker) fn unpark_call(
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
            Act::List => {
                self.tell_list(origin, id, self.list_here(&call.topics, whom));
                return Ok(());
            }
            Act::Rooms => {
                self.tell_rooms(origin, id);
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

    fn tell_list(&self, origin: Origin, id: RequestId, members: Vec<Member>) {
        for part in members.chunks(PART) {
            let part = part.to_vec();
            self.say(&WorkerToManager::Members { origin, id, part, last: false });
        }
        self.say(&WorkerToManager::Members { origin, id, part: Vec::new(), last: true });
    }

    /// Tells the rooms here, and how many members each has: as many rooms as members are listed.
    fn tell_rooms(&self, origin: Origin, id: RequestId) {
        let rooms: Vec<(Topic, u64)> = {
            let rooms = self.rooms.table.borrow();
            let named = rooms.topics().filter(|topic| !topic.is_user());
            let counted = named.map(|topic| (topic.clone(), rooms.members(topic).len() as u64));
            counted.filter(|(_, count)| *count > 0).take(MEMBERS_MAX).collect()
        };
        for part in rooms.chunks(PART) {
            self.say(&WorkerToManager::Rooms { origin, id, part: part.to_vec(), last: false });
        }
        self.say(&WorkerToManager::Rooms { origin, id, part: Vec::new(), last: true });
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
            Act::Count | Act::List | Act::Rooms => {
                Counted { queued: self.keys_of(&call.topics, whom).len() as u64, full: 0 }
            }
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

    /// The members that are open and meant, each once.
    fn keys_of(&self, topics: &[Topic], whom: Whom<'_>) -> Vec<Key> {
        let (rooms, table) = (self.rooms.table.borrow(), self.table.borrow());
        let union = union_of(topics.iter().map(|topic| rooms.members(topic)));
        let entries = union.iter().map(|member| table.entry(member.holder));
        let meant = entries.filter(|(_, it)| it.is_open() && whom.is(it));
        meant.map(|(key, _)| key).collect()
    }

    /// The members of some topics, or, of none, every connection that has a user.
    fn list_here(&self, topics: &[Topic], whom: Whom<'_>) -> Vec<Member> {
        let keys = match topics {
            [] => self.keys(|it| it.is_open() && !it.memberships.is_empty()),
            topics => self.keys_of(topics, whom),
        };
        let table = self.table.borrow();
        let members = keys.into_iter().filter_map(|key| {
            let connection = table.get(key)?;
            Some(Member::new(connection.fd?, self.belongings_of(connection).uid))
        });
        let members = members.filter(|member| !topics.is_empty() || member.uid.is_some());
        members.take(MEMBERS_MAX).collect()
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

    /// The members of a topic, wherever they are.
    pub(in crate::worker) fn members_everywhere(
        self: &Rc<Self>,
        topic: Topic,
    ) -> LocalFuture<Vec<Member>> {
        let (question, gather) = self.ask_gather();
        let call = Call { topics: vec![topic], except: 0, act: Act::List };
        self.ask_all(call, &Bytes::new(), Some(question.id));
        Box::pin(async move {
            question.answer().await;
            gather.take().finish().1
        })
    }
}

/// Who is a member of any of these, once.
fn union_of<'a>(rooms: impl Iterator<Item = &'a [RoomMember]>) -> Vec<RoomMember> {
    let mut union = rooms.collect::<Vec<_>>().concat();
    union.sort_unstable_by_key(|member| member.holder);
    union.dedup_by_key(|member| member.holder);
    union
}
