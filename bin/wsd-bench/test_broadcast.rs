//! The broadcast test: one sends, all receive.

use crate::cli::Cli;
use crate::crowd::{Crowd, payload};
use crate::fan::{Fan, Pace, Rounds};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::run::report_deliveries;
use crate::server::Server;
use crate::target::Target;
use crate::traffic::Traffic;
use crate::wire::{Expect, Shape, Template};

/// Rounds that may be under way where a clock sends them.
const RATE_WINDOW: usize = 4096;

/// Broadcasts, and counts what is delivered.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let crowd = Crowd::new(cli, target, server, 100, true)?;
    let payload = payload(cli.size());
    let shape = Shape { binary: cli.binary, packed: false, fragment: cli.fragment };
    let template = Template::new(&[b"broadcast ", &payload[..]].concat(), shape, cli.pipeline);
    let window = if cli.rate.is_some() { RATE_WINDOW } else { cli.pipeline };
    let rounds = Rounds::new(window, crowd.threads);
    let pace = Pace { rate: cli.rate, total: cli.number.map(|number| number as u64) };
    let outcome = crowd.run(Ok, |thread, clients| {
        let (part, sender) = (crowd.part(thread), (thread == 0).then_some(0));
        let mut fan = Fan::new(&rounds, thread, sender, (part, part), pace);
        let expect = Expect::Exactly(&payload);
        Traffic::new(clients, &template, expect, &crowd.control, thread)?.work(&mut fan)
    })?;
    let mut report = Report::default();
    let flight = match cli.rate {
        Some(rate) => format!("{}/s", thousands(rate)),
        None => format!("{} in flight", cli.pipeline),
    };
    let connections = crowd.connections;
    let what = format!("to {connections} clients, {flight}, {}", size(cli.size() as f64));
    report.line("broadcast", format!("{}   {what}", target.name));
    report.figure("test", "broadcast");
    report.figure("connections", connections);
    report.figure("pipeline", cli.pipeline);
    report.figure("size", cli.size());
    report.figure("rate", cli.rate);
    report_deliveries(&mut report, cli, outcome, server, ("broadcasts", connections));
    Ok(report)
}
