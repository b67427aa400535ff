//! Events with their payloads, so that two runs of an engine can be compared.

use wsd::api::Opcode;
use wsd::close::Cause;
use wsd::websocket::{Codec, DeflateOptions, Engine, Event, Limits, Params, Role, Step};

/// An event with its payload, wherever that lay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Message(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Fault(Cause),
}

/// A codec that compresses everything.
pub fn codec() -> Codec {
    Codec::new(DeflateOptions { enabled: true, threshold: 0, ..DeflateOptions::default() })
}

/// Feeds one read as a worker does, by the short way where there is one, and appends what was
/// said. What follows a fault is not fed.
pub fn feed(
    engine: &mut Engine,
    read: &[u8],
    limits: &Limits,
    codec: &mut Codec,
    out: &mut Vec<Said>,
) {
    let mut read = read.to_vec();
    let mut buf = &mut read[..];
    while !buf.is_empty() {
        match engine.next_whole(&mut buf, limits) {
            Some(Ok((opcode, data))) => {
                out.push(Said::Message(opcode, data.to_vec()));
                continue;
            }
            Some(Err(fault)) => {
                out.push(Said::Fault(fault.cause));
                return;
            }
            None => {}
        }
        match engine.next(buf, limits, codec) {
            Ok(Step { used, event }) => {
                assert!(event.is_some() || used == buf.len(), "no event, yet bytes are left");
                assert!(used > 0, "no progress");
                out.extend(event.map(|event| said(event, buf)));
                buf = &mut buf[used..];
            }
            Err(fault) => {
                out.push(Said::Fault(fault.cause));
                return;
            }
        }
    }
}

/// What a fresh engine says to a number of reads.
pub fn events(role: Role, params: Option<Params>, reads: &[&[u8]], limits: &Limits) -> Vec<Said> {
    let (mut engine, mut codec, mut out) = (Engine::new(role, params), codec(), Vec::new());
    for read in reads {
        feed(&mut engine, read, limits, &mut codec, &mut out);
    }
    out
}

fn said(event: Event, buf: &[u8]) -> Said {
    match event {
        Event::Message { opcode, data, .. } => Said::Message(opcode, data.bytes(buf).to_vec()),
        Event::Ping(data) => Said::Ping(data.bytes(buf).to_vec()),
        Event::Pong(data) => Said::Pong(data.bytes(buf).to_vec()),
        Event::Close { code, reason } => Said::Close(code, reason),
    }
}
