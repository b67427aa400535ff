//! Clients come and go for two hours with a reload every five minutes, and no process holds more
//! at the end than at the beginning. `scripts/soak churn` runs it and shows the figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::RwLock;

use crate::harness::*;

/// How long it lasts; `SOAK_MINUTES` names another number.
const MINUTES: u64 = 120;
/// Seconds between two reloads; `SOAK_RELOAD_SECONDS` names another number.
const RELOAD_EVERY: u64 = 300;
const LANES: usize = 8;
/// Milliseconds that a lane rests between two pairs; `SOAK_PAUSE_MS` names another number.
const PAUSE_MS: u64 = 50;
const IDLE: usize = 100;
/// What may differ for no reason: a page more or less in one of an allocator's lists.
const SLACK_KIB: f64 = 64.0;

/// Descriptors and KiB of memory of its own, by process.
type Holds = BTreeMap<String, [f64; 2]>;

/// Clients that come two at a time, let the server send from one to the other, and leave.
struct Lanes {
    /// Held for writing while nobody is to come.
    gate: Arc<RwLock<()>>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

async fn come_and_go(address: &str, is_application: bool) {
    let (mut one, mut two) =
        (Client::connect(address, "/").await, Client::connect(address, "/").await);
    if is_application {
        for client in [&mut one, &mut two] {
            assert!(client.receive().await.starts_with("welcome "));
        }
        assert_eq!(one.ask("echo hello").await, "hello");
    } else {
        let other = two.who().await.fd;
        assert_eq!(one.ask("echo hello").await, "echo hello");
        one.send(format!("confirmed {other} over there")).await;
        assert_eq!(two.receive().await, "over there");
        assert!(one.receive().await.starts_with("confirmed "));
    }
    one.close(1000, "").await;
    // The other one leaves without a word.
}

impl Lanes {
    fn start(server: &Server, is_application: bool) -> Lanes {
        let (gate, done) = (Arc::<RwLock<()>>::default(), Arc::<AtomicU64>::default());
        let pause = Duration::from_millis(number("SOAK_PAUSE_MS", PAUSE_MS));
        let lane = |_| {
            let (gate, done, address) = (gate.clone(), done.clone(), server.address.clone());
            tokio::spawn(async move {
                loop {
                    {
                        let _open = gate.read().await;
                        come_and_go(&address, is_application).await;
                        done.fetch_add(2, Ordering::Relaxed);
                    }
                    tokio::time::sleep(pause).await;
                }
            })
        };
        Lanes { tasks: (0..LANES).map(lane).collect(), gate, done }
    }

    /// What every process holds when only the idle clients are there.
    async fn at_rest(&self, server: &Server) -> Holds {
        let _shut = self.gate.write().await;
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client was served badly");
        server.has_connections(IDLE).await;
        let mut holds = Holds::new();
        for process in server.processes() {
            let same = holds.keys().filter(|name| name.starts_with(&process.name)).count();
            let memory = memory(process.pid, "smaps_rollup", "Anonymous") >> 10;
            let descriptors = open_descriptors(process.pid).len();
            let name = format!("{} ({same})", process.name);
            holds.insert(name, [descriptors as f64, memory as f64]);
        }
        holds
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What each process held in some rounds: the fewest descriptors, since a look at a server takes
/// one for a moment, and the mean of its memory.
fn summary(rounds: &[Holds]) -> Holds {
    let least =
        |name: &String| rounds.iter().map(|round| round[name][0]).fold(f64::INFINITY, f64::min);
    let mean = |name: &String| {
        rounds.iter().map(|round| round[name][1]).sum::<f64>() / rounds.len() as f64
    };
    rounds[0].keys().map(|name| (name.clone(), [least(name), mean(name)])).collect()
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn endure(what: &str, setup: Setup) {
    let end = Instant::now() + Duration::from_secs(60 * number("SOAK_MINUTES", MINUTES));
    let reload_every = Duration::from_secs(number("SOAK_RELOAD_SECONDS", RELOAD_EVERY));
    let server = setup.set("user", r#""nobody""#).set("ping_interval", 0).start().await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Raw::upgraded(&server.address).await);
    }
    let lanes = Lanes::start(&server, what == "application");
    let mut rounds = Vec::new();
    while Instant::now() < end {
        tokio::time::sleep(reload_every).await;
        // Each worker is as old as the one before it was.
        let holds = lanes.at_rest(&server).await;
        println!("{what}: {} clients so far; {holds:?}", lanes.done.load(Ordering::Relaxed));
        rounds.push(holds);
        server.wsd(["reload"]).await.ok();
    }
    assert!(rounds.len() > 3, "too short to tell anything");
    // An allocator takes what the busiest moment needs, and keeps it: the manager of a program
    // with the C library's allocator takes more at each of the first seven reloads, and no more
    // behind them. So the first third does not count. What leaks grows in the others as well.
    let third = rounds.len() / 3;
    let (middle, last) = (rounds.len() - 2 * third, rounds.len() - third);
    let (before, after) = (summary(&rounds[middle..last]), summary(&rounds[last..]));
    for (name, [descriptors, memory]) in &before {
        let [descriptors_after, memory_after] = after[name];
        println!(
            "{what}, {name}: {descriptors:.1} descriptors, then {descriptors_after:.1}; \
             {memory:.0} KiB, then {memory_after:.0} ({:+.1} %)",
            (memory_after / memory - 1.0) * 100.0
        );
        assert!(descriptors_after <= *descriptors, "{what}: {name} has more descriptors");
        let most = (memory * 1.02).max(memory + SLACK_KIB);
        assert!(memory_after <= most, "{what}: {name} grows");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two hours and root; scripts/soak churn"]
async fn churn_with_reloads_leaves_every_process_as_it_was() {
    if !crate::security::rights::is_root() {
        return;
    }
    tokio::join!(
        endure("testbed", Setup::testbed()),
        endure("application", crate::security::rights::application())
    );
}
