//! The nemesis of wsd: generator, faults and checker in one tool.
//!
//! It starts `nemesis_server`, lets clients echo, push, broadcast and publish numbered and
//! checksummed messages, join and leave, torments the server meanwhile, and holds what came
//! against what was asked. The seed decides which faults come in which order and what each client
//! asks; it is printed, and `--seed` takes it again. What the scheduler makes of it is not
//! repeated.

// A tool for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use wsd::ipc::control::Status;

use account::History;
use clock::Clock;
use daemon::{Daemon, Host, Manner};
use engine::Engine;
use faults::{Nemesis, Node, Op, all_ops};
use hosts::HostOp;
use pump::Pump;
use world::{Leave, World};

mod account;
mod addresses;
mod client;
mod clock;
mod daemon;
mod engine;
mod faults;
mod hosts;
mod ledger;
mod membership;
mod pump;
mod rng;
#[allow(dead_code, reason = "the server uses the rest")]
mod wire;
mod world;

const USAGE: &str = "\
nemesis [--nodes N] [--seed N] [--minutes N | --seconds N | --deploys N] [--only FAULT,...] [--keep]
        [--clients N] [--pause-ms N] [--visitors N] [--user NAME] [--engine PROGRAM]
        [--break drop|double|swap|corrupt|misroute|unclosed|unpublished|stranger|presence|
                 twice|ghost]

Torments a server, or a cluster of so many, and checks what it delivers: for a time, or with so
many reloads and upgrades and nothing else. A client asks and pauses, 15 ms on the mean; a visitor
comes and leaves. A cluster's engine is redis-server, or another program that takes the same
arguments, such as valkey-server. Exit status: 0 no violation, 1 violations, 2 wrong command line.";

/// Each has a client that stays, of a user of its own.
const NODES_MAX: u64 = wire::UIDS_ALL - wire::UIDS;
/// An ask that is not settled after so long is judged.
const AGE: Duration = Duration::from_secs(45);
const SWEEP: Duration = Duration::from_secs(10);
/// The time everything has to come to rest.
const REST: Duration = Duration::from_secs(40);

struct Options {
    nodes: u64,
    seed: u64,
    time: Duration,
    deploys: Option<u64>,
    clients: u64,
    pause: Duration,
    visitors: usize,
    only: Option<Vec<String>>,
    broken: Option<String>,
    keep: bool,
    user: Option<String>,
    engine: String,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("nemesis: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, run(options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("nemesis: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = Options {
        nodes: 1,
        seed: clock.map_or(0, |time| time.as_nanos() as u64 % 1_000_000_000),
        time: Duration::from_secs(30),
        deploys: None,
        clients: 16,
        pause: Duration::from_millis(15),
        visitors: 0,
        only: None,
        broken: None,
        keep: false,
        user: None,
        engine: "redis-server".to_owned(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--keep" => options.keep = true,
            _ => take(&mut options, &name, arguments.next())?,
        }
    }
    let ops = all_ops(options.nodes);
    let known = |name: &String| ops.iter().any(|(_, known, _)| known == name);
    match options.only.iter().flatten().find(|name| !known(name)) {
        Some(name) => Err(format!("{name}: there is no such fault")),
        None => Ok(options),
    }
}

/// Takes an option that has a value.
fn take(options: &mut Options, name: &str, value: Option<String>) -> Result<(), String> {
    let value = value.ok_or_else(|| format!("{name} wants a value"))?;
    let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: no number"));
    match name {
        "--nodes" => options.nodes = number()?.clamp(1, NODES_MAX),
        "--seed" => options.seed = number()?,
        "--seconds" => options.time = Duration::from_secs(number()?),
        "--minutes" => options.time = Duration::from_secs(60 * number()?),
        "--deploys" => options.deploys = Some(number()?),
        "--pause-ms" => options.pause = Duration::from_millis(number()?),
        "--visitors" => options.visitors = number()? as usize,
        "--clients" => options.clients = number()?.max(1),
        "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
        "--break" => options.broken = Some(value),
        "--user" => options.user = Some(value),
        "--engine" => options.engine = value,
        _ => return Err(format!("{name}: there is no such option")),
    }
    Ok(())
}

/// The faults that are asked for, of which a run of deploys has none.
fn ops(options: &Options) -> Vec<(Op, &'static str, u64)> {
    let asked = |name: &str| options.only.as_ref().is_none_or(|o| o.iter().any(|n| n == name));
    let ops = all_ops(options.nodes).into_iter();
    ops.filter(|(_, name, _)| options.deploys.is_none() && asked(name)).collect()
}

/// Starts the servers: one, or a cluster with its engine.
async fn start(options: &Options, home: &Path) -> Result<(Vec<Node>, Option<Engine>), String> {
    let history = daemon::make_history(home).map_err(|error| format!("history: {error}"))?;
    let (broken, user) = (options.broken.clone(), options.user.clone());
    let manner = Manner { broken, user, history };
    if options.nodes == 1 {
        return Ok((vec![Node::new(Daemon::start(manner, None, 2).await?, None)], None));
    }
    let ops = ops(options);
    let has = |wanted: HostOp| ops.iter().any(|(op, ..)| *op == Op::Host(wanted));
    let library = has(HostOp::MoveClock).then(|| clock::compile(home)).transpose()?;
    let clock = |of: &str| {
        let file = home.join(format!("clock-{of}"));
        library.as_ref().map(|library| Clock::new(library, file)).transpose()
    };
    let is_watched = has(HostOp::Failover);
    let engine = Engine::start(&options.engine, home, clock("engine")?, is_watched).await?;
    let mut nodes = Vec::new();
    for node in 0..options.nodes {
        let pump = Pump::start(engine.places()).map_err(|error| format!("a pump: {error}"))?;
        let (address, clock) = (engine.address(&pump.ports), clock(&node.to_string())?);
        let host = Host { node, engine: address, clock };
        nodes.push(Node::new(Daemon::start(manner.clone(), Some(host), 2).await?, Some(pump)));
    }
    Ok((nodes, Some(engine)))
}

/// Runs it; the number of violations.
async fn run(options: Options) -> Result<u64, String> {
    let Options { seed, time, clients, visitors, .. } = options;
    println!("seed {seed}, {} nodes, {clients} clients, {visitors} visitors", options.nodes);
    let mut home = daemon::directory()?;
    let (nodes, engine) = start(&options, home.path()).await?;
    let staying = if options.nodes > 1 { options.nodes } else { 0 };
    let world = Rc::new(World::new(seed, clients.max(staying), staying, options.pause));
    for node in &nodes {
        let address = node.daemon.find_address().await?;
        world.addresses.borrow_mut().push(address);
    }
    if engine.is_some() {
        hosts::heals(&world, &nodes).await;
        for (node, it) in (0..).zip(&nodes) {
            tokio::task::spawn_local(hosts::watch(world.clone(), node, it.daemon.runtime()));
        }
    }
    let seats: Vec<_> = (0..world.seats.len())
        .map(|index| tokio::task::spawn_local(client::sit(world.clone(), index)))
        .collect();
    for number in 0..visitors {
        tokio::task::spawn_local(client::visit(world.clone(), number));
    }
    let mut nemesis = Nemesis::new(world.clone(), nodes, engine, ops(&options));
    let mut history = History::default();
    if let Some(times) = options.deploys {
        all_sit(&world).await;
        nemesis.deploy(times).await;
    }
    let until = Instant::now() + if options.deploys.is_none() { time } else { Duration::ZERO };
    while Instant::now() < until {
        nemesis.torment(until.min(Instant::now() + SWEEP)).await;
        history.read(&nemesis.nodes[0].daemon.history());
        account::sweep(&mut world.ledger.borrow_mut(), &history, AGE);
    }
    world.tell("rest");
    rest(&world, &nemesis, &mut history).await;
    for seat in seats {
        if tokio::time::timeout(REST, seat).await.is_err() {
            world.violation("a client did not come to its end".to_owned());
        }
    }
    end(&world, &nemesis, &mut history).await;
    let violations = world.ledger.borrow().violations;
    report(&world, seed);
    if options.keep || violations > 0 {
        home.disable_cleanup(true);
        println!("kept: {}", home.path().display());
        for node in &mut nemesis.nodes {
            println!("kept: {}", node.daemon.keep().display());
        }
    }
    Ok(violations)
}

/// Nobody asks any more; waits for what is on its way, judges what is missing, and lets all go.
async fn rest(world: &World, nemesis: &Nemesis, history: &mut History) {
    world.quiet.set(true);
    for node in &nemesis.nodes {
        if node.daemon.recovers(REST).await.is_none() {
            world.violation("the server does not come to rest".to_owned());
        }
    }
    if nemesis.engine.is_some() {
        hosts::heals(world, &nemesis.nodes).await;
        sleep(2 * daemon::LEASE).await;
    }
    let began = Instant::now();
    while !world.ledger.borrow().asks.is_empty() && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(100)).await;
    }
    history.read(&nemesis.nodes[0].daemon.history());
    world.ledger.borrow_mut().judge_presence();
    account::sweep(&mut world.ledger.borrow_mut(), history, Duration::ZERO);
    world.over.set(true);
    for seat in &world.seats {
        seat.leave.set(Some(Leave::Politely));
    }
}

/// What the servers say of themselves, each that does.
async fn statuses(nemesis: &Nemesis) -> Vec<Status> {
    let mut all = Vec::new();
    for node in &nemesis.nodes {
        all.extend(node.daemon.status().await);
    }
    all
}

/// After the last client: the pairs, the counters, the stop.
async fn end(world: &World, nemesis: &Nemesis, history: &mut History) {
    let began = Instant::now();
    let mut all = statuses(nemesis).await;
    let mut even = false;
    while began.elapsed() < REST && !even {
        sleep(Duration::from_millis(100)).await;
        all = statuses(nemesis).await;
        history.read(&nemesis.nodes[0].daemon.history());
        even = history.is_even() && all.iter().all(|it| it.connections == 0);
    }
    if all.len() < nemesis.nodes.len() {
        world.violation("no status at the end".to_owned());
    }
    let left: u64 = all.iter().map(|it| it.connections).sum();
    if left > 0 {
        world.violation(format!("{left} connections are left when all have gone"));
    }
    account::judge_counters(&mut world.ledger.borrow_mut(), &all, nemesis.refused);
    history.judge(&mut world.ledger.borrow_mut());
    for node in &nemesis.nodes {
        if let Err(why) = node.daemon.command(&["stop"]).await {
            world.violation(why);
        }
    }
}

/// Waits until there is a client on every seat.
async fn all_sit(world: &World) {
    while world.seats.iter().any(|seat| seat.fd.get() == 0) {
        sleep(Duration::from_millis(100)).await;
    }
    world.tell("all are here");
}

fn report(world: &World, seed: u64) {
    let ledger = world.ledger.borrow();
    let took = ledger.began.elapsed().as_secs();
    println!("\nseed {seed}, {took} s: {} violations", ledger.violations);
    for (when, during) in [("in a deploy", true), ("between two", false)] {
        let silences = ledger.silences.iter().filter(|((.., it), _)| *it == during);
        let mut silences: Vec<_> = silences.map(|(_, silence)| silence).collect();
        silences.sort_unstable();
        if let Some(last) = silences.len().checked_sub(1) {
            let [p50, p99, max] = [50, 99, 100].map(|share| silences[last * share / 100]);
            println!(
                "a client's longest wait {when}: {p50:.1?} p50, {p99:.1?} p99, {max:.1?} max"
            );
        }
    }
    for (what, count) in &ledger.counts {
        println!("{count:>10}  {what}");
    }
}
