//! What `docs/signals.md` says, done.

use nix::sys::signal::{SIGINT, SIGQUIT, SIGTERM, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;

async fn ended_by(signal: Signal) -> (Server, Closed) {
    let server = Setup::testbed().start().await;
    let mut client = server.client().await;
    kill(server.master().await, signal);
    let closed = client.closed().await;
    drop(client);
    server.is_gone().await;
    (server, closed)
}

#[tokio::test]
async fn term_and_int_say_goodbye() {
    for signal in [SIGTERM, SIGINT] {
        let (_server, closed) = ended_by(signal).await;
        assert!(matches!(closed, Closed::Frame(1001, _)), "{signal}: {closed:?}");
    }
}

#[tokio::test]
async fn a_stop_tells_each_client_when_to_come_back_and_spreads_them() {
    let server = Setup::testbed()
        .set("stop_jitter", r#""100ms""#)
        .set("reload_jitter", r#""10s""#)
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.client().await);
    }
    kill(server.master().await, SIGTERM);
    let mut times = Vec::new();
    for client in &mut clients {
        let Closed::Frame(1001, reason) = client.closed().await else { panic!("no goodbye") };
        let time = reason.strip_prefix("retry after ").and_then(|it| it.strip_suffix(" ms"));
        times.push(time.unwrap_or_else(|| panic!("{reason}")).parse::<u32>().unwrap());
    }
    assert!(times.iter().all(|time| *time < 10_000), "{times:?}");
    let early = times.iter().filter(|time| **time < 5_000).count();
    assert!((3..=17).contains(&early), "{times:?}");
    server.is_gone().await;
}

#[tokio::test]
async fn quit_tells_nobody() {
    let (_server, closed) = ended_by(SIGQUIT).await;
    assert_eq!(closed, Closed::Abruptly);
}

#[tokio::test]
async fn a_second_term_does_not_wait_for_handlers() {
    let server = Setup::testbed().set("max_wait_time", r#""600s""#).start().await;
    let mut client = server.client().await;
    client.send("sleep 600000").await;
    let master = server.master().await;
    kill(master, SIGTERM);
    until("the stop to begin", || async { server.log().contains("stopping").then_some(()) }).await;
    kill(master, SIGTERM);
    server.is_gone().await;
}

#[tokio::test]
async fn who_comes_while_the_server_stops_is_refused_at_once() {
    let setup = Setup::testbed().set("max_wait_time", r#""600s""#);
    let socket = setup.path().join("by-path.sock");
    let listen = format!(r#"["127.0.0.1:0", "unix:{}"]"#, socket.display());
    let server = setup.set("listen", listen).start().await;
    let mut client = server.client().await;
    client.send("sleep 600000").await;
    let master = server.master().await;
    kill(master, SIGTERM);
    until("nobody to be let in", || async {
        tokio::net::TcpStream::connect(&server.address).await.is_err().then_some(())
    })
    .await;
    // The kernel cannot refuse anybody there. A worker without clients may be about to end.
    until("a refusal by path", || async {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 503 ").then_some(())
    })
    .await;
    assert!(server.processes().iter().any(|process| process.name.starts_with("wsd: worker")));
    kill(master, SIGTERM);
    server.is_gone().await;
}

#[tokio::test]
async fn the_api_tells_that_the_server_stops_for_as_long_as_handlers_run() {
    let server = Setup::testbed().with_api().set("max_wait_time", r#""600s""#).start().await;
    let api = Api::of(&server).await;
    let mut client = server.client().await;
    client.send("sleep 600000").await;
    let master = server.master().await;
    kill(master, SIGTERM);
    let told = until("the word", async || {
        let told = api.try_ask("GET", "/ready", "").await.ok()?;
        (told.status == 503).then_some(told)
    })
    .await;
    assert_eq!(told.json()["error"]["message"], "stopping");
    assert_eq!(api.get("/live").await.status, 200);
    kill(master, SIGTERM);
    server.is_gone().await;
}

#[tokio::test]
async fn rtmin_reopens_the_log_in_every_process() {
    let server = Setup::testbed().start().await;
    let log = server.log_file();
    let old = server.path().join("wsd.log.1");
    std::fs::rename(&log, &old).unwrap();
    // nix has no name for real-time signals.
    let master = server.master().await;
    let rtmin = format!("-{}", libc::SIGRTMIN());
    let args = [rtmin, master.to_string()];
    command(tokio::process::Command::new("kill").args(args)).await.ok();
    until("nobody to write to the old one", || async {
        let mut open = server.processes().into_iter().flat_map(|p| open_descriptors(p.pid));
        (log.exists() && !open.any(|(_, target)| target == old)).then_some(())
    })
    .await;
    let mut client = server.client().await;
    client.send("panic").await;
    client.closed().await;
    until("a new line", || async { server.log().contains("told to panic").then_some(()) }).await;
}
