//! The echo test.

use crate::cli::Cli;
use crate::crowd::{Crowd, payload, share};
use crate::echo::{Closed, Open};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::run::report_end;
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::traffic::{Client, Traffic};
use crate::wire::{Expect, Shape, Template};

/// Sends and counts what comes back.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let crowd = Crowd::new(cli, target, server, 100, false)?;
    let connections = crowd.connections;
    let payload = payload(cli.size());
    let outcome = crowd.run(Ok, |thread, clients| {
        let total = cli.number.map(|number| share(number, crowd.threads, thread) as u64);
        let part = crowd.part(thread) as f64 / connections as f64;
        let rate = cli.rate.map(|rate| rate * part);
        work(&crowd, thread, clients, &payload, (total, rate))
    })?;
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
    let per_second = outcome.per_second();
    report.figure("messages_per_second", per_second);
    let count = thousands(outcome.messages as f64);
    let (rate, bytes) = (thousands(per_second), size(per_second * cli.size() as f64));
    let seconds = outcome.seconds;
    report.line("messages", format!("{rate}/s   {bytes}/s each way   {count} in {seconds:.2} s"));
    let unit = ("message", outcome.messages);
    report_end(&mut report, outcome, server, unit);
    Ok(report)
}

fn work(
    crowd: &Crowd<'_>,
    thread: usize,
    clients: Vec<Client>,
    payload: &[u8],
    (total, rate): (Option<u64>, Option<f64>),
) -> Result<Stats, Fault> {
    let cli = crowd.cli;
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
    let traffic = Traffic::new(clients, &template, expect, &crowd.control, thread)?;
    match rate {
        Some(rate) => traffic.work(&mut Open::new(count, rate, total)),
        None => traffic.work(&mut Closed::new(count, cli.pipeline, total)),
    }
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
