//! From the manager to a worker.

use serde::{Deserialize, Serialize};

use super::{LinkId, Origin, PassId, RequestId};
use crate::api::rooms::{Call, Change, Member, Topic};
use crate::api::{Info, Opcode, Verdict};
use crate::fd::{Slot, WorkerId};

/// Manager to worker, over the link.
#[derive(Debug, Serialize, Deserialize)]
pub enum ManagerToWorker {
    /// Answer with the same number. Control lane.
    LivenessCheck(u64),
    /// Say what you own (`Owns`). Sent first on every new link, so a direct link that is there is
    /// one that the manager does not know of, and ends. Control lane.
    WhoAreYou {
        /// How many managers there were, this one included.
        manager: u32,
    },
    /// A message for one of your clients. Body: the payload. Data lane.
    Push {
        /// Whom to tell the verdict.
        origin: Origin,
        /// 0: nobody.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What it is.
        opcode: Opcode,
    },
    /// A message for all of your clients. Body: the payload. Data lane.
    Broadcast {
        /// What it is.
        opcode: Opcode,
        /// A client to leave out; 0: none.
        except: u64,
    },
    /// Close one of your clients. Body: the reason. Data lane.
    Close {
        /// Whom to tell the verdict.
        origin: Origin,
        /// 0: nobody.
        id: RequestId,
        /// The client.
        fd: u64,
        /// The close code.
        code: u16,
        /// Whether an operator asked (else a handler of another worker).
        operator: bool,
    },
    /// What do you know of this client? Data lane.
    Info {
        /// Whom to tell.
        origin: Origin,
        /// Which question.
        id: RequestId,
        /// The client.
        fd: u64,
    },
    /// What became of your confirmed push or close.
    Verdict {
        /// Which.
        id: RequestId,
        /// What.
        verdict: Verdict,
    },
    /// Pushes of yours without a verdict wanted that were not queued.
    Refused {
        /// How many since the last of these.
        count: u64,
    },
    /// The answer to your `Info`.
    InfoAnswer {
        /// Which question.
        id: RequestId,
        /// `None`: gone.
        info: Option<Info>,
    },
    /// A part of the answer to your `List`.
    ListAnswer {
        /// Which question.
        id: RequestId,
        /// Some connections.
        part: Vec<Info>,
        /// Whether it was the last part.
        last: bool,
    },
    /// Another worker's `send_to_worker`. Body: the bytes. Data lane.
    WorkerMessage {
        /// Who sent it.
        from: Slot,
        /// Whether you are the process of your slot that does what is done once for the slot.
        acts: bool,
    },
    /// A heartbeat tick: close what has received nothing for this long.
    Sweep {
        /// `heartbeat_idle_time` in milliseconds.
        idle_ms: u64,
    },
    /// Stop accepting: your connections are about to move to `to`, a ready worker. Say `CanGive`
    /// when a pass can begin. Data lane.
    HandOver {
        /// Who takes them.
        to: WorkerId,
    },
    /// Take these over; serve them when `Own` says so. Body: the connections' state as `Moving`
    /// had it. + fds, one each. Data lane.
    Adopt {
        /// Of which pass.
        pass: PassId,
        /// Where they come from.
        from: WorkerId,
        /// Their numbers, in the order of the descriptors.
        fds: Vec<u64>,
    },
    /// What became of a pass that you gave: let go of what was taken, and take the rest back.
    /// Answer with `Adopted` if there is a rest. Control lane.
    Settled {
        /// Which pass.
        pass: PassId,
        /// What the new worker has.
        taken: Vec<u64>,
    },
    /// What you have of this pass is yours to serve. What was pushed to it before has been sent on
    /// this lane already, so your own pushes to it need not wait any more. Data lane.
    Own {
        /// Which pass.
        pass: PassId,
    },
    /// You were handed over: serve what stayed until it can follow, close with 1012 what is left
    /// at the deadline less the jitter, spread over the jitter, and exit when the last is gone.
    Drain {
        /// Milliseconds over which the closes are spread.
        jitter_ms: u64,
        /// Milliseconds until all must be gone.
        deadline_ms: u64,
    },
    /// How many slots serve has changed.
    WorkerNum(u16),
    /// From now on, send what is for the clients of this worker's slot straight to it: the answer
    /// to `WantDirect`. Say `Through` first. Control lane. + fd of the direct link.
    Direct {
        /// Which link.
        link: LinkId,
        /// To whom.
        to: WorkerId,
    },
    /// No more: say `Indirect`. Control lane.
    EndDirect {
        /// Which link.
        link: LinkId,
    },
    /// Another worker sends to you directly from here on. Data lane, behind all that it had sent
    /// before. + fd of the direct link.
    Peer {
        /// Which link.
        link: LinkId,
        /// Who.
        from: WorkerId,
    },
    /// It does no more: take what it has sent, and say `PeerEnded`. Data lane, before all that it
    /// sends from here on.
    PeerLeft {
        /// Which link.
        link: LinkId,
    },
    /// Leave one of your clients alone when the idle are swept, or do so no more. Data lane.
    Protect {
        /// Whom to tell the verdict.
        origin: Origin,
        /// 0: nobody.
        id: RequestId,
        /// The client.
        fd: u64,
        /// Whether it is left alone.
        on: bool,
    },
    /// Change the rooms, the user, the session or the expiry of one of your clients. Data lane.
    Change {
        /// Whom to tell the verdict.
        origin: Origin,
        /// 0: nobody.
        id: RequestId,
        /// The client.
        fd: u64,
        /// To be named in `settled` of the next `Interest` once it is done or refused; 0: not.
        mark: u64,
        /// What.
        change: Change,
    },
    /// A message for your members of some topics, or a question about them. Body: the payload, or
    /// the reason of a close. Data lane.
    Call {
        /// Whom to tell the tally.
        origin: Origin,
        /// 0: nobody.
        id: RequestId,
        /// For these clients alone; empty: for all.
        only: Vec<u64>,
        /// What.
        call: Call,
    },
    /// So many workers were asked by your `Call`.
    Asked {
        /// Which.
        id: RequestId,
        /// How many in addition to those told before.
        workers: u32,
        /// How many of these could not be, since the way to them is full.
        refused: u32,
        /// Whether no more will be.
        last: bool,
    },
    /// The answer of one worker to your `Call`.
    Tally {
        /// Which.
        id: RequestId,
        /// Members that it reached.
        queued: u64,
        /// Members that it did not.
        full: u64,
    },
    /// A part of the answer of one worker to your `Call` for a list.
    Members {
        /// Which.
        id: RequestId,
        /// Some members.
        part: Vec<Member>,
        /// Whether it was the last part.
        last: bool,
    },
    /// Your `Interest` of this number was read. Control lane.
    Noted {
        /// Which.
        number: u64,
    },
    /// The answer to `TickDue`. Control lane.
    TickAnswer {
        /// Which question.
        id: RequestId,
        /// The number of the tick, if this worker is to run it.
        number: Option<u64>,
    },
    /// Which of your clients do not read? Those with the most bytes that wait, at most so many.
    /// Control lane.
    ListSlow {
        /// Which question.
        id: RequestId,
        /// How many.
        limit: u16,
    },
    /// Give a pass: answer with `Moving` batches and then `Gave`. What others send to you waits
    /// until the pass is over. Data lane, behind every push sent before.
    Give {
        /// Which pass.
        pass: PassId,
    },
    /// All of a pass has come: answer with `Adopted`. Data lane.
    Take {
        /// Which pass.
        pass: PassId,
    },
    /// A broadcast of yours that those clients missed which you have and may not serve yet. Body:
    /// the payload. Data lane.
    Missed {
        /// What it is.
        opcode: Opcode,
        /// A client to leave out; 0: none.
        except: u64,
    },
    /// Who is present in a room. Body: the list. Data lane.
    Presence {
        /// The room.
        room: Topic,
        /// Whether the list is of all; else of those that have changed, a count of 0 being gone.
        whole: bool,
    },
    /// The answer to your `PresenceOf`. Body: the list. Data lane.
    PresenceAnswer {
        /// Which question.
        id: RequestId,
    },
    /// Whether what is for other nodes goes anywhere. Control lane.
    Engine {
        /// Whether the engine of the cluster is away.
        away: bool,
    },
    /// Your `Call` went to other nodes as well.
    NodesAsked {
        /// Which.
        id: RequestId,
        /// To how many; `None`: nobody knows.
        nodes: Option<u32>,
        /// Whether the engine of the cluster is away.
        away: bool,
    },
    /// The answer of one other node to your `Call`.
    NodeTally {
        /// Which.
        id: RequestId,
        /// Members that it reached.
        queued: u64,
        /// Members that it did not.
        full: u64,
        /// Whether all of its workers have answered.
        whole: bool,
    },
    /// A part of the rooms that your `Call` asked one worker for. Control lane.
    Rooms {
        /// Which.
        id: RequestId,
        /// Some rooms, and how many members each has there.
        part: Vec<(Topic, u64)>,
        /// Whether it was the last part.
        last: bool,
    },
    /// The answer to your `Drained`: you are asked nothing more. Behind all that you were asked.
    /// Data lane.
    Farewell,
    /// What other nodes have to do with the list of your `PresenceOf`. Before the answer.
    PresenceNodes {
        /// Which question.
        id: RequestId,
        /// How many have somebody in the room; `None`: nobody knows.
        asked: Option<u32>,
        /// Of how many of these the list has all.
        answered: u32,
        /// Whether the engine of the cluster is away.
        away: bool,
    },
}
