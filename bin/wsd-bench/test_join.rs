//! The join storm: each client joins and leaves rooms, again and again.

use crate::cli::Cli;
use crate::crowd::Crowd;
use crate::echo::Closed;
use crate::fault::Fault;
use crate::report::{Report, thousands};
use crate::run::report_end;
use crate::server::Server;
use crate::target::Target;
use crate::traffic::Traffic;
use crate::wire::{Expect, Shape, Template};

/// Joins and leaves, and counts the joins.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    if cli.rate.is_some() || cli.threads > 1 {
        return Err(Fault::usage("join takes neither --rate nor --threads"));
    }
    let crowd = Crowd::new(cli, target, server, 100, false)?;
    let connections = crowd.connections;
    let text = format!("storm {}", cli.rooms);
    let template = Template::new(text.as_bytes(), Shape::default(), cli.pipeline);
    let total = cli.number.map(|number| number as u64);
    let outcome = crowd.run(Ok, |thread, clients| {
        let mut work = Closed::new(connections, cli.pipeline, total);
        let expect = Expect::Exactly(b"done");
        Traffic::new(clients, &template, expect, &crowd.control, thread)?.work(&mut work)
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
    report_end(&mut report, outcome, server, ("join and leave", joins));
    Ok(report)
}
