//! Readiness and draining: alone, behind HAProxy and behind nginx.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::harness::{Api, Closed, Raw, Server, Setup, kill, soon, until};
use crate::proxy::{HaProxy, Nginx};

/// One request on a connection that the client would keep.
async fn get(address: &str, path: &str) -> (u16, String) {
    let mut raw = Raw::connect(address).await;
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n")).await;
    let head = raw.head().await;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let length = head.to_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
    });
    let body = raw.bytes(length.unwrap_or(0)).await;
    (status, head + &String::from_utf8_lossy(&body))
}

#[tokio::test]
async fn a_server_that_drains_says_so_keeps_its_clients_and_ends_without_them() {
    let server = Setup::own_testbed().with_api().set("drain_grace", r#""2s""#).start().await;
    let api = Api::of(&server).await;
    assert_eq!(api.get("/live").await.status, 200);
    until("ready", async || (api.get("/ready").await.status == 200).then_some(())).await;
    assert_eq!(get(&server.address, "/healthz").await.0, 200);
    let mut client = server.client_on(1).await;

    server.wsd(["drain"]).await.ok();
    let told = api.get("/ready").await;
    assert_eq!((told.status, told.json()["error"]["message"].as_str()), (503, Some("draining")));
    assert_eq!(api.get("/live").await.status, 200);
    let (status, text) = get(&server.address, "/healthz").await;
    assert!(status == 503 && text.ends_with("draining\n"), "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    assert_eq!(server.status().await["draining"], true);
    assert!(server.wsd(["status"]).await.ok().contains("draining"));

    // Whatever happens to processes, the wish stays.
    server.wsd(["reload"]).await.ok();
    kill(server.manager().await, Signal::SIGKILL);
    let (program, new) = (server.path().join("testbed"), server.path().join("new"));
    fs::copy(&program, &new).unwrap();
    fs::rename(&new, &program).unwrap();
    server.wsd(["upgrade"]).await.ok();
    until("no new clients", async || TcpStream::connect(&server.address).await.err()).await;
    assert_eq!(server.status().await["draining"], true);
    server.wsd(["reload"]).await.ok();
    assert!(TcpStream::connect(&server.address).await.is_err());
    assert_eq!(client.ask("echo still here").await, "echo still here");

    server.wsd(["drain", "--undo"]).await.ok();
    let mut other = soon("a new client", server.client_on(0)).await;
    assert_eq!(get(&server.address, "/healthz").await.0, 200);
    assert_eq!(api.get("/ready").await.status, 200);

    server.wsd(["drain"]).await.ok();
    until("no new clients", async || TcpStream::connect(&server.address).await.err()).await;
    assert_eq!(other.ask("echo me too").await, "echo me too");
    client.close(1000, "").await;
    other.close(1000, "").await;
    server.is_gone().await;
}

#[tokio::test]
async fn a_drain_ends_with_clients_when_its_time_is_over() {
    // Within the grace as well.
    for grace in [0, 3600] {
        let setup = Setup::testbed().set("drain_grace", grace).set("drain_timeout", r#""1s""#);
        let server = setup.start().await;
        let mut client = server.client().await;
        server.wsd(["drain", "--wait"]).await.ok();
        assert!(matches!(client.closed().await, Closed::Frame(1001, _)));
        server.is_gone().await;
    }
}

#[tokio::test]
async fn a_full_server_is_not_ready() {
    let server = Setup::testbed().with_api().set("max_connection", 2).start().await;
    let api = Api::of(&server).await;
    let _clients = [server.client().await, server.client().await];
    let told = until("not ready", async || {
        let told = api.get("/ready").await;
        (told.status == 503).then_some(told)
    })
    .await;
    assert!(told.body.contains("over capacity"), "{told:?}");
}

/// Asks one request after the other until told otherwise: how many, and what was no 200.
async fn visit(address: String, ends: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> Vec<String> {
    let mut failed = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let (status, text) = get(&address, "/").await;
        if status != 200 {
            failed.push(text);
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    failed
}

async fn pair(grace: &str) -> [Server; 2] {
    let mut servers = Vec::new();
    for _ in 0..2 {
        let setup = Setup::stock().set("handler", r#""echo""#);
        let mut server = setup.set("drain_grace", grace).start().await;
        // The same address after each start, as balancers know it.
        let address = server.address.clone();
        server.configure("listen", format!("[{address:?}]"));
        servers.push(server);
    }
    servers.try_into().unwrap_or_else(|_| panic!("two servers"))
}

/// Drains and starts one server after the other, while requests come through the balancer.
async fn rolling_restart(servers: &mut [Server; 2], balancer: &str) {
    let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..3)
        .map(|_| tokio::spawn(visit(balancer.to_owned(), ends.clone(), asked.clone())))
        .collect();
    for server in servers.iter_mut() {
        server.wsd(["drain"]).await.ok();
        server.is_gone().await;
        let before = asked.load(Ordering::Relaxed);
        until("visits without it", async || {
            (asked.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        assert_eq!(server.start_again().await.code, Some(0), "{}", server.log());
        // Before the balancer knows that it is back, the next drain would leave nobody.
        until("visits to it", async || {
            let status = server.status().await;
            status["counters"]["http_requests"].as_u64().filter(|visits| *visits > 0)
        })
        .await;
    }
    ends.store(true, Ordering::Relaxed);
    for visitor in visitors {
        assert_eq!(visitor.await.unwrap(), Vec::<String>::new());
    }
    assert!(asked.load(Ordering::Relaxed) > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_haproxy_fails_no_request() {
    let mut servers = pair(r#""1s""#).await;
    let addresses = [servers[0].address.clone(), servers[1].address.clone()];
    let directory = servers[0].path().to_owned();
    let haproxy = HaProxy::balancing(&directory, &addresses).await;
    rolling_restart(&mut servers, &haproxy.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_nginx_fails_no_request() {
    let mut servers = pair("0").await;
    let addresses = [servers[0].address.clone(), servers[1].address.clone()];
    let directory = servers[0].path().to_owned();
    let nginx = Nginx::balancing(&directory, &addresses).await;
    rolling_restart(&mut servers, &nginx.address).await;
}
