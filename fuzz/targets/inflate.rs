//! Compressed messages of any bytes: no more than the limit comes out, also across messages that
//! share a context; and what we compress comes back. Input: flags, the length of the first
//! message, the payloads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsd::api::Opcode;
use wsd::websocket::{Direction, Engine, Limits, Op, Params, Role, frame};
use wsd_fuzz::said::{Said, codec, feed};

const LIMITS: Limits = Limits { message_bytes: 100_000, fragments: 16 };

fuzz_target!(|input: &[u8]| {
    let [flags, first, payload @ ..] = input else { return };
    let both = Direction { takeover: flags & 1 != 0, bits: 9 + (flags >> 1) % 7 };
    let params = Some(Params { compress: both, decompress: both });
    let (mut engine, mut codec) = (Engine::new(Role::Server, params), codec());
    let (first, second) = payload.split_at(usize::from(*first).min(payload.len()));
    let mut out = Vec::new();
    for payload in [first, second, first] {
        let mut wire = Vec::new();
        frame::put_masked(&mut wire, Op::Binary, true, true, payload, [1, 2, 3, 4]);
        feed(&mut engine, &wire, &LIMITS, &mut codec, &mut out);
    }
    for said in &out {
        let Said::Message(_, data) = said else { break };
        assert!(data.len() <= LIMITS.message_bytes);
    }

    let mut sender = Engine::new(Role::Client, params);
    let (mut receiver, mut out) = (Engine::new(Role::Server, params), Vec::new());
    for payload in [first, second, first] {
        let packed = sender.compress(payload, &mut codec);
        let body = packed.as_deref().unwrap_or(payload);
        let mut wire = Vec::new();
        frame::put_masked(&mut wire, Op::Binary, true, packed.is_some(), body, [1, 2, 3, 4]);
        feed(&mut receiver, &wire, &LIMITS, &mut codec, &mut out);
        assert_eq!(out.pop(), Some(Said::Message(Opcode::Binary, payload.to_vec())));
    }
});
