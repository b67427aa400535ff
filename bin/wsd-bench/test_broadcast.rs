//! The broadcast test: one sends, all receive.

use crate::cli::Cli;
use crate::control::Control;
use crate::fan::{Fan, Pace, Rounds};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::run::{Outcome, report_cpu, run};
use crate::server::Server;
use crate::target::Target;
use crate::test_echo::{open, payload, share};
use crate::traffic::Traffic;
use crate::wire::{Expect, Shape, Template};

/// Rounds that may be under way where a clock sends them.
const RATE_WINDOW: usize = 4096;

/// Broadcasts, and counts what is delivered.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(100);
    let threads = cli.threads.min(connections);
    let payload = payload(cli.size());
    let shape = Shape { binary: cli.binary, packed: false, fragment: cli.fragment };
    let template = Template::new(&[b"broadcast ", &payload[..]].concat(), shape, cli.pipeline);
    let control = Control::new(threads, true)?;
    let window = if cli.rate.is_some() { RATE_WINDOW } else { cli.pipeline };
    let rounds = Rounds::new(window, threads);
    let pace = Pace { rate: cli.rate, total: cli.number.map(|number| number as u64) };
    let outcome = run(cli, &control, threads, server, |index| {
        let share = share(connections, threads, index);
        let first: usize = (0..index).map(|i| self::share(connections, threads, i)).sum();
        let clients = open(cli, target, first, share);
        control.wait_for_start();
        let worked = clients.and_then(|clients| {
            let sender = (index == 0).then_some(0);
            let mut work = Fan::new(&rounds, index, sender, (share, share), pace);
            let expect = Expect::Exactly(&payload);
            let mut traffic = Traffic::new(clients, &template, expect, &control, index)?;
            traffic.run(&mut work)?;
            Ok(traffic.stats)
        });
        worked.inspect_err(|_| control.finished())
    })?;
    Ok(report(cli, target, connections, outcome, server))
}

fn report(
    cli: &Cli,
    target: &Target,
    connections: usize,
    outcome: Outcome,
    server: Option<&Server>,
) -> Report {
    let mut report = Report::default();
    let flight = match cli.rate {
        Some(rate) => format!("{}/s", thousands(rate)),
        None => format!("{} in flight", cli.pipeline),
    };
    let what = format!("to {connections} clients, {flight}, {}", size(cli.size() as f64));
    report.line("broadcast", format!("{}   {what}", target.name));
    report.figure("test", "broadcast");
    report.figure("connections", connections);
    report.figure("pipeline", cli.pipeline);
    report.figure("size", cli.size());
    report.figure("rate", cli.rate);
    report.figure("seconds", outcome.seconds);
    report.figure("deliveries", outcome.messages);
    let per_second = outcome.messages as f64 / outcome.seconds;
    report.figure("deliveries_per_second", per_second);
    let rounds = thousands(per_second / connections as f64);
    let (rate, bytes) = (thousands(per_second), size(per_second * cli.size() as f64));
    report.line("deliveries", format!("{rate}/s   {bytes}/s   {rounds} broadcasts/s"));
    report.latency("latency", "latency_us", &outcome.stats.histogram);
    report_cpu(&mut report, &outcome, server, ("delivery", outcome.messages));
    report.errors(outcome.stats.errors);
    report
}
