//! The push test: one client has its worker push to clients of another worker.
//!
//! It needs a server that speaks the small protocol of `bench_server.rs`: there a client
//! can learn its fd and its worker, name its targets, and have a message pushed to all of them.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::Cli;
use crate::control::Control;
use crate::crowd::{open, payload};
use crate::fan::{Fan, Pace, Rounds};
use crate::fault::Fault;
use crate::report::{Report, duration, size, thousands};
use crate::run::{Outcome, report_cpu, run};
use crate::server::Server;
use crate::target::Target;
use crate::traffic::{Client, Traffic, describe};
use crate::wire::{Expect, Shape, Template, put_masked};

/// Rounds in flight where the throughput is measured and `-p` was left alone.
const THROUGHPUT_WINDOW: usize = 32;

/// A client as the server knows it.
struct Known {
    client: Client,
    fd: u64,
    worker: u32,
}

/// Latency to a client of the same worker and of another, then pushes a second.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    if cli.rate.is_some() || cli.number.is_some() {
        return Err(Fault::usage("push takes neither --rate nor --number"));
    }
    let (sender, near, far) = gather(cli, target, cli.connections.unwrap_or(100))?;
    let (from, to) = (sender.worker, far[0].worker);
    let count = far.len();
    let mut fan = Push { cli, server, sender: Some(sender.client) };
    let local = fan.run(&mut vec![near], 1)?;
    let mut far = far;
    let mut one = vec![far.swap_remove(0)];
    let cross = fan.run(&mut one, 1)?;
    far.append(&mut one);
    let window = if cli.pipeline > 1 { cli.pipeline } else { THROUGHPUT_WINDOW };
    let all = fan.run(&mut far, window)?;

    let mut report = Report::default();
    let what = format!("worker {from} -> {to}, {}", size(cli.size() as f64));
    report.line("push", format!("{}   {what}", target.name));
    report.figure("test", "push");
    report.figure("targets", count);
    report.figure("size", cli.size());
    report.latency("same worker", "latency_local_us", &local.0.stats.histogram);
    report.latency("other worker", "latency_cross_us", &cross.0.stats.histogram);
    let p50 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.5);
    let (near, far) = (p50(&local.0.stats.histogram), p50(&cross.0.stats.histogram));
    let added = far.saturating_sub(near);
    report.figure("added_p50_us", added as f64 / 1e3);
    report.line("added", format!("p50 {}", duration(added)));
    let (outcome, lost) = all;
    let per_second = outcome.per_second();
    report.figure("pushes_per_second", per_second);
    report.figure("pushes_lost", lost);
    let rate = thousands(per_second);
    let text = format!("{rate}/s to {count} clients, {window} rounds in flight, {lost} lost");
    report.line("pushes", text);
    report_cpu(&mut report, &outcome, server, ("push", outcome.messages));
    let mut errors = outcome.stats.errors;
    errors.extend(local.0.stats.errors);
    errors.extend(cross.0.stats.errors);
    report.errors(errors);
    Ok(report)
}

/// A sender, a client of the same worker and `count` of one other worker.
fn gather(cli: &Cli, target: &Target, count: usize) -> Result<(Known, Known, Vec<Known>), Fault> {
    let mut all = Vec::new();
    // The kernel spreads connections as it likes, so open until there are enough.
    for round in 0..8 {
        for client in open(cli, target, round * count, count)? {
            all.push(introduce(client)?);
        }
        let from = all[0].worker;
        let workers = all.iter().map(|known| known.worker).filter(|worker| *worker != from);
        let other = workers
            .max_by_key(|worker| all.iter().filter(|known| known.worker == *worker).count());
        let near = all.iter().skip(1).position(|known| known.worker == from);
        let (Some(other), Some(near)) = (other, near) else { continue };
        if all.iter().filter(|known| known.worker == other).count() < count {
            continue;
        }
        let near = all.remove(near + 1);
        let sender = all.remove(0);
        let far = all.into_iter().filter(|known| known.worker == other).take(count);
        return Ok((sender, near, far.collect()));
    }
    let workers: std::collections::BTreeSet<u32> = all.iter().map(|known| known.worker).collect();
    Err(Fault::server(format!(
        "of {} connections too few are on two workers (seen: {workers:?}); \
         does the server run with worker_num 2 or more?",
        all.len()
    )))
}

fn introduce(mut client: Client) -> Result<Known, Fault> {
    client.reader.keep = Some(Vec::new());
    let answer = ask(&mut client, "fd")?;
    client.reader.keep = None;
    let words: Vec<&str> = answer.split(' ').collect();
    let known = match words[..] {
        ["fd", fd, "worker", worker] => fd.parse().ok().zip(worker.parse().ok()),
        _ => None,
    };
    let (fd, worker) = known.ok_or_else(|| {
        Fault::server(format!("the server answers {answer:?} to \"fd\"; push needs bench_server"))
    })?;
    Ok(Known { client, fd, worker })
}

/// Sends a text and waits for the one that answers it.
pub fn ask(client: &mut Client, text: &str) -> Result<String, Fault> {
    let mut frame = Vec::new();
    put_masked(&mut frame, 0x81, text.as_bytes());
    let mut socket = &client.opened.socket;
    socket.write_all(&frame)?;
    let mut buffer = [0; 4096];
    loop {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(10_000_u16))? == 0 {
            return Err(Fault::server(format!("no answer to {text:?}")));
        }
        let read = match socket.read(&mut buffer) {
            Ok(0) => return Err(Fault::server("the server closed")),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let fed = client.reader.feed(&buffer[..read], Expect::Anything);
        if fed.map_err(|wrong| Fault::server(describe(&wrong)))? > 0 {
            let kept = client.reader.keep.clone().unwrap_or_default();
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
    }
}

struct Push<'a> {
    cli: &'a Cli,
    server: Option<&'a Server>,
    sender: Option<Client>,
}

impl Push<'_> {
    /// Has everything pushed to `targets`. Also says how many pushes the server refused.
    fn run(&mut self, targets: &mut Vec<Known>, window: usize) -> Result<(Outcome, u64), Fault> {
        let names: Vec<String> = targets.iter().map(|known| known.fd.to_string()).collect();
        let gone = || Fault::server("the sender was lost");
        let mut sender = self.sender.take().ok_or_else(gone)?;
        sender.reader.keep = Some(Vec::new());
        let want = format!("targets {}", names.len());
        let answer = ask(&mut sender, &format!("targets {}", names.join(" ")))?;
        if answer != want {
            return Err(Fault::server(format!("{answer:?} instead of {want:?}")));
        }
        let payload = payload(self.cli.size());
        let text = [b"burst ", &payload[..]].concat();
        let template = Template::new(&text, Shape::default(), window);
        let rounds = Rounds::new(window, 1);
        let control = Control::new(1, false)?;
        let numbers: Vec<(u64, u32)> =
            targets.iter().map(|known| (known.fd, known.worker)).collect();
        // The sender comes first: it is client 0.
        let place = Mutex::new(Vec::with_capacity(targets.len() + 1));
        lock(&place).push(sender);
        lock(&place).extend(targets.drain(..).map(|known| known.client));
        let outcome = run(self.cli, &control, 1, self.server, |index| {
            control.wait_for_start();
            let mut clients = lock(&place);
            let taken = std::mem::take(&mut *clients);
            let count = taken.len();
            let pace = Pace { rate: None, total: None };
            let mut work = Fan::new(&rounds, index, Some(0), (count, count - 1), pace);
            let expect = Expect::Exactly(&payload);
            let mut traffic = Traffic::new(taken, &template, expect, &control, index)?;
            traffic.run(&mut work)?;
            let stats = std::mem::take(&mut traffic.stats);
            *clients = traffic.into_clients();
            Ok(stats)
        })?;
        let mut clients = std::mem::take(&mut *lock(&place)).into_iter();
        self.sender = clients.next();
        let back = clients.zip(numbers);
        targets.extend(back.map(|(client, (fd, worker))| Known { client, fd, worker }));
        Ok((outcome, rounds.lost.load(Ordering::Relaxed)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
