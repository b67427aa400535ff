//! The bytes of every message that two images may exchange: after `reload` a new worker speaks to
//! an old master and manager, after `upgrade` old workers to new ones. `tests/golden/ipc-1` has
//! them as they were released; a line there is never changed, only added.

use std::collections::BTreeMap;
use std::fmt::Debug;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::messages::*;
use super::cluster::nodes::{NodeId, NodeRecord};
use super::codec;
use super::messages::*;
use super::scoreboard::Totals;
use crate::api::rooms::{Act, Call, Change, Member, Topic};
use crate::api::{Info, Opcode, ProcessId, Verdict};
use crate::fd::{Fd, Slot, WorkerId};
use crate::sys::rights::Rights;

const RELEASED: &str = include_str!("../../tests/golden/ipc-1");

/// Names and bytes of a golden file: a name and hex digits on each line.
pub fn lines(text: &str) -> BTreeMap<String, Vec<u8>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.split_once(' ').expect("a name and its bytes"));
    pairs
        .map(|(name, hex)| (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).expect("hex")))
        .collect()
}

/// That each sample has the bytes it was released with, both ways, and that there is a sample of
/// every variant.
fn stays<T: Serialize + DeserializeOwned + Debug>(samples: Vec<T>) {
    let direction = std::any::type_name::<T>().rsplit("::").next().expect("a name");
    let released = lines(RELEASED);
    let mut missing = String::new();
    for (index, sample) in samples.iter().enumerate() {
        let mut bytes = Vec::new();
        codec::encode(sample, &mut bytes).unwrap();
        let said = format!("{sample:?}");
        let variant = said.split([' ', '(', '{']).next().expect("a name");
        assert_eq!(bytes[..4], (index as u32).to_le_bytes(), "{direction}: {variant}'s place");
        match released.get(&format!("{direction}.{variant}")) {
            Some(golden) => {
                assert_eq!(&bytes, golden, "{direction}.{variant} has changed");
                let read: T = codec::decode(golden).unwrap();
                assert_eq!(format!("{read:?}"), said);
            }
            None => {
                let hex = HEXLOWER.encode(&bytes);
                missing += &format!("{direction}.{variant} {hex}\n");
            }
        }
    }
    assert!(missing.is_empty(), "new messages, to be added to tests/golden/ipc-1:\n{missing}");
    let next = (samples.len() as u32).to_le_bytes();
    let error = codec::decode::<T>(&next).unwrap_err().to_string();
    let end = format!("variant index 0 <= i < {}", samples.len());
    assert!(error.contains(&end), "{direction} has a message without a sample: {error}");
}

const ID: WorkerId = WorkerId { slot: Slot(3), epoch: 258 };
const APP: ProcessId = ProcessId { place: 2, epoch: 5 };
const FD: u64 = 0x0102_0304_0506;

fn listeners() -> Vec<Listener> {
    let [entry, address] = ["8000", "0.0.0.0:8000"].map(str::to_owned);
    vec![Listener { entry, address, purpose: Purpose::Clients }]
}

fn totals() -> Totals {
    Totals::from(vec![0, 0, 258, 7])
}

pub(super) fn info() -> Info {
    Info {
        fd: Fd::try_from(FD).unwrap(),
        worker: Slot(3),
        peer: "[::1]:9".to_owned(),
        client: Some("10.0.0.1".parse().unwrap()),
        connected_at: 1,
        idle_ms: 2,
        bytes_in: 3,
        bytes_out: 4,
        plain: true,
        process: Some(5),
        uid: Some("u".to_owned()),
        rooms: vec!["r".to_owned()],
        session: Some("7".to_owned()),
        queued_bytes: 6,
        queued_ms: 7,
        rtt_us: Some(8),
        unacked: Some(9),
        retransmits: None,
        path: "/p".to_owned(),
    }
}

fn change() -> Change {
    Change::Join { room: "r".to_owned(), info: Some("{}".to_owned()) }
}

fn call() -> Call {
    Call { topics: vec![Topic::room("r")], except: FD, act: Act::Publish(Opcode::Text) }
}

fn member() -> Member {
    Member::new(Fd::try_from(FD).unwrap(), Some("u".to_owned()))
}

fn hello() -> Hello {
    Hello { ipc_version: 1, version: "0.1.0".to_owned() }
}

#[test]
fn what_a_master_says_to_a_worker_stays() {
    stays(vec![
        MasterToWorker::Boot(WorkerBoot {
            id: ID,
            generation: 7,
            config: "{}".to_owned(),
            worker_num: 4,
            departed: totals(),
            pages: 2,
            lease: 65_537,
            listeners: listeners(),
        }),
        MasterToWorker::Lease { first: 131_073 },
        MasterToWorker::LendListeners { slot: Slot(1), listeners: listeners() },
        MasterToWorker::TakeBackListeners { slot: Slot(1) },
        MasterToWorker::Stop(StopMode::Quick),
        MasterToWorker::Reopen,
        MasterToWorker::CloseLost,
        MasterToWorker::AppStarted { id: APP, pid: 77 },
        MasterToWorker::AppExited { id: APP, how: "signal SIGKILL".to_owned() },
        MasterToWorker::Page { of: ID },
        MasterToWorker::PageEnded { of: ID, last: totals() },
        MasterToWorker::Summary,
        MasterToWorker::AcceptClients { on: true },
    ]);
}

#[test]
fn what_a_worker_says_to_a_master_stays() {
    stays(vec![
        WorkerToMaster::Hello(hello()),
        WorkerToMaster::Ready,
        WorkerToMaster::NeedLease,
        WorkerToMaster::Fatal { why: "why".to_owned() },
        WorkerToMaster::LostClosed,
        WorkerToMaster::StartApp { id: APP },
        WorkerToMaster::KillApp { id: APP },
        WorkerToMaster::Waits { what: "why".to_owned() },
    ]);
}

#[test]
fn what_a_manager_says_to_a_worker_stays() {
    let origin = Origin::Worker(ID);
    stays(vec![
        ManagerToWorker::LivenessCheck(8),
        ManagerToWorker::WhoAreYou { manager: 2 },
        ManagerToWorker::Push { origin, id: 9, fd: FD, opcode: Opcode::Text },
        ManagerToWorker::Broadcast { opcode: Opcode::Binary, except: FD },
        ManagerToWorker::Close {
            origin: Origin::Control,
            id: 9,
            fd: FD,
            code: 4000,
            operator: true,
        },
        ManagerToWorker::Info { origin, id: 9, fd: FD },
        ManagerToWorker::Verdict { id: 9, verdict: Verdict::Gone },
        ManagerToWorker::Refused { count: 3 },
        ManagerToWorker::InfoAnswer { id: 9, info: Some(info()) },
        ManagerToWorker::ListAnswer { id: 9, part: vec![info()], last: true },
        ManagerToWorker::WorkerMessage { from: Slot(1), acts: true },
        ManagerToWorker::Sweep { idle_ms: 600_000 },
        ManagerToWorker::HandOver { to: ID },
        ManagerToWorker::Adopt { pass: 11, from: ID, fds: vec![FD] },
        ManagerToWorker::Settled { pass: 11, taken: vec![FD] },
        ManagerToWorker::Own { pass: 11 },
        ManagerToWorker::Drain { jitter_ms: 10_000, deadline_ms: 30_000 },
        ManagerToWorker::WorkerNum(4),
        ManagerToWorker::Direct { link: 10, to: ID },
        ManagerToWorker::EndDirect { link: 10 },
        ManagerToWorker::Peer { link: 10, from: ID },
        ManagerToWorker::PeerLeft { link: 10 },
        ManagerToWorker::Protect { origin, id: 9, fd: FD, on: true },
        ManagerToWorker::Change { origin, id: 9, fd: FD, mark: 11, change: change() },
        ManagerToWorker::Call { origin, id: 9, only: vec![FD], call: call() },
        ManagerToWorker::Asked { id: 9, workers: 3, refused: 1, last: true },
        ManagerToWorker::Tally { id: 9, queued: 5, full: 6 },
        ManagerToWorker::Members { id: 9, part: vec![member()], last: true },
        ManagerToWorker::Noted { number: 12 },
        ManagerToWorker::TickAnswer { id: 9, number: Some(258) },
        ManagerToWorker::ListSlow { id: 9, limit: 100 },
        ManagerToWorker::Give { pass: 11 },
        ManagerToWorker::Take { pass: 11 },
        ManagerToWorker::Missed { opcode: Opcode::Binary, except: FD },
        ManagerToWorker::Presence { room: Topic::room("r"), whole: true },
        ManagerToWorker::PresenceAnswer { id: 9 },
        ManagerToWorker::Engine { away: true },
        ManagerToWorker::NodesAsked { id: 9, nodes: Some(2), away: false },
        ManagerToWorker::NodeTally { id: 9, queued: 5, full: 6, whole: true },
        ManagerToWorker::Rooms { id: 9, part: vec![(Topic::room("r"), 2)], last: true },
        ManagerToWorker::Farewell,
        ManagerToWorker::PresenceNodes { id: 9, asked: Some(2), answered: 1, away: false },
    ]);
}

#[test]
fn what_a_worker_says_to_a_manager_stays() {
    let origin = Origin::Worker(ID);
    stays(vec![
        WorkerToManager::Alive(8),
        WorkerToManager::Owns { manager: 2, ranges: vec![(1, FD)], last: true },
        WorkerToManager::Push { id: 9, fd: FD, opcode: Opcode::Text },
        WorkerToManager::Broadcast { opcode: Opcode::Binary, except: FD },
        WorkerToManager::Close { id: 9, fd: FD, code: 4000 },
        WorkerToManager::Info { id: 9, fd: FD },
        WorkerToManager::List { id: 9 },
        WorkerToManager::Verdict { origin, id: 9, verdict: Verdict::Full },
        WorkerToManager::InfoAnswer { origin: Origin::Control, id: 9, info: None },
        WorkerToManager::WorkerMessage { to: Slot(1), acts: true },
        WorkerToManager::Moving { pass: 11, fds: vec![FD] },
        WorkerToManager::Stays { fds: vec![(FD, "busy".to_owned())] },
        WorkerToManager::Gave { pass: 11, left: Left::Busy },
        WorkerToManager::CanGive,
        WorkerToManager::Adopted { pass: 11, fds: vec![FD] },
        WorkerToManager::Drained,
        WorkerToManager::Gives { manager: 2, pass: 11, fds: vec![FD] },
        WorkerToManager::Peers { from: vec![(10, ID)] },
        WorkerToManager::WantDirect { to: Slot(1) },
        WorkerToManager::Through { link: 10 },
        WorkerToManager::Indirect { link: 10 },
        WorkerToManager::PeerEnded { link: 10 },
        WorkerToManager::Protect { id: 9, fd: FD, on: true },
        WorkerToManager::Change { id: 9, fd: FD, change: change() },
        WorkerToManager::Call { id: 9, reach: Reach::Only(ID), call: call() },
        WorkerToManager::Tally { origin, id: 9, queued: 5, full: 6 },
        WorkerToManager::Members { origin, id: 9, part: vec![member()], last: true },
        WorkerToManager::Interest {
            number: 12,
            joined: vec![Topic::room("r")],
            left: vec![Topic::user("u")],
            settled: vec![(Topic::room("s"), 11)],
        },
        WorkerToManager::TickDue { id: 9, name: "t".to_owned(), period_ms: 258 },
        WorkerToManager::ListPage { id: 9, after: FD, limit: 100 },
        WorkerToManager::ListSlow { id: 9, limit: 100 },
        WorkerToManager::SlowAnswer { id: 9, part: vec![info()] },
        WorkerToManager::Holds { manager: 2, pass: 11, from: ID, fds: vec![FD], answered: true },
        WorkerToManager::Rooms { origin, id: 9, part: vec![(Topic::room("r"), 2)], last: true },
        WorkerToManager::Present { room: Topic::room("r"), uid: "u".to_owned(), count: 2 },
        WorkerToManager::PresenceOf { id: 9, room: Topic::room("r") },
    ]);
}

#[test]
fn what_workers_say_to_each_other_stays() {
    stays(vec![
        WorkerToWorker::Push { id: 9, fd: FD, opcode: Opcode::Text },
        WorkerToWorker::Close { id: 9, fd: FD, code: 4000 },
        WorkerToWorker::Info { id: 9, fd: FD },
        WorkerToWorker::Protect { id: 9, fd: FD, on: true },
        WorkerToWorker::Change { id: 9, fd: FD, change: change() },
        WorkerToWorker::Call { id: 9, call: call() },
    ]);
}

#[test]
fn what_is_said_to_and_by_a_courier_stays() {
    let id = NodeId { node: 5, boot: 258 };
    let (config, password) = ("{}".to_owned(), Some("p".to_owned()));
    stays(vec![
        MasterToCourier::Boot(CourierBoot { epoch: 2, id, since: 3, config, password }),
        MasterToCourier::LivenessCheck(258),
        MasterToCourier::Reopen,
        MasterToCourier::Leave,
        MasterToCourier::Serials { next: vec![(3, 258)] },
        MasterToCourier::Drains(true),
    ]);
    stays(vec![
        CourierToMaster::Hello(hello()),
        CourierToMaster::Joined,
        CourierToMaster::Alone { why: "w".to_owned() },
        CourierToMaster::Refused { why: "w".to_owned() },
        CourierToMaster::Alive(258),
        CourierToMaster::Serials { next: vec![(3, 258)] },
    ]);
    stays(vec![
        ManagerToCourier::Begin,
        ManagerToCourier::Whole,
        ManagerToCourier::Send { to: To::Members(Topic::room("r")), id: 9 },
        ManagerToCourier::Interest {
            number: 9,
            joined: vec![Topic::room("r")],
            left: vec![Topic::user("u")],
        },
        ManagerToCourier::Load { connections: 3, topics: 4 },
        ManagerToCourier::Gaps(5),
        ManagerToCourier::Part,
    ]);
    let nodes = vec![NodeRecord { node: 5, host: "h".to_owned(), ..NodeRecord::default() }];
    stays(vec![
        CourierToManager::Engine(EngineState::Away { since: 3, why: "w".to_owned() }),
        CourierToManager::Nodes { nodes, certain: true },
        CourierToManager::Arrived,
        CourierToManager::Sent { id: 9, nodes: Some(2) },
        CourierToManager::Noted { number: 9 },
        CourierToManager::Counts(CourierCounts { sent: 1, ..CourierCounts::default() }),
        CourierToManager::Parted,
        CourierToManager::Standing { silent: vec![5], draining: vec![6] },
    ]);
}

#[test]
fn what_a_master_and_a_probe_say_stays() {
    stays(vec![MasterToProbe::Boot {
        sources: "{}".to_owned(),
        rights: Rights { user: Some("u".to_owned()), ..Rights::default() },
    }]);
    stays(vec![
        ProbeToMaster::Hello(hello()),
        ProbeToMaster::Config("{}".to_owned()),
        ProbeToMaster::Errors("worker_num: is 0".to_owned()),
    ]);
}
