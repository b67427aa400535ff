//! A membership lasts as long as its connection, whatever becomes of the processes.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::{clients_on, has_heard_all};
use crate::harness::*;

/// Has everybody in the room, bound and with a session; the numbers of all.
async fn settle_in(clients: &mut [(Client, u64)]) {
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
        assert_eq!(client.ask(format!("bind me u{}", index % 2)).await, "bind queued");
        assert_eq!(client.ask(format!("keep me s{index}")).await, "keep queued");
    }
}

/// That everybody still has all of that.
async fn are_settled(clients: &mut [(Client, u64)], publisher: &mut Client) {
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask("rooms me").await, "rooms lobby");
        assert_eq!(client.ask("uid me").await, format!("uid u{}", index % 2));
        let session = format!("session Ok(Some(\"s{index}\"))");
        assert_eq!(client.ask("session me").await, session);
    }
    let count = clients.len();
    let tally = publisher.ask("tally lobby hello").await;
    assert_eq!(tally, format!("tally queued for {count} true"));
    publisher.ask("push-uid u1 to one").await;
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(client.receive().await, "hello");
        if index % 2 == 1 {
            assert_eq!(client.receive().await, "to one");
        }
        has_heard_all(client).await;
    }
}

#[tokio::test]
async fn a_reload_touches_no_membership_no_user_and_no_session() {
    let mut server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1, 0]).await;
    let mut publisher = server.client_on(1).await;
    settle_in(&mut clients).await;
    for _ in 0..3 {
        server.wsd(["reload"]).await.ok();
        are_settled(&mut clients, &mut publisher).await;
    }
    // A slot that goes takes its clients to another, and a slot that comes has none yet.
    for worker_num in [1, 3] {
        server.configure("worker_num", worker_num);
        server.wsd(["reload"]).await.ok();
        are_settled(&mut clients, &mut publisher).await;
    }
}

/// Two publish all the time, while everybody moves: each number reaches each member, once and in
/// its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_during_reloads_reaches_each_member_once() {
    const COUNT: u64 = 4_000;
    let server = Setup::testbed().start().await;
    let mut publishers = clients_on(&server, &[0, 1]).await;
    let mut members = clients_on(&server, &[0, 1, 0, 1, 0, 1]).await;
    for (client, _) in &mut members {
        client.ask("join-confirmed me from0").await;
        client.ask("join-confirmed me from1").await;
    }
    for (index, (client, _)) in publishers.iter_mut().enumerate() {
        client.send(format!("room-flood from{index} {COUNT}")).await;
    }
    let heard = members.into_iter().map(|(mut client, fd)| {
        tokio::spawn(async move {
            let mut next = BTreeMap::<String, u64>::new();
            for _ in 0..2 * COUNT {
                let text = client.receive().await;
                let (room, number) = text.split_once(' ').expect("a room and a number");
                let next = next.entry(room.to_owned()).or_default();
                assert_eq!(number.parse(), Ok(*next), "client {fd}: {text}");
                *next += 1;
            }
            client
        })
    });
    let heard: Vec<_> = heard.collect();
    while !heard.iter().all(tokio::task::JoinHandle::is_finished) {
        server.wsd(["reload"]).await.ok();
    }
    for client in heard {
        has_heard_all(&mut client.await.expect("a member's part")).await;
    }
    for (client, _) in &mut publishers {
        assert_eq!(client.receive().await, "room-flood done");
        has_heard_all(client).await;
    }
}

/// Joins, binds and publishes of one worker for clients of another that moves meanwhile.
#[tokio::test]
async fn joins_and_binds_while_a_client_moves_are_done_in_their_order() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let other = clients[1].1;
    for round in 0..5 {
        let (reloaded, ()) = tokio::join!(server.wsd(["reload"]), async {
            for number in 0..40 {
                let room = format!("r{round}.{number}");
                let script = format!(
                    "script join {other} {room}; publish {room} {room}; bind {other} {room}; \
                     push-uid {room} u{room}; leave {other} {room}; publish {room} lost"
                );
                let said = clients[0].0.ask(script).await;
                assert!(!said.contains("full") && !said.contains("gone"), "{said}");
                assert_eq!(clients[1].0.receive().await, room);
                assert_eq!(clients[1].0.receive().await, format!("u{room}"));
            }
        });
        reloaded.ok();
    }
    has_heard_all(&mut clients[1].0).await;
}

#[tokio::test]
async fn an_upgrade_touches_no_membership_no_user_and_no_session() {
    let server = Setup::own_testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 0]).await;
    let mut publisher = server.client_on(1).await;
    settle_in(&mut clients).await;
    // The next build's session has one field more, and this build's one field less.
    for is_next in [true, false] {
        crate::upgrade::install_build(&server, is_next);
        crate::upgrade::upgrade(&server).await.ok();
        are_settled(&mut clients, &mut publisher).await;
    }
}

#[tokio::test]
async fn a_new_manager_learns_who_is_where() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1]).await;
    let mut publisher = server.client_on(1).await;
    settle_in(&mut clients).await;
    for _ in 0..3 {
        let manager = server.manager().await;
        kill(manager, Signal::SIGKILL);
        // What is said to one that is dying may be lost; the next one answers.
        until("another manager", || async { (server.manager().await != manager).then_some(()) })
            .await;
        are_settled(&mut clients, &mut publisher).await;
    }
    // A join that waits for a manager is answered by the next.
    let manager = server.manager().await;
    publisher.send("join-confirmed me late").await;
    kill(manager, Signal::SIGKILL);
    assert_eq!(publisher.receive().await, "join-confirmed []");
}

#[tokio::test]
async fn memberships_end_with_a_killed_worker_and_no_others() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1]).await;
    settle_in(&mut clients).await;
    let victim = server.serving(0, None).await;
    kill(victim.pid, Signal::SIGKILL);
    for (client, _) in clients.iter_mut().step_by(2) {
        assert_eq!(client.closed().await, Closed::Abruptly);
    }
    server.serving(0, Some(victim.pid)).await;
    assert_eq!(clients[1].0.ask("tally lobby hello").await, "hello");
    assert_eq!(clients[1].0.receive().await, "tally queued for 2 true");
    assert_eq!(clients[3].0.receive().await, "hello");
    assert_eq!(clients[3].0.ask("close-uid u0 4000 bye").await, "close-uid gone");
    let mut back = server.client_on(0).await;
    assert_eq!(back.ask("rooms me").await, "rooms ");
    assert_eq!(back.ask("join-confirmed me lobby").await, "join-confirmed []");
    assert_eq!(back.ask("count lobby").await, "count 3");
}
