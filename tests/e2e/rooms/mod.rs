//! Rooms, users and sessions: who is reached by what, and what every odd case is answered with.
//!
//! - here: one server that stays as it is.
//! - [`order`]: what one sender asks for is done in its order, by whatever way it goes.
//! - [`presence`]: who is there, and who comes and goes.
//! - [`survival`]: reloads, upgrades and the deaths of processes.
//! - [`soak`]: many clients over many reloads and upgrades.

mod order;
mod presence;
mod soak;
mod survival;

use crate::harness::*;

/// A client on each of these slots, with its number.
pub async fn clients_on(server: &Server, slots: &[u64]) -> Vec<(Client, u64)> {
    let mut clients = Vec::new();
    for slot in slots {
        let mut client = server.client_on(*slot).await;
        let fd = client.who().await.fd;
        clients.push((client, fd));
    }
    clients
}

/// That a client has been sent nothing so far that it has not received.
pub async fn has_heard_all(client: &mut Client) {
    assert_eq!(client.ask("echo now").await, "echo now");
}

#[tokio::test]
async fn a_publish_reaches_each_member_once_on_every_worker_and_nobody_else() {
    let server = Setup::testbed().set("worker_num", 3).start().await;
    let mut clients = clients_on(&server, &[0, 1, 2, 0, 1]).await;
    for (client, _) in &mut clients[..4] {
        assert_eq!(client.ask("join-confirmed me lobby").await, "join-confirmed []");
    }
    // Twice a member is once a member.
    assert_eq!(clients[1].0.ask("join me lobby").await, "join queued");
    assert_eq!(clients[0].0.ask("tally lobby hello").await, "hello");
    assert_eq!(clients[0].0.receive().await, "tally queued for 4 true");
    for (client, _) in &mut clients[1..4] {
        assert_eq!(client.receive().await, "hello");
        has_heard_all(client).await;
    }
    has_heard_all(&mut clients[4].0).await;
    // One that is no member publishes as well as one that is.
    assert_eq!(clients[4].0.ask("publish lobby from outside").await, "publish relayed");
    for (client, _) in &mut clients[..4] {
        assert_eq!(client.receive().await, "from outside");
    }
    has_heard_all(&mut clients[4].0).await;
}

#[tokio::test]
async fn who_left_or_is_in_another_room_is_not_reached() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 1]).await;
    for (client, _) in &mut clients {
        client.ask("join-confirmed me a").await;
    }
    clients[1].0.ask("join-confirmed me b").await;
    assert_eq!(clients[1].0.ask("rooms me").await, "rooms a,b");
    assert_eq!(clients[1].0.ask("leave me a").await, "leave queued");
    assert_eq!(clients[1].0.ask("leave me a").await, "leave queued");
    assert_eq!(clients[1].0.ask("rooms me").await, "rooms b");
    assert_eq!(clients[0].0.ask("tally a to a").await, "to a");
    assert_eq!(clients[0].0.receive().await, "tally queued for 2 true");
    assert_eq!(clients[2].0.receive().await, "to a");
    has_heard_all(&mut clients[1].0).await;
    assert_eq!(clients[0].0.ask("tally b to b").await, "tally queued for 1 true");
    assert_eq!(clients[1].0.receive().await, "to b");
    // A room without members is no error.
    assert_eq!(clients[0].0.ask("tally nowhere x").await, "tally queued for 0 true");
    assert_eq!(clients[0].0.ask("publish nowhere x").await, "publish relayed");
    assert_eq!(clients[0].0.ask("members nowhere").await, "members []");
}

#[tokio::test]
async fn a_publish_may_leave_one_out_and_may_go_to_the_union_of_rooms() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 1]).await;
    let except = clients[1].1;
    for (client, _) in &mut clients {
        client.ask("join-confirmed me a").await;
        client.ask("join-confirmed me b").await;
    }
    clients[2].0.ask("leave me a").await;
    let said = clients[0].0.ask(format!("publish-except a {except} hello")).await;
    assert_eq!(said, "hello");
    assert_eq!(clients[0].0.receive().await, "publish-except relayed");
    clients[0].0.send("publish-many a,b,c once").await;
    assert_eq!(clients[0].0.receive().await, "once");
    assert_eq!(clients[0].0.receive().await, "publish-many relayed");
    has_heard_all(&mut clients[0].0).await;
    for (client, _) in &mut clients[1..] {
        assert_eq!(client.receive().await, "once");
        has_heard_all(client).await;
    }
    let many = vec!["r"; 129].join(",");
    assert_eq!(clients[0].0.ask(format!("publish-many {many} x")).await, "publish-many too_big");
}

#[tokio::test]
async fn every_bound_has_its_verdict() {
    let server = Setup::testbed()
        .set("rooms_per_client", 2)
        .set("rooms_max", 4)
        .set("room_name_max", 8)
        .set("uid_max", 4)
        .set("session_max", 32)
        .start()
        .await;
    let mut clients = clients_on(&server, &[0, 0, 1]).await;
    let (elsewhere, gone) = (clients[2].1, clients[2].1 + 1000);
    let (one, _) = &mut clients[0];
    for (ask, answer) in [
        ("join me 123456789", "join too_big"),
        ("join me 12345678", "join queued"),
        // The second is of four letters and five bytes.
        ("bind me caf\u{e9}", "bind too_big"),
        ("bind me cafe", "bind queued"),
        ("bind me", "bind too_big"),
        ("join me b", "join queued"),
        ("join me c", "join full"),
        ("join me b", "join queued"),
        ("join-confirmed me c", "join-confirmed full"),
        ("keep me a text of thirty letters or more", "keep too_big"),
        ("publish 123456789 x", "publish too_big"),
        // The bound may have been lowered since the join.
        ("leave me 123456789", "leave queued"),
    ] {
        assert_eq!(one.ask(ask).await, answer, "{ask}");
    }
    for (ask, answer) in [("join {} 123456789", "join too_big"), ("bind {} cafes", "bind too_big")]
    {
        assert_eq!(one.ask(ask.replace("{}", &elsewhere.to_string())).await, answer, "{ask}");
    }
    let ask = |what: &str| format!("join-confirmed {what}");
    assert_eq!(one.ask(ask(&format!("{gone} b"))).await, ask("gone"));
    // Three rooms and a user are four.
    let (two, _) = &mut clients[1];
    assert_eq!(two.ask("join me d").await, "join queued");
    assert_eq!(two.ask("join me e").await, "join full");
    assert_eq!(two.ask("bind me dave").await, "bind full");
    assert_eq!(two.ask("bind me cafe").await, "bind queued");
    assert_eq!(two.ask("join me b").await, "join queued");
}

#[tokio::test]
async fn a_user_is_reached_on_every_connection_and_on_no_other() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 1]).await;
    let (first, second) = (clients[0].1, clients[1].1);
    let ask = format!("script bind me ann; bind {second} ann; push-uid ann hello");
    assert_eq!(clients[0].0.ask(ask).await, "hello");
    assert_eq!(clients[0].0.receive().await, "script queued relayed relayed");
    assert_eq!(clients[1].0.receive().await, "hello");
    assert_eq!(clients[1].0.ask("uid me").await, "uid ann");
    // A room may have the name of a user.
    assert_eq!(clients[2].0.ask("tally ann x").await, "tally queued for 0 true");
    // A connection has one user.
    assert_eq!(clients[0].0.ask("bind me bob").await, "bind queued");
    assert_eq!(clients[2].0.ask("push-uid ann again").await, "push-uid relayed");
    assert_eq!(clients[1].0.receive().await, "again");
    assert_eq!(clients[0].0.ask("uid me").await, "uid bob");
    clients[0].0.ask("unbind me").await;
    assert_eq!(clients[2].0.ask("close-uid bob 4000 bye").await, "close-uid gone");
    assert_eq!(clients[2].0.ask("close-uid ann 4000 bye").await, "close-uid queued");
    assert_eq!(clients[1].0.closed().await, Closed::Frame(4000, "bye".to_owned()));
    let info = clients[2].0.ask(format!("info {first}")).await;
    assert!(info.contains(r#""uid":null"#), "{info}");
}

#[tokio::test]
async fn members_are_listed_and_counted_on_all_workers_with_their_users() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1, 1]).await;
    for (client, _) in &mut clients[..2] {
        client.ask("join-confirmed me lobby").await;
    }
    clients[1].0.ask("bind me ann").await;
    let mut want = vec![
        serde_json::json!({"fd": clients[0].1, "uid": null}),
        serde_json::json!({"fd": clients[1].1, "uid": "ann"}),
    ];
    want.sort_by_key(|member| member["fd"].as_u64());
    for (client, _) in &mut clients {
        let said = client.ask("members lobby").await;
        let said = said.strip_prefix("members ").expect("members");
        let members: Vec<serde_json::Value> = serde_json::from_str(said).unwrap();
        assert_eq!(members, want);
        assert_eq!(client.ask("count lobby").await, "count 2");
    }
    let ask = format!("info {}", clients[1].1);
    let info = clients[0].0.ask(ask).await;
    assert!(info.contains(r#""uid":"ann","rooms":["lobby"]"#), "{info}");
}

#[tokio::test]
async fn other_threads_reach_rooms_by_their_handle() {
    let server = Setup::testbed().start().await;
    let mut client = server.client_on(0).await;
    assert_eq!(client.ask("thread-rooms lobby").await, "of a thread");
    assert_eq!(client.receive().await, "thread-rooms queued for 1 1");
}

#[tokio::test]
async fn a_session_is_what_was_kept_and_what_cannot_be_read_is_told() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let other = clients[1].1;
    let (one, _) = &mut clients[0];
    assert_eq!(one.ask("session me").await, "session Ok(None)");
    assert_eq!(one.ask("keep me seat 7").await, "keep queued");
    assert_eq!(one.ask("session me").await, r#"session Ok(Some("seat 7"))"#);
    let told = one.ask("session-number me").await;
    assert!(told.contains("the session cannot be read: invalid type"), "{told}");
    assert_eq!(one.ask("session me").await, r#"session Ok(Some("seat 7"))"#);
    assert_eq!(one.ask(format!("session {other}")).await, "session Err(NotHere)");
    assert_eq!(one.ask(format!("keep {other} theirs")).await, "keep relayed");
    assert_eq!(one.ask(format!("exists {other}")).await, "exists true");
    assert_eq!(clients[1].0.ask("session me").await, r#"session Ok(Some("theirs"))"#);
    until("the log", async || server.log().contains("a session cannot be read").then_some(()))
        .await;
}

#[tokio::test]
async fn a_connection_that_expires_is_closed_by_that_name() {
    let server = Setup::testbed().start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let other = clients[1].1;
    assert_eq!(clients[0].0.ask(format!("expire {other} 300")).await, "expire relayed");
    assert_eq!(clients[1].0.closed().await, Closed::Frame(1008, "expired".to_owned()));
    let closed = format!("close {other} expired 1008");
    until("the close", || async {
        server.events().iter().any(|event| event.starts_with(&closed)).then_some(())
    })
    .await;
    assert_eq!(clients[0].0.ask("expire me 3600000").await, "expire queued");
    has_heard_all(&mut clients[0].0).await;
}

#[tokio::test]
async fn a_publish_to_a_room_without_members_elsewhere_goes_to_no_other_worker() {
    let server = Setup::testbed().set("worker_num", 3).start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let relayed = async || server.status().await["manager"]["relayed"].as_u64().unwrap();
    clients[0].0.ask("join-confirmed me lobby").await;
    let before = relayed().await;
    assert_eq!(clients[0].0.ask("tally lobby x").await, "x");
    clients[0].0.receive().await;
    assert_eq!(relayed().await, before);
    clients[1].0.ask("join-confirmed me lobby").await;
    clients[0].0.ask("tally lobby y").await;
    clients[0].0.receive().await;
    assert_eq!(relayed().await, before + 1, "to the one that has a member");
}
