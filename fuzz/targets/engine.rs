//! However the bytes are cut, and wherever the state is moved, the events are the same; and what
//! is held never outgrows what was received.
//!
//! Input: the size of the cuts, flags, the bytes of a client.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsd::websocket::{Direction, Engine, EngineState, Limits, Params, Role};
use wsd_fuzz::said::{codec, events, feed};

const LIMITS: Limits = Limits { message_bytes: 4096, fragments: 16 };

fuzz_target!(|input: &[u8]| {
    let [cut, flags, wire @ ..] = input else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let both = Direction { takeover: flags & 4 != 0, bits: 9 };
    let params = (flags & 2 != 0).then_some(Params { compress: both, decompress: both });
    let whole = events(role, params, &[wire], &LIMITS);

    let (mut engine, mut codec, mut out) = (Engine::new(role, params), codec(), Vec::new());
    let mut received = 0;
    for read in wire.chunks(usize::from(*cut).max(1)) {
        feed(&mut engine, read, &LIMITS, &mut codec, &mut out);
        received += read.len();
        assert!(engine.heap_bytes() <= 2 * received + 2048, "{} bytes", engine.heap_bytes());
        let mut state = engine.freeze();
        if flags & 8 != 0 {
            let json = serde_json::to_vec(&state).unwrap();
            state = serde_json::from_slice::<EngineState>(&json).unwrap();
        }
        engine = Engine::thaw(state).unwrap();
    }
    assert_eq!(out, whole);
});
