//! Rooms and users by the HTTP API: messages, lists in pages, filters, and every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::api::{connection, error, expect};
use crate::harness::{Api, Client, Closed, Server, Setup};
use crate::rooms::{clients_on, has_heard_all};

/// Names that every careless decoder turns into others, and as a path or a query has them.
const NAMES: [(&str, &str); 7] = [
    ("lobby", "lobby"),
    ("a b+c", "a%20b%2Bc"),
    ("a/b?c=d&e#f", "a%2Fb%3Fc%3Dd%26e%23f"),
    ("%2F", "%252F"),
    ("caf\u{e9}", "caf%C3%A9"),
    ("\u{623f}\u{95f4}\u{1f600}", "%E6%88%BF%E9%97%B4%F0%9F%98%80"),
    ("..", "%2e%2e"),
];

async fn join(client: &mut Client, room: &str) {
    assert_eq!(client.ask(&format!("join-confirmed me {room}")).await, "join-confirmed []");
}

async fn bind(client: &mut Client, uid: &str) {
    let bound = client.ask(&format!("bind-confirmed me {uid}")).await;
    assert_eq!(bound, "bind-confirmed queued");
}

fn tally(queued: u64, reply: &crate::harness::Reply) {
    let told = reply.json();
    assert_eq!((reply.status, &told["queued"], &told["full"]), (200, &json!(queued), &json!(0)));
    assert_eq!(told["workers"], told["answered"], "{told}");
}

#[tokio::test]
async fn a_message_to_rooms_reaches_each_member_once_wherever_it_is() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1]).await;
    let except = clients[2].1;
    for (client, _) in &mut clients[..3] {
        join(client, "a").await;
    }
    for (client, _) in &mut clients[1..] {
        join(client, "b").await;
    }
    // Whichever worker is free answers.
    for round in 0..8 {
        let path = format!("/v1/publish?room=a&room=b&except={except}");
        tally(3, &api.ask("POST", &path, format!("hello {round}")).await);
        for index in [0, 1, 3] {
            assert_eq!(clients[index].0.receive().await, format!("hello {round}"));
        }
        has_heard_all(&mut clients[2].0).await;
    }
    tally(0, &api.ask("POST", "/v1/publish?room=empty", "x").await);
}

#[tokio::test]
async fn every_name_is_itself_in_paths_and_queries() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    for (name, _) in NAMES {
        for (client, _) in &mut clients {
            join(client, name).await;
        }
    }
    for (name, written) in NAMES {
        bind(&mut clients[0].0, name).await;
        tally(2, &api.ask("POST", &format!("/v1/publish?room={written}"), name).await);
        tally(1, &api.ask("POST", &format!("/v1/uids/{written}"), "to the user").await);
        assert_eq!(clients[0].0.receive().await, name);
        assert_eq!(clients[0].0.receive().await, "to the user");
        assert_eq!(clients[1].0.receive().await, name);
        let members = api.get(&format!("/v1/rooms/{written}/members")).await.json();
        let listed =
            json!([{ "fd": clients[0].1, "uid": name }, { "fd": clients[1].1, "uid": null }]);
        assert_eq!(members, json!({ "room": name, "members": sorted(listed), "next": null }));
        let user = api.get(&format!("/v1/uids/{written}")).await.json();
        assert_eq!(user, json!({ "uid": name, "connections": [clients[0].1], "next": null }));
    }
    for path in ["/v1/publish?room=%ff", "/v1/uids/%ff"] {
        assert_eq!(error(&api.ask("POST", path, "x").await), expect(400, "bad_request"));
    }
    has_heard_all(&mut clients[1].0).await;
}

fn sorted(members: Value) -> Value {
    let mut members = members.as_array().unwrap().clone();
    members.sort_by_key(|member| member["fd"].as_u64());
    json!(members)
}

/// All of a list, by pages of some.
async fn pages(api: &Api, path: &str, list: &str, limit: usize) -> Vec<Value> {
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let page = api.get(&format!("{path}limit={limit}{after}")).await.json();
        let items = page[list].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        assert!(items.len() <= limit, "{page}");
        all.extend(items);
        after = match &page["next"] {
            Value::Null => return all,
            Value::String(name) => format!("&after={}", name.replace('#', "%23")),
            number => format!("&after={number}"),
        };
    }
}

#[tokio::test]
async fn rooms_and_their_members_come_in_pages_in_order() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1, 0]).await;
    let mut rooms = Vec::new();
    for number in 0..23 {
        let room = format!("#{number}");
        let members = 1 + number % 5;
        for (client, _) in &mut clients[..members] {
            join(client, &room).await;
        }
        rooms.push((room, members));
    }
    rooms.sort();
    let listed = pages(&api, "/v1/rooms?", "rooms", 4).await;
    let rooms: Vec<Value> =
        rooms.iter().map(|(room, count)| json!({ "room": room, "members": count })).collect();
    assert_eq!(listed, rooms);

    let mut fds: Vec<u64> = clients.iter().map(|(_, fd)| *fd).collect();
    fds.sort_unstable();
    let members = pages(&api, "/v1/rooms/%234/members?", "members", 2).await;
    assert_eq!(members.iter().map(|it| it["fd"].as_u64().unwrap()).collect::<Vec<_>>(), fds);
    assert_eq!(error(&api.get("/v1/rooms?limit=1001").await), expect(400, "bad_request"));
}

#[tokio::test]
async fn connections_are_those_of_a_room_or_of_a_user_or_of_both() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1, 0, 1]).await;
    for index in [0, 1, 2] {
        join(&mut clients[index].0, "r").await;
    }
    for index in [1, 2, 3] {
        bind(&mut clients[index].0, "u").await;
    }
    for (filter, mut expected) in [
        ("room=r", vec![0, 1, 2]),
        ("uid=u", vec![1, 2, 3]),
        ("room=r&uid=u", vec![1, 2]),
        ("room=nobody", vec![]),
    ] {
        expected.sort_by_key(|index| clients[*index].1);
        let listed = pages(&api, &format!("/v1/connections?{filter}&"), "connections", 2).await;
        let of = |index: &usize| {
            let uid = if *index == 0 { Value::Null } else { json!("u") };
            (json!(clients[*index].1), json!(index % 2), uid)
        };
        let listed: Vec<_> = listed
            .iter()
            .map(|it| (it["fd"].clone(), it["worker"].clone(), it["uid"].clone()))
            .collect();
        assert_eq!(listed, expected.iter().map(of).collect::<Vec<_>>(), "{filter}");
    }
    let slow = api.get("/v1/connections?slow=true&room=r").await;
    assert_eq!(error(&slow), expect(400, "bad_request"));
}

#[tokio::test]
async fn a_user_is_pushed_to_and_closed_on_every_worker_and_is_gone_then() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1, 1]).await;
    for (client, _) in &mut clients[..2] {
        bind(client, "u").await;
    }
    tally(2, &api.ask("POST", "/v1/uids/u", "hello").await);
    tally(1, &api.ask("POST", &format!("/v1/uids/u?except={}", clients[0].1), "you").await);
    tally(2, &api.ask("DELETE", "/v1/uids/u?code=4001&reason=so%20it%20is", "").await);
    assert_eq!(clients[0].0.receive().await, "hello");
    assert_eq!(clients[1].0.receive().await, "hello");
    assert_eq!(clients[1].0.receive().await, "you");
    for (client, _) in &mut clients[..2] {
        assert_eq!(client.closed().await, Closed::Frame(4001, "so it is".to_owned()));
    }
    has_heard_all(&mut clients[2].0).await;
    bind(&mut clients[2].0, "lone").await;
    // Who is there and left out is not gone.
    tally(0, &api.ask("POST", &format!("/v1/uids/lone?except={}", clients[2].1), "x").await);
    for (method, body) in [("POST", "x"), ("DELETE", "")] {
        let reply = api.ask(method, "/v1/uids/u", body).await;
        assert_eq!(error(&reply), expect(410, "gone"), "{method}");
    }
    let nobody = json!({ "uid": "u", "connections": [], "next": null });
    assert_eq!(api.get("/v1/uids/u").await.json(), nobody);
}

#[tokio::test]
async fn what_is_wrong_with_a_room_or_a_user_is_told() {
    let setup = Setup::testbed().with_api().set("package_max_length", 1000);
    let setup = setup.set("buffer_output_size", 1000);
    let server = setup.set("room_name_max", 8).set("uid_max", 8).start().await;
    let api = Api::of(&server).await;
    let big = "x".repeat(1001);
    let rooms = "room=r&".repeat(129);
    for (method, path, body, want) in [
        ("POST", "/v1/publish", "x", expect(400, "bad_request")),
        ("POST", "/v1/publish?room=123456789", "x", expect(400, "bad_request")),
        ("POST", &format!("/v1/publish?{rooms}"), "x", expect(400, "bad_request")),
        ("POST", "/v1/publish?room=r&except=0", "x", expect(400, "bad_request")),
        ("POST", "/v1/publish?room=r", &big, expect(413, "too_big")),
        ("POST", "/v1/uids/u", &big, expect(413, "too_big")),
        ("POST", "/v1/uids/123456789", "x", expect(400, "bad_request")),
        ("DELETE", "/v1/uids/u?code=1005", "", expect(400, "bad_request")),
        ("GET", "/v1/rooms/r/members?after=x", "", expect(400, "bad_request")),
        ("GET", "/v1/rooms/r", "", expect(404, "not_found")),
        ("DELETE", "/v1/rooms", "", expect(405, "method")),
    ] {
        assert_eq!(error(&api.ask(method, path, body).await), want, "{method} {path}");
    }
}

#[tokio::test]
async fn a_worker_that_hangs_makes_a_publish_409_with_what_is_known() {
    let setup = Setup::testbed().with_api().set("worker_timeout", r#""60s""#);
    let server = setup.start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    for (client, _) in &mut clients {
        join(client, "r").await;
        bind(client, "u").await;
    }
    let pid = clients[0].0.who().await.pid;
    crate::harness::kill(pid, nix::sys::signal::Signal::SIGSTOP);
    let published = api.ask("POST", "/v1/publish?room=r", "x").await;
    assert_eq!(error(&published), expect(409, "unknown"));
    assert_eq!(published.json()["tally"]["queued"], 1, "{published:?}");
    assert_eq!(clients[1].0.receive().await, "x");
    for path in ["/v1/rooms", "/v1/rooms/r/members", "/v1/uids/u", "/v1/connections?room=r"] {
        assert_eq!(error(&api.get(path).await), expect(503, "unavailable"), "{path}");
    }
    crate::harness::kill(pid, nix::sys::signal::Signal::SIGCONT);
}

/// Publishes numbers one after the other, each until it is told what came of that one.
async fn count(api: Api, path: &'static str, ends: Arc<AtomicBool>) -> u64 {
    let mut next = 0;
    while !ends.load(Ordering::Relaxed) {
        let reply = api.ask("POST", path, format!("{path} {next}")).await;
        tally(2, &reply);
        next += 1;
    }
    next
}

async fn hears_all(client: &mut Client, sent: [(&str, u64); 2]) {
    let mut heard = [0, 0];
    while heard != [sent[0].1, sent[1].1] {
        let text = client.receive().await;
        let of = usize::from(text.starts_with(sent[1].0));
        assert_eq!(text, format!("{} {}", sent[of].0, heard[of]));
        heard[of] += 1;
    }
    has_heard_all(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_a_room_or_user_is_lost_or_done_twice_over_reloads() {
    let server: Server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = clients_on(&server, &[0, 1]).await;
    for (client, _) in &mut clients {
        join(client, "r").await;
        bind(client, "u").await;
    }
    let ends = Arc::new(AtomicBool::new(false));
    let paths = ["/v1/publish?room=r", "/v1/uids/u"];
    let counting = paths.map(|path| tokio::spawn(count(api.clone(), path, ends.clone())));
    for _ in 0..5 {
        server.wsd(["reload"]).await.ok();
        let info = api.get(&connection(clients[0].1)).await.json();
        assert_eq!((&info["rooms"], &info["uid"]), (&json!(["r"]), &json!("u")));
    }
    ends.store(true, Ordering::Relaxed);
    let mut sent = paths.map(|path| (path, 0));
    for ((_, sent), counted) in sent.iter_mut().zip(counting) {
        *sent = counted.await.unwrap();
        assert!(*sent > 0);
    }
    for (client, _) in &mut clients {
        hears_all(client, sent).await;
    }
}
