//! The other side of `wsd-bench -t push`, `broadcast`, `publish`, `join` and `leave`; for `-t echo`
//! it is an echo.
//!
//! `cargo run --release --bin bench_server -- start --set worker_num=2`
//!
//! It takes these texts, and sends back everything else:
//!
//! | text | what happens |
//! |---|---|
//! | `fd` | answers `fd <fd> worker <slot>` |
//! | `targets <fd> <fd> ...` | remembers them for this client, answers `targets <how many>` |
//! | `burst <payload>` | pushes the payload to each target; answers `lost <n>` if some failed |
//! | `push <fd> <payload>` | pushes the payload to one; answers `lost 1` if that failed |
//! | `broadcast <payload>` | sends the payload to everyone, the sender included |
//! | `enter <room> <room> ...` | binds this client to its fd, joins them, answers `entered <n>` |
//! | `publish <rooms> <payload>` | publishes to the next of the rooms `0` to `<rooms>` - 1 |
//! | `storm <rooms>` | joins as many rooms of its worker, leaves them and answers |
//!
//! A client that opens with the path `/rooms/<rooms>/<each>` joins the next `<each>` of the rooms
//! `0` to `<rooms>` - 1 at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::process::ExitCode;
use std::rc::Rc;

use wsd::api::{Context, Flow, Frame, Handler, Message, Request, Verdict};
use wsd::close::Close;
use wsd::fd::Fd;

fn main() -> ExitCode {
    wsd::Server::new().handler(|_| BenchServer::default()).run()
}

#[derive(Default)]
struct BenchServer {
    targets: RefCell<HashMap<Fd, Vec<Fd>>>,
    /// Publishes so far.
    publishes: Cell<u64>,
    /// Joins of clients that opened with a path of rooms.
    joins: Cell<u64>,
}

impl Handler for BenchServer {
    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        if let Some((rooms, each)) = rooms_of(request.path()) {
            let first = self.joins.get();
            self.joins.set(first + each);
            for nth in first..first + each {
                if !ctx.join(request.fd, &(nth % rooms).to_string()).is_ok() {
                    tell(ctx, request.fd, "refused".to_owned());
                }
            }
        }
        Flow::default()
    }

    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        let (word, rest) = frame.text().map(split).unwrap_or_default();
        let from = frame.fd;
        match word {
            "fd" => {
                tell(ctx, from, format!("fd {from} worker {}", ctx.worker().slot));
            }
            "targets" => {
                let all: Vec<Fd> = rest.split(' ').filter_map(|fd| fd.parse().ok()).collect();
                tell(ctx, from, format!("targets {}", all.len()));
                self.targets.borrow_mut().insert(from, all);
            }
            "burst" => {
                let message = tail(&frame, rest).into_owned();
                let targets = self.targets.borrow();
                let all = targets.get(&from).into_iter().flatten();
                let lost = all.filter(|to| !ctx.push(**to, message.clone()).is_ok()).count();
                if lost > 0 {
                    tell(ctx, from, format!("lost {lost}"));
                }
            }
            "push" => {
                let (to, payload) = split(rest);
                let verdict = match to.parse() {
                    Ok(to) => ctx.push(to, tail(&frame, payload)),
                    Err(_) => Verdict::Gone,
                };
                if !verdict.is_ok() {
                    tell(ctx, from, "lost 1".to_owned());
                }
            }
            "broadcast" => ctx.broadcast(tail(&frame, rest)),
            "enter" => {
                ctx.bind(from, &from.to_string());
                let joins = rest.split(' ').map(|room| ctx.join(from, room));
                let entered = joins.filter(|verdict| verdict.is_ok()).count();
                tell(ctx, from, format!("entered {entered}"));
            }
            "publish" => {
                let (rooms, payload) = split(rest);
                let (rooms, next) = (rooms.parse().unwrap_or(1), self.publishes.get());
                self.publishes.set(next + 1);
                ctx.publish(&(next % rooms).to_string(), tail(&frame, payload));
            }
            "storm" => {
                // Of the whole server, so that there are first and last members and others.
                let rooms = rest.parse().unwrap_or(1);
                let rooms: Vec<String> = (0..rooms).map(|room: u32| format!("s{room}")).collect();
                let joined = rooms.iter().filter(|room| ctx.join(from, room).is_ok()).count();
                let left = rooms.iter().filter(|room| ctx.leave(from, room).is_ok()).count();
                let all = joined == rooms.len() && left == rooms.len();
                tell(ctx, from, if all { "done" } else { "refused" }.to_owned());
            }
            _ => {
                ctx.push(from, frame);
            }
        }
        Flow::default()
    }

    fn on_close(&self, _: &Context, fd: Fd, _: Close) -> Flow {
        self.targets.borrow_mut().remove(&fd);
        Flow::default()
    }
}

/// The rooms of a path, and how many of them each client joins.
fn rooms_of(path: &str) -> Option<(u64, u64)> {
    let (rooms, each) = path.strip_prefix("/rooms/")?.split_once('/')?;
    Some((rooms.parse().ok().filter(|rooms| *rooms > 0)?, each.parse().ok()?))
}

/// The first word and what follows it.
fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// The end of a text message as a message, lent.
fn tail<'a>(frame: &Frame<'_>, payload: &'a str) -> Message<'a> {
    Message { opcode: frame.opcode, data: payload.into() }
}

fn tell(ctx: &Context, fd: Fd, text: String) {
    // Who asked may have left meanwhile, and then needs no answer.
    let _ = ctx.push(fd, text);
}
