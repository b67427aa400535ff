//! A courier alone: this program stands in the place of its master and its manager.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local};
use wsd::api::Opcode;
use wsd::api::rooms::Topic;
use wsd::config::Config;
use wsd::ipc::cluster::envelope::{self, NodeMessage};
use wsd::ipc::cluster::messages::{
    CourierBoot, CourierToManager, EngineState, ManagerToCourier, MasterToCourier, To, courier_id,
};
use wsd::ipc::cluster::nodes::NodeId;
use wsd::ipc::link::{Lane, Link, Sent};
use wsd::ipc::packet::{Body, Frames};
use wsd::ipc::{PACKET_BYTES_MAX, codec};
use wsd::sys::usage::Usage;
use wsd::sys::{packet, process};

use crate::Failure;
use crate::engine_client::{EngineClient, command};

const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Commands in one write to the engine.
const PIPELINE: usize = 512;
/// Messages on their way: more than a courier needs to be busy, and fewer than it may hold.
const ON_THEIR_WAY: u64 = 16_384;
/// Rooms in one message.
const ROOMS_PART: usize = 500;

/// The courier, and what came from it.
struct Alone {
    link: Link,
    _master: OwnedFd,
    pid: i32,
    arrived: Arc<AtomicU64>,
    /// Whether the engine has the last publish.
    has_all: Cell<bool>,
    noted: Cell<u64>,
    is_up: Cell<bool>,
    went_away: Cell<u64>,
}

type Program<'a> = (&'a str, &'a str, &'a str);

impl Alone {
    /// Starts a courier on a core.
    fn start((program, engine, core): Program<'_>) -> Result<Rc<Alone>, Failure> {
        let (master, master_of_courier) = packet::pair()?;
        let (ours, theirs) = packet::pair()?;
        // The child starts on our core, and is moved to its own before it has done anything.
        let image = CString::new(program)?;
        let pid = process::spawn(&process::Spawn {
            image: &image,
            title: "wsd: courier",
            arguments: &[],
            link: master_of_courier.as_fd(),
            socket: None,
            stdout: None,
            stderr: None,
            secrets: &[],
        })?;
        let moved = std::process::Command::new("taskset")
            .args(["-a", "-p", "-c", core, &pid.to_string()])
            .stdout(std::process::Stdio::null())
            .status()?;
        if !moved.success() {
            return Err("taskset failed".into());
        }
        let mut config = serde_json::to_value(Config::default())?;
        config["cluster"]["engine"] = json!(format!("unix:{engine}"));
        config["cluster"]["node"] = json!(1);
        let boot = CourierBoot {
            epoch: 1,
            id: NodeId { node: 1, boot: 7 },
            since: 0,
            config: config.to_string(),
            password: None,
        };
        let mut bytes = Vec::new();
        codec::encode(&MasterToCourier::Boot(boot), &mut bytes)?;
        packet::send(master.as_fd(), &bytes, &[theirs.as_fd()])?;
        Ok(Rc::new(Alone {
            link: Link::new(ours, courier_id(1))?,
            _master: master,
            pid: pid.as_raw(),
            arrived: Arc::default(),
            has_all: Cell::new(false),
            noted: Cell::new(0),
            is_up: Cell::new(false),
            went_away: Cell::new(0),
        }))
    }

    /// Reads what the courier says, and writes what it is told, from here on.
    async fn begin(self: &Rc<Self>) -> Result<(), Failure> {
        let (reader, writer) = (Rc::clone(self), Rc::clone(self));
        spawn_local(async move { writer.link.flush_forever().await });
        spawn_local(async move {
            if let Err(error) = reader.read().await {
                eprintln!("bench_cluster: the courier's link: {error}");
            }
        });
        self.link.control(&ManagerToCourier::Begin)?;
        self.until(|it| it.is_up.get()).await
    }

    async fn read(&self) -> Result<(), Failure> {
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        while let Some(mut arrival) = self.link.receive(&mut buffer).await? {
            let mut frames = Frames::new(&buffer[..arrival.len])?;
            while let Some(frame) = frames.next::<CourierToManager>(&mut arrival.fds)? {
                match frame.message {
                    CourierToManager::Arrived => {
                        self.arrived.fetch_add(1, Relaxed);
                    }
                    CourierToManager::Sent { .. } => self.has_all.set(true),
                    CourierToManager::Noted { number } => self.noted.set(number),
                    CourierToManager::Engine(EngineState::Ok) => self.is_up.set(true),
                    CourierToManager::Engine(_) => {
                        self.went_away.set(self.went_away.get() + 1);
                        self.is_up.set(false);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn until(&self, done: impl Fn(&Alone) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            if Instant::now() > deadline {
                return Err("the courier does not do what is waited for".into());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    fn cpu_ms(&self) -> u64 {
        Usage::of(self.pid).unwrap_or_default().cpu_ms
    }

    async fn join(&self, number: u64, joined: Vec<Topic>) -> Result<(), Failure> {
        let interest = ManagerToCourier::Interest { number, joined, left: Vec::new() };
        self.link.insist(&interest, Body::Inline(&[]), Vec::new())?;
        self.link.hurry();
        self.until(|it| it.noted.get() >= number).await
    }

    /// So many publishes in `seconds`, and what the courier took for them.
    async fn publish(&self, seconds: u64) -> Result<Value, Failure> {
        let message = NodeMessage::Broadcast { opcode: Opcode::Text, except: 0 };
        let from = NodeId { node: 1, boot: 7 };
        let bytes = envelope::write(from, &message, &PAYLOAD)?;
        let topic = Topic::room("r");
        let (began, before, mut count) = (Instant::now(), self.cpu_ms(), 0_u64);
        let time = Duration::from_secs(seconds);
        while began.elapsed() < time {
            self.link.begin_turn();
            for _ in 0..PIPELINE {
                let send = ManagerToCourier::Send { to: To::Members(topic.clone()), id: 0 };
                match self.link.send(Lane::Data, &send, Body::Inline(&bytes), Vec::new())? {
                    Sent::Queued => count += 1,
                    Sent::Full => break,
                }
            }
            self.link.end_turn();
            tokio::task::yield_now().await;
            if self.link.data_bytes() > 256 * 1024 {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        let last = ManagerToCourier::Send { to: To::Members(topic), id: 1 };
        self.link.insist(&last, Body::Inline(&bytes), Vec::new())?;
        self.link.hurry();
        self.until(|it| it.has_all.get()).await?;
        Ok(figures(count + 1, began.elapsed(), self.cpu_ms() - before))
    }

    /// What another node publishes in `seconds`, and what the courier took for it.
    async fn receive(&self, engine: String, seconds: u64) -> Result<Value, Failure> {
        let message = NodeMessage::Broadcast { opcode: Opcode::Text, except: 0 };
        let bytes = envelope::write(NodeId { node: 2, boot: 8 }, &message, &PAYLOAD)?;
        let one = command(&[b"PUBLISH", b"wsd:wsd:t:#r", &bytes]);
        let many = one.repeat(PIPELINE);
        let time = Duration::from_secs(seconds);
        let (began, before) = (Instant::now(), self.cpu_ms());
        let arrived = Arc::clone(&self.arrived);
        let publisher = std::thread::spawn(move || -> Result<u64, String> {
            let mut client = EngineClient::connect(&engine).map_err(|error| error.to_string())?;
            let mut count = 0;
            while began.elapsed() < time {
                if count - arrived.load(Relaxed) > ON_THEIR_WAY {
                    std::thread::sleep(Duration::from_micros(50));
                    continue;
                }
                client.send(&many).map_err(|error| error.to_string())?;
                client.skip_lines(PIPELINE).map_err(|error| error.to_string())?;
                count += PIPELINE as u64;
            }
            Ok(count)
        });
        while !publisher.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let published = publisher.join().map_err(|_| "the publisher panicked")??;
        // What is on its way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let came = self.arrived.load(Relaxed);
        let mut figures = figures(came, time, self.cpu_ms() - before);
        figures["lost"] = json!(published - came);
        Ok(figures)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid);
        // It ends with its master's link in any case.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

fn figures(count: u64, took: Duration, cpu_ms: u64) -> Value {
    json!({
        "count": count,
        "per_second": (count as f64 / took.as_secs_f64()).round(),
        "cpu_us_each": cpu_ms as f64 * 1e3 / count.max(1) as f64,
        "per_second_of_cpu": (count as f64 * 1e3 / cpu_ms.max(1) as f64).round(),
    })
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Publishes and messages a second, by a courier on one core.
pub fn throughput(program: Program<'_>, seconds: u64) -> Result<Value, Failure> {
    in_runtime(async {
        let alone = Alone::start(program)?;
        alone.begin().await?;
        let out = alone.publish(seconds).await?;
        alone.join(1, vec![Topic::room("r")]).await?;
        let come = alone.receive(program.1.to_owned(), seconds).await?;
        Ok(json!({ "out": out, "in": come }))
    })
}

/// How soon a courier has subscribed to so many rooms again whose connection was cut.
pub fn resubscribe(program: Program<'_>, rooms: usize) -> Result<Value, Failure> {
    in_runtime(async {
        let alone = Alone::start(program)?;
        alone.begin().await?;
        let names: Vec<Topic> =
            (0..rooms).map(|room| Topic::room(&format!("room-{room}"))).collect();
        for (number, part) in (1..).zip(names.chunks(ROOMS_PART)) {
            alone.join(number, part.to_vec()).await?;
        }
        let mut client = EngineClient::connect(program.1)?;
        let (cut, before) = (Instant::now(), alone.went_away.get());
        client.send(&command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]))?;
        alone.until(|it| it.went_away.get() > before).await?;
        alone.until(|it| it.is_up.get()).await?;
        let seconds = cut.elapsed().as_secs_f64();
        Ok(json!({ "rooms": rooms, "seconds": seconds }))
    })
}
