//! Faults of several hosts: nodes that end or stand still, couriers, the engine, and the ways
//! between.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;
use wsd::ipc::control::ClusterReport;

use crate::account::GAPS_TOLD;
use crate::clock::{BACK, setting};
use crate::daemon::{Daemon, LEASE, children, is_alive, signal, status_at, title};
use crate::engine::{Engine, Failover};
use crate::faults::Node;
use crate::ledger::{ALL, Harm};
use crate::pump::Pump;
use crate::world::World;

/// Every node sees all others again after so long, or it is a violation.
const HEAL: Duration = Duration::from_secs(30);
/// Processes that were killed are gone after so long.
const DEATH: Duration = Duration::from_secs(30);
/// Between two looks at what a node tells.
const LOOK: Duration = Duration::from_millis(250);
/// What stands still for no longer costs nothing but time.
const SHORT: Duration = Duration::from_millis(1_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostOp {
    KillNode,
    RestartNode,
    FreezeNode,
    Twin,
    KillCourier,
    StopCourier,
    KillEngine,
    StopEngine,
    Failover,
    Cut,
    Stall,
    Slow,
    MoveClock,
}

/// Each with its name on the command line and its share.
pub const HOST_OPS: [(HostOp, &str, u64); 13] = [
    (HostOp::KillNode, "kill-node", 8),
    (HostOp::RestartNode, "restart-node", 6),
    (HostOp::FreezeNode, "freeze-node", 6),
    (HostOp::Twin, "twin", 3),
    (HostOp::KillCourier, "kill-courier", 10),
    (HostOp::StopCourier, "stop-courier", 6),
    (HostOp::KillEngine, "kill-engine", 8),
    (HostOp::StopEngine, "stop-engine", 8),
    (HostOp::Failover, "failover", 6),
    (HostOp::Cut, "cut", 12),
    (HostOp::Stall, "stall-link", 10),
    (HostOp::Slow, "slow-link", 8),
    (HostOp::MoveClock, "move-clock", 10),
];

impl HostOp {
    /// Whether it may come in the midst of a reload.
    pub fn leaves_nodes_alone(self) -> bool {
        !matches!(self, HostOp::KillNode | HostOp::RestartNode | HostOp::FreezeNode | HostOp::Twin)
    }
}

/// One fault.
pub struct HostFault {
    pub op: HostOp,
    /// Which node.
    pub place: usize,
    pub dice: u64,
    pub millis: u64,
}

impl HostFault {
    pub async fn run(self, world: &World, nodes: &[Node], engine: &mut Engine) {
        let (node, op) = (&nodes[self.place], self.op);
        match op {
            HostOp::KillNode | HostOp::RestartNode => {
                self.end_node(world, &node.daemon, engine).await
            }
            HostOp::FreezeNode => self.freeze_node(world, &node.daemon).await,
            HostOp::Twin => self.start_twin(world, &node.daemon).await,
            HostOp::KillCourier => {
                let courier = courier(&node.daemon).await;
                let harm = async { _ = signal(courier, Signal::SIGKILL) };
                self.break_ways(world, nodes, Harm::CutOff, harm).await;
            }
            HostOp::Cut => {
                let harm = async { node.pump.iter().for_each(Pump::cut) };
                self.break_ways(world, nodes, Harm::CutOff, harm).await;
            }
            HostOp::KillEngine => {
                let mut started = Ok(());
                let harm = async {
                    engine.kill();
                    sleep(self.pause()).await;
                    started = engine.start_again().await;
                };
                self.break_ways(world, nodes, Harm::Away, harm).await;
                if let Err(why) = started {
                    world.violation(why);
                }
            }
            HostOp::Failover => self.fail_over(world, nodes, engine).await,
            HostOp::MoveClock => self.move_clock(world, nodes, engine).await,
            _ => self.hold_up(world, node, engine).await,
        }
        world.ledger.borrow_mut().count(counted_as(op));
        heals(world, nodes).await;
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    fn fault(&self, world: &World, what: Harm) -> usize {
        let node = if what == Harm::Away { ALL } else { self.place as u64 };
        world.ledger.borrow_mut().fault(what, node, 0)
    }

    /// Something breaks the connections of one node, or of all where the engine is away. Each has
    /// to make another, and to count that something may be lost.
    async fn break_ways(
        &self,
        world: &World,
        nodes: &[Node],
        what: Harm,
        harm: impl Future<Output = ()>,
    ) {
        let all = what == Harm::Away;
        let fault = self.fault(world, what);
        let hit = || nodes.iter().enumerate().filter(|(place, _)| all || *place == self.place);
        let mut before = Vec::new();
        for (_, node) in hit() {
            before.push(report(&node.daemon).await.unwrap_or_default());
        }
        let began = Instant::now();
        harm.await;
        for ((place, node), before) in hit().zip(before) {
            let counted = async {
                loop {
                    let now = report(&node.daemon).await.unwrap_or_default();
                    let is_new = now.connects > before.connects && now.gaps > before.gaps;
                    if is_new && now.away_since.is_none() {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(HEAL, counted).await.is_err() {
                let now = report(&node.daemon).await;
                let what = format!("{before:?}, then {now:?}");
                world.violation(format!("node {place} has not come back and counted: {what}"));
            }
        }
        heals(world, nodes).await;
        world.ledger.borrow_mut().fault_over(fault);
        let (op, took) = (self.op, began.elapsed());
        world.tell(&format!("{op:?} of node {}: all see each other {took:.0?}", self.place));
    }

    /// Sentinels have the replica take the master's place, which every node finds.
    async fn fail_over(&self, world: &World, nodes: &[Node], engine: &mut Engine) {
        let ways = [Failover::Killed, Failover::Stopped, Failover::Asked];
        let how = ways[(self.dice % 3) as usize];
        if let Err(why) = engine.can_fail_over().await {
            return world.violation(why);
        }
        let mut done = Ok(());
        let harm = async { done = engine.fail_over(how).await };
        self.break_ways(world, nodes, Harm::Away, harm).await;
        match done {
            Ok(()) => world.tell(&format!("a replica is the master: {how:?}")),
            Err(why) => world.violation(why),
        }
    }

    /// The wall clock of the engine or of a node is set, and stays so. It costs nothing, unless
    /// the engine's goes forward, by which every lease has ended: then nobody is dead by that.
    async fn move_clock(&self, world: &World, nodes: &[Node], engine: &Engine) {
        let daemon = &nodes[self.place].daemon;
        let is_engine = self.dice.is_multiple_of(3);
        let clock = if is_engine { engine.clock.as_ref() } else { daemon.clock() };
        let Some(clock) = clock else { return };
        let pid = match daemon.status().await {
            _ if is_engine => engine.pid(),
            status => status.map_or(0, |status| status.master_pid),
        };
        if !comes_true(async || clock.is_of(pid)).await {
            return world.violation(format!("process {pid} has not the clock that is moved"));
        }
        let (before, ahead) = (clock.ahead(), setting(self.dice / 3));
        let mut moved = Ok(());
        let harm = async { moved = clock.set(ahead) };
        if is_engine && ahead > before {
            self.break_ways(world, nodes, Harm::Away, harm).await;
        } else {
            harm.await;
        }
        if is_engine && ahead < before {
            // A node that died before it has renewed its lease would keep its number for as long
            // as the clock went back.
            sleep(LEASE).await;
        }
        let whose =
            if is_engine { "the engine".to_owned() } else { format!("node {}", self.place) };
        match moved {
            Ok(()) => world.tell(&format!("the clock of {whose}: {before} s, then {ahead} s")),
            Err(error) => world.violation(format!("the clock of {whose}: {error}")),
        }
    }

    /// What stands still or is slow for a while: for a short one nothing is lost.
    async fn hold_up(&self, world: &World, node: &Node, engine: &Engine) {
        let is_long = self.dice.is_multiple_of(2) && self.op != HostOp::StopCourier;
        let time = if is_long { LEASE + self.pause() } else { self.pause().min(SHORT) };
        let what = if self.op == HostOp::StopEngine { Harm::Away } else { Harm::CutOff };
        let is_harm = is_long && self.op != HostOp::Slow;
        let fault = is_harm.then(|| self.fault(world, what));
        let pump = node.pump.iter();
        match self.op {
            HostOp::StopCourier => {
                let courier = courier(&node.daemon).await;
                signal(courier, Signal::SIGSTOP);
                sleep(time).await;
                signal(courier, Signal::SIGCONT);
            }
            HostOp::StopEngine => {
                engine.signal(Signal::SIGSTOP);
                sleep(time).await;
                engine.signal(Signal::SIGCONT);
            }
            HostOp::Slow => {
                let delay = Duration::from_millis(self.dice % 150);
                pump.clone().for_each(|pump| pump.delay(delay));
                sleep(time).await;
                pump.for_each(|pump| pump.delay(Duration::ZERO));
            }
            _ => {
                pump.clone().for_each(|pump| pump.shut(true));
                sleep(time).await;
                pump.for_each(|pump| pump.shut(false));
            }
        }
        world.tell(&format!("{:?} of node {} for {time:.0?}", self.op, self.place));
        if let Some(fault) = fault {
            // What the engine has said is true again once each has heard from it.
            sleep(SHORT).await;
            if !sees_all_soon(node).await {
                world.violation(format!("node {} does not come back", self.place));
            }
            world.ledger.borrow_mut().fault_over(fault);
        }
    }

    /// The node ends, politely or not, and is started again.
    async fn end_node(&self, world: &World, daemon: &Daemon, engine: &Engine) {
        let Some(status) = daemon.status().await else {
            return world.violation("no status".to_owned());
        };
        let fault = self.fault(world, Harm::Node);
        let mut all = children(status.master_pid);
        all.push(status.master_pid);
        let polite = self.op == HostOp::RestartNode;
        if polite {
            if let Err(why) = daemon.command(&["stop"]).await {
                world.violation(why);
            }
            let lease = engine.ask(&format!("EXISTS wsd:wsd:lease:{}", self.place)).await;
            if lease.is_some_and(|lease| lease.starts_with(":1")) {
                world.violation(format!("node {} has left and kept its lease", self.place));
            }
        } else {
            // The whole host, or the master alone, which the others follow.
            let whole = self.dice.is_multiple_of(2);
            signal(status.master_pid, if whole { Signal::SIGSTOP } else { Signal::SIGKILL });
            for pid in all.iter().filter(|_| whole) {
                signal(*pid, Signal::SIGKILL);
            }
        }
        let began = Instant::now();
        while all.iter().any(|pid| is_alive(*pid)) && began.elapsed() < DEATH {
            sleep(Duration::from_millis(5)).await;
        }
        let noted = daemon.note(&format!("dead {}", self.place));
        noted.expect("note the death");
        if self.dice.is_multiple_of(5) {
            self.lose_numbers(world, daemon);
        }
        let is_long = self.dice % 4 < 2;
        sleep(if is_long { LEASE + self.pause() } else { self.pause() }).await;
        if let Err(why) = daemon.command(&["start", "-d"]).await {
            world.violation(why);
        }
        match daemon.find_address().await {
            Ok(address) => world.addresses.borrow_mut()[self.place] = address,
            Err(why) => world.violation(why),
        }
        world.ledger.borrow_mut().fault_over(fault);
        let took = began.elapsed();
        world.tell(&format!("{:?} {}: started again {took:.0?}", self.op, self.place));
    }

    /// Of what says which numbers of clients were given, the engine alone is left to the node: its
    /// file is lost, and its clock set back.
    fn lose_numbers(&self, world: &World, daemon: &Daemon) {
        let Some(clock) = daemon.clock() else { return };
        let lost = std::fs::remove_file(daemon.runtime().join("serials"));
        match lost.and_then(|()| clock.set(BACK)) {
            Ok(()) => {
                world.tell(&format!("node {}: its file of numbers is lost", self.place));
                world.ledger.borrow_mut().count("files of numbers that were lost");
            }
            Err(error) => world.violation(format!("lose the file of numbers: {error}")),
        }
    }

    /// Every process of the node stands still, for a moment or until it is dead for the others.
    async fn freeze_node(&self, world: &World, daemon: &Daemon) {
        let Some(status) = daemon.status().await else {
            return world.violation("no status".to_owned());
        };
        let fault = self.fault(world, Harm::CutOff);
        let is_long = self.dice.is_multiple_of(3);
        let time = if is_long { LEASE + self.pause() } else { self.pause() };
        signal(status.master_pid, Signal::SIGSTOP);
        let children = children(status.master_pid);
        for how in [Signal::SIGSTOP, Signal::SIGCONT] {
            children.iter().for_each(|pid| _ = signal(*pid, how));
            if how == Signal::SIGSTOP {
                sleep(time).await;
            }
        }
        signal(status.master_pid, Signal::SIGCONT);
        world.tell(&format!("SIGSTOP to all of node {} for {time:.0?}", self.place));
        sleep(SHORT).await;
        world.ledger.borrow_mut().fault_over(fault);
    }

    /// Another server with the same number may not start, and names the first.
    async fn start_twin(&self, world: &World, daemon: &Daemon) {
        let number = format!("node {}", self.place);
        match daemon.start_twin().await {
            Ok(said) => world.violation(format!("a second {number} serves: {said}")),
            Err(said) if said.contains(&number) && said.contains("cluster.node") => {
                world.tell(&format!("a second {number} is refused"));
            }
            Err(said) => world.violation(format!("a second {number} is refused so: {said}")),
        }
    }
}

fn counted_as(op: HostOp) -> &'static str {
    match op {
        HostOp::KillNode => "node kills",
        HostOp::RestartNode => "nodes that were stopped and started",
        HostOp::FreezeNode => "nodes that stood still",
        HostOp::Twin => "second nodes of one number",
        HostOp::KillCourier => "courier kills",
        HostOp::StopCourier => "couriers that stood still",
        HostOp::KillEngine => "engines killed and started empty",
        HostOp::StopEngine => "engines that stood still",
        HostOp::Failover => "failovers by Sentinels",
        HostOp::Cut => "connections to the engine that were cut",
        HostOp::Stall => "connections to the engine that stalled",
        HostOp::Slow => "connections to the engine that were slow",
        HostOp::MoveClock => "clocks that were moved",
    }
}

async fn report(daemon: &Daemon) -> Option<ClusterReport> {
    daemon.status().await?.cluster
}

async fn courier(daemon: &Daemon) -> i32 {
    let master = daemon.status().await.map_or(0, |status| status.master_pid);
    let mut children = children(master).into_iter();
    children.find(|pid| title(*pid) == "wsd: courier").unwrap_or(0)
}

/// Whether a node has the engine and comes to see it.
async fn sees_all_soon(node: &Node) -> bool {
    let sees = async || report(&node.daemon).await.is_some_and(|it| it.away_since.is_none());
    comes_true(sees).await
}

/// Whether something is so before long.
async fn comes_true(is_so: impl AsyncFn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < HEAL {
        if is_so().await {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Notes, as long as the run lasts, when a node says that it cannot reach the engine or counts a
/// gap: whatever the cause, what is lost by that is counted.
pub async fn watch(world: Rc<World>, node: u64, runtime: PathBuf) {
    let mut gaps = 0;
    let mut fault = None;
    while !world.over.get() {
        sleep(LOOK).await;
        let Some(status) = status_at(runtime.clone()).await else { continue };
        let Some(report) = status.cluster else { continue };
        // A node that was started anew counts from nothing.
        let is_hit = report.away_since.is_some() || report.gaps > gaps;
        gaps = report.gaps;
        let mut ledger = world.ledger.borrow_mut();
        match (is_hit, fault) {
            (true, None) => fault = Some(ledger.fault(Harm::CutOff, node, 0)),
            (false, Some(number)) => {
                ledger.fault_over(number);
                ledger.count(GAPS_TOLD);
                fault = None;
            }
            _ => {}
        }
    }
}

/// Waits until every node has the engine and sees all others.
pub async fn heals(world: &World, nodes: &[Node]) {
    let count = nodes.len() as u64;
    let began = Instant::now();
    for (place, node) in nodes.iter().enumerate() {
        loop {
            let report = report(&node.daemon).await;
            let sees = |it: &ClusterReport| it.away_since.is_none() && it.nodes == count;
            if report.as_ref().is_some_and(sees) {
                break;
            }
            if began.elapsed() > HEAL {
                return world.violation(format!("node {place} does not see all: {report:?}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
