//! The manager between a master and workers that are played by the test, over real sockets.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::*;
use crate::api::{Opcode, Verdict};
use crate::config::Config;
use crate::fd::{Fd, Slot};
use crate::ipc::codec;
use crate::ipc::control::Answer;
use crate::ipc::link::{Lane, Sent};
use crate::ipc::messages::{Left, ManagerToWorker, Origin, PassId, StopMode, WorkerToManager};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::registry::Entry;
use crate::ipc::scoreboard::{Counter, Row};
use crate::sys::packet;

mod bounds;
mod direct;
mod moving;
mod nodes;
mod relay;
mod starting;

fn id(slot: u8, epoch: u32) -> WorkerId {
    WorkerId { slot: Slot(slot), epoch }
}

fn fd(slot: u8, serial: u64) -> u64 {
    Fd::new(0, Slot(slot), serial).unwrap().as_u64()
}

/// The master's part.
struct Master {
    socket: OwnedFd,
    link: tokio::io::unix::AsyncFd<OwnedFd>,
    socket_path: PathBuf,
    _dir: tempfile::TempDir,
    config: String,
    epoch: u32,
}

impl Master {
    /// Boots a manager for two slots.
    async fn boot(epoch: u32, pending: Option<u32>) -> Master {
        Master::boot_with(epoch, pending, &Config::default()).await
    }

    async fn boot_with(epoch: u32, pending: Option<u32>, config: &Config) -> Master {
        let dir = tempfile::tempdir().unwrap();
        let socket_path = dir.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket_path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (ours, theirs) = packet::pair().unwrap();
        let link =
            crate::sys::watch::watch(ours.try_clone().unwrap(), tokio::io::Interest::READABLE)
                .unwrap();
        let config = serde_json::to_string(config).unwrap();
        let master = Master { socket: ours, link, socket_path, _dir: dir, config, epoch };
        let state = MasterState {
            pid: 4242,
            version: "1.2.3".to_owned(),
            listen: vec!["127.0.0.1:8000".to_owned()],
            worker_num: 2,
            ..MasterState::default()
        };
        let config = master.config.clone();
        let boot = ManagerBoot {
            epoch,
            config,
            generation: 1,
            pending,
            begin_with_reload: false,
            state,
            departed: Default::default(),
        };
        master.tell(
            &MasterToManager::Boot(boot),
            &[OwnedFd::from(listener), Row::create().unwrap()],
        );
        spawn_local(async move { live(theirs, |_| Peers::of(&Config::default())).await.unwrap() });
        assert!(matches!(master.hear().await, ManagerToMaster::Hello(_)));
        assert!(matches!(master.hear().await, ManagerToMaster::Ready));
        master
    }

    fn tell(&self, message: &MasterToManager, fds: &[OwnedFd]) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        packet::send(self.socket.as_fd(), &bytes, &fds).unwrap();
    }

    async fn hear(&self) -> ManagerToMaster {
        let mut buffer = vec![0; 65_536];
        let got = self
            .link
            .async_io(tokio::io::Interest::READABLE, |s| {
                Ok(packet::receive(s.as_fd(), &mut buffer)?)
            })
            .await
            .unwrap();
        codec::decode(&buffer[..got.len]).unwrap()
    }

    fn attach(&self, id: WorkerId, generation: u32, ready: bool) -> FakeWorker {
        let (ours, theirs) = packet::pair().unwrap();
        let (registry, memfd) = Registry::create(64).unwrap();
        let page = Row::create().unwrap();
        let counters = Row::take(page.as_fd()).unwrap();
        let record = WorkerRecord { id, generation, pid: 1, ready };
        self.tell(&MasterToManager::Attach(record), &[theirs, memfd, page]);
        let link = Rc::new(Link::new(ours, id).unwrap());
        let flusher = Rc::clone(&link);
        let flusher = spawn_local(async move {
            flusher.flush_forever().await;
        });
        FakeWorker { link, registry, counters, heard: Vec::new(), flusher }
    }

    /// A worker that serves and owns the serials 1 to 1000 of its slot.
    async fn serving(&self, id: WorkerId, generation: u32) -> FakeWorker {
        let mut worker = self.attach(id, generation, false);
        self.tell(&MasterToManager::WorkerReady(id), &[]);
        assert!(matches!(worker.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        let base = u64::from(id.epoch - 1) * 1000;
        let (first, last) = (base + 1, base + 1000);
        self.tell(&MasterToManager::Leased { id, first, last }, &[]);
        worker.owns(self.epoch, vec![]);
        worker
    }

    /// The part of a reload until its workers are to be started.
    async fn prepare(&self, worker_num: u16) {
        assert!(matches!(self.hear().await, ManagerToMaster::Prepare));
        let config = self.config.clone();
        self.tell(&MasterToManager::Prepared { generation: 2, config, worker_num }, &[]);
        for slot in 0..worker_num {
            let spawned = self.hear().await;
            assert!(matches!(spawned, ManagerToMaster::Spawn(Slot(it)) if u16::from(it) == slot));
        }
    }

    /// Kills a worker.
    fn kill(&self, worker: FakeWorker) {
        let id = worker.link.id();
        drop(worker);
        let how = "signal SIGKILL".to_owned();
        let last = Default::default();
        self.tell(&MasterToManager::Exited { id, how, respawn_ms: Some(0), last }, &[]);
    }

    async fn control(&self) -> Commander {
        let stream = UnixStream::connect(&self.socket_path).await.unwrap();
        Commander { stream: BufReader::new(stream) }
    }
}

/// A worker's part.
struct FakeWorker {
    link: Rc<Link>,
    registry: Registry,
    counters: Row,
    heard: Vec<(ManagerToWorker, Bytes, Vec<OwnedFd>)>,
    flusher: tokio::task::JoinHandle<()>,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.flusher.abort();
    }
}

impl FakeWorker {
    fn say(&self, message: &WorkerToManager) {
        self.say_with(message, b"");
    }

    fn say_with(&self, message: &WorkerToManager, body: &[u8]) {
        let sent = self.link.send(Lane::Data, message, Body::Inline(body), vec![]).unwrap();
        assert_eq!(sent, Sent::Queued);
    }

    /// Is told to hand over, and asked for a pass.
    async fn is_asked(&mut self, to: WorkerId) -> PassId {
        let order = self.hear().await.0;
        assert!(matches!(order, ManagerToWorker::HandOver { to: it } if it == to), "{order:?}");
        self.say(&WorkerToManager::CanGive);
        match self.hear().await.0 {
            ManagerToWorker::Give { pass } => pass,
            other => panic!("{other:?}"),
        }
    }

    /// The pass is given.
    fn gave(&self, pass: PassId, left: Left) {
        self.say(&WorkerToManager::Gave { pass, left });
    }

    /// Gives a client away.
    fn gives(&self, pass: PassId, fd: u64) {
        let (socket, _peer) = packet::pair().unwrap();
        let moving = WorkerToManager::Moving { pass, fds: vec![fd] };
        let sent = self.link.send(Lane::Data, &moving, Body::Inline(b"state"), vec![socket]);
        assert_eq!(sent.unwrap(), Sent::Queued);
    }

    fn owns(&self, manager: u32, ranges: Vec<(u64, u64)>) {
        self.say(&WorkerToManager::Owns { manager, ranges, last: true });
    }

    fn push(&self, id: u64, fd: u64, body: &str) {
        self.say_with(&WorkerToManager::Push { id, fd, opcode: Opcode::Text }, body.as_bytes());
    }

    /// The next message but liveness checks.
    async fn hear(&mut self) -> (ManagerToWorker, Bytes) {
        let (message, body, _) = self.hear_with_fds().await;
        (message, body)
    }

    async fn hear_with_fds(&mut self) -> (ManagerToWorker, Bytes, Vec<OwnedFd>) {
        let mut buffer = vec![0; crate::ipc::PACKET_BYTES_MAX * 2];
        while self.heard.is_empty() {
            let mut arrival = self.link.receive(&mut buffer).await.unwrap().unwrap();
            let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
            while let Some(frame) = frames.next(&mut arrival.fds).unwrap() {
                let body = frame.body.into_bytes().unwrap();
                let fds = std::mem::take(&mut arrival.fds);
                match frame.message {
                    ManagerToWorker::LivenessCheck(n) => self.say(&WorkerToManager::Alive(n)),
                    message => self.heard.push((message, body, fds)),
                }
            }
        }
        self.heard.remove(0)
    }

    async fn hear_push(&mut self) -> (u64, Bytes) {
        match self.hear().await {
            (ManagerToWorker::Push { fd, .. }, body) => (fd, body),
            other => panic!("{other:?}"),
        }
    }
}

/// A control client's part.
struct Commander {
    stream: BufReader<UnixStream>,
}

impl Commander {
    async fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line
    }

    async fn answer(&mut self) -> Answer {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn ask(&mut self, text: &str) -> Answer {
        self.send(text).await;
        self.answer().await
    }
}

/// Runs a story on a reactor of its own, within a minute.
fn story(tale: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tale = async { tokio::time::timeout(Duration::from_secs(60), tale).await.unwrap() };
    LocalSet::new().block_on(&runtime, tale);
}

#[test]
fn a_push_finds_its_owner_and_the_verdict_its_sender() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let mut b = master.serving(id(1, 1), 1).await;
        a.push(7, fd(1, 5), "hello");
        let (ManagerToWorker::Push { origin, id: asked, fd: to, .. }, body) = b.hear().await
        else {
            panic!()
        };
        assert_eq!((asked, to, &body[..]), (7, fd(1, 5), &b"hello"[..]));
        b.say(&WorkerToManager::Verdict { origin, id: asked, verdict: Verdict::Queued });
        let told = a.hear().await.0;
        assert!(matches!(told, ManagerToWorker::Verdict { id: 7, verdict: Verdict::Queued }));
    });
}

#[test]
fn clients_of_a_worker_that_died_are_gone_at_once() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let b = master.serving(id(1, 1), 1).await;
        master.kill(b);
        // Checks are answered in order, so the manager has read of the death after this one.
        master.tell(&MasterToManager::LivenessCheck(9), &[]);
        assert!(matches!(master.hear().await, ManagerToMaster::Alive(9)));
        a.push(1, fd(1, 5), "anybody?");
        let told = a.hear().await.0;
        assert!(matches!(told, ManagerToWorker::Verdict { id: 1, verdict: Verdict::Gone }));
    });
}

#[test]
fn a_broadcast_reaches_all_but_its_sender_and_large_bodies_too() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let mut b = master.serving(id(1, 1), 1).await;
        let mut c = master.serving(id(1, 2), 1).await;
        let large = "x".repeat(1_000_000);
        let message = WorkerToManager::Broadcast { opcode: Opcode::Text, except: 3 };
        // The others must have introduced themselves before.
        b.push(0, fd(0, 1), "b");
        c.push(0, fd(0, 1), "c");
        a.hear_push().await;
        a.hear_push().await;
        a.say_with(&message, large.as_bytes());
        for worker in [&mut b, &mut c] {
            let (heard, body) = worker.hear().await;
            assert!(matches!(heard, ManagerToWorker::Broadcast { except: 3, .. }));
            assert_eq!(body, large);
        }
        a.push(0, fd(1, 1), "after");
        assert_eq!(b.hear_push().await.1, "after");
    });
}

#[test]
fn a_full_lane_is_told_to_the_sender_and_status_still_answers() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let _b = master.serving(id(1, 1), 1).await;
        let body = "x".repeat(30_000);
        // Twice what the lane and the kernel's queue take, and nobody reads it.
        for _ in 0..1200 {
            a.push(0, fd(1, 5), &body);
            a.link.flush().await.unwrap();
        }
        a.push(5, fd(1, 5), &body);
        let mut refused = 0;
        loop {
            match a.hear().await.0 {
                ManagerToWorker::Refused { count } => refused += count,
                ManagerToWorker::Verdict { id: 5, verdict: Verdict::Full } => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 0);
        let mut control = master.control().await;
        let status = control.ask("{\"cmd\":\"status\"}\n").await;
        let refused_in_all = status.more["manager"]["refused"].as_u64().unwrap();
        assert!(refused_in_all > refused);
    });
}

#[test]
fn control_commands_push_and_tell_what_became_of_it() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        let mut control = master.control().await;
        let pid = control.ask("{\"cmd\":\"ping\"}\n").await.more["pid"].clone();
        assert_eq!(pid, std::process::id());
        let line = format!("{{\"cmd\":\"push\",\"fd\":{},\"bytes\":5}}\nhello", fd(0, 5));
        control.send(&line).await;
        let (ManagerToWorker::Push { origin, id, .. }, body) = a.hear().await else { panic!() };
        assert_eq!((origin, &body[..]), (Origin::Control, &b"hello"[..]));
        a.say(&WorkerToManager::Verdict { origin, id, verdict: Verdict::Gone });
        let answer = control.answer().await;
        assert_eq!((answer.ok, answer.verdict), (false, Some(Verdict::Gone)));
        let line = format!("{{\"cmd\":\"push\",\"fd\":{},\"bytes\":2}}\n", fd(0, 5));
        control.stream.get_mut().write_all(line.as_bytes()).await.unwrap();
        control.stream.get_mut().write_all(&[0xff, 0xff]).await.unwrap();
        assert!(control.answer().await.error.unwrap().contains("UTF-8"));
        let line = format!("{{\"cmd\":\"close\",\"fd\":{},\"code\":1005}}\n", fd(0, 5));
        assert!(control.ask(&line).await.error.unwrap().contains("1005"));
        let answer = control.ask("{\"cmd\":\"stop\"}\n").await;
        assert!(answer.ok);
        let asked = master.hear().await;
        assert!(matches!(asked, ManagerToMaster::Stop(StopMode::Graceful)));
        assert!(control.ask("nonsense\n").await.error.unwrap().contains("not a request"));
        assert_eq!(control.line().await, "");
    });
}

#[test]
fn connections_come_from_the_registries_and_status_from_the_scoreboard() {
    story(async {
        let master = Master::boot(1, None).await;
        let a = master.serving(id(0, 1), 1).await;
        let mut b = master.serving(id(1, 1), 1).await;
        let entry = |number: u64| Entry {
            fd: Fd::try_from(number).unwrap(),
            closing: false,
            connected_at: 5,
            received_at: monotonic_ms(),
            peer: "1.2.3.4:80".parse().ok(),
        };
        a.registry.opened(3, &entry(fd(0, 7)));
        b.registry.opened(0, &entry(fd(1, 8)));
        a.counters.add(Counter::Connections, 1);
        b.counters.add(Counter::Connections, 1);
        let mut control = master.control().await;
        control.send("{\"cmd\":\"connections\"}\n").await;
        for (number, worker) in [(fd(0, 7), 0), (fd(1, 8), 1)] {
            let line: serde_json::Value = serde_json::from_str(&control.line().await).unwrap();
            assert_eq!((&line["fd"], &line["worker"]), (&number.into(), &worker.into()));
            assert_eq!(line["peer"], "1.2.3.4:80");
        }
        // Nobody has said whether they are users'.
        let answer = control.answer().await;
        assert_eq!((answer.ok, &answer.more["count"]), (false, &2.into()));
        assert!(answer.error.unwrap().contains("2 of 2 workers did not answer"));
        let status = control.ask("{\"cmd\":\"status\"}\n").await;
        let status: crate::ipc::control::Status = status.read().unwrap();
        assert_eq!((status.connections, status.workers.len()), (2, 2));
        assert_eq!((status.master_pid, status.version.as_str()), (4242, "1.2.3"));
        b.say(&WorkerToManager::List { id: 3 });
        // The command asked the workers for users, too.
        let part = loop {
            if let ManagerToWorker::ListAnswer { id: 3, part, .. } = b.hear().await.0 {
                break part;
            }
        };
        assert_eq!(part[0].fd.as_u64(), fd(0, 7));
    });
}

#[test]
fn a_successor_holds_pushes_until_it_knows_who_owns_what() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut a = master.attach(id(0, 1), 1, true);
        let mut b = master.attach(id(1, 1), 1, true);
        assert!(matches!(a.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        a.owns(2, vec![(fd(0, 1), fd(0, 100))]);
        // Slot 1's worker has taken over a client of slot 0, which only it knows.
        a.push(0, fd(0, 200), "for b");
        assert!(matches!(b.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        b.owns(2, vec![(fd(0, 200), fd(0, 300))]);
        assert_eq!(b.hear_push().await, (fd(0, 200), "for b".into()));
    });
}

#[test]
fn a_reload_hands_connections_over_and_holds_what_is_sent_meanwhile() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 1).await;
        let mut other = master.serving(id(1, 1), 1).await;
        let mut control = master.control().await;
        control.send("{\"cmd\":\"reload\"}\n").await;
        master.prepare(1).await;
        let mut new = master.serving(id(0, 2), 2).await;
        // Slot 0 hands over: one client moves, one stays.
        let pass = old.is_asked(id(0, 2)).await;
        other.push(9, fd(0, 5), "held");
        other.say_with(&WorkerToManager::Broadcast { opcode: Opcode::Text, except: 0 }, b"to all");
        old.gives(pass, fd(0, 5));
        old.push(0, fd(0, 5), "from the old");
        old.say(&WorkerToManager::Stays { fds: vec![(fd(0, 6), "stuck".to_owned())] });
        old.gave(pass, Left::Nothing);

        let (adopt, state, sockets) = new.hear_with_fds().await;
        assert!(matches!(adopt, ManagerToWorker::Adopt { from, .. } if from == id(0, 1)));
        assert_eq!((&state[..], sockets.len()), (&b"state"[..], 1));
        assert!(matches!(new.hear().await.0, ManagerToWorker::Take { .. }));
        other.say(&WorkerToManager::List { id: 1 });
        while !matches!(other.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        new.say(&WorkerToManager::Adopted { pass, fds: vec![fd(0, 5)] });
        assert!(matches!(old.hear().await.0, ManagerToWorker::Settled { .. }));

        // What was held comes before the new owner may go the short way.
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(new.hear().await.1);
        }
        held.sort();
        assert_eq!(held, ["from the old", "held", "to all"]);
        assert!(matches!(new.hear().await.0, ManagerToWorker::Own { .. }));
        assert!(matches!(old.hear().await.0, ManagerToWorker::Broadcast { .. }));
        assert!(matches!(old.hear().await.0, ManagerToWorker::Drain { .. }));

        // Slot 1 is no more: its clients go to slot 0.
        let pass = other.is_asked(id(0, 2)).await;
        other.gave(pass, Left::Nothing);
        assert!(matches!(master.hear().await, ManagerToMaster::Commit));
        // The master has to have done it.
        let early = tokio::time::timeout(Duration::from_millis(100), control.answer()).await;
        assert!(early.is_err(), "{early:?}");
        let state = MasterState { generation: 2, worker_num: 1, ..MasterState::default() };
        master.tell(&MasterToManager::State(state), &[]);
        let answer = control.answer().await;
        let verdict: crate::ipc::control::ReloadVerdict = answer.read().unwrap();
        assert!(answer.ok && verdict.is_ok(), "{verdict:?}");
        assert_eq!((verdict.slots[0].moved, verdict.slots[0].stayed), (1, 1));
        assert_eq!(verdict.slots[1].to, Slot(0));

        // Routes have flipped, for the one that stayed as well.
        let mut control = master.control().await;
        for (number, worker) in [(fd(0, 5), &mut new), (fd(0, 6), &mut old)] {
            let line = format!("{{\"cmd\":\"push\",\"fd\":{number},\"bytes\":1}}\n!");
            control.send(&line).await;
            let (origin, id) = loop {
                match worker.hear().await.0 {
                    ManagerToWorker::Push { origin, id, .. } => break (origin, id),
                    ManagerToWorker::WorkerNum(1) => {}
                    other => panic!("{other:?}"),
                }
            };
            worker.say(&WorkerToManager::Verdict { origin, id, verdict: Verdict::Queued });
            assert!(control.answer().await.ok);
        }
    });
}

#[test]
fn what_stayed_with_an_old_worker_follows_when_it_has_come_to_rest() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 0).await;
        let mut new = master.serving(id(0, 2), 1).await;
        let other = master.serving(id(1, 1), 1).await;
        old.say(&WorkerToManager::CanGive);
        let pass = old.is_asked(id(0, 2)).await;
        old.gives(pass, fd(0, 6));
        old.gave(pass, Left::Nothing);
        assert!(matches!(new.hear().await.0, ManagerToWorker::Adopt { .. }));
        assert!(matches!(new.hear().await.0, ManagerToWorker::Take { .. }));
        new.say(&WorkerToManager::Adopted { pass, fds: vec![fd(0, 6)] });
        assert!(matches!(old.hear().await.0, ManagerToWorker::Settled { .. }));
        assert!(matches!(new.hear().await.0, ManagerToWorker::Own { .. }));
        other.push(9, fd(0, 6), "to the one that followed");
        while !matches!(new.hear().await.0, ManagerToWorker::Push { .. }) {}
    });
}

#[test]
fn who_waits_for_the_reload_of_a_manager_that_died_before_it_began_gets_one() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut control = master.control().await;
        control.send("{\"cmd\":\"wait\"}\n").await;
        let _worker = master.serving(id(0, 1), 1).await;
        let _other = master.serving(id(1, 1), 1).await;
        assert!(matches!(master.hear().await, ManagerToMaster::Prepare));
        let why = "No such key.".to_owned();
        master.tell(&MasterToManager::PrepareFailed { why: why.clone() }, &[]);
        assert_eq!(control.answer().await.error, Some(why));
    });
}

#[test]
fn a_reload_that_is_refused_says_why_and_the_next_one_runs() {
    story(async {
        let master = Master::boot(1, None).await;
        let _worker = master.serving(id(0, 1), 1).await;
        let (mut first, mut second) = (master.control().await, master.control().await);
        first.send("{\"cmd\":\"reload\"}\n").await;
        assert!(matches!(master.hear().await, ManagerToMaster::Prepare));
        second.send("{\"cmd\":\"reload\"}\n").await;
        // Only once the second waits is the first refused.
        while !first_waits(&master).await {}
        let why = "No such key.".to_owned();
        master.tell(&MasterToManager::PrepareFailed { why: why.clone() }, &[]);
        assert_eq!(first.answer().await.error, Some(why.clone()));
        assert!(matches!(master.hear().await, ManagerToMaster::Prepare));
        master.tell(&MasterToManager::PrepareFailed { why: why.clone() }, &[]);
        assert_eq!(second.answer().await.error, Some(why));
    });
}

async fn first_waits(master: &Master) -> bool {
    let status = master.control().await.ask("{\"cmd\":\"status\"}\n").await;
    status.more["reload"]["waiting"].as_bool().unwrap()
}
