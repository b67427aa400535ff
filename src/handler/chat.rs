//! `chat`: rooms for everyone, across all workers, with a page at `/`.
//!
//! A client is bound to its nick and is in one room, which has presence: rooms and users do the
//! rest, over reloads, upgrades and deaths. What a client sends is JSON as in `wire`;
//! `wsd push FD TEXT`, `wsd push --uid NICK TEXT` and `wsd broadcast TEXT` show on the page as a
//! notice of the server.

mod page;
mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::api::rooms::PresenceEvent;
use crate::api::{
    Context, Flow, Frame, Handler, HttpRequest, HttpResponse, Message, Opcode, Pace, Request,
    Verdict,
};
use crate::fd::Fd;
use wire::{Event, LIST_MAX, NAME_CHARS_MAX, Seat, TEXT_BYTES_MAX, User, clean_name};

/// What the names of the chat's rooms begin with for the server: such rooms have presence.
const ROOM: &str = "presence-chat-";
/// The room of a client that names none.
const LOBBY: &str = "lobby";
/// How long who comes and who leaves wait for each other, as a thousand may come at once.
const FLUSH_DELAY: Duration = Duration::from_millis(50);

/// By room and nick, who has come and who has left.
type Changes = BTreeMap<String, BTreeMap<String, Option<User>>>;

/// The chat. Serves its page at `/` and takes WebSockets at `/ws`; a client may name itself and
/// its room with `/ws?nick=…&room=…`.
#[derive(Default)]
pub struct Chat {
    /// What the members here are not told of yet.
    changes: Rc<RefCell<Changes>>,
    /// By room, who has asked who is there and was not told yet.
    asking: Rc<RefCell<BTreeMap<String, BTreeSet<Fd>>>>,
}

impl Chat {
    /// Rooms without anybody.
    pub fn new() -> Chat {
        Chat::default()
    }

    fn change_room(&self, ctx: &Context, fd: Fd, nick: &str, from: &str, to: &str) {
        let Some(to) = wanted_name(ctx, fd, to).filter(|to| to != from) else { return };
        let _ = ctx.leave(fd, &topic(from));
        self.enter(ctx, fd, nick, &to);
    }

    /// Puts a client into a room and tells it where it is and who is there.
    fn enter(&self, ctx: &Context, fd: Fd, nick: &str, room: &str) {
        let seat = Seat { worker: ctx.worker().slot };
        if !ctx.join_with(fd, &topic(room), &seat).is_ok() {
            return fail(ctx, fd, "no_room", NO_ROOM);
        }
        welcome(ctx, fd, nick.to_owned(), room.to_owned());
        self.list(ctx, fd, room.to_owned());
    }

    /// Tells a client who is in a room. One list is for all who ask until it is there: it is as
    /// long as the room, and each of those in it may ask twenty times a second.
    fn list(&self, ctx: &Context, fd: Fd, room: String) {
        let is_first = {
            let mut asking = self.asking.borrow_mut();
            let askers = asking.entry(room.clone()).or_default();
            let is_first = askers.is_empty();
            askers.insert(fd);
            is_first
        };
        if !is_first {
            return;
        }
        let (asking, context) = (self.asking.clone(), ctx.clone());
        let present = ctx.presence(&topic(&room));
        ctx.spawn(async move {
            let present = present.await;
            let askers = asking.borrow_mut().remove(&room).unwrap_or_default();
            // Without an answer the page keeps what it knows.
            let Ok(present) = present else { return };
            let count = present.users.len();
            let listed = present.users.into_iter().take(LIST_MAX);
            let users = listed.map(|it| user(it.uid, it.info.as_deref())).collect();
            let Some(json) = wire::encode(&Event::Users { room, count, users }) else { return };
            let json = Bytes::from(json);
            for fd in askers {
                let message = Message { opcode: Opcode::Text, data: json.clone().into() };
                let _: Verdict = context.push(fd, message);
            }
        });
    }
}

const NO_ROOM: &str = "The server has no room for you now. Try again later.";

impl Handler for Chat {
    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        let nick = asked(&request, "nick").unwrap_or_else(|| guest(request.fd));
        let room = asked(&request, "room").unwrap_or_else(|| LOBBY.to_owned());
        // Of the limits of rooms the log tells.
        let _ = ctx.bind(request.fd, &nick);
        self.enter(ctx, request.fd, &nick, &room);
        Flow::default()
    }

    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        let fd = frame.fd;
        let request = frame.text().and_then(|text| serde_json::from_str(text).ok());
        let (Some(nick), Some(room)) = (ctx.uid(fd), room_of(ctx, fd)) else {
            fail(ctx, fd, "no_room", NO_ROOM);
            return Flow::default();
        };
        match request {
            Some(wire::Request::Say { text }) => say(ctx, fd, nick, room, &text),
            Some(wire::Request::Rename { nick: to }) => rename(ctx, fd, nick, room, &to),
            Some(wire::Request::Enter { room: to }) => {
                self.change_room(ctx, fd, &nick, &room, &to)
            }
            Some(wire::Request::Who) => self.list(ctx, fd, room),
            None => fail(ctx, fd, "not_understood", NOT_UNDERSTOOD),
        }
        Flow::default()
    }

    fn on_presence(&self, ctx: &Context, event: PresenceEvent) -> Flow {
        let Some(room) = event.room.strip_prefix(ROOM) else { return Flow::default() };
        let is_first = self.changes.borrow().is_empty();
        let user = event.joined.then(|| user(event.uid.clone(), event.info.as_deref()));
        self.changes.borrow_mut().entry(room.to_owned()).or_default().insert(event.uid, user);
        if is_first {
            let (changes, context) = (self.changes.clone(), ctx.clone());
            // Dropping the timer lets it run.
            drop(ctx.after(FLUSH_DELAY, move || flush(&context, changes.take())));
        }
        Flow::default()
    }

    fn on_request(&self, _ctx: &Context, request: HttpRequest) -> Flow<Option<HttpResponse>> {
        let request = request.request;
        Flow::Ready((request.uri().path() == "/").then(|| page::answer(request.method())))
    }

    /// A room of people: who writes like a machine waits, and who does not read misses something
    /// and is kept.
    fn pace(&self) -> Pace {
        Pace { messages_per_second: 20, messages_burst: 60, skips_slow: true }
    }

    fn wants_body(&self, _: &http::request::Parts) -> bool {
        false
    }

    fn on_attach(&self, ctx: &Context, request: Rc<Request>, _: Option<Bytes>) -> Flow {
        match (ctx.uid(request.fd), room_of(ctx, request.fd)) {
            (Some(nick), Some(room)) => welcome(ctx, request.fd, nick, room),
            // An image that had no rooms left the client without.
            _ => return self.on_open(ctx, request),
        }
        Flow::default()
    }
}

const NOT_UNDERSTOOD: &str = "Send {\"type\":\"say\",\"text\":\"…\"}, \
    {\"type\":\"rename\",\"nick\":\"…\"}, {\"type\":\"enter\",\"room\":\"…\"} \
    or {\"type\":\"who\"} as text.";

fn say(ctx: &Context, fd: Fd, nick: String, room: String, text: &str) {
    let text = text.trim();
    if text.is_empty() {
        return fail(ctx, fd, "text_empty", "There is nothing in that message.");
    }
    if text.len() > TEXT_BYTES_MAX {
        return fail(ctx, fd, "text_too_long", "A message may be 4096 bytes long.");
    }
    let (worker, text, at) = (ctx.worker().slot, text.to_owned(), now());
    publish(ctx, &Event::Said { fd, nick, room: room.clone(), worker, text, at }, &room);
}

fn rename(ctx: &Context, fd: Fd, from: String, room: String, to: &str) {
    let Some(to) = wanted_name(ctx, fd, to).filter(|to| *to != from) else { return };
    let event = Event::Renamed { room: room.clone(), from, to: to.clone() };
    publish(ctx, &event, &room);
    let _ = ctx.bind(fd, &to);
    welcome(ctx, fd, to, room);
}

fn welcome(ctx: &Context, fd: Fd, nick: String, room: String) {
    let worker = ctx.worker();
    let (worker, epoch) = (worker.slot, worker.epoch);
    push(ctx, fd, &Event::Welcome { fd, nick, room, worker, epoch });
}

/// Tells the members here who has come and who has left.
fn flush(ctx: &Context, changes: Changes) {
    for (room, users) in changes {
        let (mut here, mut gone) = (Vec::new(), Vec::new());
        for (nick, user) in users {
            match user {
                Some(user) => here.push(user),
                None => gone.push(nick),
            }
        }
        let topic = topic(&room);
        if let Some(json) = wire::encode(&Event::Change { room, here, gone }) {
            ctx.publish_here(&topic, json);
        }
    }
}

fn topic(room: &str) -> String {
    format!("{ROOM}{room}")
}

fn room_of(ctx: &Context, fd: Fd) -> Option<String> {
    ctx.rooms(fd).iter().find_map(|room| room.strip_prefix(ROOM)).map(str::to_owned)
}

fn user(nick: String, info: Option<&str>) -> User {
    let seat = info.and_then(|info| serde_json::from_str::<Seat>(info).ok());
    User { nick, worker: seat.map(|seat| seat.worker) }
}

// The verdicts are not looked at: a client that is gone is the worker's business, and who does
// not read misses something.
fn publish(ctx: &Context, event: &Event, room: &str) {
    if let Some(json) = wire::encode(event) {
        let _ = ctx.publish(&topic(room), json);
    }
}

fn push(ctx: &Context, fd: Fd, event: &Event) {
    if let Some(json) = wire::encode(event) {
        let _: Verdict = ctx.push(fd, Message::text(json));
    }
}

fn fail(ctx: &Context, fd: Fd, code: &'static str, text: &'static str) {
    push(ctx, fd, &Event::Error { code, text });
}

/// The name that a client asks for; it is told where that is none.
fn wanted_name(ctx: &Context, fd: Fd, name: &str) -> Option<String> {
    let name = clean_name(name);
    match &name {
        None => fail(ctx, fd, "name_empty", "A name needs a visible character."),
        Some(name) if name.chars().count() > NAME_CHARS_MAX => {
            fail(ctx, fd, "name_too_long", "A name may be 32 characters long.");
            return None;
        }
        Some(_) => {}
    }
    name
}

/// The name that a client came with, cut to size.
fn asked(request: &Request, parameter: &str) -> Option<String> {
    let name = clean_name(&request.query_param(parameter)?)?;
    Some(name.chars().take(NAME_CHARS_MAX).collect())
}

fn guest(fd: Fd) -> String {
    // The nodes of a cluster count alike, and two guests of one name would be one user.
    format!("guest-{}", (fd.serial() + 1_579 * u64::from(fd.node())) % 10_000)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

#[cfg(test)]
mod tests;
