//! The close storm: all connections say goodbye at once, and wait for the server to end them.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::cli::Cli;
use crate::crowd::open;
use crate::fault::Fault;
use crate::opener::wait;
use crate::report::{Report, thousands};
use crate::run::{Outcome, report_end};
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::traffic::{Client, describe};
use crate::wire::{Expect, Wrong, put_masked};

/// Opens `-c` connections, then closes them all.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(10_000);
    let mut clients = open(cli, target, 0, connections)?;
    let outcome = Outcome::of(server, || close_all(cli, &mut clients))?;
    let mut report = Report::default();
    let per_second = outcome.per_second();
    report.line("close", format!("{}   {connections} connections at once", target.name));
    report.figure("test", "close");
    report.figure("connections", connections);
    report.figure("seconds", outcome.seconds);
    report.figure("closed", outcome.messages);
    report.figure("closes_per_second", per_second);
    let (rate, count) = (thousands(per_second), thousands(outcome.messages as f64));
    let seconds = outcome.seconds;
    report.line("closes", format!("{rate}/s   {count} answered in {seconds:.2} s"));
    let unit = ("close", outcome.messages);
    report_end(&mut report, outcome, server, unit);
    Ok(report)
}

pub fn close_all(cli: &Cli, clients: &mut [Client]) -> Result<Stats, Fault> {
    let mut stats = Stats::recording();
    let mut goodbye = Vec::new();
    put_masked(&mut goodbye, 0x88, &1000_u16.to_be_bytes());
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut sent_at = Vec::with_capacity(clients.len());
    for (index, client) in clients.iter().enumerate() {
        let socket = &client.opened.socket;
        poll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        sent_at.push(Instant::now());
        let mut writer = socket;
        if let Err(error) = writer.write_all(&goodbye) {
            *stats.errors.entry(error.to_string()).or_default() += 1;
            poll.delete(socket)?;
        }
    }
    let mut answered = vec![false; clients.len()];
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut buffer = vec![0; 64 << 10];
    while stats.messages() + stats.lost() < clients.len() as u64 {
        let ready = wait(&poll, &mut events, cli.timeout)?;
        if ready == 0 {
            let missing = clients.len() as u64 - stats.messages() - stats.lost();
            let why = "the server did not end the connection";
            stats.errors.insert(why.to_owned(), missing);
            break;
        }
        for event in &events[..ready] {
            let index = event.data() as usize;
            let Some(ended) = read_on(&mut clients[index], &mut buffer, &mut answered[index])
            else {
                continue;
            };
            poll.delete(&clients[index].opened.socket)?;
            match ended {
                Ok(()) => {
                    stats.count(1);
                    let nanos = sent_at[index].elapsed().as_nanos();
                    stats.latency(u64::try_from(nanos).unwrap_or(u64::MAX));
                }
                Err(why) => *stats.errors.entry(why).or_default() += 1,
            }
        }
    }
    Ok(stats)
}

/// `None`: not over yet.
fn read_on(
    client: &mut Client,
    buffer: &mut [u8],
    answered: &mut bool,
) -> Option<Result<(), String>> {
    match (&client.opened.socket).read(buffer) {
        Ok(0) if *answered => Some(Ok(())),
        Ok(0) => Some(Err("ended without a close frame".to_owned())),
        Ok(read) => match client.reader.feed(&buffer[..read], Expect::Anything) {
            Ok(_) => None,
            Err(Wrong::Closed(1000, _)) => {
                *answered = true;
                None
            }
            Err(wrong) => Some(Err(describe(&wrong))),
        },
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        // A reset after the answer is an end as well.
        Err(_) if *answered => Some(Ok(())),
        Err(error) => Some(Err(error.to_string())),
    }
}
