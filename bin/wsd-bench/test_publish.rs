//! The publish test: one client publishes to each room in turn, and the members receive.
//!
//! A round is one publish to each room, so every client gets as many messages in a round as it is
//! in rooms.

use crate::cli::Cli;
use crate::crowd::{Crowd, payload};
use crate::fan::{Fan, Pace, Rounds};
use crate::fault::Fault;
use crate::report::{Report, size};
use crate::run::report_deliveries;
use crate::server::Server;
use crate::target::Target;
use crate::test_push::ask;
use crate::traffic::{Client, Traffic};
use crate::wire::{Expect, Shape, Template};

/// Publishes, and counts what is delivered.
pub fn measure(cli: &Cli, target: &Target, server: Option<&Server>) -> Result<Report, Fault> {
    if cli.rate.is_some() || cli.threads > 1 {
        return Err(Fault::usage("publish takes neither --rate nor --threads"));
    }
    let crowd = Crowd::new(cli, target, server, 1000, false)?;
    let (connections, rooms, each) = (crowd.connections, cli.rooms, cli.each);
    if each > rooms || !(connections * each).is_multiple_of(rooms) {
        return Err(Fault::usage("--connections times --each has to fill all --rooms alike"));
    }
    let payload = payload(cli.size());
    let shape = Shape { binary: false, packed: false, fragment: cli.fragment };
    let text = [format!("publish {rooms} ").as_bytes(), &payload[..]].concat();
    let template = Template::new(&text, shape, cli.pipeline * rooms);
    let rounds = Rounds::new(cli.pipeline, 1);
    let pace = Pace { rate: None, total: cli.number.map(|number| number as u64) };
    let enter = |clients| enter_all(clients, "", rooms, each);
    let outcome = crowd.run(enter, |thread, clients| {
        let fan = Fan::new(&rounds, thread, Some(0), (connections, connections), pace);
        let mut fan = fan.rounds_of(rooms, each);
        let expect = Expect::Exactly(&payload);
        Traffic::new(clients, &template, expect, &crowd.control, thread)?.work(&mut fan)
    })?;
    let mut report = Report::default();
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
    report_deliveries(&mut report, cli, outcome, server, ("publishes", members));
    Ok(report)
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
