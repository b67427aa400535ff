//! The nemesis of wsd: generator, faults and checker in one tool.
//!
//! It starts `nemesis_server`, lets clients echo, push, broadcast and publish numbered and
//! checksummed messages, join and leave, torments the server meanwhile, and holds what came
//! against what was asked. The seed decides which faults come in which order and what each client
//! asks; it is printed, and `--seed` takes it again. What the scheduler makes of it is not
//! repeated.

// A tool for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use account::History;
use daemon::Daemon;
use faults::{Nemesis, OPS};
use world::{Leave, World};

mod account;
mod client;
mod daemon;
mod faults;
mod ledger;
mod membership;
mod rng;
#[allow(dead_code, reason = "the server uses the rest")]
mod wire;
mod world;

const USAGE: &str = "\
nemesis [--seed N] [--minutes N | --seconds N | --deploys N] [--only FAULT,...] [--keep]
        [--clients N] [--pause-ms N] [--visitors N] [--user NAME]
        [--break drop|double|swap|corrupt|misroute|unclosed|unpublished|stranger|presence]

Torments a server and checks what it delivers: for a time, or with so many reloads and upgrades
and nothing else. A client asks and pauses, 15 ms on the mean; a visitor comes and leaves. Exit
status: 0 no violation, 1 violations, 2 wrong command line.";

/// An ask that is not settled after so long is judged.
const AGE: Duration = Duration::from_secs(45);
const SWEEP: Duration = Duration::from_secs(10);
/// The time everything has to come to rest.
const REST: Duration = Duration::from_secs(40);

struct Options {
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
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--keep" => options.keep = true,
            _ => take(&mut options, &name, arguments.next())?,
        }
    }
    let known = |name: &String| OPS.iter().any(|(_, known, _)| known == name);
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
        _ => return Err(format!("{name}: there is no such option")),
    }
    Ok(())
}

/// Runs it; the number of violations.
async fn run(options: Options) -> Result<u64, String> {
    let Options { seed, time, clients, visitors, .. } = options;
    println!("seed {seed}, {clients} clients, {visitors} visitors");
    let daemon = Daemon::start(options.broken, options.user, 2).await?;
    let world = Rc::new(World::new(seed, clients, options.pause));
    *world.address.borrow_mut() = daemon.address.clone();
    let seats: Vec<_> = (0..world.seats.len())
        .map(|index| tokio::task::spawn_local(client::sit(world.clone(), index)))
        .collect();
    for number in 0..visitors {
        tokio::task::spawn_local(client::visit(world.clone(), number));
    }
    let asked = |name: &str| options.only.as_ref().is_none_or(|o| o.iter().any(|n| n == name));
    let ops = OPS.into_iter().filter(|(_, name, _)| options.deploys.is_none() && asked(name));
    let ops = ops.collect();
    let mut nemesis = Nemesis::new(world.clone(), daemon, ops);
    let mut history = History::default();
    if let Some(times) = options.deploys {
        all_sit(&world).await;
        nemesis.deploy(times).await;
    }
    let until = Instant::now() + if options.deploys.is_none() { time } else { Duration::ZERO };
    while Instant::now() < until {
        nemesis.torment(until.min(Instant::now() + SWEEP)).await;
        history.read(&nemesis.daemon.history());
        account::sweep(&mut world.ledger.borrow_mut(), &history, AGE);
    }
    world.tell("rest");
    rest(&world, &nemesis.daemon, &mut history).await;
    for seat in seats {
        if tokio::time::timeout(REST, seat).await.is_err() {
            world.violation("a client did not come to its end".to_owned());
        }
    }
    end(&world, &nemesis, &mut history).await;
    let violations = world.ledger.borrow().violations;
    report(&world, seed);
    if options.keep || violations > 0 {
        println!("kept: {}", nemesis.daemon.keep().display());
    }
    Ok(violations)
}

/// Nobody asks any more; waits for what is on its way, judges what is missing, and lets all go.
async fn rest(world: &World, daemon: &Daemon, history: &mut History) {
    world.quiet.set(true);
    if daemon.recovers(REST).await.is_none() {
        world.violation("the server does not come to rest".to_owned());
    }
    let began = Instant::now();
    while !world.ledger.borrow().asks.is_empty() && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(100)).await;
    }
    history.read(&daemon.history());
    world.ledger.borrow_mut().judge_presence();
    account::sweep(&mut world.ledger.borrow_mut(), history, Duration::ZERO);
    world.over.set(true);
    for seat in &world.seats {
        seat.leave.set(Some(Leave::Politely));
    }
}

/// After the last client: the pairs, the counters, the stop.
async fn end(world: &World, nemesis: &Nemesis, history: &mut History) {
    let daemon = &nemesis.daemon;
    let began = Instant::now();
    let mut status = daemon.status().await;
    let mut even = false;
    while began.elapsed() < REST && !even {
        sleep(Duration::from_millis(100)).await;
        status = daemon.status().await;
        history.read(&daemon.history());
        even = history.is_even() && status.as_ref().is_some_and(|it| it.connections == 0);
    }
    match status {
        None => world.violation("no status at the end".to_owned()),
        Some(status) => {
            let mut ledger = world.ledger.borrow_mut();
            if status.connections > 0 {
                let left = status.connections;
                ledger.violation(format!("{left} connections are left when all have gone"));
            }
            account::judge_counters(&mut ledger, &status, nemesis.refused);
        }
    }
    history.judge(&mut world.ledger.borrow_mut());
    if let Err(why) = daemon.command(&["stop"]).await {
        world.violation(why);
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
