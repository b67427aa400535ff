//! `chat`: one room for everyone, across all workers, with its page at `/`.
//!
//! A thin shell: `roster` decides, this file does. What a client sends is JSON as in `wire`;
//! `wsd push FD TEXT` and `wsd broadcast TEXT` show on the page as a notice of the server.

mod page;
mod roster;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::api::{
    Context, Flow, Frame, Handler, HttpRequest, HttpResponse, Message, Pace, Request, Timer,
    Verdict,
};
use crate::close::Close;
use crate::fd::{Fd, Slot};
use roster::{Action, Roster};
use wire::{Event, NICK_CHARS_MAX, TEXT_BYTES_MAX, clean_nick};

/// How long changes of the roster wait for each other.
const FLUSH_DELAY: Duration = Duration::from_millis(50);
/// How often workers tell each other that they live and what they last told.
const TICK_PERIOD: Duration = Duration::from_secs(5);

/// The chat room. Serves its page at `/` and takes WebSockets at `/ws`; a client may name itself
/// with `/ws?nick=…`.
#[derive(Default)]
pub struct Chat {
    roster: Rc<RefCell<Option<Roster>>>,
    ticker: RefCell<Option<Timer>>,
}

impl Chat {
    /// An empty room.
    pub fn new() -> Chat {
        Chat::default()
    }

    fn say(&self, ctx: &Context, fd: Fd, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return fail(ctx, fd, "text_empty", "There is nothing in that message.");
        }
        if text.len() > TEXT_BYTES_MAX {
            return fail(ctx, fd, "text_too_long", "A message may be 4096 bytes long.");
        }
        let nick = self.nick(fd);
        let (worker, text) = (ctx.worker().slot, text.to_owned());
        if let Some(json) = wire::encode(&Event::Said { fd, nick, worker, text, at: now() }) {
            ctx.broadcast(json);
        }
    }

    fn rename(&self, ctx: &Context, fd: Fd, nick: &str) {
        match clean_nick(nick) {
            None => fail(ctx, fd, "nick_empty", "A name needs a visible character."),
            Some(nick) if nick.chars().count() > NICK_CHARS_MAX => {
                fail(ctx, fd, "nick_too_long", "A name may be 32 characters long.");
            }
            Some(nick) => decide(&self.roster, ctx, |roster| roster.rename(fd, nick)),
        }
    }

    fn nick(&self, fd: Fd) -> String {
        let roster = self.roster.borrow();
        let nick = roster.as_ref().and_then(|roster| roster.nick(fd));
        nick.map_or_else(|| guest(fd), str::to_owned)
    }
}

impl Handler for Chat {
    fn on_worker_start(&self, ctx: &Context) -> Flow {
        decide(&self.roster, ctx, Roster::start);
        let (roster, context) = (self.roster.clone(), ctx.clone());
        let ticker = ctx.tick(TICK_PERIOD, move || decide(&roster, &context, Roster::tick));
        self.ticker.replace(Some(ticker));
        Flow::default()
    }

    fn on_worker_stop(&self, _ctx: &Context) -> Flow {
        if let Some(ticker) = self.ticker.take() {
            ticker.clear();
        }
        Flow::default()
    }

    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        let nick = asked_nick(&request);
        decide(&self.roster, ctx, |roster| roster.open(request.fd, nick));
        Flow::default()
    }

    fn on_message(&self, ctx: &Context, frame: Frame) -> Flow {
        let request = frame.text().and_then(|text| serde_json::from_str(text).ok());
        match request {
            Some(wire::Request::Say { text }) => self.say(ctx, frame.fd, &text),
            Some(wire::Request::Rename { nick }) => self.rename(ctx, frame.fd, &nick),
            None => fail(ctx, frame.fd, "not_understood", NOT_UNDERSTOOD),
        }
        Flow::default()
    }

    fn on_close(&self, ctx: &Context, fd: Fd, _close: Close) -> Flow {
        decide(&self.roster, ctx, |roster| roster.close(fd));
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

    fn on_worker_message(&self, ctx: &Context, from: Slot, data: Bytes) -> Flow {
        if let Some(note) = wire::decode_note(&data) {
            decide(&self.roster, ctx, |roster| roster.hear(from, note));
        }
        Flow::default()
    }

    fn freeze(&self, _ctx: &Context, fd: Fd) -> Option<Bytes> {
        Some(Bytes::from(self.nick(fd)))
    }

    fn on_attach(&self, ctx: &Context, request: Rc<Request>, frozen: Option<Bytes>) -> Flow {
        let kept = frozen.and_then(|nick| String::from_utf8(nick.into()).ok());
        let nick = kept.unwrap_or_else(|| asked_nick(&request));
        decide(&self.roster, ctx, |roster| roster.attach(request.fd, nick));
        Flow::default()
    }
}

const NOT_UNDERSTOOD: &str =
    r#"Send {"type":"say","text":"…"} or {"type":"rename","nick":"…"} as text."#;

/// Lets the roster decide, then does what it says. The roster is let go of in between, so it
/// does not matter what an action brings about.
fn decide(
    roster: &Rc<RefCell<Option<Roster>>>,
    ctx: &Context,
    event: impl FnOnce(&mut Roster) -> Vec<Action>,
) {
    let actions = {
        let mut roster = roster.borrow_mut();
        event(roster.get_or_insert_with(|| Roster::new(ctx.worker())))
    };
    for action in actions {
        act(roster, ctx, action);
    }
}

// Other verdicts are not looked at: a client that is gone is the worker's business, and a note
// that does not reach a worker leaves a gap in the versions, which that worker sees and mends.
fn act(roster: &Rc<RefCell<Option<Roster>>>, ctx: &Context, action: Action) {
    match action {
        Action::Tell(to, note) => {
            if let Some(json) = wire::encode(&note) {
                let _ = ctx.send_to_worker(to, json);
            }
        }
        Action::TellAll(note) => {
            let Some(json) = wire::encode(&note).map(Bytes::from) else { return };
            for slot in ctx.workers() {
                let _ = ctx.send_to_worker(slot, json.clone());
            }
        }
        Action::Push(fd, event) => show(roster, ctx, &[fd], &event),
        Action::Show(fds, event) => show(roster, ctx, &fds, &event),
        Action::FlushSoon => {
            let (roster, context) = (roster.clone(), ctx.clone());
            // Dropping the timer lets it run.
            drop(ctx.after(FLUSH_DELAY, move || decide(&roster, &context, Roster::flush)));
        }
    }
}

/// Shows what changed. Whoever reads too slowly for it is shown all again later.
fn show(roster: &Rc<RefCell<Option<Roster>>>, ctx: &Context, fds: &[Fd], event: &Event) {
    let missed = push(ctx, fds, event);
    if let Some(roster) = roster.borrow_mut().as_mut() {
        roster.missed(missed);
    }
}

/// The answer is who has no room for it.
fn push(ctx: &Context, fds: &[Fd], event: &Event) -> Vec<Fd> {
    let Some(message) = wire::encode(event).map(Message::text) else { return Vec::new() };
    let full = |fd: &Fd| ctx.push(*fd, message.clone()) == Verdict::Full;
    fds.iter().copied().filter(full).collect()
}

fn fail(ctx: &Context, fd: Fd, code: &'static str, text: &'static str) {
    // Who does not read does not read that either.
    let _ = push(ctx, &[fd], &Event::Error { code, text });
}

/// The nick a client came with, cut to size, or a guest's.
fn asked_nick(request: &Request) -> String {
    let asked = request.query_param("nick").and_then(|nick| clean_nick(&nick));
    let cut = asked.map(|nick| nick.chars().take(NICK_CHARS_MAX).collect::<String>());
    cut.unwrap_or_else(|| guest(request.fd))
}

fn guest(fd: Fd) -> String {
    format!("guest-{}", fd.serial() % 10_000)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

#[cfg(test)]
mod tests;
