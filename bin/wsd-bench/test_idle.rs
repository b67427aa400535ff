//! The idle test: connections that stand and do nothing, and what each costs in memory.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cli::Cli;
use crate::control::Control;
use crate::crowd::{open, payload};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::run::run;
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::traffic::{Client, Errors, Traffic, Work};
use crate::wire::{Expect, Shape, Template};

/// How many exchange their one message at the same time: the server is to be seen idle, not with
/// a crowd in flight.
const EXCHANGES: usize = 16;
/// What follows an exchange, for the server to give memory back.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens `-c` connections and holds them for `-d`; with `-s` each then exchanges one message.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(10_000);
    let look = || (server.and_then(Server::memory), server.map(Server::cpu));
    let (memory_before, cpu_before) = look();
    let since = Instant::now();
    let clients = open(cli, target, 0, connections)?;
    let seconds = since.elapsed().as_secs_f64();
    let cpu = server.map(Server::cpu).zip(cpu_before).map(|(after, before)| after - before);

    let mut idle = Idle { clients: Mutex::new(clients), errors: Errors::new() };
    idle.hold(cli, cli.duration)?;
    let held = look().0.zip(memory_before);
    let mut report = Report::default();
    report.line("idle", format!("{}   {connections} connections", target.name));
    report.figure("test", "idle");
    report.figure("connections", connections);
    let per_second = connections as f64 / seconds;
    report.figure("handshakes_per_second", per_second);
    let mut opened = format!("{}/s", thousands(per_second));
    if let Some(cpu) = cpu {
        let each = cpu * 1e6 / connections as f64;
        report.figure("server_cpu_us_per_handshake", each);
        opened += &format!("   {each:.1} µs of server CPU each");
    }
    report.line("handshakes", opened);
    memory_line(&mut report, ("memory", "memory_per_connection"), held, connections);
    if let Some(bytes) = cli.size {
        idle.exchange(cli, &payload(bytes))?;
        idle.hold(cli, SETTLE)?;
        let after = look().0.zip(memory_before);
        let key = "memory_per_connection_after_message";
        memory_line(&mut report, ("after", key), after, connections);
    }
    report.errors(idle.errors);
    Ok(report)
}

fn memory_line(
    report: &mut Report,
    (name, key): (&'static str, &str),
    memory: Option<(u64, u64)>,
    connections: usize,
) {
    let Some((now, before)) = memory else {
        report.line(name, "unknown: the server's processes are not in sight (--pid)");
        return;
    };
    let each = (now as f64 - before as f64) / connections as f64;
    report.figure(key, each);
    let (from, to) = (size(before as f64), size(now as f64));
    let text = format!("{each:.0} B per connection   PSS {from} -> {to}, kernel not included");
    report.line(name, text);
}

struct Idle {
    clients: Mutex<Vec<Client>>,
    errors: Errors,
}

impl Idle {
    /// Answers pings, and nothing else.
    fn hold(&mut self, cli: &Cli, time: Duration) -> Result<(), Fault> {
        self.work(cli, time, b"", |_| Exchange { next: 0, clients: 0, to_come: u64::MAX })
    }

    /// One message there and back on each, few at a time.
    fn exchange(&mut self, cli: &Cli, payload: &[u8]) -> Result<(), Fault> {
        let patient = Duration::from_secs(24 * 3600);
        self.work(cli, patient, payload, |clients| Exchange {
            next: 0,
            clients,
            to_come: clients as u64,
        })
    }

    fn work(
        &mut self,
        cli: &Cli,
        duration: Duration,
        payload: &[u8],
        make: impl Fn(usize) -> Exchange + Sync,
    ) -> Result<(), Fault> {
        let cli = Cli { duration, warmup: Some(Duration::ZERO), number: None, ..cli.clone() };
        let shape = Shape { binary: cli.binary, packed: false, fragment: cli.fragment };
        let template = Template::new(payload, shape, 1);
        let control = Control::new(1, false)?;
        let place = &self.clients;
        let outcome = run(&cli, &control, 1, None, |index| {
            control.wait_for_start();
            let mut lock = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let clients = std::mem::take(&mut *lock);
            let mut work = make(clients.len());
            let expect = Expect::Exactly(payload);
            let mut traffic = Traffic::new(clients, &template, expect, &control, index)?;
            traffic.run(&mut work)?;
            let stats = std::mem::take(&mut traffic.stats);
            *lock = traffic.into_clients();
            Ok(stats)
        })?;
        self.errors.extend(outcome.stats.errors);
        Ok(())
    }
}

/// Client after client sends one message.
struct Exchange {
    next: usize,
    clients: usize,
    to_come: u64,
}

impl Work for Exchange {
    fn arrived(&mut self, _client: usize, count: u64, _now: u64, stats: &mut Stats) -> u64 {
        stats.count(count);
        self.to_come = self.to_come.saturating_sub(count);
        0
    }

    fn tick(&mut self, _now: u64, send: &mut Vec<(usize, u64)>) -> Option<u64> {
        let in_flight = |next: usize, to_come: u64| next as u64 + to_come - self.clients as u64;
        while self.next < self.clients && in_flight(self.next, self.to_come) < EXCHANGES as u64 {
            send.push((self.next, 1));
            self.next += 1;
        }
        None
    }

    fn is_done(&self) -> bool {
        self.to_come == 0
    }
}
