//! A worker in a thread, with the test for its master and manager.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::api::Handler;
use crate::config::Config;
use crate::error::Result;
use crate::fd::{Fd, Slot, WorkerId};
use crate::ipc::codec;
use crate::ipc::link::{Lane, Link, Sent};
use crate::ipc::messages::{
    Left, Listener, ManagerToWorker, MasterToWorker, PassId, WorkerBoot, WorkerToManager,
    WorkerToMaster,
};
use crate::ipc::packet::{Body, Frames};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Board, Counter, Row, Totals};
use crate::sys::packet;
use crate::worker::life;

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Client = WebSocketStream<TcpStream>;

/// Passes everything that belongs to a handover from `old` to `new` and back, as the manager
/// does, in as many passes as there are. How many moved, and how many stay.
pub async fn pass_over(old: &mut Tested, new: &mut Tested) -> (u64, u64) {
    old.says(ManagerToWorker::HandOver { to: new.id }, &[]).await;
    let (mut moved, mut stayed) = (0, 0);
    for pass in 1.. {
        old.rests().await;
        loop {
            old.says(ManagerToWorker::Give { pass }, &[]).await;
            let (given, left, stays) = pass_on(old, new, pass).await;
            new.says(ManagerToWorker::Take { pass }, &[]).await;
            let taken = new.adopted(pass).await;
            assert_eq!(taken.len(), given);
            old.says(ManagerToWorker::Settled { pass, taken }, &[]).await;
            new.says(ManagerToWorker::Own { pass }, &[]).await;
            (moved, stayed) = (moved + given as u64, stayed + stays);
            match left {
                Left::More => {}
                Left::Busy => break,
                Left::Nothing => return (moved, stayed),
            }
        }
    }
    unreachable!("there is no last number");
}

/// Passes a pass on, and none of the answers: how many were given, what is left, and how many stay.
pub async fn pass_on(old: &mut Tested, new: &Tested, pass: PassId) -> (usize, Left, u64) {
    let (mut given, mut stays) = (0, 0);
    loop {
        let (message, body, sockets) = old.hears_all().await;
        match message {
            WorkerToManager::Moving { pass: of, fds } if of == pass => {
                given += fds.len();
                let adopt = ManagerToWorker::Adopt { pass, from: old.id, fds };
                new.says_with(&adopt, &body, sockets).await;
            }
            WorkerToManager::Stays { fds } => stays += fds.len() as u64,
            WorkerToManager::Gave { left, .. } => return (given, left, stays),
            _ => {}
        }
    }
}

/// What the manager hears, with its body and descriptors.
pub type Heard = (WorkerToManager, Bytes, Vec<OwnedFd>);

/// What workers of one server share.
pub struct Server {
    pub listener: std::net::TcpListener,
    pages: std::cell::RefCell<Board>,
}

impl Server {
    pub fn new() -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Server { listener, pages: Default::default() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Starts a worker and waits until it is ready.
    pub async fn start<H: Handler>(
        &self,
        id: WorkerId,
        config: Config,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Tested {
        let (master, theirs) = packet::pair().unwrap();
        let (manager, link) = packet::pair().unwrap();
        let (registry, registry_fd) = Registry::create(1024).unwrap();
        let address = format!("{}", self.address());
        let boot = MasterToWorker::Boot(WorkerBoot {
            id,
            generation: 1,
            config: serde_json::to_string(&config).unwrap(),
            worker_num: 2,
            departed: Totals::default(),
            pages: 0,
            lease: 1 + u64::from(id.epoch - 1) * 65_536,
            listeners: vec![Listener {
                entry: address.clone(),
                address,
                purpose: Default::default(),
            }],
        });
        let listener = OwnedFd::from(self.listener.try_clone().unwrap());
        let mut bytes = Vec::new();
        codec::encode(&boot, &mut bytes).unwrap();
        let page = Row::create().unwrap();
        self.pages.borrow_mut().opened(id, page.as_fd()).unwrap();
        let fds = [link.as_fd(), page.as_fd(), registry_fd.as_fd(), listener.as_fd()];
        packet::send(master.as_fd(), &bytes, &fds).unwrap();
        let thread = std::thread::spawn(move || {
            let make = move |_: &_, _| Ok(Rc::new(make()) as Rc<dyn Handler>);
            life::live(theirs, |_| Ok(()), make)
        });
        let mut tested = Tested {
            id,
            master,
            manager: Link::new(manager, id).unwrap(),
            heard: Vec::new(),
            registry,
            thread: Some(thread),
        };
        assert!(matches!(tested.master_hears().await, WorkerToMaster::Hello(_)));
        assert!(matches!(tested.master_hears().await, WorkerToMaster::Ready));
        tested
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.pages.borrow().sum(counter)
    }

    /// Waits until a counter has come to a value.
    pub async fn counts_to(&self, counter: Counter, want: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.count(counter) != want {
            let count = self.count(counter);
            assert!(tokio::time::Instant::now() < deadline, "{counter:?} is {count}, not {want}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn connect(&self) -> Client {
        self.try_connect("/ws").await.unwrap()
    }

    pub async fn try_connect(
        &self,
        target: &str,
    ) -> Result<Client, tokio_tungstenite::tungstenite::Error> {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{}{target}", self.address());
        tokio_tungstenite::client_async(url, stream).await.map(|(client, _)| client)
    }
}

/// A worker under test.
pub struct Tested {
    pub id: WorkerId,
    pub master: OwnedFd,
    pub manager: Link,
    heard: Vec<Heard>,
    pub registry: Registry,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Tested {
    pub async fn master_hears(&mut self) -> WorkerToMaster {
        let mut buffer = vec![0; 65_536];
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match packet::receive(self.master.as_fd(), &mut buffer) {
                Ok(got) if got.len > 0 => return codec::decode(&buffer[..got.len]).unwrap(),
                Ok(_) => panic!("the worker is gone"),
                Err(nix::errno::Errno::EAGAIN) => {
                    assert!(tokio::time::Instant::now() < deadline, "nothing heard");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn master_says(&self, message: &MasterToWorker, fds: &[&OwnedFd]) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        packet::send(self.master.as_fd(), &bytes, &fds).unwrap();
    }

    pub async fn says(&self, message: ManagerToWorker, body: &[u8]) {
        self.says_with(&message, body, Vec::new()).await;
    }

    pub async fn says_with<T: Serialize>(&self, message: &T, body: &[u8], fds: Vec<OwnedFd>) {
        let sent = self.manager.send(Lane::Data, message, Body::Inline(body), fds);
        assert_eq!(sent.unwrap(), Sent::Queued);
        self.manager.flush().await.unwrap();
    }

    /// The next thing the manager hears that `wanted` wants; the rest is dropped.
    pub async fn hears<T>(&mut self, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            while !self.heard.is_empty() {
                let heard = self.heard.remove(0);
                if let Some(found) = wanted(&heard) {
                    return found;
                }
            }
            let got = tokio::time::timeout(PATIENCE, self.manager.receive(&mut buffer));
            let mut got = got.await.expect("heard nothing").unwrap().expect("it is gone");
            let mut frames = Frames::new(&buffer[..got.len]).unwrap();
            assert_eq!(frames.id, self.id);
            while let Some(frame) = frames.next::<WorkerToManager>(&mut got.fds).unwrap() {
                let body = frame.body.into_bytes().unwrap();
                self.heard.push((frame.message, body, std::mem::take(&mut got.fds)));
            }
        }
    }

    /// The next thing the manager hears, with what belongs to it.
    pub async fn hears_all(&mut self) -> Heard {
        let mut taken = None;
        self.hears(|(message, body, fds)| {
            let message: WorkerToManager = {
                let mut bytes = Vec::new();
                codec::encode(message, &mut bytes).unwrap();
                codec::decode(&bytes).unwrap()
            };
            let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
            taken = Some((message, body.clone(), fds));
            Some(())
        })
        .await;
        taken.unwrap()
    }

    /// Waits until a pass can begin.
    pub async fn rests(&mut self) {
        self.hears(|heard| matches!(heard.0, WorkerToManager::CanGive).then_some(())).await;
    }

    /// What it says that it has of a pass.
    pub async fn adopted(&mut self, pass: PassId) -> Vec<u64> {
        self.hears(|heard| match &heard.0 {
            WorkerToManager::Adopted { pass: of, fds } if *of == pass => Some(fds.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the end of the worker.
    pub async fn join(mut self) {
        let thread = self.thread.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || thread.join().unwrap());
        tokio::time::timeout(PATIENCE, ended).await.expect("it stays").unwrap().unwrap();
    }
}

/// A worker that is dropped is told to leave, so that a failed test ends.
impl Drop for Tested {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let mut bytes = Vec::new();
            let stop = MasterToWorker::Stop(crate::ipc::messages::StopMode::Quick);
            codec::encode(&stop, &mut bytes).unwrap();
            let _ = packet::send(self.master.as_fd(), &bytes, &[]);
        }
    }
}

pub const FIRST: WorkerId = WorkerId { slot: Slot(0), epoch: 1 };

pub fn fd(slot: u8, serial: u64) -> Fd {
    Fd::new(0, Slot(slot), serial).unwrap()
}

pub async fn next(client: &mut Client) -> WsMessage {
    let next = tokio::time::timeout(PATIENCE, client.next()).await;
    next.expect("nothing came").expect("the stream ended").unwrap()
}

/// The next text; pings are answered on the way.
pub async fn text(client: &mut Client) -> String {
    loop {
        match next(client).await {
            WsMessage::Text(text) => return text.to_string(),
            WsMessage::Ping(_) | WsMessage::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code and reason of the close frame that comes, after whatever else.
pub async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        if let WsMessage::Close(close) = next(client).await {
            let close = close.unwrap();
            return (close.code.into(), close.reason.to_string());
        }
    }
}

pub async fn say(client: &mut Client, text: &str) {
    client.send(WsMessage::text(text)).await.unwrap();
}
