//! Messages find their client, wherever it is, and the answer says what became of them.

use std::collections::HashMap;

use nix::sys::signal::Signal;

use crate::harness::*;

#[tokio::test]
async fn a_push_from_another_worker_arrives() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let (from, to) = (one.who().await, other.who().await);
    assert_ne!(from.pid, to.pid);
    assert_eq!(one.ask(format!("push {} plain", to.fd)).await, "push relayed");
    assert_eq!(other.receive().await, "plain");
    assert_eq!(one.ask(format!("confirmed {} sure", to.fd)).await, "confirmed queued");
    assert_eq!(other.receive().await, "sure");
    assert_eq!(one.ask(format!("push {} self", from.fd)).await, "self");
    assert_eq!(one.receive().await, "push queued");
}

#[tokio::test]
async fn a_push_to_one_that_left_says_gone() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    for slot in 0..2 {
        let mut other = server.client_on(slot).await;
        let fd = other.who().await.fd;
        assert_eq!(one.ask(format!("exists {fd}")).await, "exists true");
        other.close(1000, "").await;
        until("the number to be gone", || async {
            let known = server.connections().await;
            (!known.iter().any(|connection| connection["fd"] == fd)).then_some(())
        })
        .await;
        assert_eq!(one.ask(format!("confirmed {fd} hello")).await, "confirmed gone");
        assert_eq!(one.ask(format!("exists {fd}")).await, "exists false");
        assert_eq!(one.ask(format!("info {fd}")).await, "info null");
    }
}

#[tokio::test]
async fn a_broadcast_reaches_everyone_once() {
    let server = Setup::testbed().set("worker_num", 3).start().await;
    let mut clients = Vec::new();
    for slot in [0, 1, 2, 0] {
        clients.push(server.client_on(slot).await);
    }
    clients[0].send("broadcast to all").await;
    assert_eq!(clients[0].receive().await, "to all");
    assert_eq!(clients[0].receive().await, "broadcast done");
    for client in &mut clients[1..] {
        assert_eq!(client.receive().await, "to all");
        // Nothing else came in between.
        assert_eq!(client.ask("echo once").await, "echo once");
    }
}

#[tokio::test]
async fn a_close_from_another_worker_closes() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let fd = other.who().await.fd;
    let verdict = one.ask(format!("close {fd} 4321 go away")).await;
    assert!(["close relayed", "close queued"].contains(&verdict.as_str()), "{verdict}");
    assert_eq!(other.closed().await, Closed::Frame(4321, "go away".to_owned()));
}

#[tokio::test]
async fn a_reason_that_is_too_long_is_cut_whichever_worker_has_the_client() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let fits = "x".repeat(122);
    for slot in [0, 1] {
        let mut other = server.client_on(slot).await;
        let fd = other.who().await.fd;
        // A close frame has room for 123 bytes; the last character would end with the 124th.
        one.ask(format!("close {fd} 4321 {fits}\u{e9}")).await;
        assert_eq!(other.closed().await, Closed::Frame(4321, fits.clone()), "worker {slot}");
    }
}

#[tokio::test]
async fn info_and_connections_tell_of_every_worker() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let (from, to) = (one.who().await, other.who().await);
    let info = one.ask(format!("info {}", to.fd)).await;
    let info: serde_json::Value = serde_json::from_str(info.split_once(' ').unwrap().1).unwrap();
    assert_eq!((&info["fd"], &info["worker"]), (&to.fd.into(), &1.into()), "{info}");
    assert!(info["bytes_in"].as_u64().unwrap() > 0, "{info}");
    assert!(info["connected_at"].as_u64().unwrap() > 1_700_000_000_000, "{info}");
    let all = one.ask("connections").await;
    let mut fds = [from.fd, to.fd];
    fds.sort();
    // Clients that tried for another worker may still be leaving.
    server.has_connections(2).await;
    let all = if all.matches(',').count() == 1 { all } else { one.ask("connections").await };
    assert_eq!(all, format!("connections [{},{}]", fds[0], fds[1]));
}

#[tokio::test]
async fn a_message_to_another_worker_reaches_its_handler() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    one.send("send 1 letter").await;
    let mut got = [one.receive().await, one.receive().await];
    got.sort();
    assert!(got[0].starts_with("send "), "{got:?}");
    assert_eq!(got[1], "sent from 0 by way of 1: letter");
}

/// Each client is told by one of another worker to flood a third, while others come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_worker_pushes_stay_in_order_while_clients_come_and_go() {
    let server = Setup::testbed().set("worker_num", 3).start().await;
    let flood = orderly_flood(&server, 5_000).await;
    assert_eq!(flood.missing, 0, "missing without a full queue: {:#}", server.status().await);
}

/// What became of a flood.
#[derive(Debug)]
pub struct Flood {
    /// Messages that never came.
    pub missing: u64,
    /// How often a last message was refused, and pushed again.
    pub again: u64,
}

/// Three clients on three workers push `count` numbered messages to each other. None may come
/// twice, out of order or at the wrong place.
pub async fn orderly_flood(server: &Server, count: u64) -> Flood {
    let mut clients = Vec::new();
    for slot in 0..3 {
        let mut client = server.client_on(slot).await;
        let who = client.who().await;
        clients.push((client, who.fd));
    }
    let fds: Vec<u64> = clients.iter().map(|(_, fd)| *fd).collect();
    let address = server.address.clone();
    let churn = tokio::spawn(async move {
        loop {
            let mut guest = Client::connect(&address, "/").await;
            let who = guest.who().await;
            assert_eq!(guest.ask(format!("push {} to me", who.fd)).await, "to me");
        }
    });
    let flooded = clients.into_iter().enumerate().map(|(index, (mut client, me))| {
        let to = fds[(index + 1) % 3];
        let from = fds[(index + 2) % 3];
        tokio::spawn(async move {
            client.send(format!("flood {to} {count}")).await;
            let (mut next, mut missing, mut ended, mut summary) = (0, 0, false, None);
            while !ended || summary.is_none() {
                let text = client.receive().await;
                if let Some(mine) = text.strip_prefix("flood ") {
                    summary = Some(mine.to_owned());
                    continue;
                }
                let (sender, number) = text.split_once(' ').expect("two words");
                assert_eq!(sender.parse::<u64>().unwrap(), from, "a message for {me} came astray");
                assert!(!ended, "{number} came after the end");
                ended = number == "end";
                let number = if ended { count } else { number.parse().unwrap() };
                assert!(number >= next, "{number} came after {next}");
                missing += number - next;
                next = number + 1;
            }
            let summary = summary.expect("ended with it");
            let words = summary.split(' ').filter_map(|word| word.split_once('='));
            let counts: HashMap<String, u64> =
                words.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect();
            assert_eq!(counts["gone"], 0, "{summary}");
            assert_eq!(counts["sent"], count, "{summary}");
            (client, missing, counts["again"])
        })
    });
    let mut all = Flood { missing: 0, again: 0 };
    let mut still_there = Vec::new();
    for client in flooded.collect::<Vec<_>>() {
        let (client, missing, again) = client.await.expect("a client's part");
        all.missing += missing;
        all.again += again;
        still_there.push(client);
    }
    assert!(!churn.is_finished(), "a guest failed");
    churn.abort();
    all
}

/// Both workers flood a client of the other that reads nothing.
#[tokio::test]
async fn stalled_clients_stall_nobody_else() {
    let server = Setup::testbed().set("buffer_policy", r#""drop""#).start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let mut stalled = Vec::new();
    for slot in 0..2 {
        let mut client = server.client_on(slot).await;
        stalled.push((client.who().await.fd, client));
    }
    let big = "x".repeat(30_000);
    for _ in 0..200 {
        one.send(format!("push {} {big}", stalled[1].0)).await;
        other.send(format!("push {} {big}", stalled[0].0)).await;
    }
    for _ in 0..200 {
        assert!(one.receive().await.starts_with("push "));
        assert!(other.receive().await.starts_with("push "));
    }
    let verdict = one.ask(format!("confirmed {} {big}", stalled[1].0)).await;
    assert_eq!(verdict, "confirmed full");
    let status = server.status().await;
    assert_eq!(status["connections"], 4);
    assert_eq!(one.ask("echo alive").await, "echo alive");
}

#[tokio::test]
async fn a_broadcast_that_finds_no_room_is_counted_and_later_ones_are_heard() {
    let setup = Setup::testbed().set("worker_num", 1).set("buffer_policy", r#""drop""#);
    let server = setup.start().await;
    let mut one = server.client().await;
    let mut stalled = server.client().await;
    let (mut sent, mut full) = (0, 0);
    while full < 5 {
        assert!(sent < 1000, "there was room for all");
        let text = format!("{sent} {}", "x".repeat(30_000));
        assert_eq!(one.ask(format!("broadcast {text}")).await, text);
        assert_eq!(one.receive().await, "broadcast done");
        sent += 1;
        full = server.status().await["counters"]["push_full"].as_u64().unwrap();
    }
    let mut heard = Vec::new();
    for _ in full..sent {
        let text = stalled.receive().await;
        heard.push(text.split(' ').next().unwrap().parse::<u64>().unwrap());
    }
    assert!(heard.is_sorted_by(|before, after| before < after), "{heard:?}");
    one.send("broadcast last").await;
    assert_eq!(stalled.receive().await, "last");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_under_the_default_policy() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut stalled = server.client_on(1).await;
    let fd = stalled.who().await.fd;
    let big = "x".repeat(100_000);
    // Each round is one message more that it does not read.
    while one.ask(format!("confirmed {fd} {big}")).await == "confirmed queued" {}
    let end = stalled.closed().await;
    assert!(matches!(end, Closed::Frame(1013, _) | Closed::Abruptly), "{end:?}");
    let noted = || server.events().iter().any(|line| line.contains("slow_reader"));
    until("the cause", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn what_is_too_big_says_so() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let fd = other.who().await.fd;
    let verdict = one.ask(format!("big {fd} {}", 900 * 1024)).await;
    assert_eq!(verdict, "big queued");
    assert_eq!(other.next().await.unwrap().into_data().len(), 900 * 1024);
    let verdict = one.ask(format!("big {fd} {}", 200 * 1024 * 1024)).await;
    assert_eq!(verdict, "big too_big");
    assert_eq!(other.ask("echo unharmed").await, "echo unharmed");
}

/// One client that pushes and broadcasts consecutive numbers to another, on another worker.
struct Counting<'a> {
    server: &'a Server,
    one: Client,
    other: Client,
    to: u64,
    next: u64,
}

impl Counting<'_> {
    async fn push(&mut self) {
        let (to, number) = (self.to, self.next);
        assert_eq!(self.one.ask(format!("push {to} {number}")).await, "push relayed");
        self.next += 1;
    }

    async fn broadcast(&mut self) {
        let number = self.next.to_string();
        assert_eq!(self.one.ask(format!("broadcast {number}")).await, number);
        assert_eq!(self.one.receive().await, "broadcast done");
        self.next += 1;
    }

    /// Whether all has come, each once and in order.
    async fn all_come(&mut self, from: u64) {
        for number in from..self.next {
            assert_eq!(self.other.receive().await, number.to_string());
        }
    }

    async fn relayed(&self) -> u64 {
        self.server.status().await["manager"]["relayed"].as_u64().unwrap()
    }

    /// Pushes until that goes straight to the other's worker.
    async fn until_direct(&mut self) {
        until("pushes to pass the manager by", async || {
            let before = self.relayed().await;
            let from = self.next;
            for _ in 0..40 {
                self.push().await;
            }
            self.all_come(from).await;
            (self.relayed().await == before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_goes_directly_and_what_does_not_stays_in_order() {
    let server = Setup::testbed().start().await;
    let (one, mut other) = (server.client_on(0).await, server.client_on(1).await);
    let to = other.who().await.fd;
    let mut counting = Counting { server: &server, one, other, to, next: 0 };
    counting.until_direct().await;
    let from = counting.next;
    for _ in 0..5 {
        for _ in 0..20 {
            counting.push().await;
        }
        counting.broadcast().await;
    }
    counting.all_come(from).await;

    counting.until_direct().await;
    let from = counting.next;
    counting.push().await;
    server.wsd(["reload"]).await.ok();
    counting.push().await;
    counting.all_come(from).await;

    counting.until_direct().await;
    let (from, manager) = (counting.next, server.manager().await);
    kill(manager, Signal::SIGKILL);
    for _ in 0..100 {
        counting.push().await;
    }
    counting.all_come(from).await;
    counting.until_direct().await;
}
