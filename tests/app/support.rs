//! A worker's stand-in around the real handler, with real application processes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Notify, mpsc};
use wsd::api::*;
use wsd::close::{Cause, Close};
use wsd::fd::{Fd, Slot, WorkerId};
use wsd::handler::app::*;

/// What the application did to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    Push(Opcode, Bytes),
    Close(u16, String),
    Protect(bool),
}

impl Did {
    pub fn text(&self) -> String {
        match self {
            Did::Push(_, data) => String::from_utf8_lossy(data).into_owned(),
            Did::Close(code, reason) => format!("close {code} {reason}"),
            Did::Protect(on) => format!("protect {on}"),
        }
    }
}

pub fn said(text: &str) -> Did {
    Did::Push(Opcode::Text, Bytes::copy_from_slice(text.as_bytes()))
}

pub struct FakeReactor {
    clients: RefCell<BTreeMap<Fd, VecDeque<Did>>>,
    changed: Notify,
    pub relayed: RefCell<Vec<(Slot, Bytes)>>,
    command: Vec<String>,
    env: Vec<(String, String)>,
    sender: mpsc::UnboundedSender<ProcessEvent>,
    receiver: Rc<tokio::sync::Mutex<mpsc::UnboundedReceiver<ProcessEvent>>>,
    running: Arc<Mutex<HashMap<ProcessId, Pid>>>,
    starts: Cell<bool>,
    pub killed: RefCell<Vec<ProcessId>>,
}

/// A descriptor is inherited by whatever is started between `F_SETFD` and its closing.
static SPAWNING: Mutex<()> = Mutex::new(());

impl FakeReactor {
    fn new(command: &[&str], env: &[(&str, &str)]) -> FakeReactor {
        let (sender, receiver) = mpsc::unbounded_channel();
        FakeReactor {
            clients: RefCell::default(),
            changed: Notify::new(),
            relayed: RefCell::default(),
            command: command.iter().map(|part| part.to_string()).collect(),
            env: env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            sender,
            receiver: Rc::new(tokio::sync::Mutex::new(receiver)),
            running: Arc::default(),
            starts: Cell::new(true),
            killed: RefCell::default(),
        }
    }

    fn launch(&self, descriptors: Vec<OwnedFd>) -> Child {
        let mut descriptors = descriptors.into_iter();
        let socket = descriptors.next().unwrap();
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .envs(self.env.iter().cloned())
            .env("WSD_APP_FD", socket.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stderr(descriptors.next().unwrap());
        if let Some(stdout) = descriptors.next() {
            command.stdout(stdout);
        }
        let _alone = SPAWNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let child = command.spawn().unwrap();
        drop(socket);
        child
    }

    pub fn pid(&self, place: u16) -> Pid {
        let running = self.running.lock().unwrap();
        *running
            .iter()
            .filter(|(id, _)| id.place == place)
            .max_by_key(|(id, _)| id.epoch)
            .unwrap()
            .1
    }

    pub fn stop_starting(&self) {
        self.starts.set(false);
    }

    fn did(&self, fd: Fd, did: Did) -> Verdict {
        let mut clients = self.clients.borrow_mut();
        let Some(client) = clients.get_mut(&fd) else { return Verdict::Gone };
        client.push_back(did);
        self.changed.notify_waiters();
        Verdict::Queued
    }

    fn known(&self, fd: Fd) -> Option<Info> {
        self.clients.borrow().get(&fd)?;
        let mut info = Info::new(fd, Slot(0));
        info.peer = "192.0.2.1:4000".to_owned();
        info.connected_at = 1_700_000_000_000;
        (info.bytes_in, info.bytes_out) = (1, 2);
        Some(info)
    }
}

impl Sealed for FakeReactor {}

impl Reactor for FakeReactor {
    fn worker(&self) -> WorkerId {
        WorkerId { slot: Slot(0), epoch: 1 }
    }
    fn worker_num(&self) -> u16 {
        2
    }
    fn push(&self, fd: Fd, opcode: Opcode, data: &Payload<'_>) -> Verdict {
        self.did(fd, Did::Push(opcode, data.to_bytes()))
    }
    fn push_confirmed(&self, fd: Fd, message: Message<'_>) -> LocalFuture<Verdict> {
        let verdict = self.push(fd, message.opcode, &message.data);
        Box::pin(async move { verdict })
    }
    fn broadcast(&self, message: Message<'_>, except: Option<Fd>) {
        let fds: Vec<Fd> = self.clients.borrow().keys().copied().collect();
        for fd in fds.into_iter().filter(|fd| Some(*fd) != except) {
            let _ = self.push(fd, message.opcode, &message.data);
        }
    }
    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.did(fd, Did::Close(code, reason.to_owned()))
    }
    fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.did(fd, Did::Protect(on))
    }
    fn info(&self, fd: Fd) -> LocalFuture<Option<Info>> {
        let info = self.known(fd);
        Box::pin(async move { info })
    }
    fn connections(&self) -> LocalFuture<Vec<Info>> {
        let fds: Vec<Fd> = self.clients.borrow().keys().copied().collect();
        let all = fds.into_iter().filter_map(|fd| self.known(fd)).collect();
        Box::pin(async move { all })
    }
    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict {
        self.relayed.borrow_mut().push((to, data));
        Verdict::Relayed
    }
    fn spawn(&self, future: LocalFuture<()>) {
        tokio::task::spawn_local(future);
    }
    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError> {
        job();
        Ok(())
    }
    fn start_process(&self, id: ProcessId, descriptors: Vec<OwnedFd>) {
        if !self.starts.get() {
            return;
        }
        let mut child = self.launch(descriptors);
        let pid = child.id();
        self.running.lock().unwrap().insert(id, Pid::from_raw(pid as i32));
        let (sender, running) = (self.sender.clone(), self.running.clone());
        let _ = sender.send(ProcessEvent::Started { id, pid });
        std::thread::spawn(move || {
            let how = child.wait().map_or_else(|error| error.to_string(), |how| how.to_string());
            running.lock().unwrap().remove(&id);
            let _ = sender.send(ProcessEvent::Exited { id, how });
        });
    }
    fn kill_process(&self, id: ProcessId) {
        self.killed.borrow_mut().push(id);
        if let Some(pid) = self.running.lock().unwrap().get(&id) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
    fn process_event(&self) -> LocalFuture<ProcessEvent> {
        let receiver = self.receiver.clone();
        Box::pin(async move { receiver.lock().await.recv().await.unwrap() })
    }
}

/// The handler with its processes, and clients that need no network.
pub struct Worker {
    pub handler: AppHandler,
    pub ctx: Context,
    pub reactor: Rc<FakeReactor>,
    serial: Cell<u64>,
}

impl Worker {
    pub async fn start(command: &[&str], settings: AppSettings) -> Worker {
        Worker::start_with(command, &[], settings).await
    }

    pub async fn start_with(
        command: &[&str],
        env: &[(&str, &str)],
        settings: AppSettings,
    ) -> Worker {
        let reactor = Rc::new(FakeReactor::new(command, env));
        let ctx = Context::new(reactor.clone());
        let handler = AppHandler::new(settings);
        let worker = Worker { handler, ctx, reactor, serial: Cell::new(0) };
        wait("processes", flow(worker.handler.on_worker_start(&worker.ctx))).await;
        worker
    }

    pub fn request(&self, target: &str, headers: &[(&str, &str)]) -> Rc<Request> {
        self.serial.set(self.serial.get() + 1);
        let mut request = Request::new(Fd::new(0, Slot(0), self.serial.get()).unwrap(), target);
        request.headers = headers.iter().copied().collect();
        request.peer = Some(SocketAddr::from(([192, 0, 2, 7], 40001)));
        request.client = Some([198, 51, 100, 9].into());
        Rc::new(request)
    }

    /// Opens two clients, and hears what each of them is welcomed with.
    pub async fn two_clients(&self) -> (Fd, Fd) {
        let (one, other) = (self.open("/").await, self.open("/").await);
        self.hear(one).await;
        self.hear(other).await;
        (one, other)
    }

    pub async fn open(&self, target: &str) -> Fd {
        self.try_open(target, &[]).await.expect("let in").0
    }

    pub async fn try_open(
        &self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Fd, Accept), Refuse> {
        let request = self.request(target, headers);
        let fd = request.fd;
        let accept =
            wait("handshake", flow(self.handler.on_handshake(&self.ctx, &request))).await?;
        self.reactor.clients.borrow_mut().insert(fd, VecDeque::new());
        flow(self.handler.on_open(&self.ctx, request)).await;
        Ok((fd, accept))
    }

    pub async fn say(&self, fd: Fd, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        let frame = Frame::new(fd, Opcode::Text, data);
        wait("room", flow(self.handler.on_message(&self.ctx, frame))).await;
    }

    pub async fn leave(&self, fd: Fd) {
        self.reactor.clients.borrow_mut().remove(&fd);
        let close = Close { code: 1000, reason: "bye".to_owned(), cause: Cause::ClientClosed };
        flow(self.handler.on_close(&self.ctx, fd, close)).await;
    }

    /// The next thing the application does to that client.
    pub async fn hear(&self, fd: Fd) -> Did {
        wait("a push", async {
            loop {
                let changed = self.reactor.changed.notified();
                let did = self.reactor.clients.borrow_mut().get_mut(&fd).unwrap().pop_front();
                match did {
                    Some(did) => return did,
                    None => changed.await,
                }
            }
        })
        .await
    }

    pub async fn ask(&self, fd: Fd, text: &str) -> String {
        self.say(fd, text).await;
        self.hear(fd).await.text()
    }

    /// The answer to a plain request, its body read whole.
    pub async fn http(&self, request: http::Request<Bytes>) -> Option<http::Response<Bytes>> {
        let (head, mut body) = self.answer(request).await?.into_parts();
        let mut whole = Vec::new();
        while let Some(part) = wait("a part", body.part()).await {
            whole.extend_from_slice(&part.expect("a body that does not break off"));
        }
        Some(http::Response::from_parts(head, whole.into()))
    }

    /// The answer to a plain request, as it comes.
    pub async fn answer(&self, request: http::Request<Bytes>) -> Option<HttpResponse> {
        let mut request = HttpRequest::new(request);
        request.peer = Some(([192, 0, 2, 7], 40002).into());
        request.fd = Fd::try_from(77).ok();
        wait("a response", flow(self.handler.on_request(&self.ctx, request))).await
    }

    /// Waits until no event of a client is under way: after the last thing it hears, its process
    /// has yet to say DONE.
    pub async fn rest(&self, fd: Fd) {
        wait("DONE", flow(self.handler.on_drain(&self.ctx, fd))).await;
    }

    /// Kills a process as it stands, unlike what the handler does.
    pub fn kill(&self, place: u16) {
        kill(self.reactor.pid(place), Signal::SIGKILL).unwrap();
    }
}

/// Runs a test on one thread, as a worker is.
pub fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub async fn flow<T>(flow: Flow<T>) -> T {
    match flow {
        Flow::Ready(value) => value,
        Flow::Pending(future) => future.await,
    }
}

/// A test that hangs says what it waits for.
pub async fn wait<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A path below the project.
pub fn path(relative: &str) -> String {
    crate::harness::repository().join(relative).display().to_string()
}

/// Copies the Laravel application of the tests to a directory. With `TEST_LARAVEL_SKELETON=new`
/// it has the skeleton of Laravel 11 and later, without kernels of its own.
pub fn copy_laravel(to: &std::path::Path) {
    let mut parts = vec!["tests/laravel-app/."];
    if std::env::var("TEST_LARAVEL_SKELETON").is_ok_and(|skeleton| skeleton == "new") {
        parts.push("tests/laravel-skeleton/.");
    }
    for part in parts {
        let copied = Command::new("cp").args(["-r", &path(part)]).arg(to).status().unwrap();
        assert!(copied.success(), "{part}");
    }
}
