//! One worker and its clients.

use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::harness::*;
use crate::api::{
    Accept, Context, Flow, Frame, Handler, Handshake, HttpRequest, HttpResponse, Message, Opcode,
    Refuse, Request, Verdict,
};
use crate::close::{Cause, Close};
use crate::config::{Config, Hosts};
use crate::fd::{Fd, Slot};
use crate::ipc::messages::{ManagerToWorker, MasterToWorker, Origin, StopMode, WorkerToManager};
use crate::ipc::registry::{Entry, Registry};
use crate::ipc::scoreboard::Counter;

/// Does what the text says, and tells the test of what happened.
pub struct Obedient(pub Sender<String>);

impl Obedient {
    fn tell(&self, what: impl Into<String>) {
        let _ = self.0.send(what.into());
    }
}

impl Handler for Obedient {
    fn on_handshake(&self, _: &Context, request: &Rc<Request>) -> Flow<Handshake> {
        match request.path() {
            "/refused" => Flow::Ready(Err(Refuse::new(403, "no"))),
            "/later" => Flow::later(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Accept::default())
            }),
            _ => Flow::Ready(Ok(Accept::default())),
        }
    }

    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        self.tell(format!("open {}", request.fd));
        if request.path() == "/greeted" {
            ctx.push(request.fd, "welcome");
        }
        Flow::default()
    }

    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        let (fd, ctx, text) = (frame.fd, ctx.clone(), frame.text().unwrap_or("").to_owned());
        let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match verb {
            "panic" => panic!("as asked"),
            "close" => {
                ctx.push(fd, "before");
                assert_eq!(ctx.close(fd, 4001, "as asked"), Verdict::Queued);
                assert_eq!(ctx.push(fd, "after"), Verdict::Gone);
            }
            "slow" => {
                let rest = rest.to_owned();
                return Flow::later(async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    ctx.push(fd, format!("slow {rest}"));
                });
            }
            "flood" => {
                let chunk = vec![b'x'; 100_000];
                let mut queued = 0;
                while ctx.push(fd, Message::binary(chunk.clone())) == Verdict::Queued {
                    queued += 1;
                }
                self.tell(format!("flooded {}", queued > 10));
            }
            "confirm" => {
                let to: Fd = rest.parse().unwrap();
                return Flow::later(async move {
                    let verdict = ctx.push_confirmed(to, "confirmed").await;
                    ctx.push(fd, verdict.as_str());
                });
            }
            "push" => {
                let verdict = ctx.push(rest.parse().unwrap(), "pushed");
                ctx.push(fd, verdict.as_str());
            }
            "broadcast" => ctx.broadcast(rest),
            "task" => {
                return Flow::later(async move {
                    let sum = ctx.task(|| (1..=10).sum::<u32>()).await.unwrap();
                    ctx.push(fd, sum.to_string());
                });
            }
            "self" => {
                assert_eq!(ctx.send_to_worker(ctx.worker().slot, "note"), Verdict::Relayed);
            }
            _ => {
                ctx.push(fd, frame);
            }
        }
        Flow::default()
    }

    fn on_close(&self, _: &Context, fd: Fd, close: Close) -> Flow {
        self.tell(format!("close {fd} {} {} {}", close.code, close.cause, close.reason));
        Flow::default()
    }

    fn on_request(&self, _: &Context, request: HttpRequest) -> Flow<Option<HttpResponse>> {
        let ours = request.request.uri().path() == "/page";
        Flow::Ready(ours.then(|| HttpResponse::new("a page".into())))
    }

    fn freeze(&self, _: &Context, fd: Fd) -> Option<bytes::Bytes> {
        Some(format!("kept of {fd}").into())
    }

    fn on_attach(&self, _: &Context, request: Rc<Request>, frozen: Option<bytes::Bytes>) -> Flow {
        let frozen = frozen.unwrap_or_default();
        let frozen = String::from_utf8_lossy(&frozen);
        self.tell(format!("attach {} {} {frozen}", request.fd, request.target));
        Flow::default()
    }

    fn on_worker_message(&self, _: &Context, from: crate::fd::Slot, data: bytes::Bytes) -> Flow {
        self.tell(format!("note {from} {}", String::from_utf8_lossy(&data)));
        Flow::default()
    }
}

pub fn config() -> Config {
    // Tests call the server what they like.
    let allowed_hosts = Hosts { any: true, ..Hosts::default() };
    Config { ping_interval: Duration::ZERO, allowed_hosts, ..Config::default() }
}

async fn obedient(server: &Server, config: Config) -> (Tested, Receiver<String>) {
    let (tell, told) = channel();
    (server.start(FIRST, config, move || Obedient(tell)).await, told)
}

pub async fn told(told: &Receiver<String>) -> String {
    for _ in 0..5_000 {
        if let Ok(what) = told.try_recv() {
            return what;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("nothing was told");
}

#[tokio::test]
async fn messages_of_every_size_come_back_in_order() {
    let server = Server::new();
    let (worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    assert_eq!(told(&heard).await, format!("open {}", fd(0, 1)));
    let sizes = [0, 1, 125, 126, 4_095, 4_097, 65_535, 65_536, 400_000, 3];
    for size in sizes {
        client.feed(WsMessage::binary(vec![size as u8; size])).await.unwrap();
    }
    client.flush().await.unwrap();
    for size in sizes {
        assert_eq!(next(&mut client).await, WsMessage::binary(vec![size as u8; size]));
    }
    client.send(WsMessage::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut client).await, WsMessage::Pong("are you there".into()));
    client.close(None).await.unwrap();
    assert_eq!(told(&heard).await, format!("close {} 1005 client_closed ", fd(0, 1)));
    assert_eq!(server.count(Counter::Connections), 0);
    assert_eq!(server.count(Counter::MessagesOut), sizes.len() as u64);
    assert_eq!(worker.registry.entries().count(), 0);
}

/// Tells of each client and each message; on "wait", stands still until the test goes on.
struct Stands(Sender<&'static str>, Receiver<()>);

impl Handler for Stands {
    fn on_open(&self, _: &Context, _: Rc<Request>) -> Flow {
        let _ = self.0.send("open");
        Flow::default()
    }

    fn on_message(&self, _: &Context, frame: Frame<'_>) -> Flow {
        let _ = self.0.send("message");
        if frame.text() == Some("wait") {
            let _ = self.1.recv();
        }
        Flow::default()
    }
}

#[tokio::test]
async fn a_newcomer_goes_before_most_of_a_crowd() {
    const CROWD: usize = 600;
    let server = Server::new();
    let ((tell, told), (goes_on, waits)) = (channel(), channel());
    let _worker = server.start(FIRST, config(), move || Stands(tell, waits)).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(server.connect().await);
    }
    crowd[0].send(WsMessage::text("wait")).await.unwrap();
    for _ in 0..CROWD {
        assert_eq!(told.recv_timeout(PATIENCE), Ok("open"));
    }
    assert_eq!(told.recv_timeout(PATIENCE), Ok("message"), "the worker stands still");
    for client in &mut crowd[1..] {
        client.send(WsMessage::text("one of many")).await.unwrap();
    }
    let mut newcomer = TcpStream::connect(server.address()).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    newcomer.write_all(head).await.unwrap();
    goes_on.send(()).unwrap();
    let before = (0..).take_while(|_| told.recv_timeout(PATIENCE).unwrap() == "message").count();
    assert!(before < CROWD / 2 + 1, "{before} of {CROWD} went before");
}

#[tokio::test]
async fn a_client_that_vanishes_is_told_of_once() {
    let server = Server::new();
    let (worker, heard) = obedient(&server, config()).await;
    let client = server.connect().await;
    told(&heard).await;
    assert_eq!(worker.registry.entries().count(), 1);
    drop(client);
    assert_eq!(told(&heard).await, format!("close {} 1006 client_vanished ", fd(0, 1)));
    worker.master_says(&MasterToWorker::Stop(StopMode::Graceful), &[]);
    worker.join().await;
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_close_by_the_handler_sends_what_was_pushed_before() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    say(&mut client, "close").await;
    assert_eq!(text(&mut client).await, "before");
    assert_eq!(closed(&mut client).await, (4001, "as asked".to_owned()));
    assert_eq!(told(&heard).await, format!("close {} 4001 handler_closed as asked", fd(0, 1)));
}

#[tokio::test]
async fn a_panic_costs_its_connection_alone() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    say(&mut first, "panic").await;
    assert_eq!(closed(&mut first).await.0, 1011);
    say(&mut second, "still here").await;
    assert_eq!(text(&mut second).await, "still here");
    assert_eq!(server.count(Counter::Panics), 1);
    drop((first, told(&heard).await));
}

#[tokio::test]
async fn events_of_one_connection_never_overlap() {
    let server = Server::new();
    let (_worker, _heard) = obedient(&server, config()).await;
    let (mut slow, mut quick) = (server.connect().await, server.connect().await);
    for n in 0..4 {
        slow.feed(WsMessage::text(format!("slow {n}"))).await.unwrap();
        slow.feed(WsMessage::text(format!("{n}"))).await.unwrap();
    }
    slow.flush().await.unwrap();
    say(&mut quick, "overtakes").await;
    assert_eq!(text(&mut quick).await, "overtakes");
    for n in 0..4 {
        assert_eq!(text(&mut slow).await, format!("slow {n}"));
        assert_eq!(text(&mut slow).await, n.to_string());
    }
}

#[tokio::test]
async fn a_close_waits_for_the_handler_that_runs() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    say(&mut client, "slow 1").await;
    client.close(None).await.unwrap();
    assert_eq!(text(&mut client).await, "slow 1");
    assert_eq!(told(&heard).await, format!("close {} 1005 client_closed ", fd(0, 1)));
}

#[tokio::test]
async fn a_handshake_can_be_refused_or_take_its_time() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let refused = server.try_connect("/refused").await.unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");
    let mut later = server.try_connect("/later").await.unwrap();
    say(&mut later, "hello").await;
    assert_eq!(text(&mut later).await, "hello");
    let mut greeted = server.try_connect("/greeted").await.unwrap();
    assert_eq!(text(&mut greeted).await, "welcome");
    assert_eq!(server.count(Counter::Handshakes), 0);
    assert_eq!(server.count(Counter::Refused), 1);
    drop(heard);
}

#[tokio::test]
async fn plain_http_is_served_on_the_same_connection_before_an_upgrade() {
    let server = Server::new();
    let (_worker, _heard) = obedient(&server, config()).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    for (path, want) in [("/page", "a page"), ("/healthz", "ok"), ("/none", "404")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let n = stream.read(&mut buffer).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..n]).into_owned();
        assert!(answer.contains(want), "{answer}");
    }
    let url = format!("ws://{}/ws", server.address());
    let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    say(&mut client, "upgraded").await;
    assert_eq!(text(&mut client).await, "upgraded");
}

#[tokio::test]
async fn half_a_handshake_is_timed_out_and_a_bad_one_answered() {
    let server = Server::new();
    let config = Config { handshake_timeout: Duration::from_millis(300), ..config() };
    let (_worker, _heard) = obedient(&server, config).await;
    for (head, want) in [("GET /ws HTTP/1.1\r\n", "408"), ("GET /ws\n\n", "400")] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {want}")), "{answer}");
    }
    assert_eq!(server.count(Counter::Handshakes), 0);
}

#[tokio::test]
async fn a_broken_frame_ends_its_connection_with_1002() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    client.get_mut().write_all(&[0x81, 0x01, b'x']).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1002);
    drop(client);
    let told = told(&heard).await;
    assert!(told.starts_with(&format!("close {} 1002 protocol_error", fd(0, 1))), "{told}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_as_slow() {
    let server = Server::new();
    let (_worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    say(&mut client, "flood").await;
    assert_eq!(told(&heard).await, "flooded true");
    assert_eq!(closed(&mut client).await.0, 1013);
    drop(client);
    let told = told(&heard).await;
    assert!(told.starts_with(&format!("close {} 1013 slow_reader", fd(0, 1))), "{told}");
    assert!(server.count(Counter::PushLost) > 0);
}

#[tokio::test]
async fn silence_is_pinged_and_then_ended() {
    let server = Server::new();
    let second = Duration::from_secs(1);
    let config = Config { ping_interval: second, pong_timeout: second, ..config() };
    let (_worker, heard) = obedient(&server, config).await;
    let (mut answers, mut silent) = (server.connect().await, server.connect().await);
    told(&heard).await;
    told(&heard).await;
    assert!(matches!(next(&mut answers).await, WsMessage::Ping(_)));
    let pong = async {
        while let Some(Ok(_)) = answers.next().await {
            answers.flush().await.unwrap();
        }
    };
    tokio::select! {
        () = pong => panic!("the one that answers was closed"),
        told = told(&heard) => {
            assert_eq!(told, format!("close {} 1006 pong_timeout ", fd(0, 2)));
        }
    }
    assert!(matches!(next(&mut silent).await, WsMessage::Ping(_)));
}

#[tokio::test]
async fn the_managers_sweep_closes_the_idle() {
    let server = Server::new();
    let (worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    worker.says(ManagerToWorker::Sweep { idle_ms: 3_600_000 }, &[]).await;
    say(&mut client, "not idle").await;
    assert_eq!(text(&mut client).await, "not idle");
    worker.says(ManagerToWorker::Sweep { idle_ms: 0 }, &[]).await;
    assert_eq!(closed(&mut client).await.0, 1001);
    assert_eq!(told(&heard).await, format!("close {} 1001 idle_timeout ", fd(0, 1)));
}

#[tokio::test]
async fn pushes_from_elsewhere_are_answered_with_the_truth() {
    let server = Server::new();
    let (mut worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    let origin = Origin::Control;
    let push =
        |id, fd: Fd| ManagerToWorker::Push { origin, id, fd: fd.as_u64(), opcode: Opcode::Text };
    worker.says(push(1, fd(0, 1)), b"routed").await;
    worker.says(push(2, fd(0, 99)), b"nobody").await;
    worker.says(push(3, fd(0, 1)), &vec![b'x'; 3 << 20]).await;
    for want in [Verdict::Queued, Verdict::Gone, Verdict::TooBig] {
        let verdict = |heard: &Heard| match heard.0 {
            WorkerToManager::Verdict { verdict, .. } => Some(verdict),
            _ => None,
        };
        assert_eq!(worker.hears(verdict).await, want);
    }
    assert_eq!(text(&mut client).await, "routed");
    let close = ManagerToWorker::Close {
        origin,
        id: 0,
        fd: fd(0, 1).as_u64(),
        code: 1000,
        operator: true,
    };
    worker.says(close, b"bye").await;
    assert_eq!(closed(&mut client).await, (1000, "bye".to_owned()));
}

#[tokio::test]
async fn pushes_to_elsewhere_go_by_the_manager() {
    let server = Server::new();
    let (mut worker, _heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    let far = fd(1, 7);
    say(&mut client, &format!("push {far}")).await;
    assert_eq!(text(&mut client).await, "relayed");
    say(&mut client, &format!("push {}", fd(0, 50))).await;
    assert_eq!(text(&mut client).await, "gone");
    say(&mut client, &format!("confirm {far}")).await;
    let mut bodies = Vec::new();
    let id = worker
        .hears(|(message, body, _)| match message {
            WorkerToManager::Push { id, fd, .. } if *fd == far.as_u64() => {
                bodies.push(body.clone());
                (*id != 0).then_some(*id)
            }
            _ => None,
        })
        .await;
    assert_eq!(bodies, ["pushed", "confirmed"]);
    worker.says(ManagerToWorker::Verdict { id, verdict: Verdict::Full }, &[]).await;
    assert_eq!(text(&mut client).await, "full");
}

#[tokio::test]
async fn a_broadcast_reaches_everyone_here_and_the_manager() {
    let server = Server::new();
    let (mut worker, _heard) = obedient(&server, config()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.connect().await);
    }
    say(&mut clients[3], "broadcast all of you").await;
    for client in &mut clients {
        assert_eq!(text(client).await, "all of you");
    }
    let body = worker
        .hears(|(message, body, _)| {
            matches!(message, WorkerToManager::Broadcast { .. }).then(|| body.clone())
        })
        .await;
    assert_eq!(body, "all of you");
    let broadcast = ManagerToWorker::Broadcast { opcode: Opcode::Text, except: fd(0, 1).as_u64() };
    worker.says(broadcast, b"but one").await;
    for client in &mut clients[1..] {
        assert_eq!(text(client).await, "but one");
    }
    say(&mut clients[0], "me").await;
    assert_eq!(text(&mut clients[0]).await, "me");
}

#[tokio::test]
async fn jobs_and_notes_come_back_to_the_reactor() {
    let server = Server::new();
    let (mut worker, heard) = obedient(&server, config()).await;
    let mut client = server.connect().await;
    told(&heard).await;
    say(&mut client, "task").await;
    assert_eq!(text(&mut client).await, "55");
    say(&mut client, "self").await;
    let to_itself = |heard: &WorkerToManager| {
        matches!(heard, WorkerToManager::WorkerMessage { to: Slot(0), acts: false })
    };
    worker.hears(|(message, body, _)| (to_itself(message) && *body == "note").then_some(())).await;
    worker.says(ManagerToWorker::WorkerMessage { from: Slot(0), acts: true }, b"note").await;
    assert_eq!(told(&heard).await, "note 0 note");
}

#[tokio::test]
async fn the_master_stops_it_and_its_death_does_too() {
    for dies in [false, true] {
        let server = Server::new();
        let (mut worker, heard) = obedient(&server, config()).await;
        let mut client = server.connect().await;
        told(&heard).await;
        if dies {
            let (unused, _) = crate::sys::packet::pair().unwrap();
            worker.master = unused;
        } else {
            worker.master_says(&MasterToWorker::Stop(StopMode::Graceful), &[]);
        }
        let (code, reason) = closed(&mut client).await;
        assert_eq!(code, 1001);
        assert!(reason.starts_with("retry after "), "{reason}");
        assert_eq!(told(&heard).await, format!("close {} 1001 server_stop {reason}", fd(0, 1)));
        worker.join().await;
    }
}

#[tokio::test]
async fn the_clients_of_a_dead_worker_are_closed_once() {
    let server = Server::new();
    let (mut worker, heard) = obedient(&server, config()).await;
    let (dead, memfd) = Registry::create(8).unwrap();
    for serial in [1, 2, 3] {
        let fd = fd(0, 100 + serial);
        let entry = Entry { fd, closing: false, connected_at: 0, received_at: 0, peer: None };
        dead.opened(serial as usize, &entry);
    }
    dead.closing(2);
    worker.master_says(&MasterToWorker::CloseLost, &[&memfd]);
    for serial in [101, 103] {
        let want = format!("close {} 1006 {} ", fd(0, serial), Cause::WorkerCrashed);
        assert_eq!(told(&heard).await, want);
    }
    let closed = worker.master_hears().await;
    assert!(matches!(closed, crate::ipc::messages::WorkerToMaster::LostClosed));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_drain_spreads_1012_and_ends_the_process() {
    let server = Server::new();
    let (worker, _heard) = obedient(&server, config()).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(server.connect().await);
    }
    worker.says(ManagerToWorker::Drain { jitter_ms: 50, deadline_ms: 10_000 }, &[]).await;
    for client in &mut clients {
        assert_eq!(closed(client).await.0, 1012);
    }
    drop(clients);
    worker.join().await;
}
