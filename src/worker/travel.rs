//! A connection as it travels between two processes: all of its state, as bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::outbox::Unsent;
use super::timers::Tick;
use crate::error::{Error, Result};
use crate::ipc::codec;
use crate::websocket::EngineState;

/// The largest state of one connection: an unfinished message, one being sent and what waits
/// behind it are at most 1 GiB each.
const STATE_BYTES_MAX: u64 = 4 << 30;

/// Every shape that was ever released, the newest last: an older process may send an older one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Traveller {
    /// A request that is being read.
    PendingV1 { bytes: Vec<u8>, peer: Option<SocketAddr>, deadline: Tick },
    /// An open WebSocket.
    OpenV1(Box<OpenV1>),
}

/// An open WebSocket. Ticks and milliseconds are of the monotonic clock, which all processes of
/// a machine share; `opened_at` is since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OpenV1 {
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
}

impl Traveller {
    /// Takes the state out of a connection that is pending or open. `None` if it is neither.
    pub fn take(connection: &mut Connection, frozen: Option<Bytes>) -> Option<Traveller> {
        let tail = connection.take_tail();
        if let Some(opening) = connection.extra.as_mut().and_then(|it| it.opening.as_mut()) {
            let bytes = std::mem::take(&mut opening.bytes);
            let deadline = connection.deadline;
            return Some(Traveller::PendingV1 { bytes, peer: opening.peer, deadline });
        }
        let engine = std::mem::replace(
            &mut connection.engine,
            crate::websocket::Engine::new(crate::websocket::Role::Server, None),
        );
        Some(Traveller::OpenV1(Box::new(OpenV1 {
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
    pub fn unpack(batch: &mut &[u8]) -> Result<Traveller> {
        let cut = || Error::new("a batch of connections is cut short");
        let (len, rest) = batch.split_first_chunk::<4>().ok_or_else(cut)?;
        let (state, rest) =
            rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(cut)?;
        *batch = rest;
        codec::decode_within(STATE_BYTES_MAX, state)
    }
}
