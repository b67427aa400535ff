//! Two workers of one slot: the old hands its connections to the new.

use std::sync::mpsc::{Receiver, channel};

use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::harness::*;
use super::serving::{Obedient, config, told};
use crate::api::rooms::Change;
use crate::api::{Opcode, Verdict};
use crate::config::{BufferPolicy, Config};
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{Left, ManagerToWorker, Origin, PassId, WorkerToManager};
use crate::ipc::packet::Body;
use crate::ipc::scoreboard::Counter;

const SECOND: WorkerId = WorkerId { slot: Slot(0), epoch: 2 };

async fn start(server: &Server, id: WorkerId) -> (Tested, Receiver<String>) {
    let (tell, heard) = channel();
    (server.start(id, config(), move || Obedient(tell)).await, heard)
}

/// Clients that are open.
async fn many(server: &Server, heard: &Receiver<String>, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(server.connect().await);
        told(heard).await;
    }
    clients
}

/// Frames of a client, masked with zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// The old worker is told to hand over, and gives a pass to which the new one has answered.
async fn until_answered(old: &mut Tested, new: &mut Tested) -> Vec<u64> {
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    old.rests().await;
    old.says(ManagerToWorker::Give { pass: 1 }, &[]).await;
    pass_on(old, new, 1).await;
    new.says(ManagerToWorker::Take { pass: 1 }, &[]).await;
    new.adopted(1).await
}

/// The rest of that request.
const REST: &str = "a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client whose request a worker has begun to read.
async fn half_a_request(server: &Server) -> TcpStream {
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
    while server.count(Counter::Handshakes) == 0 {
        tokio::task::yield_now().await;
    }
    half
}

#[tokio::test]
async fn a_connection_moves_at_any_byte_of_what_it_sends() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut sent = frame(0x01, b"frag");
    sent.extend(frame(0x89, b"ping"));
    sent.extend(frame(0x80, b"mented"));
    sent.extend(frame(0x81, b"whole"));
    let mut streams = Vec::new();
    for cut in 0..=sent.len() {
        let mut client = server.connect().await;
        assert_eq!(told(&heard_old).await, format!("open {}", fd(0, 1 + cut as u64)));
        client.get_mut().write_all(&sent[..cut]).await.unwrap();
        streams.push(client);
    }
    let (mut new, heard_new) = start(&server, SECOND).await;
    let (moved, stayed) = pass_over(&mut old, &mut new).await;
    assert_eq!((moved, stayed), (sent.len() as u64 + 1, 0));
    for (cut, client) in streams.iter_mut().enumerate() {
        let attached = told(&heard_new).await;
        let number = fd(0, 1 + cut as u64);
        assert_eq!(attached, format!("attach {number} /ws kept of {number}"));
        client.get_mut().write_all(&sent[cut..]).await.unwrap();
    }
    for client in &mut streams {
        assert_eq!(next(client).await, WsMessage::Pong("ping".into()));
        assert_eq!(text(client).await, "fragmented");
        assert_eq!(text(client).await, "whole");
    }
    server.counts_to(Counter::HandedOver, moved).await;
    assert_eq!(server.count(Counter::Adopted), moved);
    assert_eq!(server.count(Counter::Connections), moved);
    assert_eq!(old.registry.entries().count(), 0);
    assert_eq!(new.registry.entries().count(), moved as usize);
    old.says(ManagerToWorker::Drain { jitter_ms: 0, deadline_ms: 1_000 }, &[]).await;
    old.join().await;
    assert!(heard_old.try_recv().is_err(), "no on_close for what has moved");
    drop(streams.swap_remove(0));
    assert_eq!(told(&heard_new).await, format!("close {} 1006 client_vanished ", fd(0, 1)));
}

#[tokio::test]
async fn what_was_not_sent_travels_along() {
    let server = Server::new();
    let dropping = Config { buffer_policy: BufferPolicy::Drop, ..config() };
    let (tell, heard_old) = channel();
    let mut old = server.start(FIRST, dropping, move || Obedient(tell)).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    // More than the kernel holds for a client that does not read.
    let mut queued = 0u8;
    loop {
        let (origin, opcode) = (Origin::Control, Opcode::Binary);
        let push = ManagerToWorker::Push { origin, id: 1, fd: fd(0, 1).as_u64(), opcode };
        old.says(push, &vec![queued; 200_000]).await;
        let verdict = old.hears(|(message, ..)| match message {
            WorkerToManager::Verdict { verdict, .. } => Some(*verdict),
            _ => None,
        });
        if verdict.await == Verdict::Full {
            break;
        }
        queued += 1;
    }
    let (mut new, heard_new) = start(&server, SECOND).await;
    assert_eq!(pass_over(&mut old, &mut new).await, (1, 0));
    told(&heard_new).await;
    for n in 0..queued {
        assert_eq!(next(&mut client).await, WsMessage::binary(vec![n; 200_000]));
    }
    server.counts_to(Counter::MessagesOut, u64::from(queued)).await;
    assert_eq!(server.count(Counter::PushLost), 0);
}

#[tokio::test]
async fn a_request_half_read_and_a_handler_at_work_move_too() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut slow = server.connect().await;
    told(&heard_old).await;
    let mut half = half_a_request(&server).await;
    slow.feed(WsMessage::text("slow 1")).await.unwrap();
    slow.feed(WsMessage::text("slow 2")).await.unwrap();
    slow.flush().await.unwrap();
    let (mut new, heard_new) = start(&server, SECOND).await;
    let (moved, stayed) = pass_over(&mut old, &mut new).await;
    assert_eq!((moved, stayed), (2, 0));
    assert!(told(&heard_new).await.starts_with("attach"));
    assert_eq!(text(&mut slow).await, "slow 1");
    half.write_all(REST.as_bytes()).await.unwrap();
    assert_eq!(told(&heard_new).await, format!("open {}", fd(0, 2)));
    let mut answer = vec![0; 4096];
    let n = tokio::io::AsyncReadExt::read(&mut half, &mut answer).await.unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 101"));
    let mut client =
        tokio_tungstenite::WebSocketStream::from_raw_socket(half, Role::Client, None).await;
    say(&mut client, "in").await;
    assert_eq!(text(&mut client).await, "in");
    assert_eq!(text(&mut slow).await, "slow 2");
    assert_eq!(server.count(Counter::Handshakes), 0);
}

#[tokio::test]
async fn own_pushes_wait_behind_what_the_manager_holds() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    let (mut new, heard_new) = start(&server, SECOND).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    old.rests().await;
    let mut other = server.connect().await;
    assert!(told(&heard_new).await.starts_with("open"));
    let number = fd(0, 1).as_u64();
    // Before the answer, by way of the manager; behind it, deferred.
    say(&mut other, &format!("push {number}")).await;
    let pushed = |heard: &Heard| matches!(heard.0, WorkerToManager::Push { .. }).then_some(());
    new.hears(pushed).await;
    assert_eq!(until_answered(&mut old, &mut new).await, [number]);
    say(&mut other, "broadcast first").await;
    say(&mut other, &format!("push {number}")).await;
    say(&mut client, "not yet").await;
    server.counts_to(Counter::MessagesIn, 3).await;
    let held =
        ManagerToWorker::Push { origin: Origin::Control, id: 0, fd: number, opcode: Opcode::Text };
    new.says(held, b"held").await;
    new.says(ManagerToWorker::Missed { opcode: Opcode::Text, except: 0 }, b"missed").await;
    new.says(ManagerToWorker::Own { pass: 1 }, &[]).await;
    for expected in ["held", "missed", "first", "pushed", "not yet"] {
        assert_eq!(text(&mut client).await, expected);
    }
    assert!(told(&heard_new).await.starts_with("attach"));
    say(&mut other, "only those on their way missed it").await;
    for expected in ["relayed", "first", "relayed", "only those on their way missed it"] {
        assert_eq!(text(&mut other).await, expected);
    }
}

#[tokio::test]
async fn what_came_is_not_served_before_it_is_ours() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    let mut half = half_a_request(&server).await;
    let (mut new, heard_new) = start(&server, SECOND).await;
    assert_eq!(until_answered(&mut old, &mut new).await.len(), 2);
    say(&mut client, "still there?").await;
    // A manager dies, and the next hears of both.
    let who = ManagerToWorker::WhoAreYou { manager: 2 };
    old.says_with(&who, b"", Vec::new()).await;
    new.says_with(&who, b"", Vec::new()).await;
    let gives = old.hears(|heard: &Heard| match &heard.0 {
        WorkerToManager::Gives { manager: 2, pass: 1, fds } => Some(fds.clone()),
        _ => None,
    });
    assert_eq!(gives.await.len(), 2);
    let holds = new.hears(|heard: &Heard| match &heard.0 {
        WorkerToManager::Holds { manager: 2, pass: 1, from: FIRST, fds, answered: true } => {
            Some(fds.clone())
        }
        _ => None,
    });
    let fds = holds.await;
    assert!(heard_new.try_recv().is_err(), "nobody is served yet");
    old.says(ManagerToWorker::Settled { pass: 1, taken: fds }, &[]).await;
    new.says(ManagerToWorker::Own { pass: 1 }, &[]).await;
    assert!(told(&heard_new).await.starts_with("attach"));
    assert_eq!(text(&mut client).await, "still there?");
    half.write_all(REST.as_bytes()).await.unwrap();
    assert!(told(&heard_new).await.starts_with("open"));
    assert_eq!(server.count(Counter::Connections), 2);
}

#[tokio::test]
async fn who_brings_more_rooms_than_a_worker_may_have_is_not_taken() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let _clients = many(&server, &heard_old, 3).await;
    for serial in 1..=3 {
        for room in ["one", "two"] {
            let (number, room) = (fd(0, serial).as_u64(), format!("{room}{serial}"));
            let (origin, change) = (Origin::Control, Change::Join { room, info: None });
            let join = ManagerToWorker::Change { origin, id: 0, fd: number, mark: 0, change };
            old.says(join, &[]).await;
        }
    }
    let (tell, _heard_new) = channel();
    let few = Config { rooms_max: 2, ..config() };
    let mut new = server.start(SECOND, few, move || Obedient(tell)).await;
    // What a worker has itself, and as much that moves to it.
    assert_eq!(until_answered(&mut old, &mut new).await.len(), 2);
}

#[tokio::test]
async fn a_pass_that_nobody_took_is_served_again_when_the_manager_says_so() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    let _half = half_a_request(&server).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    old.rests().await;
    old.says(ManagerToWorker::Give { pass: 1 }, &[]).await;
    // The new worker dies with the batch.
    let (message, _, sockets) = old.hears_all().await;
    assert!(matches!(message, WorkerToManager::Moving { pass: 1, .. }), "{message:?}");
    drop(sockets);
    say(&mut client, "still there?").await;
    old.says(ManagerToWorker::Settled { pass: 1, taken: vec![] }, &[]).await;
    assert_eq!(old.adopted(1).await.len(), 2);
    assert!(heard_old.try_recv().is_err(), "nobody is served yet");
    old.says(ManagerToWorker::Own { pass: 1 }, &[]).await;
    assert!(told(&heard_old).await.starts_with("attach"));
    assert_eq!(text(&mut client).await, "still there?");
    assert_eq!(server.count(Counter::Connections), 1);
    // And given again.
    old.rests().await;
    let (mut new, heard_new) = start(&server, SECOND).await;
    assert_eq!(pass_over(&mut old, &mut new).await, (2, 0));
    assert!(told(&heard_new).await.starts_with("attach"));
    assert_eq!(server.count(Counter::Handshakes), 1);
}

#[tokio::test]
async fn who_comes_back_of_a_pass_that_nobody_took_has_not_left_meanwhile() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let _clients = many(&server, &heard_old, 1).await;
    let bind = Change::Bind { uid: "ann".to_owned() };
    let join = Change::Join { room: "presence-r".to_owned(), info: None };
    for change in [bind, join] {
        let (origin, number) = (Origin::Control, fd(0, 1).as_u64());
        let change = ManagerToWorker::Change { origin, id: 0, fd: number, mark: 0, change };
        old.says(change, &[]).await;
    }
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    old.rests().await;
    old.says(ManagerToWorker::Give { pass: 1 }, &[]).await;
    // The new worker dies with the batch.
    let (message, _, sockets) = old.hears_all().await;
    assert!(matches!(message, WorkerToManager::Moving { pass: 1, .. }), "{message:?}");
    drop(sockets);
    old.says(ManagerToWorker::Settled { pass: 1, taken: vec![] }, &[]).await;
    let mut counts = Vec::new();
    old.hears(|(message, ..)| match message {
        WorkerToManager::Present { count, .. } => {
            counts.push(*count);
            None
        }
        WorkerToManager::Adopted { pass: 1, .. } => Some(()),
        _ => None,
    })
    .await;
    assert!(!counts.contains(&0) && counts.last() == Some(&1), "{counts:?}");
}

#[tokio::test]
async fn what_the_new_worker_has_not_goes_on_with_the_old_one() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut clients = many(&server, &heard_old, 2).await;
    let (mut new, _heard_new) = start(&server, SECOND).await;
    let mut taken = until_answered(&mut old, &mut new).await;
    assert_eq!(taken.len(), 2);
    let back = taken.pop().unwrap();
    old.says(ManagerToWorker::Settled { pass: 1, taken }, &[]).await;
    assert_eq!(old.adopted(1).await, [back]);
    old.says(ManagerToWorker::Own { pass: 1 }, &[]).await;
    assert_eq!(told(&heard_old).await, format!("attach {} /ws kept of {0}", fd(0, 2)));
    say(&mut clients[1], "still there?").await;
    assert_eq!(text(&mut clients[1]).await, "still there?");
}

#[tokio::test]
async fn who_is_told_to_drain_amid_a_handover_serves_all_that_is_left() {
    let server = Server::new();
    let (mut old, heard) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard).await;
    let none = || Body::Inline(&[]);
    let drain = ManagerToWorker::Drain { jitter_ms: 0, deadline_ms: 60_000 };
    old.manager.insist(&ManagerToWorker::HandOver { to: SECOND }, none(), vec![]).unwrap();
    old.manager.insist(&drain, none(), vec![]).unwrap();
    old.manager.flush().await.unwrap();
    old.rests().await;
    say(&mut client, "still there?").await;
    assert_eq!(text(&mut client).await, "still there?");
}

/// A pass for a new worker that takes all; how many that were, and what is left.
async fn pass(old: &mut Tested, pass: PassId) -> (usize, Left) {
    old.says(ManagerToWorker::Give { pass }, &[]).await;
    let mut given = Vec::new();
    loop {
        match old.hears_all().await.0 {
            WorkerToManager::Moving { fds, .. } => given.extend(fds),
            WorkerToManager::Gave { left, .. } => {
                let count = given.len();
                old.says(ManagerToWorker::Settled { pass, taken: given }, &[]).await;
                return (count, left);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn many_move_in_passes_and_who_is_busy_in_one_of_the_next() {
    let server = Server::new();
    let (mut old, heard) = start(&server, FIRST).await;
    let mut clients = many(&server, &heard, 300).await;
    say(&mut clients[0], &format!("confirm {}", fd(1, 7))).await;
    let asked = |heard: &Heard| match heard.0 {
        WorkerToManager::Push { id, .. } => Some(id),
        _ => None,
    };
    let id = old.hears(asked).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    old.rests().await;
    let (mut moved, mut number) = (0, 0);
    loop {
        number += 1;
        let (given, left) = pass(&mut old, number).await;
        moved += given;
        match left {
            Left::More => assert!(given > 0),
            Left::Busy => break,
            Left::Nothing => panic!("one is busy"),
        }
    }
    assert_eq!(moved, 299);
    old.says(ManagerToWorker::Verdict { id, verdict: Verdict::Gone }, &[]).await;
    old.rests().await;
    assert_eq!(pass(&mut old, number + 1).await, (1, Left::Nothing));
}
