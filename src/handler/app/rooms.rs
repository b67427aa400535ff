//! Rooms, users and sessions, as an application process asks for them.

use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use super::codec::{Broken, Kind, Packet, VERDICT, put_string, take_string};
use super::link::Link;
use super::shared::Shared;
use super::values::{INVALID_TEXT, message, verdict_code};
use crate::api::rooms::{Act, Call, Change, PresenceEvent, Publish, TOPICS_MAX, Topic};
use crate::api::{Context, Verdict};
use crate::close::{REASON_BYTES_MAX, code_may_be_sent};
use crate::fd::Fd;

/// Bytes of a name, whatever the configuration says: the worker has the limits.
const NAME_BYTES_MAX: usize = 4096;

/// Flag of PUBLISH: to the members of this worker alone.
const HERE: u8 = 2;
/// PRESENCE: a user has come or left. Events of one room go to one process, and so stay in their
/// order.
pub fn tell_presence(shared: &Shared, event: &PresenceEvent) {
    if !shared.wants_presence.get() {
        return;
    }
    let add = |sum: u64, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    let room = event.room.bytes().fold(0, add);
    let Some(place) = shared.place_of_pipe(0, room) else { return };
    if !shared.pool.borrow().has_room_for_pipe(place) {
        // Who comes and goes elsewhere does not wait for an application that hangs here.
        return tracing::warn!(place, "presence is not told: too much waits for the application");
    }
    let mut body = BytesMut::new();
    put_string(&mut body, event.room.as_bytes());
    put_string(&mut body, event.uid.as_bytes());
    body.extend_from_slice(event.info.as_deref().unwrap_or_default().as_bytes());
    let (code, body) = (u16::from(event.joined), body.freeze());
    shared.queue(place, Packet { code, body, ..Packet::new(Kind::Presence) });
}

/// Whether it changes something that a connection has.
pub fn is_change(kind: Kind) -> bool {
    matches!(kind, Kind::Join | Kind::Leave | Kind::Bind | Kind::Session | Kind::Expire)
}

/// JOIN, LEAVE, BIND, SESSION and EXPIRE: also those that were held back until the 101.
pub fn change(link: &Rc<Link>, ctx: &Context, packet: &Packet) -> Result<(), Broken> {
    let change = read_change(packet)?;
    let Ok(fd) = Fd::try_from(packet.fd) else {
        return told(link, packet, Verdict::Gone);
    };
    if packet.flags & VERDICT == 0 {
        let verdict = ctx.change(fd, change);
        if !verdict.is_ok() {
            let (app, kind) = (link.id, packet.kind);
            tracing::warn!(
                %app, fd = packet.fd, ?kind, %verdict,
                "a command of an application was refused"
            );
        }
        return Ok(());
    }
    let (link, id, question) = (link.clone(), packet.id, link.question());
    let changed = ctx.reactor().change_confirmed(fd, change);
    ctx.spawn(async move {
        let _open = question;
        link.verdict(id, verdict_code(changed.await));
    });
    Ok(())
}

fn told(link: &Rc<Link>, packet: &Packet, verdict: Verdict) -> Result<(), Broken> {
    if packet.flags & VERDICT != 0 {
        link.verdict(packet.id, verdict_code(verdict));
    }
    Ok(())
}

fn read_change(packet: &Packet) -> Result<Change, Broken> {
    let kind = packet.kind;
    let mut body = packet.body.clone();
    Ok(match kind {
        Kind::Join => {
            let room = take_string(&mut body).ok_or(Broken::Payload(kind))?;
            let info = (!body.is_empty()).then(|| json(kind, &body)).transpose()?;
            Change::Join { room: name(kind, &room)?, info }
        }
        Kind::Leave => Change::Leave { room: name(kind, &body)? },
        Kind::Bind if body.is_empty() => Change::Unbind,
        Kind::Bind => Change::Bind { uid: name(kind, &body)? },
        Kind::Session if body.is_empty() => Change::Session(None),
        Kind::Session => Change::Session(Some(json(kind, &body)?)),
        _ if body.len() != 8 => return Err(Broken::Payload(kind)),
        _ => Change::ExpireAt(Some(body.get_u64_le()).filter(|at| *at != 0)),
    })
}

fn name(kind: Kind, bytes: &[u8]) -> Result<String, Broken> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= NAME_BYTES_MAX);
    text.map(str::to_owned).ok_or(Broken::Value(kind))
}

fn json(kind: Kind, bytes: &[u8]) -> Result<String, Broken> {
    let valid = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let text = std::str::from_utf8(bytes).ok().filter(|_| valid);
    text.map(str::to_owned).ok_or(Broken::Value(kind))
}

/// A topic as its text: `#` and the room, or `@` and the uid.
fn topic(kind: Kind, bytes: &[u8]) -> Result<Topic, Broken> {
    let name = name(kind, bytes)?;
    match name.split_at_checked(1) {
        Some(("#", room)) => Ok(Topic::room(room)),
        Some(("@", uid)) => Ok(Topic::user(uid)),
        _ => Err(Broken::Value(kind)),
    }
}

/// PUBLISH.
pub fn publish(link: &Rc<Link>, ctx: &Context, mut packet: Packet) -> Result<(), Broken> {
    let topics = take_topics(packet.kind, &mut packet.body)?;
    let asked = packet.flags & VERDICT != 0;
    let Some(message) = message(&packet)? else {
        tracing::warn!(app = %link.id, "a text publish that is not UTF-8 was refused");
        if asked {
            link.verdict(packet.id, INVALID_TEXT);
        }
        return Ok(());
    };
    let publish = Publish::new(topics, message);
    let publish = match Fd::try_from(packet.fd) {
        Ok(except) => publish.except(except),
        Err(_) => publish,
    };
    if packet.flags & HERE != 0 {
        ctx.reactor().publish_here(publish);
        return Ok(());
    }
    if !asked {
        let verdict = ctx.reactor().publish(publish);
        if !verdict.is_ok() {
            tracing::warn!(app = %link.id, %verdict, "a publish did not go everywhere");
        }
        return Ok(());
    }
    let (link, id, question) = (link.clone(), packet.id, link.question());
    let published = ctx.reactor().publish_confirmed(publish);
    ctx.spawn(async move {
        let _open = question;
        match published.await {
            Ok(tally) => answer(&link, Kind::Tally, id, &tally),
            Err(verdict) => link.verdict(id, verdict_code(verdict)),
        }
    });
    Ok(())
}

fn take_topics(kind: Kind, body: &mut Bytes) -> Result<Vec<Topic>, Broken> {
    if body.len() < 4 {
        return Err(Broken::Payload(kind));
    }
    let count = body.get_u32_le() as usize;
    if !(1..=TOPICS_MAX).contains(&count) {
        return Err(Broken::Value(kind));
    }
    (0..count).map(|_| topic(kind, &take_string(body).ok_or(Broken::Payload(kind))?)).collect()
}

/// MEMBERS.
pub fn members(link: &Rc<Link>, ctx: &Context, packet: &Packet) -> Result<(), Broken> {
    let topic = topic(packet.kind, &packet.body)?;
    let (link, id, question) = (link.clone(), packet.id, link.question());
    let members = ctx.reactor().members(topic);
    ctx.spawn(async move {
        let _open = question;
        answer(&link, Kind::MembersAnswer, id, &members.await);
    });
    Ok(())
}

/// Whether a close may have the code and the reason of DISCONNECT, or of CLOSE_USER behind its uid.
/// Who does not wait for a verdict has them mended.
pub fn may_be_sent(packet: &Packet) -> bool {
    let fits = packet.body.len() <= REASON_BYTES_MAX && code_may_be_sent(packet.code);
    packet.flags & VERDICT == 0 || fits
}

/// CLOSE_USER.
pub fn close_user(link: &Rc<Link>, ctx: &Context, mut packet: Packet) -> Result<(), Broken> {
    let uid = take_string(&mut packet.body).ok_or(Broken::Payload(packet.kind))?;
    if !may_be_sent(&packet) {
        return Err(Broken::Value(packet.kind));
    }
    let topics = vec![Topic::user(&name(packet.kind, &uid)?)];
    let act = Act::Close { code: packet.code, operator: false };
    let reason = String::from_utf8_lossy(&packet.body);
    let closed = ctx.reactor().count(Call { topics, except: 0, act }, &reason);
    if packet.flags & VERDICT != 0 {
        let (link, id, question) = (link.clone(), packet.id, link.question());
        ctx.spawn(async move {
            let _open = question;
            link.verdict(id, verdict_code(closed.await.verdict()));
        });
    }
    Ok(())
}

fn answer(link: &Rc<Link>, kind: Kind, id: u32, value: &impl serde::Serialize) {
    let body = serde_json::to_vec(value).unwrap_or_default();
    link.answer(Packet { id, body: body.into(), ..Packet::new(kind) });
}
