//! A worker is not trusted by the master, the manager or the other workers: each test does by a
//! worker's descriptors what only a worker that was taken over would do. docs/security.md says
//! what such a worker still can do.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::sys::signal::Signal;
use wsd::api::{Opcode, ProcessId};
use wsd::fd::{Fd, Slot};
use wsd::ipc::messages::{LEASE_SERIALS, WorkerToManager, WorkerToMaster};
use wsd::ipc::packet::Packet;
use wsd::ipc::scoreboard::Counter;

use crate::harness::*;

const MIB: i64 = 1 << 20;
/// What the kernel lets anybody put beside a packet.
const KERNEL_FDS_MAX: usize = 253;

/// An application that says READY (docs/app-protocol.md) and nothing more.
const READY_AND_SLEEP: &str = concat!(
    r#"printf "\000\000\000\000\040\116\002\000\100" >&3; "#,
    "head -c 11 /dev/zero >&3; exec sleep 1000"
);

/// The next serial of slot 0, as the master has written it down.
fn next_serial(server: &Server) -> Option<u64> {
    let text = std::fs::read_to_string(server.runtime().join("serials")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0 ")?.parse().ok())
}

/// A server with two workers, the first of which is in other hands, and a client of the other.
async fn taken_over(setup: Setup) -> (Server, i32, Stolen) {
    let server = setup.start().await;
    let pid = server.serving(0, None).await.pid;
    let stolen = Stolen::from(0, pid);
    (server, pid, stolen)
}

/// One whose workers may be stopped for longer than a test takes.
fn patient() -> Setup {
    Setup::testbed().set("worker_timeout", r#""120s""#)
}

/// Resident memory of a process.
pub fn resident(pid: i32) -> i64 {
    memory(pid, "status", "VmRSS")
}

/// That the worker of slot 0 is replaced, the log says why, and all else is as it was.
async fn is_replaced(server: &Server, pid: i32, other: &Worker) {
    server.serving(0, Some(pid)).await;
    assert!(server.log().contains("broke the protocol"), "{}", server.log());
    assert_eq!(server.serving(1, None).await.pid, other.pid);
    assert_eq!(server.status().await["restarts"]["managers"], 0);
    server.client_on(0).await;
}

fn nobody() -> u64 {
    Fd::new(0, Slot(0), 1 << 38).unwrap().as_u64()
}

#[tokio::test]
async fn a_lease_that_could_not_be_written_is_granted_as_soon_as_it_can() {
    let (server, _, worker) = taken_over(Setup::testbed().set("worker_num", 1)).await;
    let before = next_serial(&server).unwrap();
    // No file can be put where a directory is, not even by root.
    let file = server.runtime().join("serials");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    worker.tell_master(&WorkerToMaster::NeedLease, &[]);
    until("the failure in the log", async || server.log().contains("to lease").then_some(()))
        .await;
    std::fs::remove_dir(&file).unwrap();
    let next = until("the lease", async || next_serial(&server)).await;
    assert_eq!(next, before + LEASE_SERIALS);
    server.client().await.who().await;
}

#[tokio::test]
async fn a_worker_that_died_while_nothing_could_be_written_is_replaced_as_soon_as_it_can_be() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let worker = server.serving(0, None).await.pid;
    let file = server.runtime().join("serials");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    kill(worker, Signal::SIGKILL);
    until("some failed starts", async || {
        (server.log().matches("cannot start a worker").count() > 3).then_some(())
    })
    .await;
    // A worker that could not be started is not one that dies young: no delay builds up.
    assert_eq!(server.status().await["throttled"].as_array().map(Vec::len), Some(0));
    std::fs::remove_dir(&file).unwrap();
    server.serving(0, Some(worker)).await;
    server.client().await.who().await;
}

#[tokio::test]
async fn descriptors_that_no_message_names_are_closed() {
    let (server, pid, worker) = taken_over(Setup::testbed()).await;
    let (master, manager) = (server.master().await, server.manager().await);
    let open = |pid| open_descriptors(pid).len();
    let (in_master, in_manager) = (open(master), open(manager));
    let null = std::fs::File::open("/dev/null").unwrap();
    let many: Vec<BorrowedFd<'_>> = vec![null.as_fd(); KERNEL_FDS_MAX];
    let alive = worker.packet(&WorkerToManager::Alive(0), b"", 1);
    let id = ProcessId { place: 0, epoch: 1 };
    for _ in 0..20 {
        worker.to_manager(&alive.bytes, &many).unwrap();
        worker.tell_master(&WorkerToMaster::KillApp { id }, &many);
    }
    until("all of them to be closed", async || {
        // Each has an answer of its own to give before it counts.
        server.status().await;
        let here = (open(master), open(manager));
        (here.0 <= in_master + 8 && here.1 <= in_manager + 8).then_some(())
    })
    .await;
    assert_eq!(server.serving(0, None).await.pid, pid);
    server.client_on(0).await;
}

#[tokio::test]
async fn a_worker_that_asks_and_does_not_read_the_answers_is_not_read_itself() {
    let (server, pid, worker) = taken_over(patient()).await;
    let manager = server.manager().await;
    kill(pid, Signal::SIGSTOP);
    let push = WorkerToManager::Push { id: 1, fd: nobody(), opcode: Opcode::Text };
    // 2,000 of these would be 75 MiB of verdicts.
    let packet = worker.packet(&push, b"", 1_500);
    let mut taken = 0;
    while taken < 2_000
        && worker.insists(&packet.bytes, async || drop(server.status().await)).await
    {
        taken += 1;
    }
    assert!(taken < 1_000, "{taken} packets were read");
    assert!(resident(manager) < 64 * MIB, "{} bytes", resident(manager));
    kill(pid, Signal::SIGCONT);
    server.client_on(0).await;
}

#[tokio::test]
async fn answers_that_nobody_asked_for_do_not_pile_up_for_another_worker() {
    let (server, _, worker) = taken_over(patient()).await;
    let other = server.serving(1, None).await.pid;
    let manager = server.manager().await;
    kill(other, Signal::SIGSTOP);
    let origin = wsd::ipc::messages::Origin::Worker(wsd::fd::WorkerId { slot: Slot(1), epoch: 1 });
    let verdict = WorkerToManager::Verdict { origin, id: 1, verdict: wsd::api::Verdict::Queued };
    let packet = worker.packet(&verdict, b"", 1_500);
    for _ in 0..2_000 {
        assert!(worker.insists(&packet.bytes, async || drop(server.status().await)).await);
    }
    server.status().await;
    assert!(resident(manager) < 64 * MIB, "{} bytes", resident(manager));
    kill(other, Signal::SIGCONT);
    server.client_on(1).await;
}

#[tokio::test]
async fn who_floods_the_master_is_replaced_and_keeps_it_from_nothing() {
    let (server, pid, worker) = taken_over(Setup::testbed()).await;
    let other = server.serving(1, None).await;
    let id = ProcessId { place: 0, epoch: 1 };
    let mut sent = 0;
    while sent < 100_000 {
        match worker.try_tell_master(&WorkerToMaster::KillApp { id }, &[]) {
            Ok(()) => sent += 1,
            Err(nix::errno::Errno::EAGAIN) => tokio::task::yield_now().await,
            Err(_) => break,
        }
    }
    assert!(sent < 100_000, "the master took it all");
    is_replaced(&server, pid, &other).await;
    server.wsd(["stop"]).await.ok();
}

#[tokio::test]
async fn what_is_no_message_is_named_in_the_log_and_its_worker_replaced() {
    let good = |worker: &Stolen| worker.packet(&WorkerToManager::Drained, b"", 1).bytes;
    let cases: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |_| vec![0xff; 100],
        |good| good[..good.len() - 1].to_vec(),
        |mut good| {
            // A message that there is none of.
            good[16] = 0xff;
            good
        },
        // More than any packet has.
        |mut good| {
            good.resize(150 * 1024, 0);
            good
        },
    ];
    let server = Setup::testbed().start().await;
    let other = server.serving(1, None).await;
    let mut last = None;
    for (epoch, case) in (1..).zip(cases) {
        let pid = server.serving(0, last).await.pid;
        let mut worker = Stolen::from(0, pid);
        worker.id.epoch = epoch;
        worker.to_manager(&case(good(&worker)), &[]).unwrap();
        is_replaced(&server, pid, &other).await;
        last = Some(pid);
    }
}

#[tokio::test]
async fn a_body_is_sealed_memory_of_the_length_that_is_told_or_no_body() {
    let server = Setup::testbed().start().await;
    let other = server.serving(1, None).await;
    let broadcast = WorkerToManager::Broadcast { opcode: Opcode::Text, except: 0 };
    let unsealed = || {
        let memfd = wsd::sys::memory::open_memfd("body").unwrap();
        nix::unistd::ftruncate(&memfd, 3 << 30).unwrap();
        memfd
    };
    let (reader, _writer) = std::io::pipe().unwrap();
    let bodies = [
        (unsealed(), 3 << 30),
        (wsd::sys::memory::write_sealed("body", &[7; 100_000]).unwrap(), 99_999),
        (wsd::sys::memory::write_sealed("body", &[7; 5]).unwrap(), 5),
        (reader.into(), 40_000),
    ];
    let mut last = None;
    for (epoch, (memfd, len)) in (1..).zip(bodies) {
        let pid = server.serving(0, last).await.pid;
        let mut worker = Stolen::from(0, pid);
        worker.id.epoch = epoch;
        let mut packet = Packet::new(worker.id);
        packet.add_beside(&broadcast, memfd, len).unwrap();
        let fds: Vec<_> = packet.fds.iter().map(AsFd::as_fd).collect();
        worker.to_manager(&packet.bytes, &fds).unwrap();
        is_replaced(&server, pid, &other).await;
        last = Some(pid);
    }
    assert!(resident(other.pid) < 64 * MIB);
}

#[tokio::test]
async fn a_worker_gets_no_more_application_processes_than_its_configuration_says() {
    let server = Setup::stock()
        .set("handler", r#""app""#)
        .set("app.command", format!("['sh', '-c', '{READY_AND_SLEEP}']"))
        .set("app.processes", 2)
        .start()
        .await;
    let apps = || {
        let all = server.processes().into_iter();
        all.filter(|it| it.name == "sleep" || it.name.starts_with("wsd: app")).count()
    };
    until("the applications", async || (apps() == 4).then_some(())).await;
    let null = std::fs::File::open("/dev/null").unwrap();
    let other = server.serving(1, None).await;
    for (epoch, bad) in (1..).zip([
        ProcessId { place: 2, epoch: 1 },
        ProcessId { place: 1, epoch: 1 },
        ProcessId { place: u16::MAX, epoch: 1 },
    ]) {
        let pid = server.serving(0, None).await.pid;
        let mut worker = Stolen::from(0, pid);
        worker.id.epoch = epoch;
        let fds = [null.as_fd(); 2];
        // Those that are still in the bounds: a place has one that begins while another ends.
        for epoch in 10..60 {
            let id = ProcessId { place: 0, epoch };
            if worker.try_tell_master(&WorkerToMaster::StartApp { id }, &fds).is_err() {
                break;
            }
        }
        server.status().await;
        assert!(apps() <= 8, "{}", apps());
        // The worker may have been replaced meanwhile by an attempt before.
        let _ = worker.try_tell_master(&WorkerToMaster::StartApp { id: bad }, &fds);
        until("the worker to be replaced", async || {
            (server.serving(0, None).await.pid != pid).then_some(())
        })
        .await;
        assert!(server.log().contains("broke the protocol"));
    }
    until("the applications", async || (apps() == 4).then_some(())).await;
    assert_eq!(server.serving(1, None).await.pid, other.pid);
}

/// A count that nobody has.
const MANY: u64 = 1 << 40;

/// Writes a number into every word of the counters that a process has a descriptor of; how many
/// words the kernel took.
fn overwrite_by_descriptor(pid: i32) -> usize {
    let boards = open_descriptors(pid);
    let boards = boards.iter().filter(|(_, path)| path.to_string_lossy().contains("scoreboard"));
    let mut written = 0;
    for (number, _) in boards {
        let path = format!("/proc/{pid}/fd/{number}");
        let Ok(board) = std::fs::File::options().write(true).open(path) else { continue };
        let words = board.metadata().unwrap().len() / 8;
        let took = |word: &u64| board.write_at(&MANY.to_le_bytes(), word * 8).is_ok();
        written += (0..words).filter(took).count();
    }
    written
}

/// The same in the memory of the process, as code that runs there could.
pub fn overwrite_in_memory(pid: i32) -> usize {
    overwrite_words_in_memory(pid, |_| true)
}

/// As [`overwrite_in_memory`], of the words that are `wanted`.
fn overwrite_words_in_memory(pid: i32, wanted: impl Fn(u64) -> bool) -> usize {
    let memory = std::fs::File::options().write(true).open(format!("/proc/{pid}/mem"));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
    let (Ok(memory), Ok(maps)) = (memory, maps) else { return 0 };
    let boards = maps.lines().filter(|line| line.contains("scoreboard") && line.contains("rw-s"));
    let mut written = 0;
    for (start, end) in boards.filter_map(|line| line.split_once(' ')?.0.split_once('-')) {
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(start), address(end));
        for word in (0..(end - start) / 8).filter(|word| wanted(*word)) {
            written += usize::from(memory.write_at(&MANY.to_le_bytes(), start + word * 8).is_ok());
        }
    }
    written
}

/// A client on a slot, where others may be refused.
async fn let_in(server: &Server, slot: u64) -> Client {
    until("to be let in", async || {
        let mut client = Client::connect_with(&server.address, "/", &[]).await.ok()?;
        (client.who().await.slot == slot).then_some(client)
    })
    .await
}

#[tokio::test]
async fn counters_are_written_by_no_descriptor() {
    let server = Setup::testbed().set("max_connection", 100).start().await;
    for slot in [0, 1] {
        overwrite_by_descriptor(server.serving(slot, None).await.pid);
    }
    let mut clients = Vec::new();
    for slot in [0, 0, 1, 1] {
        clients.push(server.client_on(slot).await);
    }
    let connections = server.status().await["connections"].as_u64().unwrap();
    assert!((4..100).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_worker_that_counts_clients_it_cannot_have_is_replaced_and_costs_nobody_else() {
    let server = Setup::testbed().set("max_connection", 100).start().await;
    let pid = server.serving(0, None).await.pid;
    let other = server.serving(1, None).await;
    let mut bystander = let_in(&server, 1).await;
    let who = bystander.who().await;
    assert!(overwrite_in_memory(pid) > 0);
    let _others = [let_in(&server, 1).await, let_in(&server, 1).await];
    is_replaced(&server, pid, &other).await;
    assert_eq!(bystander.who().await, who);
    let status = server.status().await;
    assert!(status["connections"].as_u64().unwrap() < 100, "{}", status["connections"]);
    // Totals are what it said, as far as a number goes, and never go back.
    let opened = status["counters"]["opened"].as_u64().unwrap();
    assert!((MANY..1 << 53).contains(&opened), "{opened}");
}

#[tokio::test]
async fn a_worker_that_counts_requests_it_does_not_have_keeps_no_others_from_an_answer() {
    let server = Setup::testbed().set("http_requests_max", 100).start().await;
    let pid = server.serving(0, None).await.pid;
    let running = Counter::HttpRunning as u64;
    assert!(overwrite_words_in_memory(pid, |word| word == running) > 0);
    // The worker that lies refuses its own clients.
    until("an answer of the other worker", async || {
        let mut raw = Raw::connect(&server.address).await;
        raw.send("GET /client HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").await;
        raw.head().await.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
    assert_eq!(server.serving(0, None).await.pid, pid);
}

#[tokio::test]
async fn totals_outlive_kills_and_reloads_and_never_go_back() {
    let server = Setup::testbed().start().await;
    let mut opened = 0;
    for round in 0..6 {
        drop([server.client_on(0).await, server.client_on(1).await]);
        match round % 3 {
            0 => kill(server.serving(0, None).await.pid, Signal::SIGKILL),
            1 => drop(server.wsd(["reload"]).await.ok()),
            _ => kill(server.manager().await, Signal::SIGKILL),
        }
        let now = server.status().await["counters"]["opened"].as_u64().unwrap();
        assert!(now >= opened + 2, "{now} after {opened}, round {round}");
        opened = now;
        server.serving(0, None).await;
    }
}

#[tokio::test]
async fn questions_for_all_connections_wait_for_each_other() {
    let (server, _, worker) = taken_over(Setup::testbed()).await;
    let manager = server.manager().await;
    let packet = worker.packet(&WorkerToManager::List { id: 1 }, b"", 1_500);
    let mut taken = 0;
    while taken < 200 && worker.insists(&packet.bytes, async || drop(server.status().await)).await
    {
        taken += 1;
    }
    assert!(taken < 200, "all of them are under way at once");
    assert!(resident(manager) < 64 * MIB, "{} bytes", resident(manager));
    server.client_on(1).await;
}

#[tokio::test]
async fn a_listener_that_was_shut_down_listens_for_the_next_worker() {
    let server = Setup::testbed().start().await;
    // The socket of slot 0 was bound to a port of the kernel's choice, which it would lose.
    let pid = server.serving(1, None).await.pid;
    let worker = Stolen::from(1, pid);
    assert!(!worker.listeners.is_empty());
    for listener in &worker.listeners {
        socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both).unwrap();
    }
    kill(pid, Signal::SIGKILL);
    server.serving(1, Some(pid)).await;
    let_in(&server, 1).await;
    let_in(&server, 0).await;
}

#[tokio::test]
async fn a_listener_that_lets_nobody_in_is_made_anew_for_the_next_worker() {
    let server = Setup::testbed().start().await;
    let pid = server.serving(0, None).await.pid;
    let worker = Stolen::from(0, pid);
    // What comes by another interface than this is not for them; clients of a test come by `lo`.
    let devices = std::fs::read_dir("/sys/class/net").unwrap();
    let names = devices.map(|device| device.unwrap().file_name().into_string().unwrap());
    let device = names.into_iter().find(|name| name != "lo").unwrap_or("lo".to_owned());
    for listener in &worker.listeners {
        socket2::SockRef::from(listener).bind_device(Some(device.as_bytes())).unwrap();
    }
    drop(worker);
    kill(pid, Signal::SIGKILL);
    server.serving(0, Some(pid)).await;
    let_in(&server, 0).await;
    let_in(&server, 1).await;
    assert!(server.log().contains("the socket is made anew"), "{}", server.log());
}

#[tokio::test]
async fn no_worker_decides_who_gets_the_clients_of_the_others_listeners() {
    let (server, _, worker) = taken_over(Setup::testbed()).await;
    // A filter that drops all: `ret 0`.
    let drops = [socket2::SockFilter::new(6, 0, 0, 0)];
    for listener in &worker.listeners {
        let listener = socket2::SockRef::from(listener);
        assert!(listener.attach_filter(&drops).is_err());
    }
    server.client_on(0).await;
}
