//! The nemesis: one fault after the other, chosen by the seed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;
use wsd::ipc::control::Status;

use crate::daemon::{Daemon, is_alive, signal};
use crate::engine::Engine;
use crate::hosts::{HOST_OPS, HostFault, HostOp};
use crate::ledger::Harm;
use crate::pump::Pump;
use crate::rng::Rng;
use crate::world::{Leave, Seat, World};

/// Every slot is served again after so long, or it is a violation.
const RECOVERY: Duration = Duration::from_secs(30);
/// A process that was killed is gone after so long; one that hangs is found before.
const DEATH: Duration = Duration::from_secs(30);
const WORKERS_MAX: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Reload,
    Resize,
    Upgrade,
    KillWorker,
    StopWorker,
    HangWorker,
    KillManager,
    StopManager,
    Stall,
    Churn,
    Host(HostOp),
}

/// Each fault with its name on the command line and its share: of one server, and of several that
/// are a cluster.
pub fn all_ops(nodes: u64) -> Vec<(Op, &'static str, u64)> {
    let hosts = HOST_OPS.into_iter().filter(|_| nodes > 1);
    OPS.into_iter().chain(hosts.map(|(op, name, share)| (Op::Host(op), name, share))).collect()
}

const OPS: [(Op, &str, u64); 10] = [
    (Op::Reload, "reload", 20),
    (Op::Resize, "resize", 12),
    (Op::Upgrade, "upgrade", 8),
    (Op::KillWorker, "kill-worker", 10),
    (Op::StopWorker, "stop-worker", 8),
    (Op::HangWorker, "hang-worker", 1),
    (Op::KillManager, "kill-manager", 8),
    (Op::StopManager, "stop-manager", 5),
    (Op::Stall, "stall", 12),
    (Op::Churn, "churn", 16),
];

/// One server, and what stands between it and the engine of its cluster.
pub struct Node {
    pub daemon: Daemon,
    pub pump: Option<Pump>,
    image: &'static str,
}

impl Node {
    pub fn new(daemon: Daemon, pump: Option<Pump>) -> Node {
        Node { daemon, pump, image: "a" }
    }
}

pub struct Nemesis {
    pub world: Rc<World>,
    pub nodes: Vec<Node>,
    pub engine: Option<Engine>,
    pub rng: Rng,
    pub ops: Vec<(Op, &'static str, u64)>,
    /// What dead managers had refused when they were last asked.
    pub refused: u64,
}

impl Nemesis {
    pub fn new(
        world: Rc<World>,
        nodes: Vec<Node>,
        engine: Option<Engine>,
        ops: Vec<(Op, &'static str, u64)>,
    ) -> Nemesis {
        let rng = Rng::of(world.seed, 1);
        Nemesis { world, nodes, engine, rng, ops, refused: 0 }
    }

    /// Torments the server until then.
    pub async fn torment(&mut self, until: Instant) {
        while Instant::now() < until {
            let pause = self.rng.between(50, 800);
            sleep(Duration::from_millis(pause)).await;
            if let Some(op) = self.choose(|_| true) {
                self.apply(op).await;
            }
        }
    }

    /// Deploys so often, one after the other; each sixth is an upgrade, the others are reloads. Of
    /// a cluster each node in turn is reloaded, then each is upgraded, then each stopped and
    /// started.
    pub async fn deploy(&mut self, times: u64) {
        for time in 1..=times {
            let pause = self.rng.between(50, 400);
            sleep(Duration::from_millis(pause)).await;
            let nodes = self.nodes.len() as u64;
            let (round, place) = ((time - 1) / nodes, (time - 1) % nodes);
            let op = match (nodes, time % 6, round % 3) {
                (1, 0, _) | (2.., _, 1) => Op::Upgrade,
                (2.., _, 2) => Op::Host(HostOp::RestartNode),
                _ => Op::Reload,
            };
            self.apply_at(op, place as usize).await;
        }
    }

    fn choose(&mut self, may: impl Fn(Op) -> bool) -> Option<Op> {
        let ops: Vec<_> = self.ops.iter().filter(|(op, ..)| may(*op)).copied().collect();
        let total: u64 = ops.iter().map(|(.., share)| share).sum();
        let mut at = self.rng.between(0, total.max(1));
        ops.into_iter().find_map(|(op, _, share)| {
            let hit = at < share;
            at = at.saturating_sub(share);
            hit.then_some(op)
        })
    }

    async fn apply(&mut self, op: Op) {
        let place = self.rng.between(0, self.nodes.len() as u64) as usize;
        self.apply_at(op, place).await;
    }

    async fn apply_at(&mut self, op: Op, place: usize) {
        match op {
            Op::Reload => self.change(place, "reload").await,
            Op::Resize => {
                let worker_num = self.rng.between(1, WORKERS_MAX + 1);
                self.world.tell(&format!("node {place}: worker_num = {worker_num}"));
                if let Err(error) = self.nodes[place].daemon.configure(worker_num) {
                    self.world.violation(format!("cannot write the configuration: {error}"));
                }
                self.change(place, "reload").await;
            }
            Op::Upgrade => {
                let node = &mut self.nodes[place];
                node.image = if node.image == "a" { "b" } else { "a" };
                if let Err(error) = node.daemon.install(node.image) {
                    self.world.violation(format!("cannot install the image: {error}"));
                }
                self.change(place, "upgrade").await;
            }
            op => {
                let hurt = self.hurt(op, place);
                hurt.run(&self.world, &self.nodes, &mut self.engine, &mut self.refused).await;
            }
        }
    }

    /// A fault with all that is left to chance decided.
    fn hurt(&mut self, op: Op, place: usize) -> Hurt {
        let rng = &mut self.rng;
        let (dice, millis) = (rng.next(), rng.between(50, 1500));
        Hurt { op, place, dice, millis, rng: Rng::new(rng.next()) }
    }

    /// Reloads or upgrades a node, often with something else in the midst of it, there or at
    /// another.
    async fn change(&mut self, place: usize, command: &'static str) {
        let beside = if self.rng.percent(50) {
            self.choose(|op| match op {
                Op::Reload | Op::Resize | Op::Upgrade => false,
                Op::Host(op) => op.leaves_nodes_alone(),
                _ => true,
            })
        } else {
            None
        };
        let other = self.rng.between(0, self.nodes.len() as u64) as usize;
        let hurt = beside.map(|op| self.hurt(op, other));
        let delay = Duration::from_millis(self.rng.between(0, 400));
        let before = self.nodes[place].daemon.status().await;
        let Some(before) = before else {
            return self.world.violation("no status".to_owned());
        };
        if command == "upgrade" {
            // The manager of the old image leaves, with what it counted.
            self.refused += before.manager.refused;
        }
        let began = Instant::now();
        let fault = self.world.ledger.borrow_mut().fault(Harm::Reload, place as u64, 0);
        if command == "upgrade" && self.nodes.len() > 1 {
            self.world.ledger.borrow_mut().doubts();
        }
        let (world, nodes) = (&self.world, &self.nodes);
        let (engine, refused) = (&mut self.engine, &mut self.refused);
        let midst = async {
            if let Some(hurt) = hurt {
                sleep(delay).await;
                hurt.run(world, nodes, engine, refused).await;
            }
        };
        let (arguments, node) = ([command], &nodes[place]);
        let (done, ()) = tokio::join!(node.daemon.command(&arguments), midst);
        world.ledger.borrow_mut().fault_over(fault);
        let took = began.elapsed();
        let killed = world.ledger.borrow().was(Instant::now(), took, Duration::ZERO, |it| {
            matches!(it.what, Harm::KilledWorker | Harm::KilledManager)
        });
        match done {
            Ok(_) => world.tell(&format!("node {place}: {command} done after {took:.0?}")),
            Err(why) if killed => {
                world.tell(&format!("{command} failed after {took:.0?}, amid a kill: {why}"));
                world.ledger.borrow_mut().count("reloads that failed amid a kill");
                return;
            }
            Err(why) => return world.violation(why),
        }
        world.ledger.borrow_mut().count(if command == "upgrade" { "upgrades" } else { "reloads" });
        let image = node.daemon.image(before.master_pid);
        if command == "upgrade" && image != node.image {
            world.violation(format!("the master runs image {image:?}, not {}", node.image));
        }
    }
}

/// One fault.
struct Hurt {
    op: Op,
    /// Which node.
    place: usize,
    dice: u64,
    millis: u64,
    rng: Rng,
}

impl Hurt {
    async fn run(
        mut self,
        world: &World,
        nodes: &[Node],
        engine: &mut Option<Engine>,
        refused: &mut u64,
    ) {
        let (place, dice, millis) = (self.place, self.dice, self.millis);
        if let (Op::Host(op), Some(engine)) = (self.op, engine) {
            return HostFault { op, place, dice, millis }.run(world, nodes, engine).await;
        }
        let daemon = &nodes[place].daemon;
        let Some(status) = daemon.status().await else {
            return world.violation("no status".to_owned());
        };
        match self.op {
            Op::KillWorker => self.kill_worker(world, daemon, &status, Signal::SIGKILL).await,
            Op::HangWorker => self.kill_worker(world, daemon, &status, Signal::SIGSTOP).await,
            Op::StopWorker => self.stop(world, self.worker(&status), "worker").await,
            Op::StopManager => self.stop(world, status.manager_pid, "manager").await,
            Op::KillManager => {
                *refused += status.manager.refused;
                self.kill_manager(world, daemon, &status).await;
            }
            Op::Stall => self.stall(world),
            _ => self.churn(world),
        }
    }

    fn worker(&self, status: &Status) -> i32 {
        let count = status.workers.len().max(1);
        status.workers.get(self.dice as usize % count).map_or(0, |worker| worker.pid)
    }

    /// KILL ends it; after STOP the master has to find out and to kill it.
    async fn kill_worker(&self, world: &World, daemon: &Daemon, status: &Status, how: Signal) {
        let pid = self.worker(status);
        let fault = world.ledger.borrow_mut().fault(Harm::KilledWorker, self.place as u64, pid);
        if !signal(pid, how) {
            return world.ledger.borrow_mut().fault_over(fault);
        }
        let began = Instant::now();
        while is_alive(pid) && began.elapsed() < DEATH {
            sleep(Duration::from_millis(5)).await;
        }
        if is_alive(pid) {
            signal(pid, Signal::SIGKILL);
            world.violation(format!("{how} has not ended worker process {pid}"));
        }
        let dead = began.elapsed();
        let recovered = daemon.recovers(RECOVERY).await.is_some();
        world.ledger.borrow_mut().fault_over(fault);
        let took = began.elapsed();
        world.tell(&format!("{how} to worker {pid}: dead {dead:.0?}, all serve {took:.0?}"));
        world.ledger.borrow_mut().count(match how {
            Signal::SIGKILL => "worker kills",
            _ => "workers that hung",
        });
        if !recovered {
            world.violation(format!("not every slot is served {RECOVERY:?} after {how}"));
        }
    }

    async fn kill_manager(&self, world: &World, daemon: &Daemon, status: &Status) {
        let pid = status.manager_pid;
        let fault = world.ledger.borrow_mut().fault(Harm::KilledManager, self.place as u64, pid);
        let began = Instant::now();
        signal(pid, Signal::SIGKILL);
        while is_alive(pid) && began.elapsed() < DEATH {
            sleep(Duration::from_millis(5)).await;
        }
        world.ledger.borrow_mut().fault_over(fault);
        let next = daemon.status().await.map(|status| status.manager_pid);
        let took = began.elapsed();
        world.tell(&format!("SIGKILL to manager {pid}, {next:?} after {took:.0?}"));
        world.ledger.borrow_mut().count("manager kills");
        if next.is_none() || next == Some(pid) {
            world.violation(format!("no new manager after {took:?}"));
        }
    }

    /// Stops a process for less than it takes to be killed for it.
    async fn stop(&self, world: &World, pid: i32, what: &str) {
        signal(pid, Signal::SIGSTOP);
        sleep(Duration::from_millis(self.millis)).await;
        signal(pid, Signal::SIGCONT);
        world.tell(&format!("SIGSTOP to {what} {pid} for {} ms", self.millis));
        world.ledger.borrow_mut().count("stops");
    }

    /// Some clients stop reading, and everybody writes to one of them.
    fn stall(&mut self, world: &World) {
        let until = Instant::now() + Duration::from_millis(2 * self.millis);
        for seat in self.some(world, 3) {
            seat.stalled.set(Some(until));
            world.ledger.borrow_mut().stalls(seat.fd.get(), until);
            world.hot.set(Some((seat.fd.get(), until)));
        }
        world.tell(&format!("clients that do not read for {} ms", 2 * self.millis));
        world.ledger.borrow_mut().count("stalls");
    }

    /// Some clients leave; others come for them.
    fn churn(&mut self, world: &World) {
        let leave = if self.millis.is_multiple_of(2) { Leave::Politely } else { Leave::Abruptly };
        let most = world.seats.len() as u64 / 2;
        let stays = |seat: &Rc<Seat>| {
            world.seats.iter().take(world.staying as usize).any(|it| Rc::ptr_eq(it, seat))
        };
        let mut some = self.some(world, most);
        some.retain(|seat| !stays(seat));
        for seat in &some {
            seat.leave.set(Some(leave));
        }
        world.tell(&format!("{} clients leave {leave:?}", some.len()));
        world.ledger.borrow_mut().count("churns");
    }

    /// Seats that somebody sits on, at most so many.
    fn some(&mut self, world: &World, most: u64) -> Vec<Rc<Seat>> {
        let count = self.rng.between(1, most.max(1) + 1);
        let mut some: Vec<Rc<Seat>> = Vec::new();
        for _ in 0..count {
            if let Some(seat) = self.rng.pick(&world.seats)
                && seat.fd.get() != 0
                && !some.iter().any(|other| Rc::ptr_eq(other, seat))
            {
                some.push(seat.clone());
            }
        }
        some
    }
}
