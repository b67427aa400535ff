//! The join storm: each client joins and leaves rooms, again and again.

use crate::cli::Cli;
use crate::control::Control;
use crate::echo::Closed;
use crate::fault::Fault;
use crate::report::{Report, thousands};
use crate::run::{report_cpu, run};
use crate::server::Server;
use crate::target::Target;
use crate::test_echo::open;
use crate::traffic::Traffic;
use crate::wire::{Expect, Shape, Template};

/// Joins and leaves, and counts the joins.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(100);
    if cli.rate.is_some() || cli.threads > 1 {
        return Err(Fault::usage("join takes neither --rate nor --threads"));
    }
    let text = format!("storm {}", cli.rooms);
    let template = Template::new(text.as_bytes(), Shape::default(), cli.pipeline);
    let control = Control::new(1, false)?;
    let total = cli.number.map(|number| number as u64);
    let outcome = run(cli, &control, 1, server, |index| {
        let clients = open(cli, target, 0, connections);
        control.wait_for_start();
        let worked = clients.and_then(|clients| {
            let expect = Expect::Exactly(b"done");
            let mut traffic = Traffic::new(clients, &template, expect, &control, index)?;
            traffic.run(&mut Closed::new(connections, cli.pipeline, total))?;
            Ok(traffic.stats)
        });
        worked.inspect_err(|_| control.finished())
    })?;
    let joins = outcome.messages * cli.rooms as u64;
    let per_second = joins as f64 / outcome.seconds;
    let mut report = Report::default();
    let what = format!("{connections} clients join and leave {} rooms", cli.rooms);
    report.line("join", format!("{}   {what}", target.name));
    report.figure("test", "join");
    report.figure("connections", connections);
    report.figure("rooms", cli.rooms);
    report.figure("seconds", outcome.seconds);
    report.figure("joins", joins);
    report.figure("joins_per_second", per_second);
    report.line("joins", format!("{}/s, and as many leaves", thousands(per_second)));
    report.latency("latency", "latency_us", &outcome.stats.histogram);
    report_cpu(&mut report, &outcome, server, ("join and leave", joins));
    report.errors(outcome.stats.errors);
    Ok(report)
}
