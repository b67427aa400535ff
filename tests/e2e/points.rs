//! A process dies, or stops for a moment, at each step of a pass: the build has named points for
//! that (`src/sys/point.rs`). What is sent meanwhile, by a bystander and by the old worker's own
//! handlers, comes in order, and whoever had no part in it loses nothing.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::*;

/// What a death at a point costs.
#[derive(Clone, Copy, PartialEq)]
enum Costs {
    /// Nobody.
    Nothing,
    /// The clients of the slot that moves: their one owner died.
    Slot,
    /// Messages in the manager's memory.
    Messages,
}

const POINTS: &[(&str, Costs)] = &[
    ("old-is-told", Costs::Slot),
    ("old-is-asked", Costs::Slot),
    ("old-has-given-a-batch", Costs::Nothing),
    ("old-has-given", Costs::Nothing),
    ("old-hears-what-was-taken", Costs::Nothing),
    ("old-has-let-go", Costs::Nothing),
    ("new-is-given-a-batch", Costs::Nothing),
    ("new-is-asked", Costs::Nothing),
    ("new-has-answered", Costs::Slot),
    ("new-hears-own", Costs::Slot),
    ("new-serves", Costs::Slot),
    ("manager-has-asked", Costs::Messages),
    ("manager-is-given-a-batch", Costs::Messages),
    ("manager-hears-all-is-given", Costs::Messages),
    ("manager-hears-the-answer", Costs::Messages),
    ("manager-has-told-what-was-taken", Costs::Messages),
    ("manager-has-released", Costs::Messages),
    ("manager-has-said-own", Costs::Messages),
];

/// A client that pushes numbers to another until it is told to end: those that were taken.
fn pusher(
    mut client: Client,
    to: u64,
    ends: watch::Receiver<bool>,
) -> JoinHandle<Option<Vec<u64>>> {
    tokio::spawn(async move {
        let me = client.who().await.fd;
        let mut taken = Vec::new();
        for number in 0.. {
            client.send_message(format!("push {to} {me} {number}").into()).await.ok()?;
            let answer = client.next().await.ok()?.into_text().ok()?;
            if matches!(answer.as_str(), "push relayed" | "push queued") {
                taken.push(number);
            }
            if *ends.borrow() {
                // When this one has been answered, all before it are there.
                client
                    .send_message(format!("confirmed {to} {me} {}", number + 1).into())
                    .await
                    .ok()?;
                let answer = client.next().await.ok()?.into_text().ok()?;
                taken.extend((answer.as_str() == "confirmed queued").then_some(number + 1));
                return Some(taken);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    })
}

/// Everything that a client gets, until `end` or its own end, of each sender in order.
fn receiver(mut client: Client) -> JoinHandle<(Vec<(u64, u64)>, bool)> {
    tokio::spawn(async move {
        let mut got: Vec<(u64, u64)> = Vec::new();
        while let Ok(message) = client.next().await {
            let Ok(text) = message.into_text() else { break };
            if text.as_str() == "end" {
                return (got, true);
            }
            let (sender, number) = text.split_once(' ').expect("a sender and a number");
            let (sender, number) = (sender.parse().unwrap(), number.parse().unwrap());
            let last = got.iter().rev().find(|(of, _)| *of == sender);
            assert!(last.is_none_or(|(_, last)| *last < number), "{text} came behind {last:?}");
            got.push((sender, number));
        }
        (got, false)
    })
}

/// A reload in which somebody meets its point.
async fn meet(point: &str, what: &str, costs: Costs) {
    let (setup, file) = Setup::testbed().point();
    let server = setup.start().await;
    let target = server.client_on(0).await;
    let mut idle = server.client_on(0).await;
    let (own, mut other) = (server.client_on(0).await, server.client_on(1).await);
    let mut target = target;
    let to = target.who().await.fd;
    let (bystander_is, bystander) = {
        let mut client = server.client_on(1).await;
        (client.who().await.fd, client)
    };
    let (end, ends) = watch::channel(false);
    let receiver = receiver(target);
    let pushers = [pusher(own, to, ends.clone()), pusher(bystander, to, ends)];
    fs::write(&file, format!("{point} {what}")).unwrap();
    let resume = async {
        until(point, || async { (!file.exists()).then_some(()) }).await;
        if what == "stop" {
            let stopped = until("who has stopped", || async {
                let mut pids = server.processes().into_iter().map(|process| process.pid);
                pids.find(|pid| stat_letter(*pid) == Some('T'))
            });
            kill(stopped.await, Signal::SIGCONT);
        }
    };
    let (_, ()) = tokio::join!(server.wsd(["reload"]), resume);
    let costs = if what == "kill" { costs } else { Costs::Nothing };
    until("the reload to be over", || async {
        (server.status().await["reload"]["state"] == "idle").then_some(())
    })
    .await;
    end.send_replace(true);
    let [own, bystander] = pushers;
    let (own, bystander) = (own.await.unwrap(), bystander.await.unwrap());
    assert_eq!(own.is_none(), costs == Costs::Slot, "{point}: the sender of the slot");
    other.ask(format!("confirmed {to} end")).await;
    let (got, lives) = receiver.await.unwrap();
    assert_eq!(lives, costs != Costs::Slot, "{point}: who is sent to");
    let bystander = bystander.expect("a bystander loses nothing");
    if costs == Costs::Nothing {
        let of: Vec<u64> =
            got.iter().filter(|(by, _)| *by == bystander_is).map(|(_, number)| *number).collect();
        assert_eq!(of, bystander, "{point}: what the bystander sent");
    }
    if costs != Costs::Slot {
        assert_eq!(idle.ask("echo still there").await, "echo still there", "{point}");
    }
}

#[tokio::test]
async fn a_death_at_any_point_of_a_pass_costs_no_more_than_it_must() {
    for (point, costs) in POINTS {
        meet(point, "kill", *costs).await;
    }
}

#[tokio::test]
async fn a_stop_at_any_point_of_a_pass_costs_nothing() {
    for (point, _) in POINTS {
        meet(point, "stop", Costs::Nothing).await;
    }
}

#[tokio::test]
async fn a_reload_while_a_handler_blocks_its_worker_tells_nobody_full() {
    let server = Setup::testbed().start().await;
    let mut target = server.client_on(0).await;
    let to = target.who().await.fd;
    let (mut blocks, bystander) = (server.client_on(0).await, server.client_on(1).await);
    let receiver = receiver(target);
    let (end, ends) = watch::channel(false);
    let pusher = pusher(bystander, to, ends);
    blocks.send("block 1500").await;
    server.wsd(["reload"]).await.ok();
    end.send_replace(true);
    let taken = pusher.await.unwrap().expect("a bystander loses nothing");
    assert_eq!(taken.len() as u64, taken.last().map_or(0, |last| last + 1), "one was full");
    blocks.receive().await;
    blocks.ask(format!("confirmed {to} end")).await;
    let (got, lives) = receiver.await.unwrap();
    assert!(lives);
    assert_eq!(got.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), taken);
}
