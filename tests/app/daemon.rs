//! Application processes under the whole server: what their faults cost.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;
use crate::support::path;

/// A server whose application is this command.
pub fn app(command: &[&str]) -> Setup {
    let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    Setup::stock()
        .set("worker_num", 1)
        .set("handler", "\"app\"")
        .set("app.command", format!("[{}]", words.join(", ")))
}

pub fn native() -> Setup {
    app(&["php", &path("tests/app/fixtures/native.php")])
}

/// Waits for a line of the log that has all of these.
async fn logged(server: &Server, parts: &[&str]) {
    until(&format!("{parts:?} in the log"), async || {
        let log = server.log();
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_fault_of_a_handler_has_its_line_in_the_log_and_costs_nobody_else() {
    let server = native().set("app.event_timeout", "\"1s\"").start().await;
    let mut bystander = server.client().await;
    bystander.receive().await;
    let faults = [
        (
            "throw",
            1011,
            "the handler failed",
            vec!["ERROR", "Uncaught RuntimeException: as told", "#0 ", "{main}"],
        ),
        ("memory", 1011, "the handler failed", vec!["INFO", "ends", "a fatal error"]),
        (
            "die",
            1008,
            "the application failed on this client twice",
            vec!["ERROR", "given up: the process died"],
        ),
        ("hang", 1011, "the application failed", vec!["WARN", "killed", "event_timeout"]),
    ];
    for (word, code, reason, line) in faults {
        let mut client = server.client().await;
        client.receive().await;
        client.send(word).await;
        assert_eq!(client.closed().await, Closed::Frame(code, reason.to_owned()), "{word}");
        logged(&server, &line).await;
        assert_eq!(bystander.ask("echo still here").await, "still here", "after {word}");
    }
    let mut client = server.client().await;
    client.receive().await;
    assert_eq!(client.ask("noise").await, "made noise");
    logged(&server, &["INFO", "garbage"]).await;
    assert_eq!(client.ask("bad").await, "false");
    logged(&server, &["WARN", "not UTF-8"]).await;
    client.send("bye-push").await;
    assert_eq!(client.closed().await, Closed::Frame(4001, String::new()));
    logged(&server, &["after the close: false"]).await;
    assert_eq!(bystander.ask("echo still here").await, "still here");
    logged(&server, &["WARN", "gone; its events go to another"]).await;
}

/// A worker that left without a look at its processes left what they said at their end in a pipe.
#[tokio::test]
async fn what_an_application_says_at_its_end_is_in_the_log() {
    let server = app(&["php", &path("tests/app/fixtures/last_words.php")]).start().await;
    for _ in ["of a reload", "of a stop"] {
        let before = server.log().matches("these are the last words").count();
        match before {
            0 => server.wsd(["reload"]).await.ok(),
            _ => server.wsd(["stop"]).await.ok(),
        };
        until("the last words", async || {
            let log = server.log();
            let words = log.matches("these are the last words").count();
            let errors = log.matches("and this is an error behind them").count();
            (words > before && errors > before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_process_that_never_reads_is_replaced_and_the_log_says_why() {
    let deaf = path("tests/app/fixtures/deaf.py");
    let server = app(&["python3", &deaf]).set("app.event_timeout", "\"1s\"").start().await;
    let mut client = server.client().await;
    let mut idle = server.client().await;
    client.send("hello").await;
    assert_eq!(client.closed().await, Closed::Frame(1011, "the application failed".to_owned()));
    logged(&server, &["WARN", "killed", "the process finished no event within event_timeout"])
        .await;
    // Who asked nothing of it loses nothing.
    drop(client);
    server.has_connections(1).await;
    logged(&server, &["INFO", "ready", "app 0.2"]).await;
    assert!(idle.send_message(Message::Ping("".into())).await.is_ok());
    assert_eq!(idle.next_frame().await.unwrap().unwrap(), Message::Pong("".into()));
}

#[tokio::test]
async fn a_process_that_asks_without_waiting_is_answered_and_costs_its_worker_nothing() {
    const MIB: i64 = 1 << 20;
    let curious = path("tests/app/fixtures/curious.py");
    let server = app(&["python3", &curious]).set("max_connection", 1_000).start().await;
    let mut client = server.client().await;
    let worker = server.serving(0, None).await.pid;
    let before = memory(worker, "status", "VmHWM");
    client.send("ask").await;
    assert_eq!(client.receive().await, "0 wrong");
    let grown = memory(worker, "status", "VmHWM") - before;
    assert!(grown < 4 * MIB, "{} KiB more", grown >> 10);
    assert_eq!(server.serving(0, None).await.pid, worker);
}

#[tokio::test]
async fn a_handler_that_sleeps_delays_only_the_clients_of_its_process() {
    let server = native().set("app.processes", 2).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        client.receive().await;
        let pid = client.ask("pid").await;
        clients.push((pid, client));
    }
    let busy = clients[0].0.clone();
    let (mut same, mut others): (Vec<_>, Vec<_>) =
        clients.into_iter().map(Some).partition(|client| client.as_ref().unwrap().0 == busy);
    assert_eq!((same.len(), others.len()), (2, 2), "each process has two");
    let (mut sleeper, mut neighbour) = (same.remove(0).unwrap().1, same.remove(0).unwrap().1);
    let mut other = others.remove(0).unwrap().1;
    let begun = Instant::now();
    sleeper.send("sleep 5").await;
    neighbour.send("echo behind it").await;
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        assert_eq!(other.ask("echo beside it").await, "beside it");
        slowest = slowest.max(asked.elapsed());
        count += 1;
    }
    assert!(slowest < Duration::from_secs(1), "{count} answers, the slowest after {slowest:?}");
    assert_eq!(neighbour.receive().await, "behind it");
    assert!(begun.elapsed() >= Duration::from_secs(5), "one event after the other");
    assert_eq!(sleeper.receive().await, "slept");
}

#[tokio::test]
async fn a_process_that_leaks_is_replaced_and_nobody_notices() {
    let server = native().set("app.memory_limit", "\"96M\"").start().await;
    let (mut leaker, mut other) = (server.client().await, server.client().await);
    leaker.receive().await;
    other.receive().await;
    let first = other.ask("pid").await;
    assert_eq!(leaker.ask("leak 128").await, "leaked");
    logged(&server, &["INFO", "to be replaced", "over memory_limit"]).await;
    let second = until("another process", async || {
        let pid = other.ask("pid").await;
        (pid != first).then_some(pid)
    })
    .await;
    assert_eq!(leaker.ask("pid").await, second);
    assert_eq!(leaker.ask("seen").await, "attached:/:: attached:/::");
    assert!(!server.log().contains("killed"), "it left by itself");
}

/// The most memory that each process of a server has had, in KiB.
pub fn peaks(server: &Server) -> Vec<(i32, u64)> {
    let peak = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse().ok()
    };
    server.processes().iter().filter_map(|it| Some((it.pid, peak(it.pid)?))).collect()
}

#[tokio::test]
async fn an_answer_of_96_mebibytes_takes_little_memory() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = native().start().await;
    let get = async |target: &str| {
        let mut stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
        loop {
            match soon("a part", stream.read(&mut buffer)).await.unwrap() {
                0 => return bytes,
                read => bytes += read,
            }
        }
    };
    let file = server.path().join("file");
    std::fs::File::create(&file).unwrap().set_len(96 << 20).unwrap();
    let of_file = format!("/file?file={}&from=0&length={}", file.display(), 96 << 20);
    get("/stream?n=20").await;
    let before = peaks(&server);
    assert!(get("/stream?n=1000").await > 95 << 20);
    assert!(get(&of_file).await > 96 << 20);
    for (pid, peak) in peaks(&server) {
        let first = before.iter().find(|(other, _)| *other == pid).map(|(_, peak)| *peak);
        let grown = peak - first.expect("no new process");
        assert!(grown < 16 << 10, "process {pid} took {grown} KiB more");
    }
}
