//! One run: threads, phases, progress, and the server's CPU around the measured time.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::cli::Cli;
use crate::control::{Control, Phase};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::server::{Server, own_cpu};
use crate::stats::Stats;

/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_millis(200);

/// What the measured time has cost.
pub struct Outcome {
    pub stats: Stats,
    /// Nothing came for as long as `--timeout` allows.
    pub stalled: bool,
    pub seconds: f64,
    /// Messages between the two looks at the CPU.
    pub messages: u64,
    pub client_cpu: f64,
    pub server_cpu: Option<f64>,
}

impl Outcome {
    /// What `work` costs, done once and from its start to its end.
    pub fn of(
        server: Option<&Server>,
        work: impl FnOnce() -> Result<Stats, Fault>,
    ) -> Result<Outcome, Fault> {
        let cpu = || (own_cpu(), server.map(Server::cpu));
        let (own_before, server_before) = cpu();
        let since = Instant::now();
        let stats = work()?;
        let seconds = since.elapsed().as_secs_f64();
        let (own_after, server_after) = cpu();
        Ok(Outcome {
            messages: stats.messages(),
            stats,
            stalled: false,
            seconds,
            client_cpu: own_after - own_before,
            server_cpu: server_after.zip(server_before).map(|(after, before)| after - before),
        })
    }

    /// How many messages there were in a second.
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

/// Runs `thread` on each thread. It opens its connections, calls `control.wait_for_start`, works
/// until the phase says stop or its work is done, and gives what it has seen.
pub fn run(
    cli: &Cli,
    control: &Control,
    threads: usize,
    server: Option<&Server>,
    thread: impl Fn(usize) -> Result<Stats, Fault> + Sync,
) -> Result<Outcome, Fault> {
    std::thread::scope(|scope| {
        let thread = &thread;
        let handles: Vec<_> =
            (0..threads).map(|index| scope.spawn(move || thread(index))).collect();
        control.ready.wait();
        let mut outcome = supervise(cli, control, server);
        control.set_phase(Phase::Stop);
        for handle in handles {
            match handle.join() {
                Ok(stats) => outcome.stats.merge(stats?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        if outcome.stalled {
            let why = format!("no message for {} s", cli.timeout.as_secs_f64());
            *outcome.stats.errors.entry(why).or_default() += 1;
        }
        Ok(outcome)
    })
}

fn supervise(cli: &Cli, control: &Control, server: Option<&Server>) -> Outcome {
    let warmup = match (cli.warmup, cli.number) {
        (Some(warmup), _) => warmup,
        (None, Some(_)) => Duration::ZERO,
        (None, None) => cli.duration / 10,
    };
    let warms_up = !warmup.is_zero();
    let stalled = warms_up && {
        control.start.wait();
        pass(cli, control, "warm-up", Some(warmup))
    };
    let cpu = || (own_cpu(), server.map(Server::cpu));
    let (own_before, server_before) = cpu();
    let messages_before = control.messages();
    let since = Instant::now();
    control.set_phase(Phase::Measure);
    if !warms_up {
        control.start.wait();
    }
    let time = cli.number.is_none().then_some(cli.duration);
    let stalled = stalled || pass(cli, control, "measuring", time);
    let messages = control.messages() - messages_before;
    let seconds = since.elapsed().as_secs_f64();
    let (own_after, server_after) = cpu();
    Outcome {
        stats: Stats::default(),
        stalled,
        seconds,
        messages,
        client_cpu: own_after - own_before,
        server_cpu: server_after.zip(server_before).map(|(after, before)| after - before),
    }
}

/// Lets the time go by, or the work be done, and shows how it goes. True: nothing moved.
fn pass(cli: &Cli, control: &Control, what: &str, time: Option<Duration>) -> bool {
    let since = Instant::now();
    let shows = !cli.quiet && !cli.json && std::io::stderr().is_terminal();
    let (mut seen, mut moved) = (control.messages(), Instant::now());
    let (mut shown, mut shown_at) = (seen, Instant::now());
    let stalled = loop {
        let left = time.map(|time| time.saturating_sub(since.elapsed()));
        if left == Some(Duration::ZERO) || control.all_finished() {
            break false;
        }
        if !cli.is_quiet_by_nature() && moved.elapsed() > cli.timeout {
            break true;
        }
        // Where a number ends the run, this is also how exactly its time is known.
        let nap = if time.is_none() { Duration::from_millis(1) } else { PROGRESS };
        std::thread::sleep(left.map_or(nap, |left| left.min(nap)));
        let now = control.messages();
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        if shows && shown_at.elapsed() >= PROGRESS {
            let rate = thousands((now - shown) as f64 / shown_at.elapsed().as_secs_f64());
            let (clock, all) = (since.elapsed().as_secs_f64(), thousands(now as f64));
            eprint!("\r\x1b[K{what} {clock:.1} s   {rate}/s   {all} in all");
            (shown, shown_at) = (now, Instant::now());
        }
    };
    if shows {
        eprint!("\r\x1b[K");
    }
    stalled
}

/// What every report of a load ends with: latency, cost and errors. `unit`: what the processors
/// were used for, and how many of it.
pub fn report_end(
    report: &mut Report,
    outcome: Outcome,
    server: Option<&Server>,
    unit: (&str, u64),
) {
    report.latency("latency", "latency_us", &outcome.stats.histogram);
    report_cpu(report, &outcome, server, unit);
    report.errors(outcome.stats.errors);
}

/// What one message to many came to: `rounds` were sent, each to so many clients.
pub fn report_deliveries(
    report: &mut Report,
    cli: &Cli,
    outcome: Outcome,
    server: Option<&Server>,
    (rounds, members): (&str, usize),
) {
    report.figure("seconds", outcome.seconds);
    report.figure("deliveries", outcome.messages);
    let per_second = outcome.per_second();
    report.figure("deliveries_per_second", per_second);
    let sent = thousands(per_second / members as f64);
    let (rate, bytes) = (thousands(per_second), size(per_second * cli.size() as f64));
    report.line("deliveries", format!("{rate}/s   {bytes}/s   {sent} {rounds}/s"));
    let unit = ("delivery", outcome.messages);
    report_end(report, outcome, server, unit);
}

/// The lines about CPU. `unit`: what it was spent on, and how many of it.
pub fn report_cpu(
    report: &mut Report,
    outcome: &Outcome,
    server: Option<&Server>,
    (unit, count): (&str, u64),
) {
    let each = |cpu: f64| cpu * 1e6 / count.max(1) as f64;
    let percent = |cpu: f64| cpu * 100.0 / outcome.seconds;
    report.figure("client_cpu_percent", percent(outcome.client_cpu));
    report.figure("client_cpu_us_each", each(outcome.client_cpu));
    match (server, outcome.server_cpu) {
        (Some(server), Some(cpu)) => {
            report.figure("server_cpu_percent", percent(cpu));
            report.figure("server_cpu_us_each", each(cpu));
            let (each, percent, name) = (each(cpu), percent(cpu), server.name());
            let text = format!("{each:.2} µs CPU/{unit}   {percent:.0}% of a core   ({name})");
            report.line("server", text);
        }
        _ => report.line("server", "CPU unknown: its processes are not in sight (--pid)"),
    }
    let (each, percent) = (each(outcome.client_cpu), percent(outcome.client_cpu));
    report.line("client", format!("{each:.2} µs CPU/{unit}   {percent:.0}% of a core"));
}
