//! The nemesis: one fault after the other, chosen by the seed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;
use wsd::ipc::control::Status;

use crate::daemon::{Daemon, is_alive, signal};
use crate::ledger::Harm;
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
}

/// Each with its name on the command line and its share.
pub const OPS: [(Op, &str, u64); 10] = [
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

pub struct Nemesis {
    pub world: Rc<World>,
    pub daemon: Daemon,
    pub rng: Rng,
    pub ops: Vec<(Op, &'static str, u64)>,
    image: &'static str,
    /// What dead managers had refused when they were last asked.
    pub refused: u64,
}

impl Nemesis {
    pub fn new(world: Rc<World>, daemon: Daemon, ops: Vec<(Op, &'static str, u64)>) -> Nemesis {
        let rng = Rng::of(world.seed, 1);
        Nemesis { world, daemon, rng, ops, image: "a", refused: 0 }
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

    /// Deploys so often, one after the other; each sixth is an upgrade, the others are reloads.
    pub async fn deploy(&mut self, times: u64) {
        for time in 1..=times {
            let pause = self.rng.between(50, 400);
            sleep(Duration::from_millis(pause)).await;
            self.apply(if time % 6 == 0 { Op::Upgrade } else { Op::Reload }).await;
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
        match op {
            Op::Reload => self.change("reload").await,
            Op::Resize => {
                let worker_num = self.rng.between(1, WORKERS_MAX + 1);
                self.world.tell(&format!("worker_num = {worker_num}"));
                if let Err(error) = self.daemon.configure(worker_num) {
                    self.world.violation(format!("cannot write the configuration: {error}"));
                }
                self.change("reload").await;
            }
            Op::Upgrade => {
                self.image = if self.image == "a" { "b" } else { "a" };
                if let Err(error) = self.daemon.install(self.image) {
                    self.world.violation(format!("cannot install the image: {error}"));
                }
                self.change("upgrade").await;
            }
            op => {
                let hurt = self.hurt(op);
                hurt.run(&self.world, &self.daemon, &mut self.refused).await;
            }
        }
    }

    /// A fault with all that is left to chance decided.
    fn hurt(&mut self, op: Op) -> Hurt {
        let rng = &mut self.rng;
        Hurt { op, dice: rng.next(), millis: rng.between(50, 1500), rng: Rng::new(rng.next()) }
    }

    /// Reloads or upgrades, often with something else in the midst of it.
    async fn change(&mut self, command: &'static str) {
        let beside = if self.rng.percent(50) {
            self.choose(|op| !matches!(op, Op::Reload | Op::Resize | Op::Upgrade))
        } else {
            None
        };
        let hurt = beside.map(|op| self.hurt(op));
        let delay = Duration::from_millis(self.rng.between(0, 400));
        let before = self.daemon.status().await;
        let Some(before) = before else {
            return self.world.violation("no status".to_owned());
        };
        if command == "upgrade" {
            // The manager of the old image leaves, with what it counted.
            self.refused += before.manager.refused;
        }
        let began = Instant::now();
        let fault = self.world.ledger.borrow_mut().fault(Harm::Reload, 0);
        let (world, daemon, refused) = (&self.world, &self.daemon, &mut self.refused);
        let midst = async {
            if let Some(hurt) = hurt {
                sleep(delay).await;
                hurt.run(world, daemon, refused).await;
            }
        };
        let arguments = [command];
        let (done, ()) = tokio::join!(daemon.command(&arguments), midst);
        world.ledger.borrow_mut().fault_over(fault);
        let took = began.elapsed();
        let killed = world
            .ledger
            .borrow()
            .was(Instant::now(), took, Duration::ZERO, |it| it.what != Harm::Reload);
        match done {
            Ok(_) => world.tell(&format!("{command} done after {took:.0?}")),
            Err(why) if killed => {
                world.tell(&format!("{command} failed after {took:.0?}, amid a kill: {why}"));
                world.ledger.borrow_mut().count("reloads that failed amid a kill");
                return;
            }
            Err(why) => return world.violation(why),
        }
        world.ledger.borrow_mut().count(if command == "upgrade" { "upgrades" } else { "reloads" });
        let image = daemon.image(before.master_pid);
        if command == "upgrade" && image != self.image {
            world.violation(format!("the master runs image {image:?}, not {}", self.image));
        }
    }
}

/// One fault.
struct Hurt {
    op: Op,
    dice: u64,
    millis: u64,
    rng: Rng,
}

impl Hurt {
    async fn run(mut self, world: &World, daemon: &Daemon, refused: &mut u64) {
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
        let fault = world.ledger.borrow_mut().fault(Harm::KilledWorker, pid);
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
        let fault = world.ledger.borrow_mut().fault(Harm::KilledManager, pid);
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
        let some = self.some(world, most);
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
