//! What is told of other nodes where some of them cannot be asked.

use serde_json::{Value, json};

use super::bounds::{FakeCourier, interest};
use super::*;
use crate::api::rooms::{Present, Topic};
use crate::ipc::BODY_BYTES_MAX;
use crate::ipc::cluster::envelope::NodeMessage;
use crate::ipc::cluster::messages::{CourierCounts, CourierToManager, EngineState};
use crate::manager::cluster::topics::ON_THE_WAY_MAX;

/// Has a room published to while some nodes are silent and one hears of it, which answers before
/// or behind the engine. What the command is told of the other nodes.
async fn published(silent: Vec<u8>, answers_first: bool) -> (Answer, Value) {
    let (master, mut courier) = FakeCourier::boot().await;
    let _worker = master.serving(id(0, 1), 1).await;
    let mut control = master.control().await;
    control.send("{\"cmd\":\"publish\",\"room\":\"r\",\"opcode\":\"text\",\"bytes\":1}\nx").await;
    let id = loop {
        if let NodeMessage::Call { id, .. } = courier.hear().await.0 {
            break id;
        }
    };
    let tally = NodeMessage::Tally { id, queued: 3, full: 0, whole: true };
    if answers_first {
        courier.bring(&tally, b"").await;
    }
    courier.say(&CourierToManager::Standing { silent, draining: Vec::new() }, b"").await;
    courier.say(&CourierToManager::Sent { id, nodes: Some(1) }, b"").await;
    if !answers_first {
        courier.bring(&tally, b"").await;
    }
    let answer = control.answer().await;
    let nodes = answer.more["nodes"].clone();
    (answer, nodes)
}

#[test]
fn while_a_node_is_silent_the_others_answer_and_nobody_knows_how_many_had_to_be_asked() {
    for answers_first in [false, true] {
        story(async {
            let (answer, nodes) = published(vec![2], answers_first).await;
            assert_eq!((answer.ok, answer.verdict), (false, Some(Verdict::Unknown)), "{answer:?}");
            assert_eq!(answer.more["queued"], 3, "{answer:?}");
            assert_eq!(nodes, json!({"asked": null, "answered": 1}));
            let (answer, nodes) = published(Vec::new(), answers_first).await;
            assert!(answer.ok, "{answer:?}");
            assert_eq!(nodes, json!({"asked": 1, "answered": 1}));
        });
    }
}

fn presence_room() -> Topic {
    Topic::room("presence-r")
}

/// The others are asked who is present.
async fn is_asked(courier: &mut FakeCourier) -> u64 {
    loop {
        if let NodeMessage::PresenceAsk { id, .. } = courier.hear().await.0 {
            return id;
        }
    }
}

/// The others are asked who is present, and node 1 answers with one user.
async fn ann_is_present(courier: &mut FakeCourier) {
    let id = is_asked(courier).await;
    courier.say(&CourierToManager::Sent { id, nodes: Some(1) }, b"").await;
    say_ann(courier, id).await;
}

/// Node 1 answers a question with one user.
async fn say_ann(courier: &FakeCourier, id: u64) {
    let mut body = Vec::new();
    let list = [Present::new("ann".to_owned(), 1, None)];
    codec::encode_within(BODY_BYTES_MAX as u64, &&list[..], &mut body).unwrap();
    courier.bring(&NodeMessage::PresenceList { id, room: presence_room() }, &body).await;
}

/// Tells which nodes are silent, and waits until the manager has read that.
async fn are_silent(courier: &mut FakeCourier, silent: Vec<u8>) {
    courier.say(&CourierToManager::Standing { silent, draining: Vec::new() }, b"").await;
    courier.bring(&NodeMessage::PresenceAsk { id: 77, room: presence_room() }, b"").await;
    while !matches!(courier.hear().await.0, NodeMessage::PresenceList { id: 77, .. }) {}
}

/// What the answer to a question who is present says of the other nodes: how many had to be
/// asked, and how many have answered.
async fn list_has(worker: &mut FakeWorker) -> (Option<u32>, u32) {
    let mut told = None;
    loop {
        match worker.hear().await.0 {
            ManagerToWorker::PresenceNodes { id: 5, asked, answered, away: false } => {
                told = Some((asked, answered));
            }
            ManagerToWorker::PresenceAnswer { id: 5 } => return told.expect("the other nodes"),
            _ => {}
        }
    }
}

/// A worker that has members of the room, and was told the list of it: Ann at node 1.
async fn ann_is_known() -> (Master, FakeCourier, FakeWorker) {
    let (master, mut courier) = FakeCourier::boot().await;
    let mut worker = master.serving(id(0, 1), 1).await;
    worker.say(&interest(["presence-r".to_owned()].into_iter()));
    ann_is_present(&mut courier).await;
    while !matches!(worker.hear().await.0, ManagerToWorker::Presence { whole: true, .. }) {}
    (master, courier, worker)
}

#[test]
fn a_list_of_presence_says_of_which_nodes_nobody_knows() {
    for (silent, asked) in [(vec![2], None), (Vec::new(), Some(1))] {
        story(async move {
            let (master, mut courier) = FakeCourier::boot().await;
            let mut worker = master.serving(id(0, 1), 1).await;
            are_silent(&mut courier, silent).await;
            worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
            ann_is_present(&mut courier).await;
            assert_eq!(list_has(&mut worker).await, (asked, 1));
        });
    }
}

#[test]
fn a_list_that_is_known_here_says_of_which_nodes_nobody_knows() {
    story(async {
        let (_master, mut courier, mut worker) = ann_is_known().await;
        for (silent, asked) in [(vec![2], None), (Vec::new(), Some(1))] {
            are_silent(&mut courier, silent).await;
            worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
            assert_eq!(list_has(&mut worker).await, (asked, 1));
        }
    });
}

#[test]
fn a_list_misses_a_node_that_was_silent_when_the_others_were_asked() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let mut worker = master.serving(id(0, 1), 1).await;
        are_silent(&mut courier, vec![2]).await;
        worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
        let question = is_asked(&mut courier).await;
        courier.say(&CourierToManager::Sent { id: question, nodes: Some(1) }, b"").await;
        // Node 2 is back before node 1 has answered.
        are_silent(&mut courier, Vec::new()).await;
        say_ann(&courier, question).await;
        assert_eq!(list_has(&mut worker).await, (None, 1));
    });
}

#[test]
fn behind_an_outage_a_list_is_not_whole_before_the_room_was_asked_about_anew() {
    story(async {
        let (_master, mut courier, mut worker) = ann_is_known().await;
        let away = EngineState::Away { since: 1, why: "of the test".to_owned() };
        for state in [away, EngineState::Ok] {
            courier.say(&CourierToManager::Engine(state), b"").await;
        }
        let question = is_asked(&mut courier).await;
        worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
        assert_eq!(list_has(&mut worker).await, (None, 1));
        courier.say(&CourierToManager::Sent { id: question, nodes: Some(1) }, b"").await;
        say_ann(&courier, question).await;
        are_silent(&mut courier, Vec::new()).await;
        worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
        assert_eq!(list_has(&mut worker).await, (Some(1), 1));
    });
}

#[test]
fn behind_messages_that_the_courier_has_dropped_each_room_is_asked_about_anew() {
    story(async {
        let (_master, mut courier, mut worker) = ann_is_known().await;
        let counts = CourierCounts { dropped: 1, gaps: 1, ..CourierCounts::default() };
        courier.say(&CourierToManager::Counts(counts), b"").await;
        are_silent(&mut courier, Vec::new()).await;
        worker.say(&WorkerToManager::PresenceOf { id: 5, room: presence_room() });
        assert_eq!(list_has(&mut worker).await, (None, 1));
        // Nothing more was dropped since.
        courier.say(&CourierToManager::Counts(counts), b"").await;
        is_asked(&mut courier).await;
    });
}

#[test]
fn behind_an_outage_a_room_is_asked_about_anew_that_nobody_was_in_for_a_moment() {
    story(async {
        let (_master, mut courier, mut worker) = ann_is_known().await;
        let (joined, left, settled) = (Vec::new(), vec![presence_room()], Vec::new());
        worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
        worker.say(&WorkerToManager::List { id: 1 });
        while !matches!(worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        let away = EngineState::Away { since: 1, why: "of the test".to_owned() };
        for state in [away, EngineState::Ok] {
            courier.say(&CourierToManager::Engine(state), b"").await;
        }
        are_silent(&mut courier, Vec::new()).await;
        worker.say(&interest(["presence-r".to_owned()].into_iter()));
        is_asked(&mut courier).await;
    });
}

#[test]
fn a_room_that_was_left_while_others_were_asked_about_it_is_asked_about_anew() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let worker = master.serving(id(0, 1), 1).await;
        let comes = || interest(["presence-r".to_owned()].into_iter());
        worker.say(&comes());
        let question = is_asked(&mut courier).await;
        courier.say(&CourierToManager::Sent { id: question, nodes: Some(1) }, b"").await;
        let (joined, left, settled) = (Vec::new(), vec![presence_room()], Vec::new());
        worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
        courier.told_left(&presence_room()).await;
        // What node 1 says from here on of the room does not come here.
        say_ann(&courier, question).await;
        are_silent(&mut courier, Vec::new()).await;
        worker.say(&comes());
        assert_ne!(is_asked(&mut courier).await, question);
    });
}

#[test]
fn who_leaves_another_node_while_nobody_here_is_in_the_room_for_a_moment_is_gone() {
    story(async {
        let (_master, mut courier, mut worker) = ann_is_known().await;
        let (joined, left, settled) = (Vec::new(), vec![presence_room()], Vec::new());
        worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
        worker.say(&WorkerToManager::List { id: 1 });
        while !matches!(worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        let (room, uid) = (presence_room(), "ann".to_owned());
        courier.bring(&NodeMessage::Present { room, uid, count: 0 }, b"").await;
        are_silent(&mut courier, Vec::new()).await;
        // Where the moment was longer the others are asked, and have nobody.
        spawn_local(async move {
            loop {
                let id = is_asked(&mut courier).await;
                courier.say(&CourierToManager::Sent { id, nodes: Some(0) }, b"").await;
            }
        });
        worker.say(&interest(["presence-r".to_owned()].into_iter()));
        let list = loop {
            if let (ManagerToWorker::Presence { whole: true, .. }, list) = worker.hear().await {
                break list;
            }
        };
        let list: Vec<Present> = codec::decode_within(BODY_BYTES_MAX as u64, &list).unwrap();
        assert_eq!(list, []);
    });
}

#[test]
fn a_room_that_has_presence_since_a_reload_has_its_list_while_the_engine_is_away() {
    story(async {
        let mut config = Config::default();
        config.cluster.engine = Some("redis://127.0.0.1".to_owned().try_into().unwrap());
        config.rooms_presence = Vec::new();
        let mut master = Master::boot_with(1, None, &config).await;
        config.rooms_presence = vec!["presence-".to_owned()];
        master.config = serde_json::to_string(&config).unwrap();
        let mut old = master.serving(id(0, 1), 1).await;
        assert!(matches!(old.hear().await.0, ManagerToWorker::Engine { away: true }));
        master.tell(&MasterToManager::ReloadRequested, &[]);
        master.prepare(1).await;
        let mut new = master.serving(id(0, 2), 2).await;
        new.say(&interest(["presence-r".to_owned()].into_iter()));
        let (room, uid) = (presence_room(), "ann".to_owned());
        new.say(&WorkerToManager::Present { room, uid, count: 1 });
        new.say(&WorkerToManager::List { id: 1 });
        while !matches!(new.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        let pass = old.is_asked(id(0, 2)).await;
        old.gave(pass, Left::Nothing);
        let list = loop {
            if let (ManagerToWorker::Presence { whole: true, .. }, list) = new.hear().await {
                break list;
            }
        };
        let list: Vec<Present> = codec::decode_within(BODY_BYTES_MAX as u64, &list).unwrap();
        assert_eq!(list[0].uid, "ann");
    });
}

#[test]
fn what_a_courier_notes_of_the_manager_before_confirms_no_join() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let mut worker = master.serving(id(0, 1), 1).await;
        let (joined, left, settled) = (vec![Topic::room("r")], Vec::new(), Vec::new());
        worker.say(&WorkerToManager::Interest { number: 7, joined, left, settled });
        let number = courier.told_first().await;
        // The manager before had told more than this one.
        courier.say(&CourierToManager::Noted { number: 9_999 }, b"").await;
        are_silent(&mut courier, Vec::new()).await;
        worker.say(&WorkerToManager::List { id: 1 });
        loop {
            let told = worker.hear().await.0;
            assert!(!matches!(told, ManagerToWorker::Noted { .. }), "the engine has not heard it");
            if let ManagerToWorker::ListAnswer { .. } = told {
                break;
            }
        }
        courier.say(&CourierToManager::Noted { number }, b"").await;
        while !matches!(worker.hear().await.0, ManagerToWorker::Noted { number: 7 }) {}
    });
}

#[test]
fn a_room_of_which_the_courier_is_told_is_asked_about_whatever_others_wait() {
    story(async {
        let (master, mut courier) = FakeCourier::boot().await;
        let mut worker = master.serving(id(0, 1), 1).await;
        let mut names: Vec<String> = (0..ON_THE_WAY_MAX).map(|n| format!("before-{n}")).collect();
        names.push("presence-z".to_owned());
        names.extend((0..512).map(|n| format!("between-{n}")));
        names.push("presence-a".to_owned());
        for part in names.chunks(512) {
            worker.say(&interest(part.iter().cloned()));
            worker.link.flush().await.unwrap();
        }
        // With this there is room for one part more: of the last room the courier is told later.
        let number = courier.told_first().await;
        worker.say(&WorkerToManager::List { id: 1 });
        while !matches!(worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        courier.say(&CourierToManager::Noted { number }, b"").await;
        let asked = loop {
            if let NodeMessage::PresenceAsk { room, .. } = courier.hear().await.0 {
                break room;
            }
        };
        assert_eq!(asked, Topic::room("presence-z"));
    });
}
