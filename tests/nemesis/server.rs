//! The server that the nemesis torments: it echoes, pushes, broadcasts and publishes what its
//! clients ask for, lets them join, leave and be bound, and says with what verdict.
//!
//! Opens, closes and answers that were refused are noted in the file that NEMESIS_HISTORY names,
//! one line each. NEMESIS_BREAK makes it misbehave, to prove that the checker sees it;
//! with NEMESIS_TRACE it notes each ask and answer, too.

// A server for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::rc::Rc;

use wsd::api::rooms::{PresenceEvent, Tally};
use wsd::api::{Context, Frame, Message, Opcode, Request, Verdict};
use wsd::close::Close;
use wsd::fd::Fd;

use wire::{Kind, Packet};

// The tool uses the rest of them.
#[allow(dead_code)]
mod rng;
#[allow(dead_code)]
mod wire;

/// One push in so many is broken.
const BREAK_EVERY: u64 = 8;

fn main() -> ExitCode {
    wsd::Server::new()
        .on_worker_start(worker_start)
        .on_open(open)
        .on_message(|ctx, frame| async move { message(&ctx, frame).await })
        .on_presence(presence)
        .on_close(|ctx, fd, close: Close| {
            let mine = mine(&ctx);
            if !(mine.broken == "unclosed" && fd.as_u64() % 3 == 0) {
                mine.note(format_args!("close {fd} {}", close.cause));
            }
        })
        .run()
}

/// What a worker of this server keeps.
struct Mine {
    history: RefCell<File>,
    version: Vec<u8>,
    broken: String,
    traces: bool,
    pushes: Cell<u64>,
    /// Pushes that are to come after the next one to the same client from the same sender.
    late: RefCell<HashMap<(Fd, u64), Message<'static>>>,
}

impl Mine {
    fn note(&self, event: std::fmt::Arguments<'_>) {
        // One write is one line, whoever else writes; and a kill takes back no write.
        let line = format!("{event}\n");
        self.history.borrow_mut().write_all(line.as_bytes()).expect("note an event");
    }

    /// For whoever looks for the cause of a violation.
    fn trace(&self, event: std::fmt::Arguments<'_>) {
        if self.traces {
            self.note(event);
        }
    }

    /// Whether this push is to be broken so.
    fn breaks(&self, how: &str) -> bool {
        self.broken == how && self.pushes.get().is_multiple_of(BREAK_EVERY)
    }
}

fn worker_start(ctx: Context) {
    let path = std::env::var_os("NEMESIS_HISTORY").expect("NEMESIS_HISTORY");
    let history = OpenOptions::new().append(true).create(true).open(path).expect("history");
    ctx.set_state(Mine {
        history: RefCell::new(history),
        version: version(),
        broken: std::env::var("NEMESIS_BREAK").unwrap_or_default(),
        traces: std::env::var_os("NEMESIS_TRACE").is_some(),
        pushes: Cell::new(0),
        late: RefCell::default(),
    });
}

fn mine(ctx: &Context) -> Rc<Mine> {
    ctx.state::<Mine>().expect("on_worker_start has run")
}

/// The last eight bytes of the image: what the nemesis wrote behind it tells two copies apart.
fn version() -> Vec<u8> {
    let mut image = File::open("/proc/self/exe").expect("open the image");
    image.seek(SeekFrom::End(-8)).expect("seek");
    let mut version = Vec::new();
    image.read_to_end(&mut version).expect("read the image");
    version
}

fn open(ctx: Context, request: Rc<Request>) {
    let (mine, fd) = (mine(&ctx), request.fd);
    mine.note(format_args!("open {fd}"));
    let mut hello =
        Packet::new(Kind::Hello, 0, 0, fd.as_u64()).with(std::process::id(), Verdict::Queued);
    hello.body.clone_from(&mine.version);
    answer(&ctx, fd, Opcode::Binary, &hello);
}

async fn message(ctx: &Context, frame: Frame<'_>) {
    let (me, opcode) = (frame.fd, frame.opcode);
    let Some(ask) = Packet::of(&frame) else {
        mine(ctx).note(format_args!("garbled {me}"));
        ctx.close(me, 1008, "not a packet");
        return;
    };
    let pid = std::process::id();
    mine(ctx).trace(format_args!("trace {pid} ask {me} {} {:?}", ask.n, ask.kind));
    if ask.from != me.as_u64() {
        mine(ctx).note(format_args!("misattributed {me} {} {}", ask.from, ask.n));
    }
    let verdict = match (ask.kind, Fd::try_from(ask.to)) {
        (Kind::Echo, _) => return answer(ctx, me, opcode, &ask.with(pid, Verdict::Queued)),
        (Kind::Join, _) => return join(ctx, me, &ask, opcode).await,
        (Kind::Leave, _) => ctx.leave(me, &wire::room(ask.to)),
        (Kind::Bind, _) => ctx.bind_confirmed(me, &ask.to.to_string()).await,
        (Kind::Publish | Kind::Tallied | Kind::PushUid, _) => publish(ctx, &ask, opcode).await,
        (Kind::Broadcast, _) => {
            ctx.broadcast(ask.message(opcode));
            Verdict::Relayed
        }
        (Kind::Enlist, Ok(to)) => enlist(ctx, to, &ask, opcode),
        (_, Ok(to)) => push(ctx, me, to, &ask, opcode).await,
        _ => Verdict::Gone,
    };
    let told = Packet::new(Kind::Verdict, ask.n, ask.from, ask.to).with(pid, verdict);
    answer(ctx, me, opcode, &told);
}

async fn join(ctx: &Context, me: Fd, ask: &Packet, opcode: Opcode) {
    let joined = ctx.join_confirmed(me, &wire::room(ask.to)).await;
    let (verdict, present) = match joined {
        Ok(present) => (Verdict::Queued, present.users),
        Err(verdict) => (verdict, Vec::new()),
    };
    let mut told = Packet::new(Kind::Joined, ask.n, ask.from, ask.to);
    told = told.with(std::process::id(), verdict);
    told.body =
        present.iter().map(|user| user.uid.parse::<u8>().expect("a uid of ours")).collect();
    answer(ctx, me, opcode, &told);
}

async fn publish(ctx: &Context, ask: &Packet, opcode: Opcode) -> Verdict {
    let mine = mine(ctx);
    mine.pushes.set(mine.pushes.get() + 1);
    if mine.breaks("unpublished") {
        return Verdict::Queued;
    }
    let message = ask.message(opcode);
    match ask.kind {
        Kind::PushUid => ctx.push_uid(&ask.to.to_string(), message),
        Kind::Tallied => match ctx.publish_confirmed(&wire::room(ask.to), message).await {
            Ok(tally) => word(&tally),
            Err(verdict) => verdict,
        },
        _ if mine.breaks("stranger") => {
            let both = [ask.to, (ask.to + 1) % wire::ROOMS].map(wire::room);
            ctx.publish_many(both, message)
        }
        _ => {
            if mine.breaks("twice") {
                ctx.publish(&wire::room(ask.to), message.clone());
            }
            ctx.publish(&wire::room(ask.to), message)
        }
    }
}

/// `Queued`: every member has it.
fn word(tally: &Tally) -> Verdict {
    match (tally.full + u64::from(tally.refused), tally.is_whole()) {
        (1.., _) => Verdict::Full,
        (0, true) => Verdict::Queued,
        (0, false) => Verdict::Unknown,
    }
}

/// What is published right behind a join of another's client finds the member.
fn enlist(ctx: &Context, to: Fd, ask: &Packet, opcode: Opcode) -> Verdict {
    let room = wire::room(ask.extra);
    match ctx.join(to, &room) {
        Verdict::Queued | Verdict::Relayed => ctx.publish(&room, ask.message(opcode)),
        refused => refused,
    }
}

/// Tells the members here who has come or left.
fn presence(ctx: Context, event: PresenceEvent) {
    let mine = mine(&ctx);
    let number = (0..wire::ROOMS).find(|number| wire::room(*number) == event.room);
    let uid = event.uid.parse().expect("a uid of ours");
    let mut packet = Packet::new(Kind::Presence, 0, uid, number.expect("a room of ours"));
    packet.extra = u64::from(event.joined);
    if mine.broken == "ghost" {
        // A user that stays leaves, and is there again.
        for joined in [0, 1] {
            let mut other = Packet::new(Kind::Presence, 0, wire::UIDS, packet.to);
            other.extra = joined;
            ctx.publish_here(&event.room, other.message(Opcode::Binary));
        }
    }
    // There are few of them, so each is broken.
    for _ in 0..if mine.broken == "presence" { 2 } else { 1 } {
        let tally = ctx.publish_here(&event.room, packet.message(Opcode::Binary));
        if tally.full > 0 {
            mine.note(format_args!("unheard {}", packet.to));
        }
    }
}

async fn push(ctx: &Context, me: Fd, to: Fd, ask: &Packet, opcode: Opcode) -> Verdict {
    let mine = mine(ctx);
    mine.pushes.set(mine.pushes.get() + 1);
    let mut message = ask.message(opcode);
    if mine.breaks("drop") {
        return Verdict::Queued;
    }
    let pair = (to, ask.from);
    if mine.breaks("swap") && !mine.late.borrow().contains_key(&pair) {
        mine.late.borrow_mut().insert(pair, message);
        return Verdict::Queued;
    }
    if mine.breaks("double") {
        ctx.push(to, message.clone());
    }
    if mine.breaks("corrupt") {
        let mut other = ask.clone();
        other.body.push(b'!');
        message = other.message(opcode);
    }
    let aim = if mine.breaks("misroute") { me } else { to };
    let verdict = match ask.kind {
        Kind::Confirmed => ctx.push_confirmed(aim, message).await,
        _ => ctx.push(aim, message),
    };
    let late = mine.late.borrow_mut().remove(&pair);
    if let Some(message) = late {
        ctx.push(to, message);
    }
    verdict
}

/// Answers the client that asked. What its queue refuses is noted, since nobody else would know.
fn answer(ctx: &Context, me: Fd, opcode: Opcode, packet: &Packet) {
    let verdict = ctx.push(me, packet.message(opcode));
    let pid = std::process::id();
    mine(ctx).trace(format_args!("trace {pid} answer {me} {} {verdict}", packet.n));
    if !verdict.is_ok() {
        mine(ctx).note(format_args!("refused {me} {} {verdict}", packet.n));
    }
}
