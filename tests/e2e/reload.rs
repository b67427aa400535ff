//! New workers take over; what is wrong changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::*;

async fn pids(server: &Server) -> Vec<i32> {
    let mut pids: Vec<i32> = server
        .workers()
        .await
        .into_iter()
        .filter(|worker| worker.state == "serving")
        .map(|worker| worker.pid)
        .collect();
    pids.sort();
    pids
}

/// Waits until other workers serve in the place of all those.
async fn are_replaced(server: &Server, before: &[i32]) {
    until("new workers", || async {
        let after = pids(server).await;
        (after.len() == 2 && after.iter().all(|pid| !before.contains(pid))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_brings_new_workers_under_the_same_master() {
    let server = Setup::testbed().start().await;
    let (master, before) = (server.master().await, pids(&server).await);
    let said = server.wsd(["reload"]).await.ok();
    assert!(!said.is_empty(), "the verdict is printed");
    let after = pids(&server).await;
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} and {after:?}");
    assert_eq!(server.master().await, master);
    let _client = server.client().await;
    until("the old ones to leave", || async {
        before.iter().all(|pid| !is_alive(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn clients_stay_connected_and_keep_their_numbers() {
    let server = Setup::testbed().start().await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    let mut before = Vec::new();
    for client in &mut clients {
        before.push(client.who().await);
    }
    server.wsd(["reload"]).await.ok();
    for (client, before) in clients.iter_mut().zip(before) {
        let after = client.who().await;
        assert_eq!((after.fd, after.slot), (before.fd, before.slot));
        assert_ne!(after.pid, before.pid);
    }
}

#[tokio::test]
async fn a_client_whose_handler_outlives_a_reload_follows_when_it_has_ended() {
    let server = Setup::testbed().start().await;
    let mut client = server.client_on(0).await;
    let before = client.who().await;
    // A handler may hold up a reload for two seconds.
    client.send("sleep 3000").await;
    server.wsd(["reload"]).await.ok();
    assert_eq!(server.connections().await.len(), 1);
    assert_eq!(client.receive().await, "sleep slept");
    until("it to follow", async || {
        let after = client.who().await;
        assert_eq!(after.fd, before.fd);
        (after.pid != before.pid).then_some(())
    })
    .await;
    until("the old one to leave", || async { (!is_alive(before.pid)).then_some(()) }).await;
}

#[tokio::test]
async fn a_message_to_a_slot_reaches_both_of_its_processes_and_one_of_them_is_giving() {
    let server = Setup::testbed().start().await;
    let mut slow = server.client_on(0).await;
    let old = slow.who().await.pid;
    slow.send("sleep 3000").await;
    let meanwhile = async {
        let mut new = until("a client of the new process", || async {
            let mut client = server.client().await;
            let who = client.who().await;
            (who.slot == 0 && who.pid != old).then_some(client)
        })
        .await;
        let mut other = server.client_on(1).await;
        for (client, job) in [(&mut new, "of the same slot"), (&mut other, "of another slot")] {
            client.send(&format!("send 0 job {job}")).await;
            client.receive().await;
        }
    };
    let (reloaded, ()) = tokio::join!(server.wsd(["reload"]), meanwhile);
    reloaded.ok();
    for job in ["of the same slot", "of another slot"] {
        until("both processes", || async {
            let events = server.events();
            let of = |giving: bool| {
                events.iter().filter(|it| **it == format!("job {job} giving={giving}")).count()
            };
            assert!(of(true) <= 1 && of(false) <= 1, "{events:?}");
            (of(true) == 1 && of(false) == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_signal_reloads_too() {
    let server = Setup::stock().start().await;
    for signal in [nix::sys::signal::SIGHUP, nix::sys::signal::SIGUSR1] {
        let before = pids(&server).await;
        kill(server.master().await, signal);
        are_replaced(&server, &before).await;
    }
}

#[tokio::test]
async fn a_reload_asked_of_a_manager_that_dies_is_not_forgotten() {
    use nix::sys::signal::{SIGHUP, SIGKILL, SIGSTOP};
    let server = Setup::stock().start().await;
    let (before, master, manager) =
        (pids(&server).await, server.master().await, server.manager().await);
    kill(manager, SIGSTOP);
    kill(master, SIGHUP);
    until("the signal to be taken", || async {
        let status = std::fs::read_to_string(format!("/proc/{master}/status")).unwrap();
        let pending = status.lines().filter(|line| line.starts_with("ShdPnd:"));
        pending.into_iter().all(|line| line.ends_with("0000000000000000")).then_some(())
    })
    .await;
    kill(manager, SIGKILL);
    are_replaced(&server, &before).await;
}

#[tokio::test]
async fn a_reload_takes_the_configuration_as_it_is_now() {
    let mut server = Setup::testbed().start().await;
    server.configure("subprotocols", r#"["soap"]"#);
    server.wsd(["reload"]).await.ok();
    let headers = [("sec-websocket-protocol", "soap")];
    let client = Client::connect_with(&server.address, "/", &headers).await.unwrap();
    assert_eq!(client.response.headers()["sec-websocket-protocol"], "soap");
}

#[tokio::test]
async fn overrides_of_the_start_survive_a_reload() {
    let (mut server, ran) = Setup::stock().env("WSD_TASK_THREADS", "3").try_start().await;
    assert_eq!(ran.code, Some(0));
    server.wsd(["stop"]).await.ok();
    let mut start = server.starter();
    command(start.args(["start", "-d", "--set", "worker_num=3"])).await.ok();
    server.configure("worker_num", 1);
    server.wsd(["reload"]).await.ok();
    assert_eq!(pids(&server).await.len(), 3);
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let mut server = Setup::testbed().start().await;
    let mut client = server.client().await;
    let (who, before) = (client.who().await, pids(&server).await);
    server.configure("worker_nmu", 3);
    let ran = server.wsd(["reload"]).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("worker_nmu") && said.contains("worker_num"), "{said}");
    assert_eq!(pids(&server).await, before);
    assert_eq!(client.who().await, who);
}

#[tokio::test]
async fn what_cannot_change_is_refused_by_name() {
    let mut server = Setup::stock().start().await;
    let before = pids(&server).await;
    let elsewhere = format!("{:?}", server.path().join("other.pid").display().to_string());
    server.configure("pid_file", elsewhere);
    let ran = server.wsd(["reload"]).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("pid_file"), "{ran:?}");
    assert_eq!(pids(&server).await, before);
}

#[tokio::test]
async fn a_plain_request_that_is_under_way_is_answered_by_the_worker_that_leaves() {
    let setup = Setup::testbed();
    let gate = setup.path().join("gate");
    let setup = setup.env("TESTBED_GATE", &gate.display().to_string());
    let server = setup.start().await;
    let before = server.workers().await;
    let mut raw = Raw::connect(&server.address).await;
    raw.send("GET /when-there-is HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    until("the request to be there", async || {
        server.events().contains(&"waits".to_owned()).then_some(())
    })
    .await;
    server.wsd(["reload"]).await.ok();
    // The other old worker has nothing to wait for.
    until("an old worker to be gone", async || {
        let left =
            before.iter().filter(|it| std::path::Path::new(&format!("/proc/{}", it.pid)).exists());
        (left.count() < 2).then_some(())
    })
    .await;
    std::fs::write(&gate, "").unwrap();
    let answer = String::from_utf8(raw.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("there is"), "{answer}");
}

#[tokio::test]
async fn listeners_come_and_go_with_a_reload() {
    let mut server = Setup::testbed().start().await;
    let socket = server.path().join("http.sock");
    server.configure("listen", format!(r#"["127.0.0.1:0", "unix:{}"]"#, socket.display()));
    server.wsd(["reload"]).await.ok();
    assert_eq!(server.status().await["listen"].as_array().unwrap().len(), 2);
    tokio::net::UnixStream::connect(&socket).await.expect("the new listener");
    let _client = server.client().await;
    server.configure("listen", r#"["127.0.0.1:0"]"#);
    server.wsd(["reload"]).await.ok();
    until("the listener to go", || async {
        tokio::net::UnixStream::connect(&socket).await.is_err().then_some(())
    })
    .await;
    let _client = server.client().await;
}

/// What connects and asks, over and over, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn start(address: &str, clients: usize) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..clients).map(|_| {
            let (address, stop, done) = (address.to_owned(), stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A handshake that fails ends this task, and the test with it.
                    drop(Client::connect(&address, "/").await);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let tasks = tasks.collect();
        Load { stop, done, tasks }
    }

    /// Handshakes so far; all of them went well.
    pub fn done(&self) -> usize {
        assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "one failed");
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more were done.
    pub async fn more(&self, count: usize) {
        let wanted = self.done() + count;
        until("more handshakes", || async { (self.done() >= wanted).then_some(()) }).await;
    }

    /// Stops it; the number of handshakes.
    pub async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every handshake to succeed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_connect_load_fail_no_handshake() {
    let mut server = Setup::stock().start().await;
    let load = Load::start(&server.address, 8);
    for worker_num in [1, 8, 8, 2, 2, 1, 3] {
        server.configure("worker_num", worker_num);
        server.wsd(["reload"]).await.ok();
        assert_eq!(server.status().await["worker_num"], worker_num);
        load.more(50).await;
    }
    assert!(load.end().await > 300);
}
