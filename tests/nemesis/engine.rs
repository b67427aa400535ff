//! The engine that carries a cluster's messages: a real Redis with a directory of its own, and
//! between each node and Redis a pump of bytes that can stall, cut and delay.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, sleep_until};

use crate::daemon::signal;

/// The time Redis has to answer once it was started.
const START: Duration = Duration::from_secs(30);

/// A redis-server.
pub struct Engine {
    directory: PathBuf,
    process: Option<Child>,
}

impl Engine {
    /// Starts one that answers.
    pub async fn start(directory: &Path) -> Result<Engine, String> {
        let mut engine = Engine { directory: directory.to_owned(), process: None };
        engine.start_again().await?;
        Ok(engine)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("engine.sock")
    }

    /// Starts it anew, with nothing in it.
    pub async fn start_again(&mut self) -> Result<(), String> {
        let mut server = Command::new("redis-server");
        server.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        server.arg(self.socket()).arg("--dir").arg(&self.directory);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(server.spawn().map_err(|error| format!("redis-server: {error}"))?);
        let began = Instant::now();
        while self.ask("PING").await.is_none() {
            if began.elapsed() > START {
                return Err("redis-server does not answer".to_owned());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The answer to an inline command, if there is one.
    pub async fn ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).await.ok()?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn signal(&self, how: Signal) {
        if let Some(process) = &self.process {
            signal(process.id() as i32, how);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Pieces of up to 64 KiB that are on their way.
const PIECES_MAX: usize = 64;

/// What a pump does to what passes.
#[derive(Default)]
struct Valve {
    delay_ms: AtomicU64,
    is_shut: AtomicBool,
    opened: Notify,
    cut: Notify,
}

impl Valve {
    async fn is_open(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_shut.load(Ordering::Relaxed) {
                return;
            }
            opened.await;
        }
    }
}

/// Passes bytes between a node and the engine.
pub struct Pump {
    pub port: u16,
    valve: Arc<Valve>,
}

impl Pump {
    /// Listens for a node, on behalf of the engine at a socket, on a thread of its own: what the
    /// clients are busy with is no fault.
    pub fn start(engine: PathBuf) -> std::io::Result<Pump> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let valve = Arc::new(Valve::default());
        let shared = Arc::clone(&valve);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("pump".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("watch the listener");
                while let Ok((node, _)) = listener.accept().await {
                    tokio::spawn(pass(node, engine.clone(), Arc::clone(&shared)));
                }
            });
        })?;
        Ok(Pump { port, valve })
    }

    /// Ends every connection, with what is in it.
    pub fn cut(&self) {
        self.valve.cut.notify_waiters();
    }

    /// Passes nothing until it is told to go on.
    pub fn shut(&self, is_shut: bool) {
        self.valve.is_shut.store(is_shut, Ordering::Relaxed);
        self.valve.opened.notify_waiters();
    }

    /// Passes everything so much later.
    pub fn delay(&self, delay: Duration) {
        self.valve.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn pass(node: TcpStream, engine: PathBuf, valve: Arc<Valve>) {
    let Ok(engine) = UnixStream::connect(engine).await else { return };
    // A delay is the valve's alone to make.
    let _ = node.set_nodelay(true);
    let (from_node, to_node) = tokio::io::split(node);
    let (from_engine, to_engine) = tokio::io::split(engine);
    tokio::select! {
        () = copy(from_node, to_engine, &valve) => {}
        () = copy(from_engine, to_node, &valve) => {}
        () = valve.cut.notified() => {}
    }
}

/// Passes bytes one way until an end.
async fn copy<F, T>(mut from: ReadHalf<F>, mut to: WriteHalf<T>, valve: &Valve)
where
    F: tokio::io::AsyncRead,
    T: tokio::io::AsyncWrite,
{
    let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let delay = Duration::from_millis(valve.delay_ms.load(Ordering::Relaxed));
            let due = Instant::now() + delay;
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due.into()).await;
            valve.is_open().await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
