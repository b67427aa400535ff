//! A pump of bytes between a node and its engine, which can stall, cut and delay.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;

use crate::addresses::translated;

/// Pieces of up to 64 KiB that are on their way.
const PIECES_MAX: usize = 64;

/// What a pump leads to.
#[derive(Clone)]
pub enum Place {
    /// A server at a socket. Sentinels know it by the port.
    Server {
        socket: PathBuf,
        port: u16,
    },
    Sentinel {
        port: u16,
    },
}

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

/// Passes bytes between a node and all that its engine is made of.
pub struct Pump {
    /// Where it listens, for each of the places.
    pub ports: Vec<u16>,
    valve: Arc<Valve>,
}

impl Pump {
    /// Listens for a node, on behalf of these places, on a thread of its own: what the clients are
    /// busy with is no fault.
    pub fn start(places: Vec<Place>) -> std::io::Result<Pump> {
        let (mut ports, mut listeners) = (Vec::new(), Vec::new());
        for _ in &places {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            ports.push(listener.local_addr()?.port());
            listeners.push(listener);
        }
        let servers = places.iter().zip(&ports).filter_map(|(place, pumps)| match place {
            Place::Server { port, .. } => Some((*port, *pumps)),
            Place::Sentinel { .. } => None,
        });
        let servers: Arc<[(u16, u16)]> = servers.collect();
        let valve = Arc::new(Valve::default());
        let shared = Arc::clone(&valve);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("pump".to_owned()).spawn(move || {
            runtime.block_on(async {
                for (listener, place) in listeners.into_iter().zip(places) {
                    let listener = TcpListener::from_std(listener).expect("watch the listener");
                    let (servers, valve) = (Arc::clone(&servers), Arc::clone(&shared));
                    tokio::spawn(serve(listener, place, servers, valve));
                }
                std::future::pending::<()>().await;
            });
        })?;
        Ok(Pump { ports, valve })
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

async fn serve(
    listener: TcpListener,
    place: Place,
    servers: Arc<[(u16, u16)]>,
    valve: Arc<Valve>,
) {
    while let Ok((node, _)) = listener.accept().await {
        // A delay is the valve's alone to make.
        let _ = node.set_nodelay(true);
        let (place, servers, valve) = (place.clone(), Arc::clone(&servers), Arc::clone(&valve));
        tokio::spawn(async move {
            match place {
                Place::Server { socket, .. } => {
                    let Ok(server) = UnixStream::connect(socket).await else { return };
                    pass(node, server, &valve, &[]).await;
                }
                Place::Sentinel { port } => {
                    let sentinel = TcpStream::connect(("127.0.0.1", port)).await;
                    let Ok(sentinel) = sentinel else { return };
                    pass(node, sentinel, &valve, &servers).await;
                }
            }
        });
    }
}

/// Passes bytes both ways. The node hears of its pump's ports in the place of these servers'.
async fn pass<E>(node: TcpStream, engine: E, valve: &Valve, servers: &[(u16, u16)])
where
    E: AsyncRead + AsyncWrite,
{
    let (from_node, to_node) = tokio::io::split(node);
    let (from_engine, to_engine) = tokio::io::split(engine);
    tokio::select! {
        () = copy(from_node, to_engine, valve, &[]) => {}
        () = copy(from_engine, to_node, valve, servers) => {}
        () = valve.cut.notified() => {}
    }
}

/// Passes bytes one way until an end.
async fn copy<F, T>(
    mut from: ReadHalf<F>,
    mut to: WriteHalf<T>,
    valve: &Valve,
    servers: &[(u16, u16)],
) where
    F: AsyncRead,
    T: AsyncWrite,
{
    let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let delay = Duration::from_millis(valve.delay_ms.load(Ordering::Relaxed));
            let due = Instant::now() + delay;
            let piece = match servers {
                [] => buffer[..count].to_vec(),
                // A Sentinel's answer is short, and comes whole.
                servers => translated(&buffer[..count], servers),
            };
            if sender.send((due, piece)).await.is_err() {
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
