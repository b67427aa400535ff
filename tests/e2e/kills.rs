//! What dies is replaced, and nobody else notices.

use nix::sys::signal::Signal;

use crate::harness::*;

/// How often each process is killed here; `soak.rs` does it 50 times.
const TIMES: usize = 4;

#[tokio::test]
async fn a_killed_worker_costs_its_own_clients_alone() {
    let server = Setup::testbed().start().await;
    let mut bystander = server.client_on(1).await;
    let bystander_is = bystander.who().await;
    for _ in 0..TIMES {
        let mut victim = server.client_on(0).await;
        let victim_is = victim.who().await;
        kill(victim_is.pid, Signal::SIGKILL);
        assert_eq!(victim.closed().await, Closed::Abruptly);
        let replacement = server.serving(0, Some(victim_is.pid)).await;
        let mut next = server.client_on(0).await;
        assert_eq!(next.who().await.pid, replacement.pid);
        assert_eq!(bystander.who().await, bystander_is);
        let gone = bystander.ask(format!("confirmed {} hello", victim_is.fd)).await;
        assert_eq!(gone, "confirmed gone");
    }
}

#[tokio::test]
async fn every_open_has_one_close_also_when_workers_are_killed() {
    let server = Setup::testbed().start().await;
    for _ in 0..TIMES {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(server.client().await);
        }
        let worker = server.serving(0, None).await;
        kill(worker.pid, Signal::SIGKILL);
        server.serving(0, Some(worker.pid)).await;
        drop(clients);
    }
    server.has_connections(0).await;
    let fds = |word: &str| -> Vec<String> {
        let prefix = format!("{word} ");
        let lines = server.events().into_iter();
        let mut fds: Vec<String> = lines
            .filter_map(|line| Some(line.strip_prefix(&prefix)?.split(' ').next()?.to_owned()))
            .collect();
        fds.sort();
        fds
    };
    let opened = fds("open");
    assert_eq!(opened.len(), TIMES * 8);
    until("every close", || async { (fds("close").len() >= opened.len()).then_some(()) }).await;
    assert_eq!(fds("close"), opened);
    let crashed = server.events().iter().filter(|line| line.contains("worker_crashed")).count();
    assert!(crashed > 0);
}

#[tokio::test]
async fn a_killed_manager_costs_no_connection_and_pushes_come_back() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let (one_is, other_is) = (one.who().await, other.who().await);
    for round in 0..TIMES {
        let manager = server.manager().await;
        kill(manager, Signal::SIGKILL);
        until("pushes to come back", || async { Some(()) }).await;
        loop {
            let verdict = one.ask(format!("confirmed {} round {round}", other_is.fd)).await;
            if verdict == "confirmed queued" {
                break;
            }
        }
        // Whatever got through before is of this round too.
        assert_eq!(other.receive().await, format!("round {round}"));
        assert_ne!(server.manager().await, manager);
        assert_eq!((one.who().await, other_is.fd), (one_is.clone(), other_is.fd));
        assert_eq!(server.connections().await.len(), 2);
    }
}

#[tokio::test]
async fn when_the_master_dies_everything_ends_and_the_next_start_works() {
    let mut server = Setup::testbed().start().await;
    for _ in 0..TIMES {
        let mut client = server.client().await;
        kill(server.master().await, Signal::SIGKILL);
        let closed = client.closed().await;
        assert!(matches!(closed, Closed::Frame(1001, _)), "{closed:?}");
        server.is_gone().await;
        let ran = server.start_again().await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

#[tokio::test]
async fn a_stopped_worker_is_replaced_while_others_serve() {
    let server = Setup::testbed().set("worker_timeout", r#""2s""#).start().await;
    let mut bystander = server.client_on(1).await;
    let stuck = server.serving(0, None).await;
    kill(stuck.pid, Signal::SIGSTOP);
    let replaced = server.serving(0, Some(stuck.pid));
    let serves = async {
        for number in 0..100 {
            assert_eq!(bystander.ask(format!("echo {number}")).await, format!("echo {number}"));
        }
    };
    tokio::join!(replaced, serves);
    until("the stopped one to end", || async { (!is_alive(stuck.pid)).then_some(()) }).await;
    let _client = server.client_on(0).await;
}

#[tokio::test]
async fn a_spinning_worker_is_replaced() {
    let server = Setup::testbed().set("worker_timeout", r#""2s""#).start().await;
    let mut client = server.client_on(0).await;
    let stuck = client.who().await;
    client.send("spin").await;
    server.serving(0, Some(stuck.pid)).await;
    assert_eq!(client.closed().await, Closed::Abruptly);
}

#[tokio::test]
async fn a_stopped_manager_is_replaced() {
    let server = Setup::testbed().set("worker_timeout", r#""2s""#).start().await;
    let mut client = server.client().await;
    let who = client.who().await;
    let stuck = server.manager().await;
    kill(stuck, Signal::SIGSTOP);
    until("the stopped one to end", || async { (!is_alive(stuck)).then_some(()) }).await;
    assert_ne!(server.manager().await, stuck);
    assert_eq!(client.who().await, who);
}

#[tokio::test]
async fn no_number_is_used_twice_over_kills_and_restarts() {
    let mut server = Setup::testbed().start().await;
    let mut seen = std::collections::HashSet::new();
    for round in 0..TIMES * 2 {
        let mut pid = 0;
        for _ in 0..10 {
            let who = server.client().await.who().await;
            assert!(seen.insert(who.fd), "{} came twice", who.fd);
            pid = who.pid;
        }
        if round % 2 == 0 {
            kill(pid, Signal::SIGKILL);
            until("the replacement", || async {
                let workers = server.workers().await;
                let serving = workers.iter().filter(|w| w.state == "serving" && w.pid != pid);
                (serving.count() == 2).then_some(())
            })
            .await;
        } else {
            server.wsd(["stop"]).await.ok();
            assert_eq!(server.start_again().await.code, Some(0));
        }
    }
}
