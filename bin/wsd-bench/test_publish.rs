//! The publish test: one client publishes to each room in turn, and the members receive.
//!
//! A round is one publish to each room, so every client gets as many messages in a round as it is
//! in rooms.

use crate::cli::Cli;
use crate::control::Control;
use crate::fan::{Fan, Pace, Rounds};
use crate::fault::Fault;
use crate::report::{Report, size, thousands};
use crate::run::{Outcome, report_cpu, run};
use crate::server::Server;
use crate::target::Target;
use crate::test_echo::{open, payload};
use crate::test_push::ask;
use crate::traffic::{Client, Traffic};
use crate::wire::{Expect, Shape, Template};

/// Publishes, and counts what is delivered.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    let connections = cli.connections.unwrap_or(1000);
    if cli.rate.is_some() || cli.threads > 1 {
        return Err(Fault::usage("publish takes neither --rate nor --threads"));
    }
    if cli.each > cli.rooms || !(connections * cli.each).is_multiple_of(cli.rooms) {
        return Err(Fault::usage("--connections times --each has to fill all --rooms alike"));
    }
    let payload = payload(cli.size());
    let shape = Shape { binary: false, packed: false, fragment: cli.fragment };
    let text = [format!("publish {} ", cli.rooms).as_bytes(), &payload[..]].concat();
    let template = Template::new(&text, shape, cli.pipeline * cli.rooms);
    let control = Control::new(1, false)?;
    let rounds = Rounds::new(cli.pipeline, 1);
    let pace = Pace { rate: None, total: cli.number.map(|number| number as u64) };
    let outcome = run(cli, &control, 1, server, |index| {
        let clients = open(cli, target, 0, connections)
            .and_then(|clients| enter_all(clients, "", cli.rooms, cli.each));
        control.wait_for_start();
        let worked = clients.and_then(|clients| {
            let all = (connections, connections);
            let fan = Fan::new(&rounds, index, Some(0), all, pace);
            let mut work = fan.rounds_of(cli.rooms, cli.each);
            let expect = Expect::Exactly(&payload);
            let mut traffic = Traffic::new(clients, &template, expect, &control, index)?;
            traffic.run(&mut work)?;
            Ok(traffic.stats)
        });
        worked.inspect_err(|_| control.finished())
    })?;
    Ok(report(cli, target, connections, outcome, server))
}

/// Puts each client into `each` of so many rooms, whose names begin with `prefix`; every room has
/// as many members.
pub fn enter_all(
    clients: Vec<Client>,
    prefix: &str,
    rooms: usize,
    each: usize,
) -> Result<Vec<Client>, Fault> {
    let enter = |(index, mut client): (usize, Client)| {
        client.reader.keep = Some(Vec::new());
        let names = (0..each).map(|nth| format!("{prefix}{}", (index * each + nth) % rooms));
        let names = names.collect::<Vec<_>>().join(" ");
        let answer = ask(&mut client, &format!("enter {names}"))?;
        client.reader.keep = None;
        match answer == format!("entered {each}") {
            true => Ok(client),
            false => Err(Fault::server(format!(
                "the server answers {answer:?} to \"enter\": this needs bench_server, with room \
                 for so many rooms"
            ))),
        }
    };
    clients.into_iter().enumerate().map(enter).collect()
}

fn report(
    cli: &Cli,
    target: &Target,
    connections: usize,
    outcome: Outcome,
    server: Option<&Server>,
) -> Report {
    let mut report = Report::default();
    let (rooms, each) = (cli.rooms, cli.each);
    let members = connections * each / rooms;
    let what = format!(
        "{rooms} rooms of {members}, {connections} clients in {each} each, {} in flight, {}",
        cli.pipeline,
        size(cli.size() as f64)
    );
    report.line("publish", format!("{}   {what}", target.name));
    report.figure("test", "publish");
    report.figure("connections", connections);
    report.figure("rooms", rooms);
    report.figure("rooms_each", each);
    report.figure("members", members);
    report.figure("pipeline", cli.pipeline);
    report.figure("size", cli.size());
    report.figure("seconds", outcome.seconds);
    report.figure("deliveries", outcome.messages);
    let per_second = outcome.messages as f64 / outcome.seconds;
    report.figure("deliveries_per_second", per_second);
    let publishes = thousands(per_second / members as f64);
    let (rate, bytes) = (thousands(per_second), size(per_second * cli.size() as f64));
    report.line("deliveries", format!("{rate}/s   {bytes}/s   {publishes} publishes/s"));
    report.latency("latency", "latency_us", &outcome.stats.histogram);
    report_cpu(&mut report, &outcome, server, ("delivery", outcome.messages));
    report.errors(outcome.stats.errors);
    report
}
