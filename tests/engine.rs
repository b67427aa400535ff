//! Claims about the engine as a whole.

use proptest::prelude::*;

use wsd::api::Opcode;
use wsd::close::Cause;
use wsd::websocket::{
    BadState, Data, Direction, Engine, EngineState, Event, Head, Limits, Op, Params, Role, Step,
    frame,
};

#[path = "../fuzz/src/oracle.rs"]
mod oracle;
#[path = "../fuzz/src/said.rs"]
mod said;

use said::{Said, codec, events, feed};

const LIMITS: Limits = Limits { message_bytes: 1 << 20, fragments: 64 };

/// What a server says to `reads` with the default test limits.
fn server(reads: &[&[u8]]) -> Vec<Said> {
    events(Role::Server, None, reads, &LIMITS)
}

fn masked(op: Op, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_masked(&mut out, op, fin, false, payload, [0x37, 0xfa, 0x21, 0x3d]);
    out
}

fn text(text: &str) -> Said {
    Said::Message(Opcode::Text, text.into())
}

#[test]
fn an_idle_engine_is_small_and_holds_no_heap() {
    assert!(size_of::<Engine>() <= 24, "{}", size_of::<Engine>());
    let mut engine = Engine::new(Role::Server, None);
    let big = masked(Op::Binary, true, &[7; 70_000]);
    let mut out = Vec::new();
    for read in big.chunks(1000) {
        feed(&mut engine, read, &LIMITS, &mut codec(), &mut out);
    }
    assert_eq!(out, [Said::Message(Opcode::Binary, vec![7; 70_000])]);
    assert!(engine.is_quiescent());
    assert_eq!(engine.heap_bytes(), 0);
}

#[test]
fn a_whole_message_is_not_copied() {
    let mut engine = Engine::new(Role::Server, None);
    let mut read = masked(Op::Text, true, b"Hello");
    let step = engine.next(&mut read, &LIMITS, &mut codec()).unwrap();
    let data = Data::Here(6..11);
    let event =
        Some(Event::Message { opcode: Opcode::Text, data: data.clone(), compressed: false });
    assert_eq!(step, Step { used: 11, event });
    assert_eq!(data.bytes(&read), b"Hello");
}

#[test]
fn control_frames_stand_between_fragments() {
    let wire = [
        masked(Op::Text, false, b"He"),
        masked(Op::Ping, true, b"?"),
        masked(Op::Continuation, false, b""),
        masked(Op::Pong, true, b""),
        masked(Op::Continuation, true, b"llo"),
        masked(Op::Close, true, &frame::close_payload(Some(1001), "bye")),
        b"what follows a close is swallowed".to_vec(),
    ];
    let want = [
        Said::Ping(b"?".to_vec()),
        Said::Pong(vec![]),
        text("Hello"),
        Said::Close(Some(1001), "bye".into()),
    ];
    assert_eq!(server(&[&wire.concat()]), want);
    let wire = wire.concat();
    assert_eq!(server(&wire.chunks(1).collect::<Vec<_>>()), want);
}

#[test]
fn each_broken_rule_has_its_cause() {
    let close = |payload: &[u8]| masked(Op::Close, true, payload);
    let cases: [(Vec<u8>, Cause); 12] = [
        (masked(Op::Continuation, true, b"x"), Cause::ProtocolError),
        (
            [masked(Op::Text, false, b"x"), masked(Op::Text, true, b"x")].concat(),
            Cause::ProtocolError,
        ),
        (frame::message(Opcode::Text, false, b"x").to_vec(), Cause::ProtocolError),
        (close(&[3]), Cause::ProtocolError),
        (close(&999u16.to_be_bytes()), Cause::ProtocolError),
        (close(&1005u16.to_be_bytes()), Cause::ProtocolError),
        (close(&1015u16.to_be_bytes()), Cause::ProtocolError),
        (close(&5000u16.to_be_bytes()), Cause::ProtocolError),
        (close(&[3, 232, 0xff]), Cause::InvalidText),
        (masked(Op::Text, true, &[0xff]), Cause::InvalidText),
        (masked(Op::Text, true, &[0xe2, 0x82]), Cause::InvalidText),
        (masked(Op::Binary, true, &vec![0; LIMITS.message_bytes + 1]), Cause::MessageTooBig),
    ];
    for (wire, cause) in cases {
        assert_eq!(server(&[&wire]), [Said::Fault(cause)], "{:x?}", &wire[..wire.len().min(16)]);
    }
}

#[test]
fn bad_text_is_refused_before_its_frame_is_complete() {
    // As Autobahn 6.4.3 and 6.4.4: a code point above U+10FFFF in one frame, cut by TCP.
    let mut wire = masked(Op::Text, true, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80\x65\x64");
    let rest = wire.split_off(6 + 7);
    assert_eq!(server(&[&wire]), [Said::Fault(Cause::InvalidText)]);
    assert_eq!(server(&[&wire[..12]]), []);
    assert_eq!(server(&[&wire, &rest]).len(), 1);
}

#[test]
fn a_length_is_compared_before_anything_is_added_or_allocated() {
    let limit = LIMITS.message_bytes as u64;
    let big = Some(Cause::MessageTooBig);
    let wrong = Some(Cause::ProtocolError);
    for (len, cause) in
        [(limit, None), (limit + 1, big), (i64::MAX as u64, big), (1 << 63, wrong), (!0, wrong)]
    {
        for first in [&b""[..], &masked(Op::Text, false, b"")] {
            let op = if first.is_empty() { Op::Binary } else { Op::Continuation };
            let head = Head::new(op, true, false, len, Some([0; 4]));
            let mut engine = Engine::new(Role::Server, None);
            let mut out = Vec::new();
            let wire = [first, &head, b"0123456789"].concat();
            feed(&mut engine, &wire, &LIMITS, &mut codec(), &mut out);
            assert_eq!(out.first(), cause.map(Said::Fault).as_ref(), "{len:x}");
            assert!(engine.heap_bytes() <= 1024, "{} bytes", engine.heap_bytes());
        }
    }
}

#[test]
fn too_many_fragments_are_refused_also_if_they_are_empty() {
    let limits = Limits { fragments: 4096, ..LIMITS };
    let mut wire = masked(Op::Binary, false, b"");
    for _ in 0..4095 {
        wire.extend(masked(Op::Continuation, false, b""));
    }
    let wire = |more: &[u8]| events(Role::Server, None, &[&wire, more], &limits);
    assert_eq!(wire(&[]), []);
    let one_more = masked(Op::Continuation, true, b"");
    assert_eq!(wire(&one_more), [Said::Fault(Cause::TooManyFragments)]);
}

#[test]
fn reassembly_moves_each_byte_a_bounded_number_of_times() {
    // Every growth at least doubles, so the bytes moved are at most the bytes received.
    let (mut engine, mut codec, mut out) = (Engine::new(Role::Server, None), codec(), Vec::new());
    let limits = Limits { message_bytes: 8 << 20, fragments: u32::MAX };
    let mut growths = 0;
    let mut heap = 0;
    for i in 0..65_536 {
        let op = if i == 0 { Op::Text } else { Op::Continuation };
        let piece = masked(op, false, &[b'x'; 64]);
        feed(&mut engine, &piece, &limits, &mut codec, &mut out);
        growths += usize::from(engine.heap_bytes() != heap);
        heap = engine.heap_bytes();
        assert!(heap <= 2 * (i + 1) * 64 + 512, "{heap} bytes after {i}");
    }
    assert!(growths <= 24, "{growths} growths for 4 MiB");
}

#[test]
fn a_thawed_state_that_no_engine_had_is_refused() {
    let mut engine = Engine::new(Role::Server, None);
    feed(&mut engine, &masked(Op::Text, true, b"Hello")[..8], &LIMITS, &mut codec(), &mut vec![]);
    let good = serde_json::to_value(engine.freeze()).unwrap();
    let thaw = |json| Engine::thaw(serde_json::from_value::<EngineState>(json).unwrap());
    assert!(thaw(good.clone()).is_ok());
    for (path, value) in [
        ("/V1/pending/message/checked", 99.into()),
        ("/V1/pending/message/compressed", true.into()),
        ("/V1/pending/frame/left", 0.into()),
        ("/V1/pending/message", serde_json::Value::Null),
        ("/V1/pending/head_len", 200.into()),
        ("/V1/pending/control", serde_json::json!([1, 2])),
        ("/V1/windows", serde_json::json!({"incoming": [1], "outgoing": []})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert_eq!(thaw(bad).err(), Some(BadState), "{path}");
    }
}

#[test]
fn a_kept_head_that_is_whole_or_wrong_is_refused() {
    let mut engine = Engine::new(Role::Server, None);
    feed(&mut engine, &masked(Op::Text, true, b"Hello")[..3], &LIMITS, &mut codec(), &mut vec![]);
    let good = serde_json::to_value(engine.freeze()).unwrap();
    let thaw = |json| Engine::thaw(serde_json::from_value::<EngineState>(json).unwrap());
    assert!(thaw(good.clone()).is_ok());
    for (path, value) in [("/V1/pending/head_len", 6), ("/V1/pending/head_bytes/0", 0x83)] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value.into();
        assert_eq!(thaw(bad).err(), Some(BadState), "{path}");
    }
}

/// A frame of a peer, good or not.
fn any_frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let payload = prop_oneof![
        4 => ".{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => (1000u16..1004).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    let first = prop_oneof![
        8 => proptest::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a]),
        1 => proptest::sample::select(vec![0x88u8, 0xc1, 0x83, 0x09]),
    ];
    (first, payload)
}

fn wire_of(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (first, payload) in frames {
        let at = wire.len();
        frame::put_masked(&mut wire, Op::Text, true, false, payload, [1, 2, 0x83, 4]);
        wire[at] = *first;
    }
    wire
}

#[test]
fn a_close_code_that_was_registered_later_is_taken() {
    let wire = masked(Op::Close, true, &1014u16.to_be_bytes());
    assert_eq!(server(&[&wire]), [Said::Close(Some(1014), String::new())]);
    oracle::compare(&wire);
}

proptest! {
    #[test]
    fn events_do_not_depend_on_how_the_bytes_are_cut_or_where_the_state_was_moved(
        frames in proptest::collection::vec(any_frame(), 1..12),
        cuts in proptest::collection::vec(1usize..40, 1..60),
    ) {
        let wire = wire_of(&frames);
        let whole = server(&[&wire]);
        let (mut engine, mut codec, mut out) =
            (Engine::new(Role::Server, None), codec(), Vec::new());
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            let (read, more) = rest.split_at((*cut).min(rest.len()));
            feed(&mut engine, read, &LIMITS, &mut codec, &mut out);
            let state = serde_json::to_vec(&engine.freeze()).unwrap();
            engine = Engine::thaw(serde_json::from_slice(&state).unwrap()).unwrap();
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(out, whole);
    }

    #[test]
    fn what_we_accept_tungstenite_accepts_alike(
        frames in proptest::collection::vec(any_frame(), 1..12),
        noise in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        oracle::compare(&[wire_of(&frames), noise].concat());
    }

    #[test]
    fn what_one_end_compresses_the_other_end_reads(
        messages in proptest::collection::vec("[ab ]{0,400}|.{0,60}", 1..8),
        takeover: bool,
        bits in 9u8..=15,
        cut in 1usize..50,
        pieces in 1usize..100,
    ) {
        let both = Direction { takeover, bits };
        let params = Some(Params { compress: both, decompress: both });
        let mut sender = Engine::new(Role::Client, params);
        let mut receiver = Engine::new(Role::Server, params);
        let (mut codec, mut out) = (codec(), Vec::new());
        for message in &messages {
            let packed = sender.compress(message.as_bytes(), &mut codec);
            let rsv1 = packed.is_some();
            let payload = packed.unwrap_or_else(|| message.clone().into_bytes().into());
            let mut wire = Vec::new();
            let count = payload.len().div_ceil(pieces).max(1);
            for i in 0..count {
                let piece = &payload[i * pieces..payload.len().min((i + 1) * pieces)];
                let op = if i == 0 { Op::Text } else { Op::Continuation };
                let (fin, rsv1) = (i + 1 == count, rsv1 && i == 0);
                frame::put_masked(&mut wire, op, fin, rsv1, piece, [9, 8, 7, 6]);
            }
            for read in wire.chunks(cut) {
                let limits = Limits { fragments: 4096, ..LIMITS };
                feed(&mut receiver, read, &limits, &mut codec, &mut out);
                receiver = Engine::thaw(receiver.freeze()).unwrap();
            }
        }
        let want: Vec<_> = messages.iter().map(|message| text(message)).collect();
        prop_assert_eq!(out, want);
    }
}
