//! A server whose clients command it: each text message is a command for the worker that holds
//! the connection, and is answered with one text that begins with the same word.
//!
//! Opens and closes are noted in the file that TESTBED_EVENTS names, one line each.
//! TESTBED_FAIL=start makes `on_worker_start` panic; TESTBED_MISBEHAVE, see `misbehave`.

#![allow(clippy::expect_used, reason = "a test's server may die of what a test did")]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wsd::api::rooms::PresenceEvent;
use wsd::api::{
    Accept, Context, Frame, Handle, Handshake, HttpRequest, HttpResponse, Message, Refuse,
    Request, Verdict,
};
use wsd::close::Close;
use wsd::fd::{Fd, Slot};
use wsd::ipc::messages::{Hello, ProbeToMaster};

/// Serves, as both builds do.
pub fn main() -> ExitCode {
    misbehave();
    wsd::Server::new()
        .before_privilege_drop(read_secret)
        .on_worker_start(worker_start)
        .on_handshake(handshake)
        .on_open(open)
        .on_message(|ctx, frame| async move { message(ctx, frame).await })
        .on_close(|_, fd, close: Close| {
            note(format_args!("close {fd} {} {} {:?}", close.cause, close.code, close.by()));
        })
        .on_request(request)
        .on_presence(|ctx: Context, event: PresenceEvent| {
            let what = if event.joined { "added" } else { "removed" };
            ctx.publish_here(&event.room, format!("{what} {}", event.uid));
        })
        .on_worker_message(worker_message)
        .run()
}

/// Whether this is `testbed_next`.
const IS_NEXT: bool = matches!(env!("CARGO_BIN_NAME").as_bytes(), b"testbed_next");

/// What a connection keeps in this build, and in the next.
#[derive(Serialize, Deserialize)]
struct Session {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct NextSession {
    text: String,
    #[serde(default)]
    seat: u32,
}

/// The file that TESTBED_MISBEHAVE names may say `ROLE exit|abort|hang|other-ipc`: a process of
/// that role does so, once, before it does anything else, as a bad build would. `other-ipc` is for
/// a rehearsal, which then meets a server of another IPC version, and a probe, which is of one.
fn misbehave() {
    let Some(path) = std::env::var_os("TESTBED_MISBEHAVE") else { return };
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let name = std::env::args().next().unwrap_or_default();
    let told = text.split_once(' ').filter(|(role, _)| name == format!("wsd: {role}"));
    if told.is_some() {
        std::fs::remove_file(path).expect("the file that was just read");
    }
    match told {
        Some((_, "exit")) => std::process::exit(7),
        Some((_, "abort")) => std::process::abort(),
        Some((_, "hang")) => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        Some(("rehearsal", "other-ipc")) => meet_another_server(),
        Some(("probe", "other-ipc")) => be_another_image(),
        _ => {}
    }
}

/// Puts another version into what the master left at descriptor 3.
fn meet_another_server() {
    let record = std::fs::read("/proc/self/fd/3").expect("the launch record");
    let mut record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    record["takeover"]["ipc_version"] = OTHER_IPC_VERSION.into();
    let record = wsd::sys::memory::write_sealed("record", record.to_string().as_bytes());
    wsd::sys::process::place_link(record.expect("a memfd")).expect("descriptor 3");
}

/// Greets the master as an image of another version does.
fn be_another_image() {
    let link = wsd::sys::process::take_link().expect("the link to the master");
    let hello = Hello { ipc_version: OTHER_IPC_VERSION, version: "9.9.9".to_owned() };
    let mut bytes = Vec::new();
    wsd::ipc::codec::encode(&ProbeToMaster::Hello(hello), &mut bytes).expect("a message");
    wsd::sys::packet::send(link.as_fd(), &bytes, &[]).expect("the master to be there");
    std::process::exit(0);
}

const OTHER_IPC_VERSION: u8 = 200;

/// What only root may read, if TESTBED_SECRET names it.
static SECRET: OnceLock<String> = OnceLock::new();

fn read_secret(_: &wsd::config::Config) -> std::io::Result<()> {
    let Some(path) = std::env::var_os("TESTBED_SECRET") else { return Ok(()) };
    SECRET.get_or_init(|| std::fs::read_to_string(path).expect("the secret"));
    match std::env::var("TESTBED_FAIL").as_deref() {
        Ok("secret") => Err(std::io::Error::other("told to fail")),
        Ok("thread") => {
            std::thread::spawn(std::thread::park);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What was read of the secret, and why it cannot be read any more.
fn secret() -> String {
    let path = std::env::var_os("TESTBED_SECRET").expect("TESTBED_SECRET");
    let now = std::fs::read(path).map_err(|error| error.kind());
    format!("{:?} {now:?}", SECRET.get())
}

fn worker_start(ctx: Context) {
    ctx.set_state(Instant::now());
    assert!(std::env::var("TESTBED_FAIL").as_deref() != Ok("start"), "told to fail");
}

fn note(event: std::fmt::Arguments<'_>) {
    let Some(path) = std::env::var_os("TESTBED_EVENTS") else { return };
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write is one line, whoever else writes.
    let line = format!("{event}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("note an event");
}

async fn handshake(_: Context, request: Rc<Request>) -> Handshake {
    match request.path() {
        "/refused" => Err(Refuse::new(418, "no coffee here")),
        "/panic" => panic!("told to panic"),
        "/never" => std::future::pending().await,
        "/names" => {
            let names = request.headers.iter().map(|(name, _)| name.to_owned());
            Err(Refuse::new(418, names.collect::<Vec<_>>().join(" ")))
        }
        "/chosen" => Ok(Accept::new()
            .subprotocol("second")
            .header("set-cookie", "seat=7")
            .extension(Greeting("you chose the second"))),
        _ => Ok(Accept::default()),
    }
}

/// What `on_handshake` gives to `on_open`.
#[derive(Clone)]
struct Greeting(&'static str);

fn open(ctx: Context, request: Rc<Request>) {
    note(format_args!("open {}", request.fd));
    if let Some(Greeting(text)) = request.extension() {
        ctx.push(request.fd, *text);
    }
}

async fn request(_: Context, request: HttpRequest) -> Option<HttpResponse> {
    let client = request.client.map_or_else(|| "unix".to_owned(), |client| client.to_string());
    let answer = match request.request.uri().path() {
        "/client" => client,
        "/panic" => panic!("told to panic"),
        "/host" => {
            let host = request.request.headers().get("host").and_then(|host| host.to_str().ok());
            host.unwrap_or("none").to_owned()
        }
        "/names" => {
            let names = request.request.headers().keys().map(|name| name.as_str());
            names.collect::<Vec<_>>().join(" ")
        }
        path if path.starts_with("/target/") => request.request.uri().to_string(),
        "/when-there-is" => {
            let path = std::env::var_os("TESTBED_GATE").expect("TESTBED_GATE");
            note(format_args!("waits"));
            while !std::path::Path::new(&path).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            "there is".to_owned()
        }
        "/body" => format!("{} bytes", request.request.body().len()),
        _ => return None,
    };
    Some(HttpResponse::new(answer.into()))
}

/// The other end of `send`: pushes the text to the client whose number comes before it.
fn worker_message(ctx: Context, from: Slot, data: Bytes) {
    let text = String::from_utf8_lossy(&data);
    let Some((fd, text)) = text.split_once(' ') else { return };
    if let Some(job) = text.strip_prefix("job ") {
        return note(format_args!("job {job} giving={}", ctx.is_giving()));
    }
    let fd: Fd = fd.parse().expect("a client's number");
    ctx.push(fd, format!("sent from {from} by way of {}: {text}", ctx.worker().slot));
}

async fn message(ctx: Context, frame: Frame<'_>) {
    let me = frame.fd;
    let Some(text) = frame.text() else {
        ctx.push(me, frame);
        return;
    };
    let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
    let answer = match command {
        "panic" => panic!("told to panic"),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "block" => {
            std::thread::sleep(Duration::from_millis(number(rest)));
            "blocked".to_owned()
        }
        "quiet" => return,
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(number(rest))).await;
            "slept".to_owned()
        }
        "who" => format!("{me} {} {}", ctx.worker().slot, std::process::id()),
        "echo" => rest.to_owned(),
        "secret" => secret(),
        "task" => {
            let job = number(rest);
            format!("{:?}", ctx.task(move || job * 2).await)
        }
        "task-panic" => format!("{:?}", ctx.task(told_to_panic).await),
        "after" => {
            let later = ctx.clone();
            ctx.after(Duration::from_millis(number(rest)), move || {
                later.push(me, "the timer ran");
            });
            "set".to_owned()
        }
        "thread" => {
            let handle = ctx.handle();
            ctx.task(move || of_a_thread(&handle, me)).await.expect("the job").await
        }
        _ => about_others(&ctx, me, command, rest).await,
    };
    ctx.push(me, format!("{command} {answer}"));
}

/// What a thread that is not the worker's does by its handle: what it says first comes first, and
/// the last word is what became of the rest.
fn of_a_thread(handle: &Handle, me: Fd) -> impl Future<Output = String> + use<> {
    for number in 0..3 {
        assert_eq!(handle.push(me, format!("pushed by a thread: {number}")), Verdict::Relayed);
    }
    let (verdict, info) = (handle.push_confirmed(me, "confirmed"), handle.info(me));
    async move { format!("{} {}", verdict.await, info.await.is_some_and(|info| info.fd == me)) }
}

async fn about_others(ctx: &Context, me: Fd, command: &str, rest: &str) -> String {
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let fd = || first.parse::<Fd>().expect("a client's number");
    match command {
        "push" => ctx.push(fd(), more).to_string(),
        "confirmed" => ctx.push_confirmed(fd(), more).await.to_string(),
        "big" => ctx.push_confirmed(fd(), vec![7; number(more) as usize]).await.to_string(),
        "flood" => flood(ctx, me, fd(), number(more)).await,
        "broadcast" => {
            ctx.broadcast(rest);
            "done".to_owned()
        }
        "close" => {
            let (code, reason) = more.split_once(' ').unwrap_or((more, ""));
            ctx.close(fd(), code.parse().expect("a code"), reason).to_string()
        }
        "ping" => ctx.push(fd(), Message::ping(more.to_owned())).to_string(),
        "protect" => ctx.protect(fd(), more != "off").to_string(),
        "exists" => ctx.exists(fd()).await.to_string(),
        "info" => serde_json::to_string(&ctx.info(fd()).await).expect("JSON"),
        "connections" => {
            let fds = ctx.connections().await.into_iter().map(|info| info.fd.as_u64());
            serde_json::to_string(&fds.collect::<Vec<_>>()).expect("JSON")
        }
        "send" => {
            let to = Slot(number(first) as u8);
            ctx.send_to_worker(to, format!("{me} {more}")).to_string()
        }
        // Several commands about rooms in one go, with nothing in between.
        "script" => {
            let commands = rest.split("; ").map(|it| it.split_once(' ').unwrap_or((it, "")));
            let answers = commands.map(|(command, rest)| at_once(ctx, me, command, rest));
            answers
                .map(|it| it.expect("a command that is done at once"))
                .collect::<Vec<_>>()
                .join(" ")
        }
        _ => match at_once(ctx, me, command, rest) {
            Some(answer) => answer,
            None => about_rooms(ctx, me, command, rest).await,
        },
    }
}

/// A client's number, or `me`.
fn client(me: Fd, text: &str) -> Fd {
    if text == "me" { me } else { text.parse().expect("a client's number") }
}

/// What is done about rooms and users without waiting.
fn at_once(ctx: &Context, me: Fd, command: &str, rest: &str) -> Option<String> {
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let verdict = match command {
        "push" => ctx.push(client(me, first), more),
        "join" => ctx.join(client(me, first), more),
        "join-with" => {
            let (room, info) = more.split_once(' ').expect("a room and an info");
            ctx.join_with(client(me, first), room, &info)
        }
        "leave" => ctx.leave(client(me, first), more),
        "bind" => ctx.bind(client(me, first), more),
        "unbind" => ctx.unbind(client(me, first)),
        "publish" => ctx.publish(first, more),
        "publish-many" => ctx.publish_many(first.split(','), more),
        "publish-except" => {
            let (except, text) = more.split_once(' ').expect("whom, and a text");
            ctx.publish_except(first, client(me, except), text)
        }
        "push-uid" => ctx.push_uid(first, more),
        "expire" => {
            let time = std::time::SystemTime::now() + Duration::from_millis(number(more));
            ctx.expire_at(client(me, first), time)
        }
        "keep" => keep(ctx, client(me, first), more),
        _ => return None,
    };
    Some(verdict.to_string())
}

/// Keeps a text in the session of this build's type.
fn keep(ctx: &Context, fd: Fd, text: &str) -> Verdict {
    let text = text.to_owned();
    let kept = match IS_NEXT {
        true => ctx.set_session(fd, &NextSession { text, seat: 7 }),
        false => ctx.set_session(fd, &Session { text }),
    };
    kept.expect("a session is JSON")
}

/// The text that the session has, read as this build's type.
fn kept(ctx: &Context, fd: Fd) -> String {
    match IS_NEXT {
        true => format!("{:?}", ctx.session(fd).map(|it| it.map(|it: NextSession| it.text))),
        false => format!("{:?}", ctx.session(fd).map(|it| it.map(|it: Session| it.text))),
    }
}

/// What is asked about rooms and users.
async fn about_rooms(ctx: &Context, me: Fd, command: &str, rest: &str) -> String {
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    match command {
        "join-confirmed" => match ctx.join_confirmed(client(me, first), more).await {
            Ok(present) => serde_json::to_string(&present.users).expect("JSON"),
            Err(verdict) => verdict.to_string(),
        },
        "bind-confirmed" => ctx.bind_confirmed(client(me, first), more).await.to_string(),
        "tally" => match ctx.publish_confirmed(first, more).await {
            Ok(tally) => format!("{tally} {}", tally.is_whole()),
            Err(verdict) => verdict.to_string(),
        },
        "close-uid" => {
            let (code, reason) = more.split_once(' ').expect("a code and a reason");
            ctx.close_uid(first, code.parse().expect("a code"), reason).await.to_string()
        }
        "members" => serde_json::to_string(&ctx.members(rest).await).expect("JSON"),
        "presence" => {
            let present = ctx.presence(rest).await.unwrap_or_default();
            serde_json::to_string(&present.users).expect("JSON")
        }
        "presence-nodes" => {
            let present = ctx.presence(rest).await.unwrap_or_default();
            format!(
                "{} {}",
                serde_json::to_string(&present.nodes).expect("JSON"),
                present.is_whole()
            )
        }
        "count" => ctx.count(rest).await.queued.to_string(),
        "rooms" => ctx.rooms(client(me, first)).join(","),
        "uid" => ctx.uid(client(me, first)).unwrap_or_default(),
        "session" => kept(ctx, client(me, first)),
        "session-number" => match ctx.session::<u64>(client(me, first)) {
            Ok(number) => format!("{number:?}"),
            Err(error) => error.to_string(),
        },
        "thread-rooms" => {
            let handle = ctx.handle();
            let room = rest.to_owned();
            let job = move || {
                handle.join(me, &room);
                (handle.publish_confirmed(&room, "of a thread"), handle.count(&room))
            };
            let (tally, count) = ctx.task(job).await.expect("the job");
            format!("{} {}", tally.await.expect("a tally"), count.await.expect("a count").queued)
        }
        "thread-presence" => thread_presence(ctx, me, rest).await,
        "room-flood" => room_flood(ctx, first, number(more)).await,
        _ => "what?".to_owned(),
    }
}

/// Another thread joins with something to show, and asks who is present and how many connections
/// the user has.
async fn thread_presence(ctx: &Context, me: Fd, room: &str) -> String {
    let (handle, room) = (ctx.handle(), room.to_owned());
    let uid = ctx.uid(me).unwrap_or_default();
    let job = move || {
        handle.join_with(me, &room, &"thread");
        (handle.presence(&room), handle.connections_of(&uid))
    };
    let (present, connections) = ctx.task(job).await.expect("the job");
    let present = present.await.expect("a list");
    let list = serde_json::to_string(&present.users).expect("JSON");
    format!("{} {list}", connections.await.len())
}

/// Publishes `count` numbered messages to a room. A lane that is full is waited out.
async fn room_flood(ctx: &Context, room: &str, count: u64) -> String {
    for number in 0..count {
        while ctx.publish(room, format!("{room} {number}")) == Verdict::Full {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if number % 16 == 15 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    "done".to_owned()
}

/// Pushes `count` numbered messages to a client, and says what became of them. A lane that is
/// full is waited out, so that what is missing in the end was lost behind it. The last word is
/// `end`, which is sure to arrive.
async fn flood(ctx: &Context, me: Fd, to: Fd, count: u64) -> String {
    let (mut sent, mut full, mut gone, mut again) = (0, 0, 0, 0);
    for number in 0..count {
        loop {
            match ctx.push(to, format!("{me} {number}")) {
                verdict if verdict.is_ok() => sent += 1,
                Verdict::Full => {
                    full += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                _ => gone += 1,
            }
            break;
        }
        if number % 64 == 63 {
            tokio::task::yield_now().await;
        }
    }
    while ctx.push_confirmed(to, format!("{me} end")).await == Verdict::Full {
        again += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    format!("sent={sent} full={full} gone={gone} again={again}")
}

fn told_to_panic() {
    panic!("told to panic");
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}
