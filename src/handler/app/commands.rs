//! Carries out what an application process asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::codec::{
    self, ALL, ANY, Broken, KEEP_BYTES_MAX, Kind, LATER, MORE, NOTE, Packet, TASK, USER, VERDICT,
    take_fields,
};
use super::link::Link;
use super::shared::{Answer, Held};
use super::values::{INVALID_TEXT, message, verdict_code};
use super::{bodies, replies, rooms};
use crate::api::{Accept, AppReport, Context, Refuse, Verdict, is_reserved};
use crate::fd::{Fd, Slot};

/// The code of VERDICT for a command that makes no sense.
const INVALID: u16 = 7;

/// Whether a command does something that must not be done twice.
fn is_effect(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Push
            | Kind::Broadcast
            | Kind::Disconnect
            | Kind::Accept
            | Kind::Refuse
            | Kind::Response
            | Kind::Body
            | Kind::Keep
            | Kind::Send
            | Kind::Publish
            | Kind::CloseUser
    ) || rooms::is_change(kind)
}

fn is_about_client(kind: Kind) -> bool {
    matches!(kind, Kind::Push | Kind::Disconnect | Kind::Protect | Kind::Keep)
        || rooms::is_change(kind)
}

/// What a command that makes no sense costs: the answer or the message that it was to be, and
/// never the process. `head` is the command without its payload.
///
/// # Errors
///
/// `broken` again where nothing that follows can be understood either.
pub fn wrong(link: &Rc<Link>, head: &Packet, broken: Broken) -> Result<(), Broken> {
    if matches!(broken, Broken::Kind(_)) || head.kind == Kind::Ready {
        return Err(broken);
    }
    let (app, fd, id) = (link.id, head.fd, head.id);
    tracing::warn!(%app, fd, id, %broken, "a wrong command of the application was not carried out");
    match head.kind {
        Kind::Response | Kind::Accept | Kind::Refuse => {
            link.shared.unanswered(head.id, 500);
            if head.kind == Kind::Response && head.flags & MORE != 0 {
                link.taken(head.id, 0, true);
            }
        }
        Kind::Body => link.taken(head.id, 0, true),
        Kind::Read => bodies::gone(link, head.id),
        Kind::Members => link.answer(Packet { id: head.id, ..Packet::new(Kind::MembersAnswer) }),
        kind if is_effect(kind) && head.flags & VERDICT != 0 => {
            let too_long = matches!(broken, Broken::Length(_));
            link.verdict(head.id, if too_long { verdict_code(Verdict::TooBig) } else { INVALID });
        }
        _ => {}
    }
    Ok(())
}

/// Carries out one packet of the process behind `link`.
pub fn execute(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    if is_effect(packet.kind) {
        link.shared.pool.borrow_mut().reached(link.id);
    }
    match packet.kind {
        // Only these are about a client that may be waiting for its 101.
        kind if is_about_client(kind) => {
            let (id, asked) = (packet.id, packet.flags & VERDICT != 0);
            let verdict = match link.shared.hold(packet) {
                Held::Elsewhere(packet) => return about_client(link, ctx, packet),
                // A process that waits for the verdict does not let its client in meanwhile.
                Held::Kept => Verdict::Relayed,
                Held::Full => Verdict::Full,
            };
            if asked {
                link.verdict(id, verdict_code(verdict));
            }
            Ok(())
        }
        Kind::Done => done(link, ctx, &packet),
        Kind::Broadcast => broadcast(ctx, packet),
        Kind::Publish => rooms::publish(link, ctx, packet),
        Kind::Members => rooms::members(link, ctx, &packet),
        Kind::CloseUser => rooms::close_user(link, ctx, packet),
        Kind::Ready => link.ready(&packet),
        Kind::Accept => accept(link, ctx, packet),
        Kind::Refuse => refuse(link, packet),
        Kind::Response => replies::respond(link, ctx, packet),
        Kind::Body => replies::part(link, packet),
        Kind::Read => bodies::read(link, ctx, &packet),
        Kind::Info | Kind::Exists => {
            info(link, ctx, &packet);
            Ok(())
        }
        Kind::List => {
            list(link, ctx, &packet);
            Ok(())
        }
        Kind::Stats => {
            stats(link, ctx, packet.id);
            Ok(())
        }
        Kind::Every => {
            link.every(Duration::from_millis(packet.id.into()));
            Ok(())
        }
        Kind::Send => send(link, ctx, packet),
        Kind::End => {
            link.leaves(&packet);
            Ok(())
        }
        kind => Err(Broken::Unexpected(kind)),
    }
}

/// What is about one client, also what was held back until the 101.
pub fn about_client(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    match packet.kind {
        Kind::Push => push(link, ctx, packet),
        Kind::Disconnect => disconnect(link, ctx, &packet),
        Kind::Protect => {
            let fd = Fd::try_from(packet.fd);
            let verdict = fd.map_or(Verdict::Gone, |fd| ctx.protect(fd, packet.code != 0));
            if packet.flags & VERDICT != 0 {
                link.verdict(packet.id, verdict_code(verdict));
            }
            Ok(())
        }
        kind if rooms::is_change(kind) => rooms::change(link, ctx, &packet),
        _ if packet.body.len() > KEEP_BYTES_MAX => Err(Broken::Value(Kind::Keep)),
        _ => {
            let is_kept = link.shared.pool.borrow_mut().keep_bytes(packet.fd, &packet.body);
            if !is_kept {
                tracing::warn!(app = %link.id, fd = packet.fd, "there is no room for a KEEP");
            }
            Ok(())
        }
    }
}

fn disconnect(link: &Rc<Link>, ctx: &Context, packet: &Packet) -> Result<(), Broken> {
    if !rooms::may_be_sent(packet) {
        return Err(Broken::Value(packet.kind));
    }
    let (fd, reason) = (Fd::try_from(packet.fd), String::from_utf8_lossy(&packet.body));
    match fd {
        Ok(fd) if packet.flags & VERDICT != 0 => {
            let closed = ctx.reactor().close_confirmed(fd, packet.code, &reason);
            let (link, id, question) = (link.clone(), packet.id, link.question());
            ctx.spawn(async move {
                let _open = question;
                link.verdict(id, verdict_code(closed.await));
            });
        }
        // Nobody waits for the verdict.
        Ok(fd) => _ = ctx.close(fd, packet.code, &reason),
        Err(_) if packet.flags & VERDICT != 0 => {
            link.verdict(packet.id, verdict_code(Verdict::Gone));
        }
        Err(_) => {}
    }
    Ok(())
}

fn push(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    let asked = packet.flags & VERDICT != 0;
    let Some(message) = message(&packet)? else {
        tracing::warn!(app = %link.id, fd = packet.fd, "a text push that is not UTF-8 was refused");
        if asked {
            link.verdict(packet.id, INVALID_TEXT);
        }
        return Ok(());
    };
    let Ok(fd) = Fd::try_from(packet.fd) else {
        if asked {
            link.verdict(packet.id, verdict_code(Verdict::Gone));
        }
        return Ok(());
    };
    if asked {
        let (link, confirmed) = (link.clone(), ctx.push_confirmed(fd, message));
        let question = link.question();
        ctx.spawn(async move {
            let _open = question;
            let verdict = confirmed.await;
            link.verdict_on(packet.id, verdict_code(verdict), packet.fd);
        });
    } else {
        let verdict = ctx.push(fd, message);
        link.count_push(packet.fd, verdict);
    }
    Ok(())
}

fn broadcast(ctx: &Context, packet: Packet) -> Result<(), Broken> {
    let Some(message) = message(&packet)? else {
        tracing::warn!("a text broadcast that is not UTF-8 was refused");
        return Ok(());
    };
    match Fd::try_from(packet.fd) {
        Ok(except) => ctx.broadcast_except(except, message),
        Err(_) => ctx.broadcast(message),
    }
    Ok(())
}

fn done(link: &Rc<Link>, ctx: &Context, packet: &Packet) -> Result<(), Broken> {
    let shared = &link.shared;
    let now = shared.now_ms();
    let since = shared.pool.borrow_mut().since(link.id);
    let mut count = 0;
    let mut open_answers = Vec::new();
    let any_waits = !shared.answers.borrow().is_empty();
    let known =
        shared.pool.borrow_mut().done(link.id, packet.id, packet.flags & ALL != 0, now, |id| {
            count += 1;
            if any_waits {
                open_answers.push(id);
            }
        });
    for id in open_answers {
        if packet.flags & LATER != 0 && id == packet.id {
            shared.answers_later(id, link.id);
        } else {
            shared.unanswered(id, 500);
        }
    }
    if count > 0 {
        let took = Duration::from_millis(now.saturating_sub(since.unwrap_or(now)));
        let events = u32::try_from(count).unwrap_or(u32::MAX);
        ctx.reactor().report_app(AppReport::Finished { events, took });
    }
    link.finished(count);
    if known { Ok(()) } else { Err(Broken::Value(Kind::Done)) }
}

/// Goes with an accepted handshake to `on_open`, and is dropped where the client left meanwhile.
#[derive(Clone)]
struct UntilOpen {
    _dropped: Arc<oneshot::Sender<()>>,
}

fn accept(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    let mut body = packet.body;
    let subprotocol = codec::take_string(&mut body).ok_or(Broken::Payload(Kind::Accept))?;
    let fields = take_fields(&mut body).ok_or(Broken::Payload(Kind::Accept))?;
    let shared = link.shared.clone();
    let answer = shared.answers.borrow_mut().remove(&packet.id);
    let Some(Answer::Handshake(fd, answer)) = answer else {
        return Ok(()); // Nobody waits any more.
    };
    shared.pool.borrow_mut().answered(link.id, packet.id);
    let (sender, dropped) = oneshot::channel::<()>();
    let mut accept = Accept::new().extension(UntilOpen { _dropped: Arc::new(sender) });
    accept.subprotocol = (!subprotocol.is_empty()).then(|| text(&subprotocol));
    accept.headers = own(&fields);
    let gone = shared.opening.borrow_mut().get_mut(&fd).is_none_or(|opening| {
        // Whatever the process sends next, of a room or a user as well, finds the client open.
        opening.pause = Some(link.pause());
        opening.gone
    });
    if gone || answer.send(Ok(accept)).is_err() {
        shared.never_opened(fd);
        return Ok(());
    }
    ctx.spawn(async move {
        let _ = dropped.await;
        // `on_open` has taken out whoever is open.
        if shared.opening.borrow().contains_key(&fd) {
            shared.never_opened(fd);
        }
    });
    Ok(())
}

fn refuse(link: &Rc<Link>, packet: Packet) -> Result<(), Broken> {
    if !(300..=599).contains(&packet.code) {
        return Err(Broken::Answer(format!("status {} is no refusal (300 to 599)", packet.code)));
    }
    let mut body = packet.body;
    let fields = take_fields(&mut body).ok_or(Broken::Payload(Kind::Refuse))?;
    let refuse = Refuse { status: packet.code, headers: own(&fields), body: body.to_vec() };
    link.shared.refuse(packet.id, refuse);
    Ok(())
}

fn info(link: &Rc<Link>, ctx: &Context, packet: &Packet) {
    let (id, kind) = (packet.id, packet.kind);
    let answer = if kind == Kind::Info { Kind::InfoAnswer } else { Kind::ExistsAnswer };
    let Ok(fd) = Fd::try_from(packet.fd) else {
        return link.answer(Packet { id, ..Packet::new(answer) });
    };
    let (link, info) = (link.clone(), ctx.info(fd));
    let question = link.question();
    ctx.spawn(async move {
        let _open = question;
        let info = info.await;
        let body = match (&info, kind) {
            (Some(info), Kind::Info) => serde_json::to_vec(info).unwrap_or_default(),
            _ => Vec::new(),
        };
        let code = info.as_ref().map_or(0, |info| if info.plain { 2 } else { 1 });
        link.answer(Packet { id, code, body: body.into(), ..Packet::new(answer) });
    });
}

fn list(link: &Rc<Link>, ctx: &Context, packet: &Packet) {
    let (id, after, count) = (packet.id, packet.fd, packet.code);
    let count = if count == 0 { usize::MAX } else { count.into() };
    let (link, connections) = (link.clone(), ctx.connections());
    let question = link.question();
    ctx.spawn(async move {
        let _open = question;
        let mut fds: Vec<u64> = connections.await.iter().map(|info| info.fd.as_u64()).collect();
        fds.sort_unstable();
        let mut body = BytesMut::new();
        fds.into_iter().filter(|fd| *fd > after).take(count).for_each(|fd| body.put_u64_le(fd));
        link.answer(Packet { id, body: body.freeze(), ..Packet::new(Kind::ListAnswer) });
    });
}

fn stats(link: &Rc<Link>, ctx: &Context, id: u32) {
    let (link, connections) = (link.clone(), ctx.connections());
    let (worker_num, question) = (ctx.worker_num(), link.question());
    ctx.spawn(async move {
        let _open = question;
        let connections = connections.await.len();
        let mut stats = link.stats();
        stats.insert("connections".to_owned(), connections.into());
        stats.insert("worker_num".to_owned(), worker_num.into());
        let body = serde_json::to_vec(&stats).unwrap_or_default();
        link.answer(Packet { id, body: body.into(), ..Packet::new(Kind::StatsAnswer) });
    });
}

fn send(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    let slot = u8::try_from(packet.code).map_err(|_| Broken::Value(Kind::Send))?;
    let to = packet.flags & (TASK | ANY | NOTE | USER);
    let mut data = BytesMut::with_capacity(PIPE_HEAD_BYTES + packet.body.len());
    data.put_u8(to);
    data.put_u64_le(packet.fd);
    data.put_slice(&packet.body);
    let verdict = if Slot(slot) != ctx.worker().slot {
        ctx.send_to_worker(Slot(slot), data.freeze())
    } else {
        let verdict = link.shared.pipe(Slot(slot), to, packet.fd, &packet.body);
        if verdict.is_ok() && to & (TASK | NOTE | USER) == 0 {
            // What is for the clients of a process is for those of both, during a reload.
            ctx.reactor().send_to_sibling(data.freeze());
        }
        verdict
    };
    if packet.flags & VERDICT != 0 {
        link.verdict(packet.id, verdict_code(verdict));
    } else if !verdict.is_ok() {
        tracing::warn!(app = %link.id, to = %slot, %verdict, "a message to a worker was not sent");
    }
    Ok(())
}

/// Bytes before the payload of a message between workers.
const PIPE_HEAD_BYTES: usize = 9;

/// Takes apart what `send` put together: for whom, the number, and the payload.
pub fn unpack_pipe(mut data: Bytes) -> Option<(u8, u64, Bytes)> {
    (data.len() >= PIPE_HEAD_BYTES).then(|| (data.get_u8(), data.get_u64_le(), data))
}

/// The fields of an answer to a handshake. Frameworks give every response a Date and the like,
/// which are the server's to set and left out, as in answers to plain requests.
fn own(fields: &codec::Fields) -> Vec<(String, String)> {
    let all = fields.iter().map(|(name, value)| (text(name), text(value)));
    all.filter(|(name, _)| !is_reserved(name)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
