use serde_json::{Value, json};

use super::*;
use crate::api::Opcode;
use crate::api::rooms::Topic;
use crate::api::testing::{FakeWorker, Sent};
use crate::fd::{Slot, WorkerId};

fn worker(slot: u8, epoch: u32) -> Rc<FakeWorker> {
    FakeWorker::of(WorkerId { slot: Slot(slot), epoch }, 2)
}

fn request(fd: Fd, target: &str) -> Rc<Request> {
    Rc::new(Request::new(fd, target))
}

fn text(fd: Fd, text: &str) -> Frame<'_> {
    Frame::new(fd, Opcode::Text, Bytes::copy_from_slice(text.as_bytes()))
}

fn json_of(message: &Message) -> Value {
    serde_json::from_slice(&message.data).unwrap()
}

/// What one client was pushed.
fn pushed(fake: &FakeWorker, to: Fd) -> Vec<Value> {
    let sent = fake.take();
    let mine = sent.iter().filter_map(|sent| match sent {
        Sent::Push(fd, message) if *fd == to => Some(json_of(message)),
        _ => None,
    });
    mine.collect()
}

/// What was published, and to which room of the chat.
fn published(fake: &FakeWorker) -> Vec<(String, Value)> {
    let sent = fake.take();
    let all = sent.iter().filter_map(|sent| match sent {
        Sent::Publish(topics, _, message) => {
            let [topic] = &topics[..] else { panic!("{topics:?}") };
            Some((topic.name().strip_prefix(ROOM).unwrap().to_owned(), json_of(message)))
        }
        _ => None,
    });
    all.collect()
}

#[test]
fn a_client_is_welcomed_with_its_place_and_told_who_is_there() {
    let (fake, chat) = (worker(1, 4), Chat::new());
    let (ctx, ada) = (fake.context(), fake.client(9));
    chat.on_open(&ctx, request(ada, "/ws?nick=%20Ada%0aL%20&room=cats"));
    fake.run();
    assert_eq!(ctx.uid(ada).as_deref(), Some("Ada L"));
    assert_eq!(ctx.rooms(ada), ["presence-chat-cats"]);
    let told = pushed(&fake, ada);
    let fd = ada.as_u64();
    assert_eq!(
        told[0],
        json!({
            "type": "welcome", "fd": fd, "nick": "Ada L", "room": "cats", "worker": 1, "epoch": 4,
        })
    );
    assert_eq!((&told[1]["type"], &told[1]["room"]), (&json!("users"), &json!("cats")));
}

#[test]
fn who_asks_while_a_list_is_on_its_way_is_told_once_with_the_others() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let (ctx, ada, bob) = (fake.context(), fake.client(1), fake.client(2));
    for (fd, target) in [(ada, "/ws?nick=ada"), (bob, "/ws?nick=bob")] {
        chat.on_open(&ctx, request(fd, target));
    }
    (0..20).for_each(|_| drop(chat.on_message(&ctx, text(ada, r#"{"type":"who"}"#))));
    fake.take();
    fake.run();
    let told = fake.take();
    let lists = told.iter().filter_map(|sent| match sent {
        Sent::Push(fd, message) if json_of(message)["type"] == "users" => Some(*fd),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [ada, bob]);
    chat.on_message(&ctx, text(bob, r#"{"type":"who"}"#));
    fake.run();
    assert_eq!(pushed(&fake, bob).len(), 1);
}

#[test]
fn a_client_without_a_name_is_a_guest_in_the_lobby_and_a_long_name_is_cut() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let (ctx, one, two) = (fake.context(), fake.client(123_456), fake.client(2));
    chat.on_open(&ctx, request(one, "/ws"));
    assert_eq!(ctx.uid(one).as_deref(), Some("guest-3456"));
    assert_eq!(ctx.rooms(one), ["presence-chat-lobby"]);
    chat.on_open(&ctx, request(two, &format!("/ws?nick={}", "é".repeat(40))));
    assert_eq!(ctx.uid(two), Some("é".repeat(32)));
}

#[test]
fn what_is_said_goes_to_the_room_with_its_sender() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let (ctx, ada) = (fake.context(), fake.client(1));
    chat.on_open(&ctx, request(ada, "/ws?nick=ada"));
    fake.take();
    chat.on_message(&ctx, text(ada, r#"{"type":"say","text":" <b>hi</b> "}"#));
    let [(room, said)] = &published(&fake)[..] else { panic!() };
    assert_eq!((room.as_str(), &said["room"]), ("lobby", &json!("lobby")));
    assert_eq!((&said["nick"], &said["text"]), (&json!("ada"), &json!("<b>hi</b>")));
    assert_eq!((&said["fd"], &said["worker"]), (&json!(ada.as_u64()), &json!(0)));
    assert!(said["at"].as_u64().unwrap() > 0);
}

#[test]
fn who_takes_another_name_or_room_is_that_user_there() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let (ctx, ada) = (fake.context(), fake.client(1));
    chat.on_open(&ctx, request(ada, "/ws?nick=ada"));
    fake.take();
    chat.on_message(&ctx, text(ada, r#"{"type":"rename","nick":"Ada  B"}"#));
    let [(room, renamed)] = &published(&fake)[..] else { panic!() };
    assert_eq!(room, "lobby");
    assert_eq!((&renamed["from"], &renamed["to"]), (&json!("ada"), &json!("Ada B")));
    chat.on_message(&ctx, text(ada, r#"{"type":"enter","room":"cats"}"#));
    assert_eq!(ctx.uid(ada).as_deref(), Some("Ada B"));
    assert_eq!(ctx.rooms(ada), ["presence-chat-cats"]);
    let told = pushed(&fake, ada);
    assert_eq!((&told[0]["type"], &told[0]["room"]), (&json!("welcome"), &json!("cats")));
}

#[test]
fn what_is_not_understood_is_answered_to_its_sender_alone() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let (ctx, ada) = (fake.context(), fake.client(1));
    chat.on_open(&ctx, request(ada, "/ws"));
    fake.take();
    let long = format!(r#"{{"type":"say","text":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
    let cases = [
        ("", "not_understood"),
        ("hello", "not_understood"),
        ("[[[[", "not_understood"),
        (r#"{"type":"say"}"#, "not_understood"),
        (r#"{"type":"say","text":7}"#, "not_understood"),
        (r#"{"type":"become_root"}"#, "not_understood"),
        (r#"{"type":"say","text":" \n "}"#, "text_empty"),
        (&long, "text_too_long"),
        (r#"{"type":"rename","nick":"\u202e"}"#, "name_empty"),
        (r#"{"type":"rename","nick":"123456789012345678901234567890123"}"#, "name_too_long"),
        (r#"{"type":"enter","room":" "}"#, "name_empty"),
        (r#"{"type":"enter","room":"123456789012345678901234567890123"}"#, "name_too_long"),
    ];
    for (input, code) in cases {
        chat.on_message(&ctx, text(ada, input));
        let [Sent::Push(to, message)] = &fake.take()[..] else { panic!("{input}") };
        assert_eq!((*to, &json_of(message)["code"]), (ada, &json!(code)), "{input}");
    }
    let binary = Frame::new(ada, Opcode::Binary, Bytes::from_static(b"\xff"));
    chat.on_message(&ctx, binary);
    assert_eq!(pushed(&fake, ada)[0]["code"], "not_understood");
}

#[test]
fn who_comes_and_leaves_is_told_together_and_to_the_members_here() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    let ctx = fake.context();
    let event = |room: &str, uid: &str, joined| {
        let (room, uid) = (room.to_owned(), uid.to_owned());
        PresenceEvent { room, uid, info: Some(r#"{"worker":1}"#.to_owned()), joined }
    };
    for (uid, joined) in [("ada", true), ("bob", false), ("cy", true), ("cy", false)] {
        chat.on_presence(&ctx, event("presence-chat-cats", uid, joined));
    }
    chat.on_presence(&ctx, event("presence-of-another", "ada", true));
    assert_eq!(fake.spawned(), 1, "one flush is due");
    flush(&ctx, chat.changes.take());
    let [Sent::PublishHere(topics, message)] = &fake.take()[..] else { panic!() };
    assert_eq!(*topics, [Topic::room("presence-chat-cats")]);
    let here = json!([{"nick": "ada", "worker": 1}]);
    let change = json_of(message);
    assert_eq!((&change["here"], &change["gone"]), (&here, &json!(["bob", "cy"])));
}

#[test]
fn a_client_that_came_over_is_told_its_new_place() {
    let (fake, chat) = (worker(0, 2), Chat::new());
    let (ctx, ada, bob) = (fake.context(), fake.client(1), fake.client(2));
    ctx.bind(ada, "Ada B");
    ctx.join(ada, "presence-chat-cats");
    chat.on_attach(&ctx, request(ada, "/ws?nick=ada"), None);
    let welcome = &pushed(&fake, ada)[0];
    assert_eq!((&welcome["type"], &welcome["epoch"]), (&json!("welcome"), &json!(2)));
    assert_eq!((&welcome["nick"], &welcome["room"]), (&json!("Ada B"), &json!("cats")));
    // An image that had no rooms had it.
    chat.on_attach(&ctx, request(bob, "/ws?nick=bob"), None);
    assert_eq!(ctx.rooms(bob), ["presence-chat-lobby"]);
}

#[test]
fn the_page_is_at_the_root_and_nothing_else_is() {
    let (fake, chat) = (worker(0, 1), Chat::new());
    for (uri, found) in [("/", true), ("/?x=1", true), ("/index.html", false), ("/ws", false)] {
        let request = http::Request::builder().uri(uri).body(Bytes::new()).unwrap();
        let request = HttpRequest::new(request);
        let Flow::Ready(answer) = chat.on_request(&fake.context(), request) else { panic!() };
        assert_eq!(answer.is_some(), found, "{uri}");
    }
}
