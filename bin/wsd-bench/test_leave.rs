//! The mass disconnect: all members of rooms with presence leave at once, while others come.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::Cli;
use crate::crowd::open;
use crate::fault::Fault;
use crate::opener::{Plan, open_all};
use crate::report::{Report, thousands};
use crate::run::{Outcome, report_cpu};
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::test_close::close_all;
use crate::test_publish::enter_all;

/// What the names of the rooms begin with, for the server to give them presence.
const PRESENCE: &str = "presence-";

/// Opens `-c` connections in `--rooms` rooms, then closes them all. New handshakes are timed from
/// the first close on, until the last is answered.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(10_000);
    let clients = open(cli, target, 0, connections)?;
    let mut clients = enter_all(clients, PRESENCE, cli.rooms, cli.each)?;
    let over = AtomicBool::new(false);
    let mut came = Stats::default();
    let outcome = Outcome::of(server, || {
        let (closed, handshakes) = std::thread::scope(|scope| {
            let coming = scope.spawn(|| handshakes(cli, target, &over));
            let closed = close_all(cli, &mut clients);
            over.store(true, Ordering::Release);
            (closed, coming.join())
        });
        came = handshakes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        closed
    })?;
    let mut report = Report::default();
    let members = connections * cli.each / cli.rooms;
    let what = format!("{} rooms of {members} with presence, all at once", cli.rooms);
    report.line("leave", format!("{}   {what}", target.name));
    report.figure("test", "leave");
    report.figure("connections", connections);
    report.figure("rooms", cli.rooms);
    report.figure("members", members);
    report.figure("seconds", outcome.seconds);
    report.figure("closed", outcome.messages);
    let (count, seconds) = (thousands(outcome.messages as f64), outcome.seconds);
    report.line("closes", format!("{count} answered in {seconds:.2} s"));
    report.latency("closes", "latency_us", &outcome.stats.histogram);
    report.figure("handshakes", came.messages());
    report.latency("handshakes", "handshake_latency_us", &came.histogram);
    report_cpu(&mut report, &outcome, server, ("close", outcome.messages));
    report.errors(outcome.stats.errors);
    Ok(report)
}

/// One handshake after the other, at least one.
fn handshakes(cli: &Cli, target: &Target, over: &AtomicBool) -> Result<Stats, Fault> {
    let mut stats = Stats::recording();
    let plan = Plan { count: usize::MAX, first: None, parallel: 1, patience: cli.timeout };
    open_all(target, plan, |opened| {
        stats.count(1);
        stats.latency(u64::try_from(opened.took.as_nanos()).unwrap_or(u64::MAX));
        !over.load(Ordering::Acquire)
    })?;
    Ok(stats)
}
