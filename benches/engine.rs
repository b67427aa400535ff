//! What the engine costs a message: `cargo bench --bench engine`.
//!
//! Best of many short rounds, on whatever core this runs on. Frames are masked with a key of
//! zeros, so that a buffer that was unmasked in place can be decoded again without a copy.

use std::hint::black_box;
use std::time::Instant;

use wsd::api::Opcode;
use wsd::websocket::{
    Codec, DeflateOptions, Direction, Engine, Fault, Limits, Op, Params, Role, frame,
};

const LIMITS: Limits = Limits { message_bytes: 16 << 20, fragments: u32::MAX };
const ROUNDS: usize = 200;

fn main() {
    println!("engine: {} bytes when idle", size_of::<Engine>());
    small_messages();
    large_messages();
    encoding();
    compression();
    attacks();
}

fn small_messages() {
    for (name, size) in [("16 B", 16), ("64 B", 64), ("125 B", 125), ("126 B", 126)] {
        let wire = masked(Op::Text, &vec![b'x'; size]).repeat(32);
        report(&format!("decode text {name}, 32 in a buffer"), 32, decoding(wire));
    }
    let wire = masked(Op::Binary, &[7; 64]).repeat(32);
    report("decode binary 64 B, 32 in a buffer", 32, decoding(wire));
    let wire = frame::message(Opcode::Binary, false, &[7; 64]).repeat(32);
    report("decode binary 64 B as a client, 32 in a buffer", 32, {
        let (mut engine, mut codec) = (Engine::new(Role::Client, None), codec());
        let mut buf = wire;
        move || {
            decode(&mut engine, &mut buf, &mut codec);
        }
    });
}

fn large_messages() {
    for (name, text) in [("ASCII", "x".repeat(16 << 10)), ("Greek", "κόσμε ".repeat(1489))] {
        let wire = masked(Op::Text, text.as_bytes());
        report(&format!("decode text 16 KiB, {name}"), 1, decoding(wire));
    }
    let wire = masked(Op::Binary, &[7; 16 << 10]);
    report("decode binary 16 KiB", 1, decoding(wire));
    let wire = masked(Op::Binary, &vec![7; 1 << 20]);
    report("decode binary 1 MiB, read by 64 KiB", 1, decoding_in_reads(wire, 64 << 10));
}

fn encoding() {
    let mut out = Vec::with_capacity(4096);
    report("encode 64 B, 32 into a buffer", 32, move || {
        out.clear();
        for _ in 0..32 {
            frame::put_message(&mut out, Opcode::Binary, false, black_box(&[7; 64]));
        }
        black_box(&out);
    });
    report("head alone", 1, || {
        black_box(frame::message_head(Opcode::Binary, false, black_box(64)));
    });
}

fn compression() {
    let text = r#"{"user":1234,"room":"lobby","text":"hello everyone","at":1700000000}"#;
    let text = text.repeat(16).into_bytes();
    for takeover in [false, true] {
        let both = Direction { takeover, bits: 15 };
        let params = Some(Params { compress: both, decompress: both });
        let (mut engine, mut codec) = (Engine::new(Role::Client, params), codec());
        for _ in 0..40 {
            engine.compress(&text, &mut codec);
        }
        let name = if takeover { "with a full context" } else { "without context" };
        let packed = engine.compress(&text, &mut codec).map_or(0, |packed| packed.len());
        let (data, size) = (text.clone(), text.len());
        report(&format!("compress {size} B to {packed} B, {name}"), 1, move || {
            black_box(engine.compress(&data, &mut codec));
        });
    }
    let params = Params { compress: fresh(), decompress: fresh() };
    let packed = Engine::new(Role::Client, Some(params)).compress(&text, &mut codec());
    let mut wire = Vec::new();
    let packed = packed.unwrap_or_default();
    frame::put_masked(&mut wire, Op::Text, true, true, &packed, [0; 4]);
    let (mut engine, mut codec) = (Engine::new(Role::Server, Some(params)), codec());
    report(&format!("inflate {} B, without context", text.len()), 1, move || {
        decode(&mut engine, &mut wire, &mut codec);
    });
}

/// Single runs of what a hostile client may send, in CPU time.
fn attacks() {
    for size in [64, 1] {
        let count = (4 << 20) / size;
        let wire = fragments(Op::Text, count, &vec![b'x'; size]);
        once(&format!("4 MiB text in fragments of {size} B"), wire, None);
    }
    let wire = fragments(Op::Binary, 10_000_000, b"");
    once("10 M empty fragments, no cap", wire, None);
    let mut codec = Codec::new(DeflateOptions { level: 9, ..DeflateOptions::default() });
    let params = Params { compress: fresh(), decompress: fresh() };
    let variant = Engine::new(Role::Server, Some(params)).variant();
    let zeros = vec![0; 1 << 30];
    let bomb = variant.and_then(|variant| codec.compress(&zeros, variant)).unwrap_or_default();
    drop(zeros);
    let mut wire = Vec::new();
    frame::put_masked(&mut wire, Op::Binary, true, true, &bomb, [0; 4]);
    once(&format!("bomb of {} B to 1 GiB, limit 16 MiB", bomb.len()), wire, Some(params));
}

fn once(name: &str, mut wire: Vec<u8>, params: Option<Params>) {
    let (mut engine, mut codec) = (Engine::new(Role::Server, params), codec());
    let start = cpu_ms();
    let end = decode(&mut engine, &mut wire, &mut codec);
    let took = cpu_ms() - start;
    let end = end.map_or(String::new(), |fault| fault.to_string());
    println!("{name:52} {took:>10.1} ms   {end}");
}

/// The CPU time of this thread so far, in milliseconds.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e6
}

fn fragments(op: Op, count: usize, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(count * (payload.len() + 8));
    for i in 0..count {
        let op = if i == 0 { op } else { Op::Continuation };
        frame::put_masked(&mut wire, op, i + 1 == count, false, payload, [0; 4]);
    }
    wire
}

fn decoding(wire: Vec<u8>) -> impl FnMut() {
    let size = wire.len();
    decoding_in_reads(wire, size)
}

fn decoding_in_reads(mut wire: Vec<u8>, read: usize) -> impl FnMut() {
    let (mut engine, mut codec) = (Engine::new(Role::Server, None), codec());
    move || {
        for read in wire.chunks_mut(read) {
            decode(&mut engine, read, &mut codec);
        }
    }
}

fn decode(engine: &mut Engine, mut buf: &mut [u8], codec: &mut Codec) -> Option<Fault> {
    while !buf.is_empty() {
        // As a worker does.
        match engine.next_whole(&mut buf, &LIMITS) {
            Some(Ok((_, data))) => {
                black_box(&data);
                continue;
            }
            Some(Err(fault)) => return Some(fault),
            None => {}
        }
        match engine.next(buf, &LIMITS, codec) {
            Ok(step) => {
                black_box(&step.event);
                buf = &mut buf[step.used..];
            }
            Err(fault) => return Some(fault),
        }
    }
    None
}

fn masked(op: Op, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    frame::put_masked(&mut wire, op, true, false, payload, [0; 4]);
    wire
}

fn fresh() -> Direction {
    Direction { takeover: false, bits: 15 }
}

fn codec() -> Codec {
    Codec::new(DeflateOptions { enabled: true, threshold: 0, ..DeflateOptions::default() })
}

/// Prints the best round, in nanoseconds for each of the `messages` of a call.
fn report(name: &str, messages: u32, mut call: impl FnMut()) {
    let (mut best, mut calls) = (f64::MAX, 1);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
        // A round is shorter than a slice of the scheduler, so that some run undisturbed.
        calls = (300_000.0 / best.max(1.0)).clamp(1.0, 300_000.0) as u32;
    }
    println!("{name:52} {:>10.1} ns", best / f64::from(messages));
}
