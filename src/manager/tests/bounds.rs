//! A worker that was taken over tells the manager more than any worker has to tell.

use std::collections::{HashSet, VecDeque};

use super::*;
use crate::api::rooms::{Member, Present, Topic};
use crate::ipc::BODY_BYTES_MAX;
use crate::ipc::cluster::envelope::{self, NodeMessage};
use crate::ipc::cluster::messages::{
    CourierToManager, EngineState, ManagerToCourier, To, courier_id,
};
use crate::ipc::cluster::nodes::{NodeId, NodeRecord};
use crate::manager::cluster::questions::ASKED_MAX;
use crate::manager::relay::presence::LISTS_MADE;

pub(super) fn interest(names: impl Iterator<Item = String>) -> WorkerToManager {
    let joined = names.map(|name| Topic::room(&name)).collect();
    WorkerToManager::Interest { number: 0, joined, left: Vec::new(), settled: Vec::new() }
}

fn present(room: &str, uid: &str) -> WorkerToManager {
    WorkerToManager::Present { room: Topic::room(room), uid: uid.to_owned(), count: 1 }
}

/// That the master is asked to kill the worker that has said this.
async fn costs_its_life(message: &WorkerToManager, body: &[u8]) {
    let config = Config { rooms_max: 10, ..Config::default() };
    let master = Master::boot_with(1, None, &config).await;
    let worker = master.serving(id(0, 1), 1).await;
    worker.say_with(message, body);
    let told = master.hear().await;
    assert!(matches!(told, ManagerToMaster::Kill(it) if it == id(0, 1)), "{told:?}");
}

/// That the manager has read it, and the worker lives.
async fn is_read(master: &Master, worker: &mut FakeWorker) {
    worker.say(&WorkerToManager::List { id: 1 });
    while !matches!(worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
    master.tell(&MasterToManager::LivenessCheck(9), &[]);
    let told = master.hear().await;
    assert!(matches!(told, ManagerToMaster::Alive(9)), "{told:?}");
}

#[test]
fn a_worker_that_tells_more_topics_than_it_may_have_or_longer_names_is_replaced() {
    let (long, name) = ("x".repeat(256), |n: usize| n.to_string());
    story(async {
        costs_its_life(&interest((0..21).map(name)), b"").await;
        costs_its_life(&interest([long.clone()].into_iter()), b"").await;
        costs_its_life(&present(&long, "u"), b"").await;
        costs_its_life(&present("presence-r", &long), b"").await;
        costs_its_life(&present("presence-r", "u"), &[b'i'; 64 * 1024 + 1]).await;
        let member = Member::new(fd(0, 1).try_into().unwrap(), Some(long.clone()));
        let (origin, id) = (Origin::Control, 1);
        let part = vec![member];
        costs_its_life(&WorkerToManager::Members { origin, id, part, last: true }, b"").await;
        let part = vec![(Topic::room(&long), 1)];
        costs_its_life(&WorkerToManager::Rooms { origin, id, part, last: true }, b"").await;
    });
}

#[test]
fn a_worker_may_have_as_many_topics_as_the_configuration_says_and_what_moves_to_it() {
    story(async {
        let config = Config { rooms_max: 10, ..Config::default() };
        let master = Master::boot_with(1, None, &config).await;
        let mut worker = master.serving(id(0, 1), 1).await;
        for round in 0..5_usize {
            // The same again is no more than before.
            worker.say(&interest((0..20).map(|n| format!("{n:0255}"))));
            let left = (10..20).map(|n| Topic::room(&format!("{n:0255}"))).collect();
            let (joined, settled) = (Vec::new(), Vec::new());
            if round % 2 == 0 {
                worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
            }
        }
        worker.say_with(&present("presence-r", &"u".repeat(255)), &[b'i'; 64 * 1024]);
        is_read(&master, &mut worker).await;
    });
}

#[test]
fn for_a_worker_that_asks_for_long_lists_and_reads_none_few_are_made() {
    let before = LISTS_MADE.get();
    story(async {
        let config = Config { rooms_presence: vec!["presence-".to_owned()], ..Config::default() };
        let master = Master::boot_with(1, None, &config).await;
        let worker = master.serving(id(0, 1), 1).await;
        let room = || Topic::room("presence-r");
        for user in 0..900 {
            worker.say_with(&present("presence-r", &format!("u{user}")), &[b'i'; 64 * 1024]);
            worker.link.flush().await.unwrap();
        }
        // Each is for a list of 58 MB, for which there is no room.
        for id in 1..=2_000 {
            worker.say(&WorkerToManager::PresenceOf { id, room: room() });
            worker.say(&interest(["presence-r".to_owned()].into_iter()));
            let (joined, left, settled) = (Vec::new(), vec![room()], Vec::new());
            worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
        }
        worker.say(&present(&"x".repeat(256), "u"));
        let told = master.hear().await;
        assert!(matches!(told, ManagerToMaster::Kill(it) if it == id(0, 1)), "{told:?}");
    });
    // A few in each of some turns, of the 4,000 that were asked for.
    let made = LISTS_MADE.get() - before;
    assert!((1..100).contains(&made), "{made}");
}

/// A new manager waits a second for the word of its workers, and for a worker that stands still
/// longer its users must not seem to be gone.
#[test]
fn who_is_with_a_worker_that_is_slow_to_introduce_itself_has_not_left() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut a = master.attach(id(0, 1), 1, true);
        let mut b = master.attach(id(1, 1), 1, true);
        a.say(&interest(["presence-r".to_owned()].into_iter()));
        a.owns(2, vec![]);
        // What comes is what was held until the manager waited no longer.
        a.push(0, fd(1, 5), "it waits no longer");
        assert!(matches!(b.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        assert_eq!(b.hear_push().await.0, fd(1, 5));
        b.say_with(&present("presence-r", "ann"), b"");
        b.owns(2, vec![]);
        let list = loop {
            if let (ManagerToWorker::Presence { whole: true, .. }, body) = a.hear().await {
                break body;
            }
        };
        let list: Vec<Present> = codec::decode_within(BODY_BYTES_MAX as u64, &list).unwrap();
        assert_eq!(list.first().map(|present| &present.uid[..]), Some("ann"));
    });
}

#[test]
fn a_worker_that_misses_who_came_since_its_lane_is_full_is_sent_the_list_when_there_is_room() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let mut b = master.serving(id(1, 1), 1).await;
        b.say(&interest(["presence-r".to_owned()].into_iter()));
        while !matches!(b.hear().await.0, ManagerToWorker::Presence { whole: true, .. }) {}
        // Twice what the lane and the kernel's queue take, and nobody reads it.
        let body = "x".repeat(30_000);
        for _ in 0..1_200 {
            a.push(0, fd(1, 5), &body);
            a.link.flush().await.unwrap();
        }
        a.push(7, fd(1, 5), &body);
        let full = |told: &ManagerToWorker| {
            matches!(told, ManagerToWorker::Verdict { id: 7, verdict: Verdict::Full })
        };
        while !full(&a.hear().await.0) {}
        a.say_with(&present("presence-r", "ann"), &[b'i'; 64 * 1024]);
        a.say(&WorkerToManager::List { id: 1 });
        while !matches!(a.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        let list = loop {
            if let (ManagerToWorker::Presence { whole: true, .. }, body) = b.hear().await {
                break body;
            }
        };
        let list: Vec<Present> = codec::decode_within(BODY_BYTES_MAX as u64, &list).unwrap();
        assert_eq!(list[0].uid, "ann");
    });
}

/// A courier's part, for a manager of node 0 beside a node 1.
pub(super) struct FakeCourier {
    link: Link,
    heard: VecDeque<(NodeMessage, To)>,
    /// The numbers under which it was told of topics.
    told: Vec<u64>,
    /// The topics of which it was told that nobody is in them.
    left: Vec<Topic>,
}

impl FakeCourier {
    /// A manager with this courier, whose engine is there.
    pub(super) async fn boot() -> (Master, FakeCourier) {
        let mut config = Config::default();
        config.cluster.engine = Some("redis://127.0.0.1".to_owned().try_into().unwrap());
        let master = Master::boot_with(1, None, &config).await;
        let (ours, theirs) = packet::pair().unwrap();
        let id = NodeId { node: 0, boot: 1 };
        master.tell(&MasterToManager::Courier { epoch: 1, id }, &[theirs]);
        let link = Link::new(ours, courier_id(1)).unwrap();
        let (heard, told, left) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut courier = FakeCourier { link, heard, told, left };
        courier.say(&CourierToManager::Engine(EngineState::Ok), b"").await;
        // What a node says first when it can.
        let first = courier.hear().await.0;
        assert!(matches!(first, NodeMessage::PresenceRooms { is_answer: false }), "{first:?}");
        (master, courier)
    }

    pub(super) async fn say(&self, message: &CourierToManager, body: &[u8]) {
        let sent = self.link.send(Lane::Data, message, Body::Inline(body), vec![]).unwrap();
        assert_eq!(sent, Sent::Queued);
        self.link.flush().await.unwrap();
    }

    /// Brings something that node 1 says.
    pub(super) async fn bring(&self, message: &NodeMessage, body: &[u8]) {
        let envelope = envelope::write(NodeId { node: 1, boot: 1 }, message, body).unwrap();
        self.say(&CourierToManager::Arrived, &envelope).await;
    }

    /// The next message to another node.
    pub(super) async fn hear(&mut self) -> (NodeMessage, To) {
        while self.heard.is_empty() {
            self.read().await;
        }
        self.heard.pop_front().unwrap()
    }

    /// The number under which it was first told of topics.
    pub(super) async fn told_first(&mut self) -> u64 {
        while self.told.is_empty() {
            self.read().await;
        }
        self.told[0]
    }

    /// It is told that nobody of this node is in a topic.
    pub(super) async fn told_left(&mut self, topic: &Topic) {
        while !self.left.contains(topic) {
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let mut buffer = vec![0; crate::ipc::PACKET_BYTES_MAX * 2];
        let mut arrival = self.link.receive(&mut buffer).await.unwrap().unwrap();
        let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
        while let Some(frame) = frames.next(&mut arrival.fds).unwrap() {
            match frame.message {
                ManagerToCourier::Send { to, .. } => {
                    let bytes = frame.body.into_bytes().unwrap();
                    self.heard.push_back((envelope::read(&bytes).unwrap().1, to));
                }
                ManagerToCourier::Interest { number, left, .. } => {
                    self.told.push(number);
                    self.left.extend(left);
                }
                _ => {}
            }
        }
    }
}

/// A worker that has members of one room more than may be asked about at once.
async fn in_one_room_too_many() -> (Master, FakeCourier, FakeWorker) {
    let (master, courier) = FakeCourier::boot().await;
    let worker = master.serving(id(0, 1), 1).await;
    let names: Vec<String> = (0..=ASKED_MAX).map(|n| format!("presence-{n}")).collect();
    for part in names.chunks(512) {
        worker.say(&interest(part.iter().cloned()));
    }
    (master, courier, worker)
}

#[test]
fn of_more_rooms_here_than_may_be_asked_about_at_once_each_is_asked_about() {
    story(async {
        let (_master, mut courier, _worker) = in_one_room_too_many().await;
        let mut asked = HashSet::new();
        while asked.len() <= ASKED_MAX {
            let (NodeMessage::PresenceAsk { id, room }, _) = courier.hear().await else {
                panic!()
            };
            if asked.insert(room) && asked.len() == ASKED_MAX {
                // No node has anybody in this room, and so there is room for another question.
                courier.say(&CourierToManager::Sent { id, nodes: Some(0) }, b"").await;
            }
        }
    });
}

#[test]
fn behind_an_outage_each_of_more_rooms_than_may_be_asked_about_at_once_is_asked_about_anew() {
    story(async {
        let (_master, mut courier, _worker) = in_one_room_too_many().await;
        for _ in 0..2 {
            let mut asked = HashSet::new();
            while asked.len() <= ASKED_MAX {
                let (NodeMessage::PresenceAsk { id, room }, _) = courier.hear().await else {
                    continue;
                };
                // No node has anybody in this room.
                courier.say(&CourierToManager::Sent { id, nodes: Some(0) }, b"").await;
                asked.insert(room);
            }
            let away = EngineState::Away { since: 1, why: "of the test".to_owned() };
            for state in [away, EngineState::Ok] {
                courier.say(&CourierToManager::Engine(state), b"").await;
            }
        }
    });
}

#[test]
fn a_node_that_has_not_said_its_rooms_is_asked_once_and_not_for_each_question_without_answer() {
    story(async {
        let (_master, mut courier, _worker) = in_one_room_too_many().await;
        let nodes = vec![NodeRecord { node: 1, boot: 1, ..NodeRecord::default() }];
        courier.say(&CourierToManager::Nodes { nodes, certain: true }, b"").await;
        let (mut asked, mut told) = (0, 0);
        // Nobody answers, so each room is asked about again.
        while asked < 2 * ASKED_MAX {
            match courier.hear().await.0 {
                NodeMessage::PresenceAsk { .. } => asked += 1,
                NodeMessage::PresenceRooms { .. } => told += 1,
                _ => {}
            }
        }
        assert!(told < 100, "{told}");
    });
}

#[test]
fn who_comes_while_the_courier_takes_nothing_is_told_to_other_nodes_when_there_is_room() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let worker = master.serving(id(0, 1), 1).await;
        let mut untold = HashSet::new();
        // Twice what the lane and the kernel's queue take.
        for n in 0..1_200 {
            let name = format!("presence-{n}");
            worker.say(&interest([name.clone()].into_iter()));
            worker.say_with(&present(&name, "ann"), &[b'i'; 30_000]);
            worker.link.flush().await.unwrap();
            untold.insert(Topic::room(&name));
        }
        while !untold.is_empty() {
            if let NodeMessage::Present { room, .. } | NodeMessage::PresenceList { room, .. } =
                courier.hear().await.0
            {
                untold.remove(&room);
            }
        }
    });
}

#[test]
fn what_nodes_say_of_a_room_that_nobody_here_is_in_is_kept_as_far_as_there_is_room() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let mut worker = master.serving(id(0, 1), 1).await;
        let room = || Topic::room("presence-r");
        worker.say(&WorkerToManager::PresenceOf { id: 5, room: room() });
        let (NodeMessage::PresenceAsk { id, .. }, To::Members(_)) = courier.hear().await else {
            panic!()
        };
        courier.say(&CourierToManager::Sent { id, nodes: Some(3) }, b"").await;
        // A list of a node has at most 32 MiB.
        for part in 0..3 {
            let user = |n: usize| Present::new(format!("u{n}"), 1, Some("i".repeat(64 * 1024)));
            let list: Vec<Present> = (part * 400..(part + 1) * 400).map(user).collect();
            let mut body = Vec::new();
            codec::encode_within(BODY_BYTES_MAX as u64, &list, &mut body).unwrap();
            courier.bring(&NodeMessage::PresenceList { id, room: room() }, &body).await;
        }
        let body = loop {
            if let (ManagerToWorker::PresenceAnswer { id: 5 }, body) = worker.hear().await {
                break body;
            }
        };
        let list: Vec<Present> = codec::decode_within(BODY_BYTES_MAX as u64, &body).unwrap();
        assert!((1000..1024).contains(&list.len()), "{}", list.len());
    });
}

/// What a test has sent of a body of a request, and what is left of it.
struct Sending {
    stream: UnixStream,
    left: usize,
}

impl Sending {
    async fn begin(master: &Master, bytes: usize) -> Sending {
        let mut stream = UnixStream::connect(&master.socket_path).await.unwrap();
        let request =
            format!("{{\"cmd\":\"push\",\"fd\":1,\"opcode\":\"binary\",\"bytes\":{bytes}}}\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Sending { stream, left: bytes }
    }

    /// Sends what the manager takes now, and keeps the last byte.
    fn go_on(&mut self) {
        let some = vec![b'x'; 64 * 1024];
        while self.left > 1 {
            let most = some.len().min(self.left - 1);
            let Ok(sent) = self.stream.try_write(&some[..most]) else { return };
            self.left -= sent;
        }
    }
}

#[test]
fn a_worker_that_tells_a_new_manager_ranges_that_do_not_ascend_is_replaced() {
    let run = |first, last| (fd(1, first), fd(1, last));
    let (all, single) = (run(1, 20), run(7, 7));
    let tales = [
        vec![vec![run(5, 9), run(9, 12)]],
        vec![vec![run(5, 9)], vec![run(9, 12)]],
        vec![vec![single, run(9, 9)], vec![all]],
        vec![vec![run(9, 9), single]],
        vec![vec![run(9, 5)]],
    ];
    story(async {
        for tale in tales {
            let master = Master::boot(2, None).await;
            let worker = master.attach(id(0, 1), 1, true);
            for ranges in tale {
                worker.say(&WorkerToManager::Owns { manager: 2, ranges, last: false });
            }
            let told = master.hear().await;
            assert!(matches!(told, ManagerToMaster::Kill(it) if it == id(0, 1)), "{told:?}");
        }
    });
}

#[test]
fn ranges_that_ascend_over_several_messages_are_believed() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut worker = master.attach(id(0, 1), 1, true);
        for (serial, last) in [(5, false), (7, false), (9, true)] {
            let ranges = vec![(fd(1, serial), fd(1, serial))];
            worker.say(&WorkerToManager::Owns { manager: 2, ranges, last });
        }
        is_read(&master, &mut worker).await;
    });
}

#[test]
fn a_broadcast_that_a_worker_does_not_take_is_not_told_as_done() {
    story(async {
        let master = Master::boot(1, None).await;
        let _a = master.serving(id(0, 1), 1).await;
        let mut control = master.control().await;
        let line = "{\"cmd\":\"broadcast\",\"bytes\":30000}\n".to_owned() + &"x".repeat(30_000);
        let mut answer = control.ask(&line).await;
        assert!(answer.ok && answer.error.is_none(), "{answer:?}");
        // Twice what the lane and the kernel's queue take, and nobody reads it.
        for _ in 0..1200 {
            answer = control.ask(&line).await;
        }
        assert!(!answer.ok && answer.more["workers"] == 1, "{answer:?}");
        assert!(answer.error.unwrap().contains("did not take"));
    });
}

#[test]
fn however_many_bodies_come_by_the_control_socket_two_of_the_longest_are_held() {
    const LONGEST: usize = crate::ipc::control::BODY_BYTES_MAX;
    story(async {
        let master = Master::boot(1, None).await;
        let mut commander = master.control().await;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(Sending::begin(&master, LONGEST).await);
        }
        let mut before = usize::MAX;
        loop {
            for _ in 0..10 {
                all.iter_mut().for_each(Sending::go_on);
                assert!(commander.ask("{\"cmd\":\"ping\"}\n").await.ok);
            }
            let left: usize = all.iter().map(|it| it.left).sum();
            if left == before {
                break;
            }
            before = left;
        }
        let sent = all.len() * LONGEST - before;
        assert!((2 * LONGEST - 2..2 * LONGEST + LONGEST / 2).contains(&sent), "{sent}");
        // Small ones do not wait, and the long ones go on when there is room.
        let push = "{\"cmd\":\"push\",\"fd\":1,\"opcode\":\"text\",\"bytes\":2}\nhi";
        assert_eq!(commander.ask(push).await.verdict, Some(Verdict::Gone));
        let rest = all.into_iter().map(|mut it| async move {
            it.stream.write_all(&vec![b'x'; it.left]).await.unwrap();
            let mut line = String::new();
            BufReader::new(it.stream).read_line(&mut line).await.unwrap();
            let answer: Answer = serde_json::from_str(&line).unwrap();
            assert_eq!(answer.verdict, Some(Verdict::Gone));
        });
        futures_util::future::join_all(rest).await;
    });
}
