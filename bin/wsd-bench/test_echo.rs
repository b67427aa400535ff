//! The echo test.

use crate::cli::Cli;
use crate::control::Control;
use crate::echo::{Closed, Open};
use crate::fault::Fault;
use crate::opener::{Plan, open_all};
use crate::report::{Report, size, thousands};
use crate::run::{Outcome, report_cpu, run};
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::traffic::{Client, Traffic};
use crate::wire::{Expect, Shape, Template};

/// Handshakes under way at once: below any server's backlog.
pub const PARALLEL: usize = 64;

/// Sends and counts what comes back.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(100);
    let threads = cli.threads.min(connections);
    let payload = payload(cli.size());
    let control = Control::new(threads, false)?;
    let outcome = run(cli, &control, threads, server, |index| {
        let share = share(connections, threads, index);
        let first: usize = (0..index).map(|other| self::share(connections, threads, other)).sum();
        let clients = open(cli, target, first, share);
        control.wait_for_start();
        let worked = clients.and_then(|clients| {
            let total = cli.number.map(|n| self::share(n, threads, index) as u64);
            let rate = cli.rate.map(|rate| rate * share as f64 / connections as f64);
            work(cli, &control, index, clients, &payload, (total, rate))
        });
        // One that failed is done as well, or the others would be waited for in vain.
        worked.inspect_err(|_| control.finished())
    })?;
    Ok(report(cli, target, connections, outcome, server))
}

/// Opens `share` connections, the first of which is number `first`.
pub fn open(cli: &Cli, target: &Target, first: usize, share: usize) -> Result<Vec<Client>, Fault> {
    let mut clients = Vec::with_capacity(share);
    let plan =
        Plan { count: share, first: Some(first), parallel: PARALLEL, patience: cli.timeout };
    open_all(target, plan, |opened| {
        clients.push(Client::new(opened));
        true
    })?;
    Ok(clients)
}

fn work(
    cli: &Cli,
    control: &Control,
    index: usize,
    clients: Vec<Client>,
    payload: &[u8],
    (total, rate): (Option<u64>, Option<f64>),
) -> Result<Stats, Fault> {
    let packed = cli.deflate && clients.iter().all(|client| client.opened.deflate);
    if cli.deflate && !packed {
        return Err(Fault::server("the server does not agree to permessage-deflate"));
    }
    let shape = Shape { binary: cli.binary, packed, fragment: cli.fragment };
    let sent = if packed { deflated(payload) } else { payload.to_vec() };
    let copies = if rate.is_some() { usize::MAX } else { cli.pipeline };
    let template = Template::new(&sent, shape, copies);
    let expect = match cli.any_reply {
        true => Expect::Anything,
        false => Expect::Exactly(payload),
    };
    let count = clients.len();
    let mut traffic = Traffic::new(clients, &template, expect, control, index)?;
    match rate {
        Some(rate) => traffic.run(&mut Open::new(count, rate, total))?,
        None => traffic.run(&mut Closed::new(count, cli.pipeline, total))?,
    }
    Ok(traffic.stats)
}

/// The `index`th of `parts` nearly equal parts.
pub fn share(whole: usize, parts: usize, index: usize) -> usize {
    whole / parts + usize::from(index < whole % parts)
}

/// Text that compresses about as well as the JSON of a chat does.
pub fn payload(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut text = Vec::with_capacity(size + 64);
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(
            format!("{{\"room\":\"lobby\",\"id\":{state},\"text\":").as_bytes(),
        );
    }
    text.truncate(size);
    text
}

/// As RFC 7692 section 7.2.1 wants it: raw, flushed, without the last four bytes.
fn deflated(payload: &[u8]) -> Vec<u8> {
    use flate2::{Compress, Compression, FlushCompress};
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 100 + 64);
    let mut compress = Compress::new(Compression::fast(), false);
    // There is room for the worst case, so that one call is enough and cannot fail.
    let _ = compress.compress_vec(payload, &mut out, FlushCompress::Sync);
    out.truncate(out.len().saturating_sub(4));
    out
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
        Some(rate) => format!("open loop at {}/s", thousands(rate)),
        None => format!("{} in flight", cli.pipeline),
    };
    let what = format!("{connections} connections, {flight}, {}", size(cli.size() as f64));
    report.line("echo", format!("{}   {what}", target.name));
    report.figure("test", "echo");
    report.figure("connections", connections);
    report.figure("pipeline", cli.pipeline);
    report.figure("size", cli.size());
    report.figure("rate", cli.rate);
    report.figure("seconds", outcome.seconds);
    report.figure("messages", outcome.messages);
    let per_second = outcome.messages as f64 / outcome.seconds;
    report.figure("messages_per_second", per_second);
    let count = thousands(outcome.messages as f64);
    let bytes = size(per_second * cli.size() as f64);
    let rate = thousands(per_second);
    let seconds = outcome.seconds;
    report.line("messages", format!("{rate}/s   {bytes}/s each way   {count} in {seconds:.2} s"));
    report.latency("latency", "latency_us", &outcome.stats.histogram);
    report_cpu(&mut report, &outcome, server, ("message", outcome.messages));
    report.errors(outcome.stats.errors);
    report
}
