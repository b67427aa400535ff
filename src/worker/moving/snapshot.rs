//! A connection as it travels between two processes: all of its state, as bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::rooms::Topic;
use crate::error::{Error, Result};
use crate::ipc::codec;
use crate::websocket::EngineState;
use crate::worker::base::ticks::Tick;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::outbox::Unsent;

/// The largest state of one connection: an unfinished message, one being sent and what waits
/// behind it are at most 1 GiB each.
const STATE_BYTES_MAX: u64 = 4 << 30;

/// Every shape that was ever released, the newest last: an older process may send an older one.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::worker) enum Snapshot {
    /// A request that is being read.
    PendingV1 { bytes: Vec<u8>, peer: Option<SocketAddr>, to_loopback: bool, deadline: Tick },
    /// An open WebSocket.
    OpenV1(Box<OpenV1>),
}

/// An open WebSocket. Ticks and milliseconds are of the monotonic clock, which all processes of
/// a machine share; `opened_at` is since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::worker) struct OpenV1 {
    pub kept: Vec<u8>,
    pub engine: EngineState,
    /// Bytes that were read and not yet decoded.
    pub tail: Vec<u8>,
    pub unsent: Option<Unsent>,
    pub opened_at: u64,
    pub received_at: u64,
    pub bytes_in: u64,
    pub bytes_out: i64,
    pub deadline: Tick,
    pub ping_at: Tick,
    pub pong_by: Tick,
    pub message_by: Tick,
    /// What the handler kept of it.
    pub frozen: Option<Vec<u8>>,
    /// Whether it is left alone when the idle are swept.
    pub protected: bool,
    /// The rooms it is in and its user, with what presence shows of it in each.
    pub topics: Vec<(Topic, Option<String>)>,
    /// What the application keeps of it, as JSON.
    pub session: Option<String>,
    /// When a handler wants it closed.
    pub expires_at: Tick,
}

impl Snapshot {
    /// Takes the state out of a connection that is pending or open. `None` if it is neither.
    pub fn take(
        connection: &mut Connection,
        frozen: Option<Bytes>,
        topics: Vec<(Topic, Option<String>)>,
    ) -> Option<Snapshot> {
        let tail = connection.take_tail();
        if let Some(opening) = connection.extra.as_mut().and_then(|it| it.opening.as_mut()) {
            let bytes = std::mem::take(&mut opening.bytes);
            let deadline = connection.deadline;
            let (peer, to_loopback) = (opening.peer, opening.to_loopback);
            return Some(Snapshot::PendingV1 { bytes, peer, to_loopback, deadline });
        }
        let engine = std::mem::replace(
            &mut connection.engine,
            crate::websocket::Engine::new(crate::websocket::Role::Server, None),
        );
        Some(Snapshot::OpenV1(Box::new(OpenV1 {
            kept: connection.kept.as_ref()?.as_bytes().to_vec(),
            engine: engine.freeze(),
            tail,
            unsent: connection.outbox.as_ref().map(|outbox| outbox.freeze()),
            opened_at: connection.opened_at,
            received_at: connection.received_at,
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            deadline: connection.deadline,
            ping_at: connection.ping_at,
            pong_by: connection.pong_by,
            message_by: connection.message_by,
            frozen: frozen.map(|bytes| bytes.to_vec()),
            protected: connection.protected,
            topics,
            session: connection.personal.as_mut().and_then(|it| it.session.take()).map(Into::into),
            expires_at: connection.expires_at(),
        })))
    }

    /// Appends it to a batch, its length in front.
    pub fn pack(&self, batch: &mut Vec<u8>) -> Result<()> {
        let start = batch.len();
        batch.extend_from_slice(&[0; 4]);
        let len = match codec::encode_within(STATE_BYTES_MAX, self, batch) {
            Ok(len) => u32::try_from(len).map_err(|_| Error::new("a state is too large")),
            Err(error) => Err(error),
        };
        match len {
            Ok(len) => {
                batch[start..start + 4].copy_from_slice(&len.to_le_bytes());
                Ok(())
            }
            Err(error) => {
                batch.truncate(start);
                Err(error)
            }
        }
    }

    /// Takes the next one off a batch.
    pub fn unpack(batch: &mut &[u8]) -> Result<Snapshot> {
        let cut = || Error::new("a batch of connections is cut short");
        let (len, rest) = batch.split_first_chunk::<4>().ok_or_else(cut)?;
        let (state, rest) =
            rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(cut)?;
        *batch = rest;
        codec::decode_within(STATE_BYTES_MAX, state)
    }
}

/// Unpacks a batch as its new worker does, and packs it again: as bytes, and the engines in it.
#[cfg(fuzzing)]
pub fn repack(mut batch: &[u8]) -> Result<(Vec<u8>, Vec<EngineState>)> {
    let (mut again, mut engines) = (Vec::new(), Vec::new());
    while !batch.is_empty() {
        let snapshot = Snapshot::unpack(&mut batch)?;
        snapshot.pack(&mut again)?;
        if let Snapshot::OpenV1(open) = snapshot {
            crate::worker::head::KeptRequest::from_bytes(&open.kept);
            open.unsent.map(crate::worker::clients::outbox::Outbox::thaw);
            engines.push(open.engine);
        }
    }
    Ok((again, engines))
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::api::Opcode;
    use crate::fd::Fd;
    use crate::websocket::{Codec, DeflateOptions, Engine, Event, Limits};
    use crate::worker::clients::outbox::Outbox;
    use crate::worker::head::KeptRequest;

    /// Connections as the first version sent them. `open` was cut in the midst of a character of
    /// a fragmented text, with a frame half sent; `window` has agreed on context takeover and
    /// received "Hello"; `pending` has sent half of its head.
    const SENT_BY_1: &str = include_str!("../../../tests/golden/connections-1");

    fn received(name: &str) -> Snapshot {
        let golden = crate::ipc::golden::lines(SENT_BY_1);
        let mut batch = golden[name].as_slice();
        let snapshot = Snapshot::unpack(&mut batch).unwrap();
        assert!(batch.is_empty());
        let mut again = Vec::new();
        snapshot.pack(&mut again).unwrap();
        assert_eq!(HEXLOWER.encode(&again), HEXLOWER.encode(&golden[name]), "{name} has changed");
        snapshot
    }

    fn open(name: &str) -> OpenV1 {
        match received(name) {
            Snapshot::OpenV1(open) => *open,
            other => panic!("{other:?}"),
        }
    }

    /// What the engine says to the rest.
    fn message(engine: EngineState, rest: &mut [u8]) -> (Opcode, Vec<u8>) {
        let limits = Limits { message_bytes: 1 << 20, fragments: 16 };
        let mut codec = Codec::new(DeflateOptions { enabled: true, ..DeflateOptions::default() });
        let mut engine = Engine::thaw(engine).unwrap();
        let step = engine.next(rest, &limits, &mut codec).unwrap();
        match step.event {
            Some(Event::Message { opcode, data, .. }) => (opcode, data.bytes(rest).to_vec()),
            _ => panic!("no message"),
        }
    }

    #[test]
    fn an_open_connection_of_the_first_version_goes_on() {
        let open = open("open");
        let request =
            KeptRequest::from_bytes(&open.kept).unwrap().request(Fd::try_from(9).unwrap());
        assert_eq!(request.target, "/ws?room=1");
        assert_eq!(request.headers.get("cookie"), Some("seat=7"));
        assert_eq!(request.peer, Some("10.0.0.1:2000".parse().unwrap()));
        let said = message(open.engine, &mut [0xa9 ^ 1, b'l' ^ 2, b'o' ^ 3]);
        assert_eq!(said, (Opcode::Text, "h\u{e9}lo".as_bytes().to_vec()));
        assert_eq!(open.tail, b"tail");
        let outbox = Outbox::thaw(open.unsent.unwrap()).unwrap();
        assert_eq!(outbox.messages(), 2);
        assert_eq!((open.opened_at, open.received_at), (1_800_000_000_000, 5_000));
        assert_eq!((open.bytes_in, open.bytes_out), (100, 200));
        let ticks = [open.deadline, open.ping_at, open.pong_by, open.message_by];
        assert_eq!(ticks, [crate::worker::base::ticks::NEVER, 21, 22, 23]);
        assert_eq!(open.frozen.as_deref(), Some(b"user data".as_slice()));
        assert!(open.protected);
        let seven = (Topic::room("7"), Some(r#"{"n":1}"#.to_owned()));
        assert_eq!(open.topics, [seven, (Topic::user("ann"), None)]);
        assert_eq!((open.session.as_deref(), open.expires_at), (Some(r#"{"seat":7}"#), 24));
    }

    #[test]
    fn an_inflate_window_of_the_first_version_is_kept() {
        let open = open("window");
        // RFC 7692 section 7.2.3.2: the same five letters, as one reference to those before.
        let mut again = [0xc1, 0x85, 0, 0, 0, 0, 0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(message(open.engine, &mut again), (Opcode::Text, b"Hello".to_vec()));
        assert!(open.unsent.is_none() && open.frozen.is_none());
    }

    #[test]
    fn half_a_head_of_the_first_version_is_read_on() {
        match received("pending") {
            Snapshot::PendingV1 { bytes, peer, to_loopback, deadline } => {
                assert!(!to_loopback);
                assert_eq!(bytes, b"GET / HTTP/1.1\r\nHo");
                assert_eq!((peer, deadline), (Some("[::1]:2000".parse().unwrap()), 40));
            }
            other => panic!("{other:?}"),
        }
    }
}
