//! The connect storm: handshake after handshake, each connection reset when it stands.

use crate::cli::Cli;
use crate::control::{Control, Phase};
use crate::crowd::{PARALLEL, share};
use crate::fault::Fault;
use crate::opener::{Plan, open_all};
use crate::report::{Report, thousands};
use crate::run::{report_end, run};
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;

/// Opens as many connections as it can.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let parallel = cli.connections.unwrap_or(PARALLEL);
    let threads = cli.threads.min(parallel);
    let control = Control::new(threads, false)?;
    let outcome = run(cli, &control, threads, server, |index| {
        let plan = Plan {
            count: cli.number.map_or(usize::MAX, |number| share(number, threads, index)),
            first: None,
            parallel: share(parallel, threads, index),
            patience: cli.timeout,
        };
        control.wait_for_start();
        let mut stats = Stats::default();
        let opened = open_all(target, plan, |opened| {
            stats.recording = control.phase() == Phase::Measure;
            stats.count(1);
            stats.latency(u64::try_from(opened.took.as_nanos()).unwrap_or(u64::MAX));
            control.report(index, stats.messages());
            control.phase() != Phase::Stop
        });
        control.finished();
        opened.map(|()| stats)
    })?;
    let mut report = Report::default();
    let per_second = outcome.per_second();
    report.line("connect", format!("{}   {parallel} handshakes at a time", target.name));
    report.figure("test", "connect");
    report.figure("connections", parallel);
    report.figure("seconds", outcome.seconds);
    report.figure("handshakes", outcome.messages);
    report.figure("handshakes_per_second", per_second);
    let count = thousands(outcome.messages as f64);
    let (rate, seconds) = (thousands(per_second), outcome.seconds);
    report.line("handshakes", format!("{rate}/s   {count} in {seconds:.2} s"));
    let unit = ("handshake", outcome.messages);
    report_end(&mut report, outcome, server, unit);
    Ok(report)
}
