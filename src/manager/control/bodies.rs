//! The bodies of requests. However many clients send one at once, so many bytes are read.

use std::ops::Deref;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{CLIENT_PATIENCE, Client, Hangup};
use crate::api::Verdict;
use crate::ipc::control::{Answer, BODY_BYTES_MAX, BodyKind};

/// Bytes of bodies that are held at once for the application, and as many for those who may ask
/// everything. Two of the longest.
const ROOM_BYTES: usize = 2 * BODY_BYTES_MAX;
/// A body of so few bytes waits for no room.
const SMALL_BYTES: usize = 64 * 1024;

/// Room for bodies.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub fn new() -> Room {
        Room(Arc::new(Semaphore::new(ROOM_BYTES)))
    }

    /// Waits for room, behind whoever waited before.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = if bytes > SMALL_BYTES { bytes } else { 0 };
        let wait = Arc::clone(&self.0).acquire_many_owned(u32::try_from(bytes).ok()?);
        timeout(CLIENT_PATIENCE, wait).await.ok()?.ok()
    }
}

/// A body that was read, and its room.
pub(super) struct Body {
    pub bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Client {
    /// Reads the body of a message; `Err` within holds the answer to a body that may not be.
    pub(super) async fn message(
        &mut self,
        opcode: BodyKind,
        bytes: usize,
    ) -> Result<Result<Body, Answer>, Hangup> {
        if bytes > BODY_BYTES_MAX {
            let mut answer = Answer::failed(format!("a body has at most {BODY_BYTES_MAX} bytes"));
            answer.verdict = Some(Verdict::TooBig);
            self.say(&answer.line()).await?;
            return Err(Hangup);
        }
        let body = self.read_body(bytes).await?;
        if opcode == BodyKind::Text && std::str::from_utf8(&body).is_err() {
            return Ok(Err(Answer::failed("a text message must be UTF-8")));
        }
        Ok(Ok(body))
    }

    /// As [`message`](Self::message), of one for many: no worker gives a longer one to anybody.
    pub(super) async fn message_for_many(
        &mut self,
        opcode: BodyKind,
        bytes: usize,
    ) -> Result<Result<Body, Answer>, Hangup> {
        let body = self.message(opcode, bytes).await?;
        let most = self.manager.borrow().exchange.settings.push_bytes_max;
        Ok(body.and_then(|body| match body.len() as u64 > most {
            false => Ok(body),
            true => Err(Answer {
                verdict: Some(Verdict::TooBig),
                ..Answer::failed("the message is larger than a message may be")
            }),
        }))
    }

    async fn read_body(&mut self, len: usize) -> Result<Body, Hangup> {
        let Some(room) = self.room.take(len).await else {
            self.say(&Answer::failed("too many bodies are on their way").line()).await?;
            return Err(Hangup);
        };
        // All at once: a buffer that grows would take twice as much for a while.
        let mut bytes = Vec::with_capacity(len);
        let mut limited = (&mut self.reader).take(len as u64);
        match timeout(CLIENT_PATIENCE, limited.read_to_end(&mut bytes)).await {
            Ok(Ok(got)) if got == len => Ok(Body { bytes, _room: room }),
            _ => Err(Hangup),
        }
    }
}
