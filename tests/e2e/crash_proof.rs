//! With `crash_proof`, a killed worker costs no client of which nothing was half read, unsent or
//! under way.

use nix::sys::signal::Signal;

use crate::harness::*;

fn setup() -> Setup {
    Setup::testbed().set("crash_proof", true)
}

/// The shadows that live, by slot.
fn shadows(server: &Server) -> Vec<Process> {
    let processes = server.processes().into_iter();
    processes.filter(|process| process.name.starts_with("wsd: shadow ")).collect()
}

/// Waits until each slot has exactly one shadow.
async fn one_shadow_each(server: &Server, slots: usize) {
    until("a shadow for each worker", || async {
        let names: std::collections::BTreeSet<_> =
            shadows(server).into_iter().map(|process| process.name).collect();
        (names.len() == slots && shadows(server).len() == slots).then_some(())
    })
    .await;
}

/// Until whatever the worker of a slot has answered is behind it: a client may have its answer
/// before its worker has noted that it is at rest.
async fn settles(server: &Server, slot: u64) {
    server.client_on(slot).await;
}

fn noted(server: &Server, word: &str) -> Vec<String> {
    let prefix = format!("{word} ");
    let lines = server.events().into_iter();
    lines.filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect()
}

#[tokio::test]
async fn a_quiet_client_outlives_its_worker_with_its_number() {
    let server = setup().start().await;
    let mut other = server.client_on(1).await;
    let mut client = server.client_on(0).await;
    let mut was = client.who().await;
    for round in 0..4 {
        settles(&server, 0).await;
        kill(was.pid, Signal::SIGKILL);
        // Sent while nobody may be there to read it.
        assert_eq!(client.ask(format!("echo {round}")).await, format!("echo {round}"));
        let is = client.who().await;
        assert_eq!((is.fd, is.slot), (was.fd, was.slot));
        assert_ne!(is.pid, was.pid);
        let told = other.ask(format!("confirmed {} pushed {round}", is.fd)).await;
        assert_eq!(told, "confirmed queued");
        assert_eq!(client.receive().await, format!("pushed {round}"));
        let info = client.ask(format!("info {}", is.fd)).await;
        assert!(info.contains(&is.fd.to_string()), "{info}");
        was = is;
    }
    let crashed = format!("{} worker_crashed", was.fd);
    assert!(noted(&server, "close").iter().all(|line| !line.starts_with(&crashed)));
    let fd = was.fd;
    client.close(1000, "").await;
    until("its only close", || async {
        let of_it = |line: &&String| line.starts_with(&format!("{fd} "));
        (noted(&server, "close").iter().filter(of_it).count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_was_not_at_rest_is_closed_once_and_the_others_live() {
    let server = setup().set("worker_num", 1).start().await;
    let mut quiet = Vec::new();
    for _ in 0..8 {
        quiet.push(server.client().await);
    }
    let mut at_work = server.client().await;
    let at_work_is = at_work.who().await;
    at_work.send("sleep 600000").await;
    // A ping and half a frame, as one: once there is a pong, both have been read.
    let mut half = Raw::upgraded(&server.address).await;
    half.send([0x89, 0x80, 0, 0, 0, 0, 0x81, 0x85, 0, 0]).await;
    assert_eq!(half.bytes(2).await, [0x8a, 0]);
    let worker = quiet[0].who().await;
    let mut living = Vec::new();
    for client in &mut quiet {
        living.push(client.who().await.fd.to_string());
    }
    settles(&server, 0).await;
    kill(worker.pid, Signal::SIGKILL);
    assert_eq!(at_work.closed().await, Closed::Abruptly);
    assert!(half.rest().await.is_empty());
    for client in &mut quiet {
        assert_ne!(client.who().await.pid, worker.pid);
    }
    let crashed = || {
        let closes = noted(&server, "close").into_iter();
        let crashed = closes.filter(|line| line.contains("worker_crashed"));
        crashed.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect::<Vec<_>>()
    };
    // And perhaps the one that told us that all had settled.
    until("two to be mourned", || async { (crashed().len() >= 2).then_some(()) }).await;
    let crashed = crashed();
    assert!(crashed.contains(&at_work_is.fd.to_string()), "{crashed:?}");
    assert!(!crashed.iter().any(|fd| living.contains(fd)), "{crashed:?} of {living:?}");
    drop(quiet);
    server.has_connections(0).await;
    let opened = noted(&server, "open").len();
    let all = || async { (noted(&server, "close").len() >= opened).then_some(()) };
    until("every close", all).await;
    let (mut opens, mut closes) = (noted(&server, "open"), noted(&server, "close"));
    closes.iter_mut().for_each(|line| line.truncate(line.find(' ').unwrap_or(line.len())));
    opens.sort();
    closes.sort();
    assert_eq!(opens, closes);
}

#[tokio::test]
async fn pushes_to_orphans_arrive_in_order_and_once() {
    let server = setup().start().await;
    let mut pusher = server.client_on(1).await;
    let mut client = server.client_on(0).await;
    let is = client.who().await;
    pusher.send(format!("flood {} 20000", is.fd)).await;
    let first = client.receive().await;
    kill(is.pid, Signal::SIGKILL);
    let number = |text: &str| text.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
    let (mut last, mut count) = (number(&first).unwrap(), 1);
    loop {
        match client.next().await {
            Ok(message) => match number(message.to_text().unwrap()) {
                Some(next) => {
                    assert!(next > last, "{next} after {last}");
                    (last, count) = (next, count + 1);
                }
                None => break,
            },
            // It was being written to when its worker died.
            Err(_) => return,
        }
    }
    assert!(pusher.receive().await.contains(" gone=0"), "{count} came");
}

#[tokio::test]
async fn a_hung_worker_costs_the_client_it_hangs_on_alone() {
    let server = setup().set("worker_num", 1).set("worker_timeout", r#""2s""#).start().await;
    let mut quiet = server.client().await;
    let mut spins = server.client().await;
    let was = quiet.who().await;
    spins.who().await;
    settles(&server, 0).await;
    spins.send("spin").await;
    assert_eq!(spins.closed().await, Closed::Abruptly);
    let is = quiet.who().await;
    assert_eq!(is.fd, was.fd);
    assert_ne!(is.pid, was.pid);
}

#[tokio::test]
async fn an_heir_that_dies_leaves_everything_to_the_next() {
    let server = setup().set("worker_num", 1).start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.client().await;
        let fd = client.who().await.fd;
        clients.push((client, fd));
    }
    settles(&server, 0).await;
    let mut pid = server.serving(0, None).await.pid;
    for _ in 0..4 {
        kill(pid, Signal::SIGKILL);
        // The replacement is killed as soon as it exists.
        let old = pid;
        pid = until("another worker", || async {
            let workers = server.processes();
            let is_new = |it: &Process| it.name == "wsd: worker 0" && it.pid != old;
            workers.into_iter().find(is_new).map(|it| it.pid)
        })
        .await;
    }
    for (client, fd) in &mut clients {
        assert_eq!(client.who().await.fd, *fd);
    }
    let crashed = noted(&server, "close").iter().filter(|it| it.contains("crashed")).count();
    assert_eq!(crashed, 0, "{}", server.log());
    one_shadow_each(&server, 1).await;
}

#[tokio::test]
async fn a_killed_shadow_costs_nothing_but_what_it_is_for() {
    let server = setup().start().await;
    one_shadow_each(&server, 2).await;
    let mut client = server.client_on(0).await;
    let was = client.who().await;
    let shadow = shadows(&server).into_iter().find(|it| it.name == "wsd: shadow 0").unwrap();
    kill(shadow.pid, Signal::SIGKILL);
    until("the log to tell", || async { server.log().contains("its shadow died").then_some(()) })
        .await;
    assert_eq!(client.who().await, was);
    kill(was.pid, Signal::SIGKILL);
    assert_eq!(client.closed().await, Closed::Abruptly);
    server.serving(0, Some(was.pid)).await;
    one_shadow_each(&server, 2).await;
}

#[tokio::test]
async fn deployments_keep_every_client_and_leave_no_shadow_behind() {
    let mut server = setup().start().await;
    let mut client = server.client_on(1).await;
    let was = client.who().await;
    let mut pids = Vec::new();
    for (worker_num, command) in [(2, "reload"), (3, "reload"), (1, "reload"), (2, "upgrade")] {
        server.configure("worker_num", worker_num);
        server.wsd([command]).await.ok();
        let is = client.who().await;
        assert_eq!(is.fd, was.fd);
        one_shadow_each(&server, worker_num).await;
        pids.push(is.pid);
    }
    // What came by way of them all outlives a kill as well.
    let slot = client.who().await.slot;
    settles(&server, slot).await;
    kill(*pids.last().unwrap(), Signal::SIGKILL);
    assert_eq!(client.who().await.fd, was.fd);
    server.configure("crash_proof", false);
    server.wsd(["reload"]).await.ok();
    assert_eq!(client.who().await.fd, was.fd);
    until("every shadow to leave", || async { shadows(&server).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_stop_and_the_masters_death_end_shadows_too() {
    let mut server = setup().start().await;
    one_shadow_each(&server, 2).await;
    let mut client = server.client().await;
    server.wsd(["stop"]).await.ok();
    assert!(matches!(client.closed().await, Closed::Frame(1001, _)));
    server.is_gone().await;
    assert_eq!(server.start_again().await.code, Some(0));
    let mut client = server.client().await;
    kill(server.master().await, Signal::SIGKILL);
    assert!(matches!(client.closed().await, Closed::Frame(1001, _)));
    server.is_gone().await;
}

#[tokio::test]
async fn a_client_outlives_its_worker_and_the_manager_at_once() {
    let server = setup().start().await;
    let mut client = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let was = client.who().await;
    for _ in 0..4 {
        let pid = client.who().await.pid;
        settles(&server, 0).await;
        kill(server.manager().await, Signal::SIGKILL);
        kill(pid, Signal::SIGKILL);
        assert_eq!(client.who().await.fd, was.fd);
        while other.ask(format!("confirmed {} hello", was.fd)).await != "confirmed queued" {}
        assert_eq!(client.receive().await, "hello");
    }
}
