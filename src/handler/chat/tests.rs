use serde_json::{Value, json};

use super::*;
use crate::api::Opcode;
use crate::api::testing::{FakeWorker, Sent};
use crate::close::Cause;
use crate::fd::WorkerId;

fn fd(slot: u8, serial: u64) -> Fd {
    Fd::new(0, Slot(slot), serial).unwrap()
}

fn worker(slot: u8, epoch: u32, worker_num: u16) -> Rc<FakeWorker> {
    FakeWorker::of(WorkerId { slot: Slot(slot), epoch }, worker_num)
}

fn request(fd: Fd, target: &str) -> Rc<Request> {
    Rc::new(Request::new(fd, target))
}

fn text(fd: Fd, text: &str) -> Frame {
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

#[test]
fn a_client_is_welcomed_with_its_place_and_the_list() {
    let (fake, chat) = (worker(1, 4, 2), Chat::new());
    let ada = fd(1, 9);
    chat.on_open(&fake.context(), request(ada, "/ws?nick=%20Ada%0aL%20"));
    let [welcome] = &pushed(&fake, ada)[..] else { panic!() };
    assert_eq!(
        *welcome,
        json!({
            "type": "welcome", "fd": ada.as_u64(), "nick": "Ada L", "worker": 1, "epoch": 4,
            "count": 1, "users": [{"fd": ada.as_u64(), "nick": "Ada L", "worker": 1}],
        })
    );
    assert_eq!(fake.spawned(), 1, "a flush is due");
}

#[test]
fn a_client_without_a_name_is_a_guest_and_a_long_name_is_cut() {
    let (fake, chat) = (worker(0, 1, 1), Chat::new());
    chat.on_open(&fake.context(), request(fd(0, 123_456), "/ws"));
    assert_eq!(chat.nick(fd(0, 123_456)), "guest-3456");
    let target = format!("/ws?nick={}", "é".repeat(40));
    chat.on_open(&fake.context(), request(fd(0, 2), &target));
    assert_eq!(chat.nick(fd(0, 2)), "é".repeat(32));
}

#[test]
fn what_is_said_goes_to_everyone_with_its_sender() {
    let (fake, chat) = (worker(0, 1, 2), Chat::new());
    let ctx = fake.context();
    chat.on_open(&ctx, request(fd(0, 1), "/ws?nick=ada"));
    fake.take();
    chat.on_message(&ctx, text(fd(0, 1), r#"{"type":"say","text":" <b>hi</b> "}"#));
    let [Sent::Broadcast(message)] = &fake.take()[..] else { panic!() };
    let said = json_of(message);
    assert_eq!((&said["nick"], &said["text"]), (&json!("ada"), &json!("<b>hi</b>")));
    assert_eq!((&said["fd"], &said["worker"]), (&json!(1), &json!(0)));
    assert!(said["at"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_not_understood_is_answered_to_its_sender_alone() {
    let (fake, chat) = (worker(0, 1, 2), Chat::new());
    let ctx = fake.context();
    let ada = fd(0, 1);
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
        (r#"{"type":"rename","nick":"\u202e"}"#, "nick_empty"),
        (r#"{"type":"rename","nick":"123456789012345678901234567890123"}"#, "nick_too_long"),
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
fn a_replacement_tells_all_workers_that_a_dead_ones_client_is_gone() {
    let (fake, chat) = (worker(1, 2, 3), Chat::new());
    let ctx = fake.context();
    chat.on_close(&ctx, fd(1, 5), Close::because(Cause::WorkerCrashed));
    assert_eq!(fake.spawned(), 1);
    decide(&chat.roster, &ctx, Roster::flush);
    let sent = fake.take();
    let slots: Vec<u8> = sent
        .iter()
        .map(|sent| match sent {
            Sent::ToWorker(slot, data) => {
                let note: Value = serde_json::from_slice(data).unwrap();
                assert_eq!(note["word"]["gone"], json!([fd(1, 5).as_u64()]));
                slot.0
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slots, [0, 1, 2]);
}

#[test]
fn a_name_survives_a_handover() {
    let (old, new) = (Chat::new(), Chat::new());
    let (from, to) = (worker(0, 1, 1), worker(0, 2, 1));
    let ada = fd(0, 1);
    old.on_open(&from.context(), request(ada, "/ws?nick=ada"));
    old.on_message(&from.context(), text(ada, r#"{"type":"rename","nick":"Ada B"}"#));
    let frozen = old.freeze(&from.context(), ada);
    new.on_attach(&to.context(), request(ada, "/ws?nick=ada"), frozen);
    assert_eq!(new.nick(ada), "Ada B");
    decide(&new.roster, &to.context(), Roster::flush);
    let welcome = &pushed(&to, ada)[0];
    assert_eq!((&welcome["type"], &welcome["epoch"]), (&json!("welcome"), &json!(2)));
}

#[test]
fn a_note_that_is_no_note_is_passed_over() {
    let (fake, chat) = (worker(0, 1, 2), Chat::new());
    chat.on_worker_message(&fake.context(), Slot(1), Bytes::from_static(b"\x00\x01"));
    assert!(fake.take().is_empty());
}

#[test]
fn the_page_is_at_the_root_and_nothing_else_is() {
    let (fake, chat) = (worker(0, 1, 1), Chat::new());
    for (uri, found) in [("/", true), ("/?x=1", true), ("/index.html", false), ("/ws", false)] {
        let request = http::Request::builder().uri(uri).body(Bytes::new()).unwrap();
        let request =
            HttpRequest { request, held: None, peer: None, client: None, fd: None, local: None };
        let Flow::Ready(answer) = chat.on_request(&fake.context(), request) else { panic!() };
        assert_eq!(answer.is_some(), found, "{uri}");
    }
}
