//! `/metrics`: the figures of all processes, whoever is asked and whatever happens meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::{Api, Server, Setup, command, kill, repository, stock_program, until};

/// Each series with its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(pair).collect()
}

fn is_total(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
}

async fn scrape(api: &Api) -> BTreeMap<String, f64> {
    let reply = api.get("/metrics").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    series(&reply.body)
}

/// Waits until a series has a value: the master sums up once a second.
async fn comes_to(api: &Api, name: &str, want: f64) {
    until(&format!("{name} {want}"), async || {
        (scrape(api).await.get(name).copied() == Some(want)).then_some(())
    })
    .await;
}

async fn promtool(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: install the package prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

#[tokio::test]
async fn figures_are_those_of_all_workers_and_as_prometheus_wants_them() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    for client in &mut clients {
        client.who().await;
    }
    server.has_connections(2).await;
    comes_to(&api, "wsd_connections{kind=\"websocket\"}", 2.0).await;
    let opened = scrape(&api).await["wsd_opened_total"];
    let [one, two] = clients;
    one.close(1000, "").await;
    drop(two);
    // Those on the other worker were dropped at once.
    comes_to(&api, "wsd_closed_total{cause=\"client_closed\"}", 1.0).await;
    comes_to(&api, "wsd_closed_total{cause=\"client_vanished\"}", opened - 1.0).await;

    let reply = api.get("/metrics").await;
    assert!(reply.head.contains("text/plain; version=0.0.4"), "{}", reply.head);
    assert_eq!(promtool(&reply.body).await, "");
    let figures = series(&reply.body);
    assert_eq!(figures["wsd_handshake_seconds_count"], opened);
    assert_eq!(figures["wsd_worker_connections{worker=\"1\"}"], 0.0);
    assert!(figures["wsd_loop_lag_seconds_count"] > 0.0);
    assert_eq!((figures["wsd_slots"], figures["wsd_slots_ready"]), (2.0, 2.0));
    // The command line's publishes are the manager's to count.
    assert_eq!(figures["wsd_publishes_total"], 0.0);
    server.wsd(["publish", "nowhere", "x"]).await.ok();
    comes_to(&api, "wsd_publishes_total", 1.0).await;
}

#[tokio::test]
async fn what_the_rules_and_documents_name_is_told() {
    let server = Setup::stock().with_api().start().await;
    let text = Api::of(&server).await.get("/metrics").await.body;
    let words = text.lines().flat_map(|line| line.split(['{', ' ']));
    let names: Vec<&str> = words.filter(|name| name.starts_with("wsd_")).collect();
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    for file in ["etc/prometheus/wsd.rules.yml", "docs/operations.md"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        let words = text.split(|char| !is_name(char)).filter(|word| word.starts_with("wsd_"));
        for word in words.filter(|word| !["wsd_control", "wsd_"].contains(word)) {
            assert!(names.contains(&word), "{file} names {word}");
        }
    }
}

/// Scrapes without pause until told otherwise, and panics where a total goes back or a series is
/// no more.
async fn watch(api: Api, ends: Arc<AtomicBool>) -> (usize, BTreeMap<String, f64>) {
    let (mut scrapes, mut before) = (0, BTreeMap::<String, f64>::new());
    let mut unanswered = 0;
    while !ends.load(Ordering::Relaxed) {
        let Ok(reply) = api.try_ask("GET", "/metrics", "").await else {
            unanswered += 1;
            assert_eq!(unanswered, 1, "no scrape but that of the killed worker ends unanswered");
            continue;
        };
        assert_eq!(reply.status, 200, "{reply:?}");
        let now = series(&reply.body);
        for (series, value) in before.iter().filter(|(series, _)| is_total(series)) {
            let now = now.get(series).copied();
            assert!(now >= Some(*value), "{series} went from {value} to {now:?}");
        }
        before = now;
        scrapes += 1;
    }
    (scrapes, before)
}

async fn visited(server: &Server) {
    for slot in 0..2 {
        server.client_on(slot).await.close(1000, "").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_total_goes_back_over_reloads_upgrades_kills_and_removed_slots() {
    let mut server = Setup::own_testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let ends = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> =
        (0..2).map(|_| tokio::spawn(watch(api.clone(), ends.clone()))).collect();
    visited(&server).await;
    for round in 0..20 {
        server.wsd(["reload"]).await.ok();
        if round % 5 == 0 {
            visited(&server).await;
        }
    }
    kill(server.serving(0, None).await.pid, Signal::SIGKILL);
    server.serving(0, None).await;
    kill(server.manager().await, Signal::SIGKILL);
    let program = server.path().join("testbed");
    let new = server.path().join("new");
    fs::copy(&program, &new).unwrap();
    fs::rename(&new, &program).unwrap();
    server.wsd(["upgrade"]).await.ok();
    visited(&server).await;
    server.configure("worker_num", 1);
    server.wsd(["reload"]).await.ok();
    let opened = server.status().await["counters"]["opened"].as_f64().unwrap();
    comes_to(&api, "wsd_opened_total", opened).await;
    comes_to(&api, "wsd_slots", 1.0).await;
    ends.store(true, Ordering::Relaxed);
    for watcher in watchers {
        let (scrapes, last) = watcher.await.unwrap();
        assert!(scrapes > 20, "{scrapes} scrapes");
        assert_eq!(last["wsd_restarts_total{process=\"manager\"}"], 1.0);
        assert_eq!(last["wsd_restarts_total{process=\"worker\"}"], 1.0);
    }
}

#[tokio::test]
async fn over_tcp_a_token_is_needed_and_nothing_starts_without() {
    let open = Setup::stock().set("api.listen", r#"["127.0.0.1:0"]"#);
    let (_server, ran) = open.try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("api.tokens is empty"), "{ran:?}");
    assert!(ran.stderr.contains("wsd token"), "{ran:?}");

    let mut make = Command::new(stock_program());
    let made = command(make.args(["token", "grafana", "--json"])).await.ok();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let (token, entry) = (made["token"].as_str().unwrap(), made["entry"].as_str().unwrap());
    let setup = Setup::stock().set("api.listen", r#"["127.0.0.1:0"]"#);
    let server = setup.set("api.tokens", format!("[{entry:?}]")).start().await;
    let api = Api::of(&server).await;
    assert_eq!(api.with(token).get("/metrics").await.status, 200);
    for wrong in
        [api.clone(), api.with("x"), api.with(&token[1..]), api.with(&format!("{token}x"))]
    {
        let reply = wrong.get("/metrics").await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "unauthorized"));
        assert!(reply.head.to_lowercase().contains("www-authenticate: bearer"), "{}", reply.head);
    }
    assert_eq!(api.with(token).get("/other").await.code(), "not_found");
    let posted = api.with(token).ask("POST", "/metrics", "").await;
    assert_eq!((posted.status, posted.code().as_str()), (405, "method"));
    assert!(!server.log().contains(&token[4..]));
}

#[tokio::test]
async fn a_scrape_waits_for_a_worker_that_is_free() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let hung = server.serving(0, None).await.pid;
    kill(hung, Signal::SIGSTOP);
    for _ in 0..20 {
        assert_eq!(api.get("/metrics").await.status, 200);
    }
    kill(hung, Signal::SIGCONT);
}
