//! Long bodies of requests: the worker holds them, and a process reads them in parts, so that
//! neither has more of them in memory than a part.

use std::rc::Rc;

use bytes::Buf;

use super::codec::{Broken, Kind, Packet};
use super::link::Link;
use super::shared::Shared;
use crate::api::Context;

/// A longer body is held. A shorter one stands in its REQUEST.
pub const IN_MEMORY_BYTES_MAX: usize = 256 << 10;
/// Bytes of a PART.
const PART_BYTES: usize = 256 << 10;

impl Shared {
    /// Lets go of the bodies whose requests are over.
    pub fn drop_bodies(&self) {
        let mut bodies = self.bodies.0.borrow_mut();
        if bodies.is_empty() {
            return;
        }
        let (pool, answers) = (self.pool.borrow(), self.answers.borrow());
        bodies.retain(|id, _| answers.contains_key(id) || pool.has_event(*id));
    }
}

/// READ.
pub fn read(link: &Rc<Link>, ctx: &Context, packet: &Packet) -> Result<(), Broken> {
    let mut payload = packet.body.clone();
    if payload.len() < 4 {
        return Err(Broken::Payload(Kind::Read));
    }
    let (id, offset) = (packet.id, packet.fd);
    let Some(body) = link.shared.bodies.get(payload.get_u32_le()) else {
        gone(link, id);
        return Ok(());
    };
    let read = ctx.task(body.reader(offset, PART_BYTES));
    let (link, question) = (link.clone(), link.question());
    ctx.spawn(async move {
        let _open = question;
        match read.await {
            Ok(Ok(part)) => {
                link.answer(Packet { id, body: part.into(), ..Packet::new(Kind::Part) });
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a body that is held cannot be read");
                gone(&link, id);
            }
            Err(error) => {
                tracing::warn!(%error, "a body that is held is not read");
                gone(&link, id);
            }
        }
    });
    Ok(())
}

/// Answers a READ for which there is nothing.
pub fn gone(link: &Link, id: u32) {
    link.answer(Packet { id, code: 1, ..Packet::new(Kind::Part) });
}
