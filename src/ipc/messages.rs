//! Every message between the processes: one enum for each direction.
//!
//! The variants' order is the wire format: add at the end, and raise
//! [`IPC_VERSION`](super::IPC_VERSION) for any other change. Descriptors travel beside a message
//! and are named in its comment as `+ fds`; bytes of users travel behind it as its body.

use serde::{Deserialize, Serialize};

use crate::api::rooms::{Call, Change, Member, Topic};
use crate::api::{Info, Opcode, ProcessId, Verdict};
use crate::fd::{Slot, WorkerId};
use crate::ipc::scoreboard::Totals;
use crate::sys::rights::Rights;

/// Which image and configuration a process runs: counted from 1, one more for each reload.
pub type Generation = u32;

/// Names an open request of one worker, so that its answer finds it. 0: no answer is wanted.
pub type RequestId = u64;

// ---------------------------------------------------------------- master and worker

/// Master to worker, over the worker's descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToWorker {
    /// The first packet. + fds: link, page of the scoreboard, registry, one for each of
    /// `listeners`.
    Boot(WorkerBoot),
    /// The next block of serials: `first` to `first + LEASE_SERIALS - 1`.
    Lease {
        /// The first serial of the block.
        first: u64,
    },
    /// Accept on these as well, for a slot that has no ready worker or was removed. + fds, one
    /// for each of `listeners`.
    LendListeners {
        /// Whose they are.
        slot: Slot,
        /// What they are.
        listeners: Vec<Listener>,
    },
    /// Stop accepting on what was lent for `slot`: it has a worker again.
    TakeBackListeners {
        /// Whose they are.
        slot: Slot,
    },
    /// Leave. The answer is the end of the process.
    Stop(StopMode),
    /// The log file was reopened. + fds: the new one, to become descriptor 2, and in a daemon 1.
    Reopen,
    /// A worker of your slot was killed: run `on_close` for what its registry holds open, and
    /// answer `LostClosed`. + fds: that registry. Entries that are *closing* had their `on_close`
    /// begun already; mark those you take as closing before you call.
    CloseLost,
    /// The application process you asked for runs.
    AppStarted {
        /// Which.
        id: ProcessId,
        /// Its process.
        pid: i32,
    },
    /// An application process ended, or could not be started.
    AppExited {
        /// Which.
        id: ProcessId,
        /// How, as a phrase.
        how: String,
    },
    /// Another worker counts on this page. + fd: the page, only to be read.
    Page {
        /// Whose it is.
        of: WorkerId,
    },
    /// Another worker ended, whether its page was told or not.
    PageEnded {
        /// Which.
        of: WorkerId,
        /// All it had counted.
        last: Totals,
    },
    /// The master's summary of all pages, in the place of any before. + fd: the page, only to be
    /// read.
    Summary,
    /// Take new clients, or do so no more: the server drains. The API is served all the same.
    AcceptClients {
        /// Whether they are taken.
        on: bool,
    },
}

/// Worker to master, over its descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerToMaster {
    /// The answer to `Boot`, before anything else is done with it.
    Hello(Hello),
    /// `on_worker_start` is done and the listeners are accepting.
    Ready,
    /// The current block of serials is half used.
    NeedLease,
    /// Why this process is about to exit.
    Fatal {
        /// The whole sentence.
        why: String,
    },
    /// The oldest unanswered `CloseLost` is done.
    LostClosed,
    /// Start an application process. + fds: its socket, its standard error, and its standard
    /// output unless that is the server's own.
    StartApp {
        /// Which it will be.
        id: ProcessId,
    },
    /// KILL an application process.
    KillApp {
        /// Which.
        id: ProcessId,
    },
    /// The start of this worker takes a while: what it waits for. Sent where that changes.
    Waits {
        /// The end of the sentence "waits for".
        what: String,
    },
}

/// What every child says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`IPC_VERSION`](super::IPC_VERSION) of the image.
    pub ipc_version: u8,
    /// The package version of the image.
    pub version: String,
}

impl Hello {
    /// This image's.
    pub fn ours() -> Hello {
        Hello { ipc_version: super::IPC_VERSION, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Serials in one lease.
pub const LEASE_SERIALS: u64 = 65_536;

/// Everything a worker needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerBoot {
    /// Which worker it is.
    pub id: WorkerId,
    /// Of which generation.
    pub generation: Generation,
    /// The resolved configuration, as JSON.
    pub config: String,
    /// How many slots serve.
    pub worker_num: u16,
    /// What workers have counted that ended before.
    pub departed: Totals,
    /// How many `Page` follow.
    pub pages: u16,
    /// The first serial of its first lease.
    pub lease: u64,
    /// The listeners of its slot.
    pub listeners: Vec<Listener>,
}

/// A listening socket as it travels between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The entry of `listen` it was made for, as written.
    pub entry: String,
    /// The real address: `127.0.0.1:8000`, `[::1]:8000` or `unix:/path`.
    pub address: String,
    /// Who is let in there.
    #[serde(default)]
    pub purpose: Purpose,
}

/// Who is let in at a listening socket.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Purpose {
    /// Clients: an address of `listen`.
    #[default]
    Clients,
    /// Who uses the HTTP API: an address of `api.listen`, one socket for all slots.
    Api,
}

/// How to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// TERM: stop accepting, let running handlers end (at most `max_wait_time`), 1001 to all,
    /// wait 5 s for answers.
    Graceful,
    /// INT: 1001 to all and exit.
    Quick,
}

// ---------------------------------------------------------------- master and manager

/// Master to manager, over the manager's descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToManager {
    /// The first packet. + fds: the control socket, the manager's page of the scoreboard.
    Boot(ManagerBoot),
    /// Answer with the same number.
    LivenessCheck(u64),
    /// A worker was started, or the manager was. + fds: the manager's end of its link, its
    /// registry, its page of the scoreboard.
    Attach(WorkerRecord),
    /// A block of numbers was leased to a worker: its first and its last. Sent behind `Attach` for
    /// each block that the worker has. Nobody else's word makes a block a worker's.
    Leased {
        /// Whose.
        id: WorkerId,
        /// The first serial.
        first: u64,
        /// The last serial.
        last: u64,
    },
    /// A worker has said `Ready` to the master.
    WorkerReady(WorkerId),
    /// A worker ended. If it was its slot's newest, another follows after `respawn_ms`.
    Exited {
        /// Which.
        id: WorkerId,
        /// How, as a phrase: `exit status 1`, `signal SIGKILL`.
        how: String,
        /// How long the master waits before it starts the next, in milliseconds; `None` when
        /// there will be none.
        respawn_ms: Option<u64>,
        /// All it had counted.
        last: Totals,
    },
    /// The answer to `Prepare`: the new generation stands ready to be spawned.
    Prepared {
        /// Its number.
        generation: Generation,
        /// Its resolved configuration, as JSON.
        config: String,
        /// How many slots it has.
        worker_num: u16,
    },
    /// The answer to `Prepare`: nothing changes, and why.
    PrepareFailed {
        /// Whole sentences, one a line.
        why: String,
    },
    /// A new worker of the pending generation died or spoke another version.
    SpawnFailed {
        /// Which slot.
        slot: Slot,
        /// A whole sentence.
        why: String,
    },
    /// A signal asked for a reload.
    ReloadRequested,
    /// The state of the master, whenever it changes.
    State(MasterState),
    /// The server stops.
    Stopping(StopMode),
    /// The log file was reopened. + fds: the new one.
    Reopen,
    /// Leave now: every worker is gone, or the manager is being replaced.
    Leave,
    /// The answer to `Upgrade` where it failed.
    UpgradeFailed {
        /// Whole sentences, one a line.
        why: String,
    },
    /// The control socket was made anew. + fds: the new one.
    Control,
}

/// Everything the manager needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManagerBoot {
    /// How many managers there were before it, plus one.
    pub epoch: u32,
    /// The resolved configuration, as JSON.
    pub config: String,
    /// The generation that serves.
    pub generation: Generation,
    /// A generation whose reload the last manager left unfinished.
    pub pending: Option<Generation>,
    /// Whether the image is new: begin with a reload, and keep its verdict for whoever asked for
    /// the upgrade.
    pub begin_with_reload: bool,
    /// The state of the master.
    pub state: MasterState,
    /// What workers have counted that ended before.
    pub departed: Totals,
}

/// A worker process, as the master tells the manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Which.
    pub id: WorkerId,
    /// Of which generation.
    pub generation: Generation,
    /// Its process.
    pub pid: i32,
    /// Whether it has said `Ready` already.
    pub ready: bool,
}

/// What `status` shows of the master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterState {
    /// Its pid.
    pub pid: i32,
    /// The package version of its image.
    pub version: String,
    /// When it was started, milliseconds since 1970.
    pub started_at: u64,
    /// The real addresses.
    pub listen: Vec<String>,
    /// The real addresses of the HTTP API.
    pub api: Vec<String>,
    /// The generation that serves.
    pub generation: Generation,
    /// How many slots serve.
    pub worker_num: u16,
    /// Worker processes started again after a crash.
    pub worker_restarts: u64,
    /// Managers started again after a crash.
    pub manager_restarts: u64,
    /// Slots whose worker keeps dying young, with the delay before the next try in
    /// milliseconds.
    pub throttled: Vec<(Slot, u64)>,
    /// What an operator should know of, as whole sentences.
    pub troubles: Vec<String>,
    /// Whether the server drains.
    pub draining: bool,
}

/// Manager to master, over its descriptor 3.
#[derive(Debug, Serialize, Deserialize)]
pub enum ManagerToMaster {
    /// The answer to `Boot`.
    Hello(Hello),
    /// The control socket is served and the links are read.
    Ready,
    /// The answer to a liveness check, with its number.
    Alive(u64),
    /// A worker does not answer: first ABRT, then KILL after 2 s.
    KillHung(WorkerId),
    /// An old worker outlived its deadline: KILL.
    Kill(WorkerId),
    /// Check the image and the configuration for a reload.
    Prepare,
    /// Start a worker of the pending generation in this slot.
    Spawn(Slot),
    /// The pending generation serves: make it current; workers of older ones are not replaced.
    Commit,
    /// The pending generation is not wanted: KILL its workers, close what was bound for it.
    Abort,
    /// Stop the server.
    Stop(StopMode),
    /// Re-execute the master from the path it was invoked by.
    Upgrade,
    /// Reopen the log file.
    Reopen,
    /// Drain: take no new clients after a grace, and end without clients. Or do not.
    Drain {
        /// Whether.
        on: bool,
    },
}

// ---------------------------------------------------------------- manager and worker

/// Where a push or a question comes from, so that its answer goes back there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A worker's handler.
    Worker(WorkerId),
    /// A control command.
    Control,
}

/// A direct link between two workers. No number is used twice while a server runs.
pub type LinkId = u64;

/// The longest name of a timer of the whole server.
pub const TICK_NAME_BYTES_MAX: usize = 128;

/// A pass: connections that move together. No number is used twice while a server runs.
pub type PassId = u64;

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
}

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
        /// Ranges of client numbers, first and last.
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
    /// Bytes for another worker's handler. Body: the bytes. Data lane.
    WorkerMessage {
        /// For whom.
        to: Slot,
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

// ---------------------------------------------------------------- worker and worker

/// Worker to worker, over a direct link, whose packets name the worker that sends. As the
/// messages of these names to and from the manager.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerToWorker {
    /// A push to a client of yours. Body: the payload.
    Push {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What it is.
        opcode: Opcode,
    },
    /// Close a client of yours. Body: the reason.
    Close {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// The close code.
        code: u16,
    },
    /// What do you know of this client?
    Info {
        /// Which question.
        id: RequestId,
        /// The client.
        fd: u64,
    },
    /// Leave a client of yours alone when the idle are swept, or do so no more.
    Protect {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// Whether it is left alone.
        on: bool,
    },
    /// Change something of a client of yours.
    Change {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What.
        change: Change,
    },
    /// A message for your members of some topics, or a question about them. Body: the payload, or
    /// the reason of a close.
    Call {
        /// 0: no tally wanted.
        id: RequestId,
        /// What.
        call: Call,
    },
}

impl WorkerToWorker {
    /// The same for the manager to pass on; what is for members, for those of `reach`.
    pub fn by_manager(self, reach: Reach) -> WorkerToManager {
        match self {
            WorkerToWorker::Push { id, fd, opcode } => WorkerToManager::Push { id, fd, opcode },
            WorkerToWorker::Close { id, fd, code } => WorkerToManager::Close { id, fd, code },
            WorkerToWorker::Info { id, fd } => WorkerToManager::Info { id, fd },
            WorkerToWorker::Protect { id, fd, on } => WorkerToManager::Protect { id, fd, on },
            WorkerToWorker::Change { id, fd, change } => {
                WorkerToManager::Change { id, fd, change }
            }
            WorkerToWorker::Call { id, call } => WorkerToManager::Call { id, reach, call },
        }
    }

    /// The same as the manager would have passed it on for `from`.
    pub fn passed_on_for(self, from: WorkerId) -> ManagerToWorker {
        let origin = Origin::Worker(from);
        match self {
            WorkerToWorker::Push { id, fd, opcode } => {
                ManagerToWorker::Push { origin, id, fd, opcode }
            }
            WorkerToWorker::Close { id, fd, code } => {
                ManagerToWorker::Close { origin, id, fd, code, operator: false }
            }
            WorkerToWorker::Info { id, fd } => ManagerToWorker::Info { origin, id, fd },
            WorkerToWorker::Protect { id, fd, on } => {
                ManagerToWorker::Protect { origin, id, fd, on }
            }
            WorkerToWorker::Change { id, fd, change } => {
                ManagerToWorker::Change { origin, id, fd, mark: 0, change }
            }
            WorkerToWorker::Call { id, call } => {
                ManagerToWorker::Call { origin, id, only: Vec::new(), call }
            }
        }
    }
}

// ---------------------------------------------------------------- master and probe

/// Master to probe: the short-lived process of a new image that says whether it can serve.
#[derive(Debug, Serialize, Deserialize)]
pub enum MasterToProbe {
    /// The first packet: resolve the configuration from these sources.
    Boot {
        /// [`crate::config`]'s sources as JSON.
        sources: String,
        /// What the probe keeps of its rights once it has read the file.
        rights: Rights,
    },
}

/// Probe to master. Then it exits.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProbeToMaster {
    /// Who is there.
    Hello(Hello),
    /// The resolved configuration, as JSON.
    Config(String),
    /// The configuration has errors: whole sentences, one a line.
    Errors(String),
}
