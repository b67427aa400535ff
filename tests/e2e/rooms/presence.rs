//! Who is present is told once for each stay of a user, whatever becomes of the processes.

use nix::sys::signal::Signal;

use super::clients_on;
use crate::harness::*;

const ROOM: &str = "presence-a";

async fn start() -> Server {
    Setup::testbed().set("rooms_presence", r#"["presence-"]"#).start().await
}

/// Binds a client to a user and puts it into the room; what it hears until then, its answer last.
async fn enter(client: &mut Client, uid: &str) -> Vec<String> {
    assert_eq!(client.ask(format!("bind me {uid}")).await, "bind queued");
    client.send(format!("join-confirmed me {ROOM}")).await;
    let mut heard = Vec::new();
    loop {
        heard.push(client.receive().await);
        if heard.last().is_some_and(|last| last.starts_with("join-confirmed ")) {
            return heard;
        }
    }
}

/// What these clients hear until a publish that follows all that has happened.
async fn heard_until(mark: &str, clients: &mut [&mut Client]) -> Vec<Vec<String>> {
    clients[0].send(format!("publish {ROOM} {mark}")).await;
    let mut all = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        let mut heard = Vec::new();
        // The first hears its verdict as well, before the mark or behind it.
        let mut owed = if index == 0 { 2 } else { 1 };
        while owed > 0 {
            let text = client.receive().await;
            owed -= usize::from(text == mark || text.starts_with("publish "));
            if text.starts_with("added ") || text.starts_with("removed ") {
                heard.push(text);
            }
        }
        all.push(heard);
    }
    all
}

/// The next change of who is present that a client hears of.
async fn next_change(client: &mut Client) -> String {
    loop {
        let text = client.receive().await;
        if text.starts_with("added ") || text.starts_with("removed ") {
            return text;
        }
    }
}

#[tokio::test]
async fn each_stay_of_a_user_is_one_added_and_one_removed() {
    let server = start().await;
    let mut clients = clients_on(&server, &[0, 1, 1, 0]).await;
    let [(one, _), (two, _), (three, _), (four, _)] = &mut clients[..] else { unreachable!() };
    assert_eq!(one.ask(format!("join me {ROOM}")).await, "join no_user");
    let first = enter(one, "ann").await;
    assert!(first.last().unwrap().contains(r#""uid":"ann","count":1"#), "{first:?}");
    let second = enter(two, "bob").await;
    assert!(second.last().unwrap().contains(r#""uid":"ann""#), "{second:?}");
    assert!(second.last().unwrap().contains(r#""uid":"bob""#), "{second:?}");
    assert!(!second.contains(&"added ann".to_owned()), "whoever comes is not told who was there");
    // The second connection of a user is no event.
    enter(three, "ann").await;
    until("all to know", async || {
        let present = four.ask(format!("presence {ROOM}")).await;
        present.contains(r#""uid":"ann","count":2"#).then_some(())
    })
    .await;
    let heard = heard_until("one", &mut [two, one]).await;
    assert_eq!(heard[1].iter().filter(|text| *text == "added bob").count(), 1, "{heard:?}");
    // The first goes, and ann is still there.
    one.ask(format!("leave me {ROOM}")).await;
    let gone = heard_until("two", &mut [two, three]).await;
    assert!(gone.iter().flatten().all(|text| !text.starts_with("removed")), "{gone:?}");
    // Another user on the same connection.
    two.ask("bind me cid").await;
    two.ask(format!("presence {ROOM}")).await;
    let changed = heard_until("three", &mut [two, three]).await;
    assert!(changed[1].contains(&"removed bob".to_owned()), "{changed:?}");
    assert!(changed[1].contains(&"added cid".to_owned()), "{changed:?}");
    three.ask(format!("leave me {ROOM}")).await;
    four.ask(format!("presence {ROOM}")).await;
    // The worker of `two` may hear of it a moment after that of `four`.
    assert_eq!(next_change(two).await, "removed ann");
    // Of nobody's connection nobody is present.
    two.ask("unbind me").await;
    until("nobody to be present", async || {
        (four.ask(format!("presence {ROOM}")).await == "presence []").then_some(())
    })
    .await;
    assert_eq!(four.ask("presence elsewhere").await, "presence []");
}

#[tokio::test]
async fn presence_repeats_no_event_whatever_dies() {
    let server = start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let [(one, _), (two, _)] = &mut clients[..] else { unreachable!() };
    enter(one, "ann").await;
    enter(two, "bob").await;
    until("both to know", async || {
        let present = one.ask(format!("presence {ROOM}")).await;
        (present.contains("ann") && present.contains("bob")).then_some(())
    })
    .await;
    heard_until("before", &mut [one, two]).await;
    for round in 0..3 {
        server.wsd(["reload"]).await.ok();
        let heard = heard_until(&format!("reload {round}"), &mut [one, two]).await;
        assert_eq!(heard, [[""; 0]; 2], "nobody came or went");
        let manager = server.manager().await;
        kill(manager, Signal::SIGKILL);
        until("another manager", async || (server.manager().await != manager).then_some(())).await;
        let heard = heard_until(&format!("manager {round}"), &mut [one, two]).await;
        assert_eq!(heard, [[""; 0]; 2], "nobody came or went");
    }
    let victim = server.serving(0, None).await;
    kill(victim.pid, Signal::SIGKILL);
    assert_eq!(two.receive().await, "removed ann");
    server.serving(0, Some(victim.pid)).await;
    let heard = heard_until("after", &mut [two]).await;
    assert_eq!(heard, [[""; 0]], "once");
    let present = two.ask(format!("presence {ROOM}")).await;
    assert!(present.contains("bob") && !present.contains("ann"), "{present}");
}

#[tokio::test]
async fn a_room_that_has_presence_since_a_reload_has_its_list_on_every_worker() {
    let mut server = Setup::testbed().set("rooms_presence", "[]").start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    for ((client, _), uid) in clients.iter_mut().zip(["ann", "bob"]) {
        assert_eq!(enter(client, uid).await, ["join-confirmed []"]);
    }
    server.configure("rooms_presence", r#"["presence-"]"#);
    server.wsd(["reload"]).await.ok();
    for (client, _) in &mut clients {
        client.send(format!("join-confirmed me {ROOM}")).await;
        let list = loop {
            let text = client.receive().await;
            if text.starts_with("join-confirmed ") {
                break text;
            }
        };
        assert!(list.contains("ann") && list.contains("bob"), "{list}");
    }
}

/// Waits until the list has `ann` with one connection that shows this text; no event may come.
async fn is_shown(client: &mut Client, info: &str) {
    let ann = format!(r#""uid":"ann","count":1,"info":"\"{info}\"""#);
    until(info, async || {
        client.send(format!("presence {ROOM}")).await;
        let list = loop {
            let text = client.receive().await;
            assert!(!text.starts_with("added ") && !text.starts_with("removed "), "{text}");
            if text.starts_with("presence ") {
                break text;
            }
        };
        list.contains(&ann).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_joins_again_shows_what_was_shown_until_something_else_is_given() {
    let server = start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let [(one, _), (two, _)] = &mut clients[..] else { unreachable!() };
    enter(two, "bob").await;
    assert_eq!(one.ask("bind me ann").await, "bind queued");
    one.send(format!("join-with me {ROOM} first")).await;
    while next_change(two).await != "added ann" {}
    let shows_nothing = format!("join-confirmed me {ROOM}");
    let shows_something = format!("join-with me {ROOM} second");
    for (join, info) in [(shows_nothing, "first"), (shows_something, "second")] {
        one.send(join).await;
        is_shown(two, info).await;
        // The worker that a connection moves to begins with what the connection shows.
        server.wsd(["reload"]).await.ok();
        is_shown(two, info).await;
    }
}

/// The publisher is on another worker than the member who hears.
#[tokio::test]
async fn what_is_published_keeps_its_place_among_events_of_presence() {
    let server = start().await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    let [(one, _), (two, _)] = &mut clients[..] else { unreachable!() };
    enter(two, "bob").await;
    assert_eq!(one.ask("bind me ann").await, "bind queued");
    let (first, last) = (format!("publish {ROOM} first"), format!("publish {ROOM} last"));
    for round in 0..5 {
        one.send(format!("join-confirmed me {ROOM}")).await;
        while !one.receive().await.starts_with("join-confirmed ") {}
        for command in [&first, &last, &format!("leave me {ROOM}")] {
            one.send(command).await;
        }
        let mut heard = Vec::new();
        while heard.len() < 4 {
            let text = two.receive().await;
            if text != "added bob" {
                heard.push(text);
            }
        }
        assert_eq!(heard, ["added ann", "first", "last", "removed ann"], "round {round}");
    }
}

#[tokio::test]
async fn other_threads_reach_presence_by_their_handle() {
    let server = start().await;
    let mut client = server.client_on(0).await;
    client.ask("bind me ann").await;
    client.send(format!("thread-presence {ROOM}")).await;
    let answer = loop {
        let text = client.receive().await;
        if text.starts_with("thread-presence ") {
            break text;
        }
    };
    let list = r#"[{"uid":"ann","count":1,"info":"\"thread\""}]"#;
    assert_eq!(answer, format!("thread-presence 1 {list}"));
}
