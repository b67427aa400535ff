//! From a worker to the manager.

use serde::{Deserialize, Serialize};

use super::{LinkId, Origin, PassId, RequestId};
use crate::api::rooms::{Call, Change, Member, Topic};
use crate::api::{Info, Opcode, Verdict};
use crate::fd::{Slot, WorkerId};

/// For which workers a `Call` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// For all that have members, but for these, who were sent it directly.
    AllBut(Vec<WorkerId>),
    /// For this one, to which a direct link has ended before it took it.
    Only(WorkerId),
}

/// Worker to manager, over the link.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerToManager {
    /// The answer to a liveness check. Control lane.
    Alive(u64),
    /// The answer to `WhoAreYou`: the clients that came from other workers. The manager knows from
    /// the master which numbers are leased to this one. Data lane, behind `Gives` and `Holds`.
    Owns {
        /// The manager that asked.
        manager: u32,
        /// Ranges of client numbers, first and last, each above all that were told before.
        ranges: Vec<(u64, u64)>,
        /// Whether this is all.
        last: bool,
    },
    /// A push to a client elsewhere. Body: the payload. Data lane.
    Push {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What it is.
        opcode: Opcode,
    },
    /// A broadcast; the sender has served its own clients. Body: the payload. Data lane.
    Broadcast {
        /// What it is.
        opcode: Opcode,
        /// A client to leave out; 0: none.
        except: u64,
    },
    /// Close a client elsewhere. Body: the reason. Data lane.
    Close {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// The close code.
        code: u16,
    },
    /// A question about a client elsewhere. Data lane.
    Info {
        /// Which question.
        id: RequestId,
        /// The client.
        fd: u64,
    },
    /// List every connection of the server.
    List {
        /// Which question.
        id: RequestId,
    },
    /// What became of a push or close that was routed here.
    Verdict {
        /// Who asked.
        origin: Origin,
        /// Which.
        id: RequestId,
        /// What.
        verdict: Verdict,
    },
    /// The answer to an `Info` that was routed here.
    InfoAnswer {
        /// Who asked.
        origin: Origin,
        /// Which question.
        id: RequestId,
        /// `None`: gone.
        info: Option<Info>,
    },
    /// Bytes for the handlers of a slot's processes. Body: the bytes. Data lane.
    WorkerMessage {
        /// For whom.
        to: Slot,
        /// Whether you, a process of that slot, have had it and do what is done once for the slot.
        acts: bool,
    },
    /// Connections of a pass. Body: their state, opaque to the manager. + fds, one each. The
    /// sender keeps its own descriptors until `Settled`. Data lane.
    Moving {
        /// Of which pass.
        pass: PassId,
        /// Their numbers, in the order of the descriptors.
        fds: Vec<u64>,
    },
    /// Some that stay, with why; at most 64 in one message. Data lane.
    Stays {
        /// Client number and reason.
        fds: Vec<(u64, String)>,
    },
    /// All of the pass was given. Data lane.
    Gave {
        /// Which pass.
        pass: PassId,
        /// What is left.
        left: Left,
    },
    /// A pass can begin: the answer to `HandOver`, and whenever a connection that had stayed could
    /// move. Data lane.
    CanGive,
    /// What is here of a pass: the answer to `Take`, and to `Settled` for what came back. Data
    /// lane, behind all that was sent to these clients by way of the manager.
    Adopted {
        /// Of which pass.
        pass: PassId,
        /// Their numbers.
        fds: Vec<u64>,
    },
    /// The last connection is gone and the process is about to exit.
    Drained,
    /// A pass that was given and is not settled: before `Owns`, in answer to `WhoAreYou`. Data
    /// lane.
    Gives {
        /// The manager that asked.
        manager: u32,
        /// Which pass.
        pass: PassId,
        /// The clients.
        fds: Vec<u64>,
    },
    /// Who sends to us directly: before `Owns`, in answer to `WhoAreYou`. Control lane.
    Peers {
        /// The links and their senders.
        from: Vec<(LinkId, WorkerId)>,
    },
    /// There is much to be sent to the clients of this slot. Data lane.
    WantDirect {
        /// Which.
        to: Slot,
    },
    /// All that will not go directly is before this. Data lane.
    Through {
        /// Which link.
        link: LinkId,
    },
    /// All that went directly was sent, and what is behind this comes after it. Data lane.
    Indirect {
        /// Which link.
        link: LinkId,
    },
    /// All that came directly was taken. Data lane.
    PeerEnded {
        /// Which link.
        link: LinkId,
    },
    /// Leave a client elsewhere alone when the idle are swept, or do so no more. Data lane.
    Protect {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// Whether it is left alone.
        on: bool,
    },
    /// Change something of a client elsewhere. Data lane.
    Change {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What.
        change: Change,
    },
    /// A message for the members of some topics that are elsewhere, or a question about them; the
    /// sender has served its own. Body: the payload, or the reason of a close. Data lane.
    Call {
        /// 0: no tally wanted.
        id: RequestId,
        /// For whom.
        reach: Reach,
        /// What.
        call: Call,
    },
    /// What became of a `Call` that came here.
    Tally {
        /// Who asked.
        origin: Origin,
        /// Which.
        id: RequestId,
        /// Members that were reached.
        queued: u64,
        /// Members that were not.
        full: u64,
    },
    /// A part of the answer to a `Call` for a list.
    Members {
        /// Who asked.
        origin: Origin,
        /// Which.
        id: RequestId,
        /// Some members.
        part: Vec<Member>,
        /// Whether it was the last part.
        last: bool,
    },
    /// Which topics have members here. Data lane; in answer to `WhoAreYou`, all of them, in the
    /// control lane before `Owns`.
    Interest {
        /// To be answered with `Noted`; 0: not.
        number: u64,
        /// These have members now.
        joined: Vec<Topic>,
        /// These have none since a while.
        left: Vec<Topic>,
        /// The marks of changes that are done or refused, and what they were to join.
        settled: Vec<(Topic, u64)>,
    },
    /// A timer of the whole server is due: may this worker run it? Control lane.
    TickDue {
        /// For the answer.
        id: RequestId,
        /// The timer's name, at most [`TICK_NAME_BYTES_MAX`] bytes.
        name: String,
        /// Milliseconds between two ticks.
        period_ms: u64,
    },
    /// List the connections with the smallest numbers above one, at most so many. Data lane.
    ListPage {
        /// Which question.
        id: RequestId,
        /// The number below the first.
        after: u64,
        /// How many.
        limit: u16,
    },
    /// List the clients of the server that do not read, at most so many. The answer is
    /// `ListAnswer`.
    ListSlow {
        /// Which question.
        id: RequestId,
        /// How many.
        limit: u16,
    },
    /// The answer to a `ListSlow`.
    SlowAnswer {
        /// Which question.
        id: RequestId,
        /// Those with the most bytes that wait.
        part: Vec<Info>,
    },
    /// A pass that has come and is not ours yet: before `Owns`, in answer to `WhoAreYou`, and the
    /// answer to `Take`. Data lane.
    Holds {
        /// The manager that asked.
        manager: u32,
        /// Which pass.
        pass: PassId,
        /// Where it came from.
        from: WorkerId,
        /// The clients.
        fds: Vec<u64>,
        /// Whether it has said `Adopted` before.
        answered: bool,
    },
    /// A part of the answer to a `Call` for the rooms.
    Rooms {
        /// Who asked.
        origin: Origin,
        /// Which.
        id: RequestId,
        /// Some rooms, and how many members each has here.
        part: Vec<(Topic, u64)>,
        /// Whether it was the last part.
        last: bool,
    },
    /// So many connections of a user are in a room here that has presence. Body: what the user
    /// gave as info. Data lane; in answer to `WhoAreYou`, of all of them.
    Present {
        /// The room.
        room: Topic,
        /// Who.
        uid: String,
        /// How many; 0: none any more.
        count: u32,
    },
    /// Who is present in this room? Data lane.
    PresenceOf {
        /// Which question.
        id: RequestId,
        /// The room.
        room: Topic,
    },
}

/// What an old worker has left behind a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// More that can move now.
    More,
    /// Some whose handlers run: it says `CanGive` when one can move.
    Busy,
    /// Nothing that will move by this handover.
    Nothing,
}
