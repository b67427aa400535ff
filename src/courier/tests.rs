//! Couriers of several nodes with one engine in memory, each with a stub in the place of its
//! manager and its master.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};

use super::life::serve;
use super::memory::MemoryEngine;
use super::state::{Courier, Names};
use crate::api::Opcode;
use crate::api::rooms::Topic;
use crate::config::Config;
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::cluster::envelope::{self, NodeMessage};
use crate::ipc::cluster::messages::{
    CourierBoot, CourierToManager, EngineState, ManagerToCourier, To, courier_id,
};
use crate::ipc::cluster::nodes::NodeId;
use crate::ipc::link::{Lane, Link, Sent};
use crate::ipc::master_link::MasterLink;
use crate::ipc::packet::{Body, Frames};
use crate::sys::packet;

/// Nothing that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The manager's end of a courier.
struct Stub {
    id: NodeId,
    link: Link,
    courier: Rc<Courier>,
    /// Its lifeline.
    _master: OwnedFd,
}

/// A courier whose manager has not told everything yet.
fn begin(engine: &MemoryEngine, node: u8) -> Stub {
    let ((ours, theirs), (master, to_master)) = (packet::pair().unwrap(), packet::pair().unwrap());
    let id = NodeId { node, boot: u64::from(node) + 100 };
    let boot = CourierBoot { epoch: 1, id, since: 0, config: String::new(), password: None };
    let to_master = MasterLink::new(to_master).unwrap();
    let courier = Courier::boot(boot, &Config::default(), theirs, to_master).unwrap();
    let courier = Rc::new(courier);
    spawn_local(serve(Rc::clone(&courier), Rc::new(engine.clone())));
    let link = Link::new(ours, courier_id(1)).unwrap();
    let stub = Stub { id, link, courier, _master: master };
    stub.say(&ManagerToCourier::Begin, b"");
    stub
}

fn start(engine: &MemoryEngine, node: u8) -> Stub {
    let stub = begin(engine, node);
    stub.say(&ManagerToCourier::Whole, b"");
    stub
}

impl Stub {
    fn say(&self, message: &ManagerToCourier, body: &[u8]) {
        let sent = self.link.send(Lane::Data, message, Body::Inline(body), Vec::new());
        assert_eq!(sent.unwrap(), Sent::Queued);
        self.link.hurry();
    }

    fn send(&self, to: To, id: u64, body: &[u8]) {
        let message = NodeMessage::Broadcast { opcode: Opcode::Text, except: 0 };
        let envelope = envelope::write(self.id, &message, body).unwrap();
        self.say(&ManagerToCourier::Send { to, id }, &envelope);
    }

    fn join(&self, number: u64, room: &str) {
        let joined = vec![Topic::room(room)];
        self.say(&ManagerToCourier::Interest { number, joined, left: Vec::new() }, b"");
    }

    /// Waits for what the courier says that is told by `pick`.
    async fn hear<T>(&self, mut pick: impl FnMut(CourierToManager, &[u8]) -> Option<T>) -> T {
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        let heard = async {
            loop {
                let mut arrival = self.link.receive(&mut buffer).await.unwrap().unwrap();
                let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
                let mut found = None;
                while let Some(frame) = frames.next(&mut arrival.fds).unwrap() {
                    let body = frame.body.into_bytes().unwrap();
                    found = found.or(pick(frame.message, &body));
                }
                if let Some(found) = found {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the courier to say so")
    }

    /// Waits for the engine, and until all that was said is done.
    async fn is_up(&self) {
        self.hear(|message, _| {
            matches!(message, CourierToManager::Engine(EngineState::Ok)).then_some(())
        })
        .await;
        self.is_done().await;
    }

    async fn is_done(&self) {
        const BARRIER: u64 = u64::MAX;
        let nothing =
            ManagerToCourier::Interest { number: BARRIER, joined: Vec::new(), left: Vec::new() };
        self.say(&nothing, b"");
        self.noted(BARRIER).await;
    }

    /// Waits until the courier has read so many leases.
    async fn sees(&self, count: usize) {
        self.hear(|message, _| match message {
            CourierToManager::Nodes { nodes, .. } if nodes.len() == count => Some(()),
            _ => None,
        })
        .await;
    }

    /// How many nodes have what was sent, and which could not be asked.
    async fn asked(&self, number: u64) -> (Option<u32>, Vec<u8>) {
        let mut last = Vec::new();
        self.hear(|message, _| match message {
            CourierToManager::Standing { silent, .. } => {
                last = silent;
                None
            }
            CourierToManager::Sent { id, nodes } if id == number => {
                Some((nodes, std::mem::take(&mut last)))
            }
            _ => None,
        })
        .await
    }

    async fn noted(&self, number: u64) {
        self.hear(|message, _| {
            matches!(message, CourierToManager::Noted { number: it } if it == number).then_some(())
        })
        .await;
    }

    async fn sent(&self, number: u64) -> Option<u32> {
        self.hear(|message, _| match message {
            CourierToManager::Sent { id, nodes } if id == number => Some(nodes),
            _ => None,
        })
        .await
    }

    async fn arrived(&self) -> (NodeId, Vec<u8>) {
        self.hear(|message, bytes| match message {
            CourierToManager::Arrived => {
                let (from, _, body) = envelope::read(bytes).unwrap();
                Some((from, body.to_vec()))
            }
            _ => None,
        })
        .await
    }
}

async fn in_local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Nodes 1 and 2, of which the first sees the second.
async fn start_two(engine: &MemoryEngine) -> (Stub, Stub) {
    let one = start(engine, 1);
    one.is_up().await;
    let two = start(engine, 2);
    two.is_up().await;
    one.sees(2).await;
    (one, two)
}

#[tokio::test]
async fn what_is_sent_reaches_every_other_node_that_has_subscribed_once() {
    in_local(async {
        let engine = MemoryEngine::default();
        let (one, two, three) = (start(&engine, 1), start(&engine, 2), start(&engine, 3));
        for stub in [&one, &two, &three] {
            stub.is_up().await;
        }
        one.join(7, "r");
        one.noted(7).await;
        two.join(8, "r");
        two.noted(8).await;
        let room = || To::Members(Topic::room("r"));
        one.send(room(), 21, b"of one");
        assert_eq!(one.sent(21).await, Some(1), "without the sender itself");
        assert_eq!(two.arrived().await, (one.id, b"of one".to_vec()));
        three.send(room(), 22, b"of three");
        assert_eq!(three.sent(22).await, Some(2));
        // The next thing that comes to one is not its own message.
        assert_eq!(one.arrived().await, (three.id, b"of three".to_vec()));
        three.send(To::Node(1), 23, b"to one");
        assert_eq!(three.sent(23).await, Some(1));
        assert_eq!(one.arrived().await.1, b"to one");
        three.send(To::Node(9), 24, b"to nobody");
        assert_eq!(three.sent(24).await, Some(0));
        three.send(To::All, 25, b"to all");
        assert_eq!(three.sent(25).await, Some(2));
    })
    .await;
}

#[tokio::test]
async fn while_the_engine_is_away_everything_is_answered_and_then_all_is_subscribed_to_again() {
    in_local(async {
        let engine = MemoryEngine::default();
        let one = start(&engine, 1);
        one.is_up().await;
        one.join(7, "before");
        one.noted(7).await;
        let before = engine.channels();
        engine.set_down(true);
        one.send(To::All, 0, b"finds out");
        let is_away = |message, _: &[u8]| match message {
            CourierToManager::Engine(EngineState::Away { why, .. }) => Some(why),
            _ => None,
        };
        assert!(one.hear(is_away).await.contains("lost"));
        one.send(To::All, 31, b"x");
        assert_eq!(one.sent(31).await, None);
        one.join(8, "meanwhile");
        one.noted(8).await;
        engine.set_down(false);
        one.is_up().await;
        let mut all = before;
        all.insert("wsd:wsd:t:#meanwhile".to_owned());
        assert_eq!(engine.channels(), all);
        assert_eq!(one.courier.counts.get().gaps, 1);
    })
    .await;
}

#[tokio::test]
async fn what_a_new_manager_does_not_tell_is_not_subscribed_to_any_more() {
    in_local(async {
        let engine = MemoryEngine::default();
        let one = start(&engine, 1);
        one.is_up().await;
        one.join(7, "kept");
        one.join(8, "left");
        one.noted(8).await;
        one.say(&ManagerToCourier::Begin, b"");
        one.join(9, "kept");
        one.say(&ManagerToCourier::Whole, b"");
        one.join(10, "more");
        one.noted(10).await;
        let rooms = engine.channels();
        let has = |room: &str| rooms.contains(&format!("wsd:wsd:t:#{room}"));
        assert_eq!([has("kept"), has("left"), has("more")], [true, false, true]);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_leaves_is_asked_nothing_more_and_has_been_told_all_that_it_was_asked() {
    in_local(async {
        let engine = MemoryEngine::default();
        let (one, two) = (start(&engine, 1), start(&engine, 2));
        for stub in [&one, &two] {
            stub.is_up().await;
        }
        one.join(7, "r");
        one.noted(7).await;
        for number in 1..=3 {
            two.send(To::Members(Topic::room("r")), number, &[number as u8]);
            assert_eq!(two.sent(number).await, Some(1));
        }
        one.say(&ManagerToCourier::Part, b"");
        let mut heard = Vec::new();
        one.hear(|message, bytes| match message {
            CourierToManager::Arrived => {
                heard.push(envelope::read(bytes).unwrap().2.to_vec());
                None
            }
            CourierToManager::Parted => Some(()),
            _ => None,
        })
        .await;
        assert_eq!(heard, [[1], [2], [3]]);
        two.send(To::Members(Topic::room("r")), 4, b"to nobody");
        assert_eq!(two.sent(4).await, Some(0));
        two.send(To::Node(1), 5, b"to nobody");
        assert_eq!(two.sent(5).await, Some(0));
        // Without an engine there is nobody to leave.
        engine.set_down(true);
        two.send(To::All, 6, b"finds out");
        assert_eq!(two.sent(6).await, None);
        two.say(&ManagerToCourier::Part, b"");
        two.hear(|message, _| matches!(message, CourierToManager::Parted).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_courier_is_away_is_told_as_silent_with_the_next_question() {
    in_local(async {
        let engine = MemoryEngine::default();
        let (one, two) = start_two(&engine).await;
        two.join(8, "r");
        two.noted(8).await;
        let room = || To::Members(Topic::room("r"));
        one.send(room(), 21, b"x");
        assert_eq!(one.asked(21).await, (Some(1), vec![]));
        // The connection that was made second; the lease lives on.
        engine.cut(2);
        one.send(room(), 22, b"x");
        assert_eq!(one.asked(22).await, (Some(0), vec![2]));
        one.send(To::All, 23, b"x");
        assert_eq!(one.asked(23).await, (Some(0), vec![2]));
        engine.take_again();
        two.is_up().await;
        one.send(room(), 24, b"x");
        assert_eq!(one.asked(24).await, (Some(1), vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_manager_has_not_told_everything_is_silent_until_it_has() {
    in_local(async {
        let engine = MemoryEngine::default();
        let one = start(&engine, 1);
        one.is_up().await;
        let two = begin(&engine, 2);
        two.is_up().await;
        one.sees(2).await;
        one.send(To::All, 21, b"x");
        assert_eq!(one.asked(21).await, (Some(1), vec![2]));
        two.say(&ManagerToCourier::Whole, b"");
        two.is_done().await;
        one.send(To::All, 22, b"x");
        assert_eq!(one.asked(22).await, (Some(1), vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_leaves_is_silent_at_no_moment() {
    in_local(async {
        let engine = MemoryEngine::default();
        let (one, two) = start_two(&engine).await;
        two.say(&ManagerToCourier::Part, b"");
        two.hear(|message, _| matches!(message, CourierToManager::Parted).then_some(())).await;
        one.send(To::All, 21, b"x");
        assert_eq!(one.asked(21).await, (Some(0), vec![]), "it has nobody, and says so");
        let Stub { _master: master, link, courier, .. } = two;
        drop(master);
        one.sees(1).await;
        one.send(To::All, 22, b"x");
        assert_eq!(one.asked(22).await, (Some(0), vec![]));
        drop((link, courier));
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_no_node_writes_is_counted_and_passed_over() {
    in_local(async {
        let engine = MemoryEngine::default();
        let leases: [(u8, &[u8]); 3] = [(2, b"no record"), (3, b""), (4, b"{\"node\":5}")];
        for (node, record) in leases {
            engine.write_lease(&format!("wsd:wsd:lease:{node}"), record);
        }
        let one = start(&engine, 1);
        one.is_up().await;
        let garbled = one.courier.counts.get().garbled;
        assert!(garbled >= 3, "{garbled}");
        one.sees(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_thousand_rooms_are_subscribed_to_again_after_an_outage() {
    const ROOMS: u64 = 100_000;
    const PART: u64 = 1_000;
    in_local(async {
        let engine = MemoryEngine::default();
        let one = start(&engine, 1);
        one.is_up().await;
        for number in 1..=ROOMS / PART {
            let rooms = (0..PART).map(|room| Topic::room(&format!("room {number} {room}")));
            let joined = rooms.collect();
            one.say(&ManagerToCourier::Interest { number, joined, left: Vec::new() }, b"");
        }
        one.noted(ROOMS / PART).await;
        let before = engine.channels();
        assert_eq!(before.len() as u64, ROOMS + 3);
        engine.set_down(true);
        one.send(To::All, 1, b"finds out");
        assert_eq!(one.sent(1).await, None);
        engine.set_down(false);
        one.is_up().await;
        assert_eq!(engine.channels(), before);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_brings_nothing_is_found_by_its_probe() {
    in_local(async {
        let engine = MemoryEngine::default();
        engine.set_deaf(true);
        let one = start(&engine, 1);
        let why = one
            .hear(|message, _| match message {
                CourierToManager::Engine(EngineState::Away { why, .. })
                    if why.contains("does not come back") =>
                {
                    Some(why)
                }
                _ => None,
            })
            .await;
        assert_eq!(why, "what is published does not come back");
        engine.set_deaf(false);
        one.is_up().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_lease_had_ended_was_away_and_comes_back() {
    in_local(async {
        let engine = MemoryEngine::default();
        let one = start(&engine, 1);
        one.is_up().await;
        engine.end_leases();
        let why = one
            .hear(|message, _| match message {
                CourierToManager::Engine(EngineState::Away { why, .. }) => Some(why),
                _ => None,
            })
            .await;
        assert_eq!(why, "this node's lease had ended");
        one.is_up().await;
        assert_eq!(one.courier.counts.get().gaps, 1);
    })
    .await;
}

#[test]
fn clusters_of_one_name_in_two_databases_of_an_engine_share_no_channel() {
    let names = |engine: &str| {
        let mut config = Config::default();
        let engine = serde_json::from_value(serde_json::json!(engine));
        config.cluster.engine = Some(engine.unwrap());
        Names::of(&config).all()
    };
    assert_eq!(names("redis://h:6379"), "wsd:wsd:a");
    assert_eq!(names("redis://h:6379/0"), "wsd:wsd:a");
    assert_eq!(names("redis://h:6379/3"), "wsd:wsd@3:a");
}
