//! A worker at either end of a direct link, with the test at the other and for the manager.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};

use super::harness::*;
use super::serving::{Obedient, config, told};
use crate::api::Opcode;
use crate::fd::{Slot, WorkerId};
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::link::{Lane, Link, Sent};
use crate::ipc::messages::{ManagerToWorker, Origin, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::{Body, Frames};
use crate::sys::packet;

const OTHER: WorkerId = WorkerId { slot: Slot(1), epoch: 1 };

/// A worker with a client.
async fn start(server: &Server) -> (Tested, Receiver<String>, Client) {
    let (tell, heard) = channel();
    let mut worker = server.start(FIRST, config(), move || Obedient(tell)).await;
    worker.says(ManagerToWorker::WhoAreYou { manager: 1 }, &[]).await;
    assert_eq!(peers(&mut worker).await, []);
    let client = server.connect().await;
    told(&heard).await;
    (worker, heard, client)
}

async fn peers(worker: &mut Tested) -> Vec<(u64, WorkerId)> {
    let peers = |heard: &Heard| match &heard.0 {
        WorkerToManager::Peers { from } => Some(from.clone()),
        _ => None,
    };
    worker.hears(peers).await
}

/// Has the client push so many to one of the other worker's.
async fn push(client: &mut Client, count: usize) {
    for _ in 0..count {
        say(client, &format!("push {}", fd(1, 7))).await;
        assert_eq!(text(client).await, "relayed");
    }
}

/// Gives the worker its end of a link.
async fn go_direct(worker: &mut Tested) -> OwnedFd {
    let (ours, theirs) = packet::pair().unwrap();
    worker.says_with(&ManagerToWorker::Direct { link: 5, to: OTHER }, &[], vec![theirs]).await;
    let through = |heard: &Heard| matches!(heard.0, WorkerToManager::Through { link: 5 });
    worker.hears(|heard| through(heard).then_some(())).await;
    ours
}

async fn hear_pushes(link: &Link, count: usize) {
    let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
    let mut heard = 0;
    while heard < count {
        let mut arrival = link.receive(&mut buffer).await.unwrap().unwrap();
        let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
        assert_eq!(frames.id, FIRST);
        while let Some(frame) = frames.next::<WorkerToWorker>(&mut arrival.fds).unwrap() {
            let to = fd(1, 7).as_u64();
            assert!(matches!(frame.message, WorkerToWorker::Push { id: 0, fd, .. } if fd == to));
            assert_eq!(frame.body.into_bytes().unwrap(), "pushed");
            heard += 1;
        }
    }
    assert_eq!(heard, count);
}

#[tokio::test]
async fn who_sends_much_to_a_slot_asks_for_a_link_and_a_broadcast_ends_it() {
    let server = Server::new();
    let (mut worker, _heard, mut client) = start(&server).await;
    push(&mut client, 32).await;
    let wants = |heard: &Heard| matches!(heard.0, WorkerToManager::WantDirect { to: Slot(1) });
    worker.hears(|heard| wants(heard).then_some(())).await;

    let socket = go_direct(&mut worker).await;
    push(&mut client, 2).await;
    let link = Link::new(socket, FIRST).unwrap();
    link.control(&()).unwrap();
    link.flush().await.unwrap();
    push(&mut client, 3).await;
    hear_pushes(&link, 5).await;

    say(&mut client, "broadcast to all").await;
    assert_eq!(text(&mut client).await, "to all");
    push(&mut client, 1).await;
    let mut order = Vec::new();
    while order.last() != Some(&"push") {
        order.push(match worker.hears_all().await.0 {
            WorkerToManager::Indirect { link: 5 } => "indirect",
            WorkerToManager::Broadcast { .. } => "broadcast",
            // Before there was a link.
            WorkerToManager::Push { .. } if order.is_empty() => continue,
            WorkerToManager::Push { .. } => "push",
            _ => continue,
        });
    }
    assert_eq!(order, ["indirect", "broadcast", "push"]);
}

#[tokio::test]
async fn what_waits_for_a_link_that_does_not_come_up_goes_by_the_manager() {
    let server = Server::new();
    let (mut worker, _heard, mut client) = start(&server).await;
    let socket = go_direct(&mut worker).await;
    push(&mut client, 2).await;
    // The manager died with it.
    drop(socket);
    for place in 0..3 {
        let message = worker.hears_all().await.0;
        match place {
            0 => assert!(matches!(message, WorkerToManager::Indirect { link: 5 }), "{message:?}"),
            _ => assert!(matches!(message, WorkerToManager::Push { .. }), "{message:?}"),
        }
    }
}

#[tokio::test]
async fn what_came_directly_is_taken_before_what_comes_by_the_manager_again() {
    const PUSHES: usize = 200;
    let server = Server::new();
    let (mut worker, _heard, mut client) = start(&server).await;
    let (ours, theirs) = packet::pair().unwrap();
    worker.says_with(&ManagerToWorker::Peer { link: 9, from: OTHER }, &[], vec![theirs]).await;
    let link = Link::new(ours, OTHER).unwrap();
    let mut buffer = [0; 256];
    assert!(link.receive(&mut buffer).await.unwrap().is_some());
    worker.says(ManagerToWorker::WhoAreYou { manager: 1 }, &[]).await;
    assert_eq!(peers(&mut worker).await, [(9, OTHER)]);

    let to = fd(0, 1).as_u64();
    for n in 0..PUSHES {
        let message = WorkerToWorker::Push { id: 0, fd: to, opcode: Opcode::Text };
        let body = n.to_string();
        let sent = link.send(Lane::Data, &message, Body::Inline(body.as_bytes()), vec![]);
        assert_eq!(sent.unwrap(), Sent::Queued);
        // A packet each, so that it takes many turns to take them.
        link.flush().await.unwrap();
    }
    worker.says(ManagerToWorker::PeerLeft { link: 9 }, &[]).await;
    let origin = Origin::Worker(OTHER);
    let last = ManagerToWorker::Push { origin, id: 0, fd: to, opcode: Opcode::Text };
    worker.says(last, b"last").await;
    for n in 0..PUSHES {
        assert_eq!(text(&mut client).await, n.to_string());
    }
    assert_eq!(text(&mut client).await, "last");
    let ended = |heard: &Heard| matches!(heard.0, WorkerToManager::PeerEnded { link: 9 });
    worker.hears(|heard| ended(heard).then_some(())).await;
}
