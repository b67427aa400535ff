//! The claims at full scale, with their figures. `scripts/soak` runs them; each prints what it
//! saw.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::*;
use crate::proxy::{Nginx, stays_silent};
use crate::push::orderly_flood;
use crate::reload::Load;

/// The middle and the worst of some times.
fn figures(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let worst = times[times.len() - 1];
    println!(
        "{what}: {} times, median {:?}, worst {worst:?}",
        times.len(),
        times[times.len() / 2]
    );
    worst
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn fifty_kills_of_a_worker() {
    // The bystanders do not read for a minute, so they would not answer pings.
    let server = Setup::testbed().set("ping_interval", 0).start().await;
    let mut bystanders = Vec::new();
    for _ in 0..100 {
        let mut client = server.client_on(1).await;
        bystanders.push((client.who().await, client));
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let worker = server.serving(0, None).await;
        // A worker that dies within a second of its readiness is held back, as it should be.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let killed = Instant::now();
        kill(worker.pid, Signal::SIGKILL);
        // A signal takes a moment; a client that comes before it is a victim too.
        until("its end", async || (!is_alive(worker.pid)).then_some(())).await;
        let mut next = server.client_on(0).await;
        times.push(killed.elapsed());
        assert_ne!(next.who().await.pid, worker.pid);
    }
    for (who, client) in &mut bystanders {
        assert_eq!(client.who().await, *who);
    }
    let worst = figures("a killed worker's slot accepts again", times);
    assert!(worst < Duration::from_millis(500));
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn fifty_kills_of_the_manager() {
    let server = Setup::testbed().start().await;
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    let fd = other.who().await.fd;
    let mut times = Vec::new();
    for _ in 0..50 {
        let manager = server.manager().await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let killed = Instant::now();
        kill(manager, Signal::SIGKILL);
        while one.ask(format!("confirmed {fd} back")).await != "confirmed queued" {}
        times.push(killed.elapsed());
        assert_eq!(other.receive().await, "back");
    }
    assert_eq!(server.connections().await.len(), 2);
    let worst = figures("pushes are back after the manager was killed", times);
    assert!(worst < Duration::from_secs(1));
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn fifty_kills_of_the_master() {
    let mut server = Setup::testbed().start().await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let _client = server.client().await;
        let master = server.master().await;
        let killed = Instant::now();
        kill(master, Signal::SIGKILL);
        server.is_gone().await;
        times.push(killed.elapsed());
        let ran = server.start_again().await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let worst = figures("nothing is left after the master was killed", times);
    assert!(worst < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; scripts/soak"]
async fn a_hundred_reloads_under_connect_load() {
    let mut server = Setup::stock().start().await;
    let load = Load::start(&server.address, 16);
    for round in 0..100 {
        server.configure("worker_num", [1, 8, 2, 2][round % 4]);
        server.wsd(["reload"]).await.ok();
        load.more(200).await;
    }
    let done = load.end().await;
    println!("100 reloads, {done} handshakes, none failed");
    assert!(done >= 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; scripts/soak"]
async fn a_million_pushes_across_workers() {
    // Faster than these clients read: what has no room is to be refused, and counted.
    let server =
        Setup::testbed().set("worker_num", 3).set("buffer_policy", r#""drop""#).start().await;
    let began = Instant::now();
    let flood = orderly_flood(&server, 333_334).await;
    println!("1,000,002 pushes in {:?}, {flood:?}", began.elapsed());
    let status = server.status().await;
    println!("{:#} {:#}", status["counters"], status["manager"]);
    let refused = status["counters"]["push_full"].as_u64().unwrap();
    assert_eq!(flood.missing + flood.again, refused, "missing, and in no counter");
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn status_answers_while_stalled_clients_are_flooded() {
    let server = Setup::testbed().set("buffer_policy", r#""drop""#).start().await;
    let mut pushers = [server.client_on(0).await, server.client_on(1).await];
    let mut stalled = Vec::new();
    for slot in [1, 0] {
        let mut client = server.client_on(slot).await;
        stalled.push((client.who().await.fd, client));
    }
    for (pusher, (fd, _)) in pushers.iter_mut().zip(&stalled) {
        pusher.send(format!("flood {fd} 10000000")).await;
    }
    let mut times = Vec::new();
    for _ in 0..100 {
        let asked = Instant::now();
        server.wsd(["status", "--json"]).await.ok();
        times.push(asked.elapsed());
    }
    let worst = figures("status during the flood", times);
    assert!(worst < Duration::from_millis(100));
}

#[tokio::test]
#[ignore = "takes three minutes; scripts/soak"]
async fn a_silent_client_stays_three_minutes_through_nginx_with_its_defaults() {
    let server = Setup::testbed().start().await;
    let nginx = Nginx::start(server.path(), &server.address, "").await;
    let mut client = Client::connect(&nginx.address, "/ws").await;
    let who = client.who().await;
    stays_silent(&mut client, Duration::from_secs(180)).await;
    assert_eq!(client.who().await, who);
    println!("a silent client stayed 180 s behind nginx's 60 s");
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn no_number_repeats_over_20_restarts_and_20_kills() {
    let mut server = Setup::testbed().start().await;
    let mut seen = std::collections::HashSet::new();
    for round in 0..40 {
        let mut pid = 0;
        for _ in 0..50 {
            let who = server.client().await.who().await;
            assert!(seen.insert(who.fd), "{} came twice", who.fd);
            pid = who.pid;
        }
        if round % 2 == 0 {
            kill(pid, Signal::SIGKILL);
        } else {
            server.wsd(["stop"]).await.ok();
            assert_eq!(server.start_again().await.code, Some(0));
        }
    }
    println!("{} numbers, none twice", seen.len());
}

/// What a process holds: open descriptors, memory of its own in KiB, children that nobody
/// reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    descriptors: usize,
    memory_kib: i64,
    zombies: usize,
}

const MEMORY_SLACK_KIB: i64 = 4096;

impl Holds {
    fn of(pid: i32) -> Holds {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let zombie = |pid: &&str| stat_letter(pid.parse().unwrap()) == Some('Z');
        Holds {
            descriptors: open_descriptors(pid).len(),
            memory_kib: memory(pid, "status", "RssAnon") >> 10,
            zombies: children.unwrap().split_whitespace().filter(zombie).count(),
        }
    }

    /// That this is no more than `before`. An allocator keeps what its busiest moment needed, and
    /// a reload of many workers may be busier than the last; so memory may have grown once, by
    /// 2 KiB for each of 2,000 workers. A descriptor or a zombie may not be more.
    fn is_no_more_than(&self, before: &Holds) -> bool {
        self.descriptors <= before.descriptors
            && self.zombies == 0
            && self.memory_kib <= before.memory_kib + MEMORY_SLACK_KIB
    }
}

/// Waits until both have let go of what was replaced last, and prints what they hold.
async fn settled(server: &Server, what: &str, before: Option<[Holds; 2]>) -> [Holds; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = [Holds::of(server.master().await), Holds::of(server.manager().await)];
        let fits = before.is_none_or(|before| {
            now.iter().zip(&before).all(|(now, before)| now.is_no_more_than(before))
        });
        if fits || Instant::now() > deadline {
            println!("{what}: master {:?}, manager {:?}", now[0], now[1]);
            assert!(fits, "{what}: more than {before:?}");
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "takes a minute; scripts/soak"]
async fn fifteen_thousand_idle_clients_move_within_a_second() {
    const CLIENTS: usize = 15_000;
    let server = Setup::testbed().set("worker_num", 1).set("ping_interval", 0).start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Raw::upgraded(&server.address).await);
    }
    server.has_connections(CLIENTS).await;
    let all_hold = async || {
        let [manager, worker] = [server.manager().await, server.workers().await[0].pid];
        Holds::of(manager).memory_kib + Holds::of(worker).memory_kib
    };
    let before = all_hold().await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        server.wsd(["reload"]).await.ok();
        times.push(began.elapsed());
        server.has_connections(CLIENTS).await;
    }
    let worst = figures("reload with 15,000 idle clients", times);
    println!("worker and manager: {before} KiB before, {} KiB after", all_hold().await);
    assert!(worst < Duration::from_secs(1));
    until("the memory to be back", async || {
        (all_hold().await <= before + MEMORY_SLACK_KIB).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes; scripts/soak"]
async fn a_hundred_reloads_and_a_thousand_kills_leave_nothing_behind() {
    const SLOTS: u64 = 20;
    let server = Setup::testbed().set("worker_num", SLOTS).start().await;
    let reload = async |times: usize| {
        for _ in 0..times {
            server.wsd(["reload"]).await.ok();
        }
    };
    let kill_all = async |times: usize| {
        for _ in 0..times {
            for slot in 0..SLOTS {
                server.serving(slot, None).await;
            }
            // A worker that dies within a second of its readiness is held back.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            for worker in server.workers().await {
                kill(worker.pid, Signal::SIGKILL);
            }
        }
        for slot in 0..SLOTS {
            server.serving(slot, None).await;
        }
    };
    // An allocator takes what the busiest moment needs, and keeps it.
    reload(25).await;
    kill_all(2).await;
    let before = settled(&server, "at first", None).await;
    reload(100).await;
    let after = settled(&server, "after 100 reloads", Some(before)).await;
    kill_all(50).await;
    settled(&server, "after 1,000 kills", Some(after)).await;
    let (mut master, manager) = (before[0], server.manager().await);
    kill(manager, Signal::SIGKILL);
    until("the next manager", async || (server.manager().await != manager).then_some(())).await;
    master.memory_kib += MEMORY_SLACK_KIB;
    until("the dead to be let go", async || {
        Holds::of(server.master().await).is_no_more_than(&master).then_some(())
    })
    .await;
}
