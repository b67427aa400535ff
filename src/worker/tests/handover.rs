//! Two workers of one slot: the old hands its connections to the new.

use std::sync::mpsc::{Receiver, channel};

use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::harness::*;
use super::serving::{Obedient, config, told};
use crate::api::{Opcode, Verdict};
use crate::config::{BufferPolicy, Config};
use crate::fd::{Slot, WorkerId};
use crate::ipc::messages::{ManagerToWorker, Origin, WorkerToManager};
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

/// Passes one batch on, and none of the answers.
async fn pass_on_one(old: &mut Tested, new: &mut Tested) {
    let (message, body, fds) = old.hears_all().await;
    let WorkerToManager::Moving { fds: numbers } = message else { panic!("{message:?}") };
    new.says_with(&ManagerToWorker::Adopt { from: FIRST, fds: numbers }, &body, fds).await;
    while !matches!(old.hears_all().await.0, WorkerToManager::HandedOver { .. }) {}
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
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    let (moved, stayed) = pass_over(&mut old, &mut new).await;
    assert_eq!((moved, stayed), (sent.len() as u64 + 1, 0));
    new.says(ManagerToWorker::Own, &[]).await;
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
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
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
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
    while server.count(Counter::Handshakes) == 0 {
        tokio::task::yield_now().await;
    }
    slow.feed(WsMessage::text("slow 1")).await.unwrap();
    slow.feed(WsMessage::text("slow 2")).await.unwrap();
    slow.flush().await.unwrap();
    let (mut new, heard_new) = start(&server, SECOND).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    let (moved, stayed) = pass_over(&mut old, &mut new).await;
    assert_eq!((moved, stayed), (2, 0));
    assert!(told(&heard_new).await.starts_with("attach"));
    assert_eq!(text(&mut slow).await, "slow 1");
    let rest = "a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    half.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(told(&heard_new).await, format!("open {}", fd(0, 2)));
    let mut answer = vec![0; 4096];
    let n = tokio::io::AsyncReadExt::read(&mut half, &mut answer).await.unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 101"));
    let mut client =
        tokio_tungstenite::WebSocketStream::from_raw_socket(half, Role::Client, None).await;
    say(&mut client, "in").await;
    assert_eq!(text(&mut client).await, "in");
    new.says(ManagerToWorker::Own, &[]).await;
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
    pass_over(&mut old, &mut new).await;
    told(&heard_new).await;
    say(&mut client, "first").await;
    say(&mut client, "second").await;
    server.counts_to(Counter::MessagesIn, 2).await;
    let number = fd(0, 1).as_u64();
    let held =
        ManagerToWorker::Push { origin: Origin::Control, id: 0, fd: number, opcode: Opcode::Text };
    new.says(held, b"held").await;
    new.says(ManagerToWorker::Own, &[]).await;
    for expected in ["held", "first", "second"] {
        assert_eq!(text(&mut client).await, expected);
    }
    say(&mut client, "short").await;
    assert_eq!(text(&mut client).await, "short");
}

#[tokio::test]
async fn a_batch_that_comes_again_does_not_revive_who_has_ended() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    let (mut new, heard_new) = start(&server, SECOND).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    pass_on_one(&mut old, &mut new).await;
    assert!(told(&heard_new).await.starts_with("attach"));
    // The manager dies before it passes the answer back, and the client leaves.
    client.close(None).await.unwrap();
    assert!(told(&heard_new).await.starts_with("close"));
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    pass_over(&mut old, &mut new).await;
    server.counts_to(Counter::HandedOver, 1).await;
    assert!(heard_new.try_recv().is_err());
    assert_eq!(server.count(Counter::Connections), 0);
}

#[tokio::test]
async fn a_request_half_read_that_comes_again_is_one_client() {
    let server = Server::new();
    let (mut old, _heard_old) = start(&server, FIRST).await;
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
    while server.count(Counter::Handshakes) == 0 {
        tokio::task::yield_now().await;
    }
    let (mut new, heard_new) = start(&server, SECOND).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    // The manager dies before it passes the answer back.
    pass_on_one(&mut old, &mut new).await;
    let adopted = |heard: &Heard| matches!(heard.0, WorkerToManager::Adopted { .. }).then_some(());
    new.hears(adopted).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    pass_over(&mut old, &mut new).await;
    assert_eq!(server.count(Counter::Handshakes), 1);
    let rest = "a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    half.write_all(rest.as_bytes()).await.unwrap();
    assert!(told(&heard_new).await.starts_with("open"));
    assert_eq!(server.count(Counter::Connections), 1);
    assert!(heard_new.try_recv().is_err());
}

#[tokio::test]
async fn what_nobody_took_is_served_again() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard_old).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    // The new worker dies with the batch, and there is no other.
    let (message, _, sockets) = old.hears_all().await;
    assert!(matches!(message, WorkerToManager::Moving { .. }), "{message:?}");
    drop(sockets);
    say(&mut client, "still there?").await;
    old.says(ManagerToWorker::Drain { jitter_ms: 0, deadline_ms: 60_000 }, &[]).await;
    assert!(told(&heard_old).await.starts_with("attach"));
    assert_eq!(text(&mut client).await, "still there?");
    assert_eq!(server.count(Counter::Connections), 1);
}

#[tokio::test]
async fn a_handover_that_is_given_up_before_it_began_leaves_all_served() {
    let server = Server::new();
    let (mut old, heard) = start(&server, FIRST).await;
    let mut client = server.connect().await;
    told(&heard).await;
    // It was stopped meanwhile, and hears of both at once.
    let none = || Body::Inline(&[]);
    let drain = ManagerToWorker::Drain { jitter_ms: 0, deadline_ms: 60_000 };
    old.manager.insist(&ManagerToWorker::HandOver { to: SECOND }, none(), vec![]).unwrap();
    old.manager.insist(&drain, none(), vec![]).unwrap();
    old.manager.flush().await.unwrap();
    rests(&mut old).await;
    say(&mut client, "still there?").await;
    assert_eq!(text(&mut client).await, "still there?");
}

#[tokio::test]
async fn batches_that_were_lost_are_sent_again_and_doubles_are_dropped() {
    let server = Server::new();
    let (mut old, heard_old) = start(&server, FIRST).await;
    let _clients = many(&server, &heard_old, 100).await;
    let (mut new, heard_new) = start(&server, SECOND).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    // The first manager passes one batch on, and dies before it passes the answer back.
    pass_on_one(&mut old, &mut new).await;
    let adopted = |heard: &Heard| matches!(heard.0, WorkerToManager::Adopted { .. }).then_some(());
    new.hears(adopted).await;
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
    assert_eq!(pass_over(&mut old, &mut new).await, (100, 0));
    for _ in 0..100 {
        assert!(told(&heard_new).await.starts_with("attach"));
    }
    assert!(heard_new.try_recv().is_err());
    server.counts_to(Counter::HandedOver, 100).await;
    assert_eq!(server.count(Counter::Connections), 100);
}

/// Answers each batch of a round for a new worker that takes all; how many those were, and
/// whether there are more.
async fn round(old: &mut Tested) -> (usize, bool) {
    let mut given = 0;
    loop {
        match old.hears_all().await.0 {
            WorkerToManager::Moving { fds } => {
                given += fds.len();
                old.says(ManagerToWorker::Adopted { fds }, &[]).await;
            }
            WorkerToManager::Gave => return (given, true),
            WorkerToManager::HandedOver { .. } => return (given, false),
            _ => {}
        }
    }
}

async fn ask_for_round(old: &mut Tested) {
    old.says(ManagerToWorker::HandOver { to: SECOND }, &[]).await;
}

async fn rests(old: &mut Tested) {
    old.hears(|heard: &Heard| matches!(heard.0, WorkerToManager::Rested).then_some(())).await;
}

#[tokio::test]
async fn many_move_in_rounds_and_who_is_busy_in_one_of_the_next() {
    let server = Server::new();
    let (mut old, heard) = start(&server, FIRST).await;
    let mut clients = many(&server, &heard, 300).await;
    say(&mut clients[0], &format!("confirm {}", fd(1, 7))).await;
    let asked = |heard: &Heard| match heard.0 {
        WorkerToManager::Push { id, .. } => Some(id),
        _ => None,
    };
    let id = old.hears(asked).await;
    ask_for_round(&mut old).await;
    assert_eq!(round(&mut old).await, (256, true));
    rests(&mut old).await;
    ask_for_round(&mut old).await;
    assert_eq!(round(&mut old).await, (43, true));
    old.says(ManagerToWorker::Verdict { id, verdict: Verdict::Gone }, &[]).await;
    rests(&mut old).await;
    ask_for_round(&mut old).await;
    assert_eq!(round(&mut old).await, (1, false));
}

#[tokio::test]
async fn a_handover_that_is_given_up_between_two_rounds_leaves_the_rest_served() {
    let server = Server::new();
    let (mut old, heard) = start(&server, FIRST).await;
    let mut clients = many(&server, &heard, 257).await;
    ask_for_round(&mut old).await;
    assert_eq!(round(&mut old).await, (256, true));
    rests(&mut old).await;
    old.says(ManagerToWorker::Drain { jitter_ms: 0, deadline_ms: 60_000 }, &[]).await;
    // It says so once more when it has noticed, to be asked later.
    rests(&mut old).await;
    say(&mut clients[256], "still there?").await;
    assert_eq!(text(&mut clients[256]).await, "still there?");
    ask_for_round(&mut old).await;
    assert_eq!(round(&mut old).await, (1, false));
}
