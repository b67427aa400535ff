//! Small scripts in the manner of public ones, run as their users run them.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, kill, soon, until};
use crate::sites::{Script, free_port, get_of};
use crate::support::path;

async fn start(name: &str) -> Script {
    start_with(name, &[]).await
}

async fn start_with(name: &str, env: &[(&str, &str)]) -> Script {
    let script = path(&format!("tests/app/fixtures/scripts/{name}.php"));
    Script::start_with(&[&script], env).await
}

#[tokio::test]
async fn a_script_that_asks_for_pings_and_pongs_gets_them_and_answers_itself() {
    let script = start("pings").await;
    let mut client = Client::connect(&script.address, "/").await;
    client.send_message(Message::Ping("a".into())).await.unwrap();
    assert_eq!(client.next_frame().await.unwrap().unwrap(), Message::Pong("own a".into()));
    client.send_message(Message::Pong("b".into())).await.unwrap();
    assert_eq!(client.receive().await, "pong b");
    assert_eq!(client.ask("c").await, "text c");
    script.stop().await;
}

/// What `values` of counters.php says: the rows of the table, the atomic, the long one.
#[derive(Debug, PartialEq, Deserialize)]
struct Values(BTreeMap<String, i64>, i64, i64);

async fn values(client: &mut Client) -> Values {
    serde_json::from_str(&client.ask("values").await).unwrap()
}

/// A client for each of the four processes, by their numbers.
async fn one_for_each(script: &Script) -> BTreeMap<String, Client> {
    let mut clients = BTreeMap::new();
    until("a client of each process", async || {
        let mut client = Client::connect(&script.address, "/").await;
        clients.insert(client.ask("who").await, client);
        (clients.len() == 4).then_some(())
    })
    .await;
    clients
}

#[tokio::test]
async fn what_processes_count_is_exact_also_when_one_is_killed_in_the_midst() {
    let script = start("counters").await;
    let mut clients = one_for_each(&script).await;
    let mut victim = clients.remove("3").unwrap();
    let pid = victim.ask("pid").await.parse().unwrap();
    assert_eq!(victim.ask("forever").await, "\"counting\"");
    for client in clients.values_mut() {
        client.send("count 1000").await;
    }
    for client in clients.values_mut() {
        assert_eq!(client.receive().await, "\"counted\"");
    }
    kill(pid, Signal::SIGKILL);
    victim.closed().await;
    let Values(rows, atomic, long) = values(clients.get_mut("0").unwrap()).await;
    assert_eq!([rows["of 0"], rows["of 1"], rows["of 2"]], [1000; 3]);
    // The killed one did four steps in turn, and may have done the last round in part.
    let steps = [rows["sum"] - 1000, 3000 + rows["of 3"], atomic - 7, -1 - long];
    assert!(steps.is_sorted_by(|a, b| a >= b) && steps[0] - steps[3] <= 1, "{steps:?}");
    script.stop().await;
}

#[tokio::test]
async fn what_processes_share_outlives_a_reload_and_no_lock_outlives_its_holder() {
    let script = start("counters").await;
    let mut clients = one_for_each(&script).await;
    let mut holder = clients.remove("1").unwrap();
    let client = clients.get_mut("0").unwrap();
    assert_eq!(holder.ask("hold").await, "true");
    assert_eq!(client.ask("try").await, "[false,false,110]");
    let pid: i32 = holder.ask("pid").await.parse().unwrap();
    kill(pid, Signal::SIGKILL);
    assert_eq!(client.ask("lock").await, "[true,false,true,false]");
    client.send("count 10").await;
    client.receive().await;
    let (before, pid) = (values(client).await, client.ask("pid").await);
    assert_eq!(before.0, BTreeMap::from([("of 0".into(), 10), ("sum".into(), 1010)]));
    kill(script.pid(), Signal::SIGUSR1);
    until("a process of after the reload", async || {
        (client.ask("pid").await != pid).then_some(())
    })
    .await;
    assert_eq!(values(client).await, before);
    let full = client.ask("fill").await;
    let said =
        r#""Swoole\\Table::set(): failed to set('key43'), unable to allocate memory",45,0]"#;
    assert!(full.ends_with(said), "{full}");
    script.stop().await;
}

#[tokio::test]
async fn a_process_of_the_servers_own_reads_a_queue_and_pushes() {
    let script = start("queue").await;
    let mut one = Client::connect(&script.address, "/").await;
    let mut two = Client::connect(&script.address, "/").await;
    assert_eq!(one.ask("who").await, "[3,0,false]");
    one.send("all news").await;
    assert_eq!(one.receive().await, "to all: news");
    assert_eq!(two.receive().await, "to all: news");
    one.send("pipe hello").await;
    assert_eq!(two.receive().await, "worker 0 was told by 3: hello");
    one.receive().await;
    // One that ends, by itself or by a signal, runs again.
    one.send("exit").await;
    until("the second run", async || (one.ask("runs").await == "2").then_some(())).await;
    let pid: i32 = one.ask("pid").await.parse().unwrap();
    kill(pid, Signal::SIGKILL);
    until("the third run", async || (one.ask("runs").await == "3").then_some(())).await;
    // A reload replaces it, and a timer of another one goes on.
    kill(script.pid(), Signal::SIGUSR1);
    until("the run after the reload", async || (one.ask("runs").await == "4").then_some(())).await;
    let ticks: u64 = one.ask("ticks").await.parse().unwrap();
    until("more ticks", async || {
        let now: u64 = one.ask("ticks").await.parse().unwrap();
        (now > ticks).then_some(())
    })
    .await;
    script.stop().await;
}

#[tokio::test]
async fn a_result_that_comes_in_a_reload_is_told_once_to_the_process_that_gave_the_task() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (begun, result, go) = (file("begun"), file("result"), file("go"));
    let env = [("BEGUN", begun.as_str()), ("RESULT", result.as_str()), ("GO", go.as_str())];
    let script = start_with("results", &env).await;
    let mut giver = Client::connect(&script.address, "/").await;
    let old = giver.ask("pid").await;
    giver.send("give").await;
    until("the task", async || std::fs::exists(&begun).unwrap().then_some(())).await;
    kill(script.pid(), Signal::SIGUSR1);
    let mut other = until("a process of after the reload", async || {
        let mut client = Client::connect(&script.address, "/").await;
        // The old process is at work, and answers nobody meanwhile.
        let pid = tokio::time::timeout(Duration::from_millis(300), client.ask("pid")).await;
        pid.is_ok_and(|pid| pid != old).then_some(client)
    })
    .await;
    std::fs::write(&result, "").unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(giver.receive().await, old);
    until("the move", async || (giver.ask("pid").await != old).then_some(())).await;
    until("the result", async || (other.ask("finished").await != "0").then_some(())).await;
    assert_eq!(other.ask("finished").await, "1");
    script.stop().await;
}

#[tokio::test]
async fn a_task_has_its_time_in_a_reload_and_in_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (begun, done) = (file("begun"), file("done"));
    let script = start_with("long_task", &[("BEGUN", &begun), ("DONE", &done)]).await;
    let exists = async |file: &str| std::fs::exists(file).unwrap().then_some(());
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        let mut client = Client::connect(&script.address, "/").await;
        client.send("begin").await;
        until("the task", async || exists(&begun).await).await;
        // Nobody is left for whom the worker would wait.
        drop(client);
        kill(script.pid(), signal);
        until("the task's end", async || exists(&done).await).await;
        std::fs::remove_file(&begun).unwrap();
        std::fs::remove_file(&done).unwrap();
    }
    script.ended().await;
}

#[tokio::test]
async fn each_port_of_a_script_has_callbacks_of_its_own() {
    let (second, third) = (free_port().await.to_string(), free_port().await.to_string());
    let env = [("SECOND", second.as_str()), ("THIRD", third.as_str())];
    let script = start_with("two_ports", &env).await;
    let mut chat = Client::connect(&script.address, "/").await;
    assert_eq!(chat.receive().await, "chat");
    let mut sensor = Client::connect(&format!("127.0.0.1:{second}"), "/").await;
    assert_eq!(sensor.receive().await, "sensor");
    assert_eq!(chat.ask("hello").await, "chat hello");
    sensor.send("7").await;
    assert_eq!(chat.receive().await, "measured 7");
    assert_eq!(sensor.receive().await, "measured 7");
    let operators = format!("127.0.0.1:{third}");
    assert!(get_of("localhost", &operators, "/status").await.ends_with("[3,\"\\/status\"]"));
    assert!(get_of("localhost", &script.address, "/").await.ends_with("page"));
    assert!(get_of("localhost", &format!("127.0.0.1:{second}"), "/").await.ends_with("page"));
    assert!(Client::connect_with(&operators, "/", &[]).await.is_err());
    script.stop().await;
}

#[tokio::test]
async fn coroutines_on_fibers_keep_the_order_of_each_client() {
    let fixture = path("tests/app/fixtures/coroutines.php");
    let server = crate::daemon::app(&["php", &fixture]).start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    one.send("pop").await;
    one.send("behind it").await;
    // The same process handles another client while the first one's handler waits.
    assert_eq!(two.ask("meanwhile").await, "done meanwhile");
    assert_eq!(two.ask("push news").await, "done push news");
    for answer in ["popped news", "done pop", "done behind it"] {
        assert_eq!(one.receive().await, answer);
    }
    one.send("sleep 0.05").await;
    one.send("after").await;
    assert_eq!(one.receive().await, "done sleep 0.05");
    assert_eq!(one.receive().await, "done after");
    assert_eq!(one.ask("both").await, "done both");
    assert_eq!(one.receive().await, "of a coroutine of its own");
}

#[tokio::test]
async fn a_request_over_max_concurrency_hears_503_and_a_long_body_413_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (begun, go) = (directory.path().join("begun"), directory.path().join("go"));
    let env = [("BEGUN", begun.to_str().unwrap()), ("GO", go.to_str().unwrap())];
    let script = start_with("busy", &env).await;
    let ask = async |head: &str| {
        let mut stream = TcpStream::connect(&script.address).await.unwrap();
        let head = format!("{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let rest = async |mut stream: TcpStream| {
        stream.write_all(b"\r\n").await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let mut slow = ask("GET /slow").await;
    slow.write_all(b"\r\n").await.unwrap();
    until("the slow one's begin", async || begun.is_file().then_some(())).await;
    let refused = rest(ask("GET /quick").await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.to_lowercase().contains("\r\nretry-after: "), "{refused}");
    std::fs::write(&go, "").unwrap();
    let mut whole = String::new();
    soon("its end", slow.read_to_string(&mut whole)).await.unwrap();
    assert!(whole.ends_with("done"), "{whole}");
    until("room for the next", async || {
        rest(ask("GET /quick").await).await.ends_with("done").then_some(())
    })
    .await;
    let mut long = ask("POST /").await;
    long.write_all(b"content-length: 9000\r\n").await.unwrap();
    let long = rest(long).await;
    assert!(long.starts_with("HTTP/1.1 413 ") && long.ends_with("\r\n\r\n"), "{long}");
    script.stop().await;
}

#[tokio::test]
async fn a_long_head_is_read_and_variables_that_are_too_many_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let unused = directory.path().join("unused");
    let env = [("BEGUN", unused.to_str().unwrap()), ("GO", unused.to_str().unwrap())];
    let mut script = start_with("busy", &env).await;
    let pairs: Vec<String> = (0..=1000).map(|n| format!("a_long_variable_{n}=1")).collect();
    let target = format!("/?{}", pairs.join("&"));
    assert!(target.len() > 20_000);
    assert!(get_of("localhost", &script.address, &target).await.ends_with("done"));
    until("the line about it", async || {
        script.line().await.contains("WARNING\tInput variables exceeded 1000.").then_some(())
    })
    .await;
    let target = format!("/?{}", "x".repeat(70_000));
    assert!(get_of("localhost", &script.address, &target).await.starts_with("HTTP/1.1 414 "));
    script.stop().await;
}

#[tokio::test]
async fn what_a_script_prints_before_start_is_shown_once() {
    let mut script = start("banner").await;
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| line.starts_with("worker ")).count() < 2 {
        lines.push(script.line().await);
    }
    get_of("localhost", &script.address, "/").await;
    assert_eq!(script.line().await, "asked");
    lines.retain(|line| !line.is_empty() && !line.starts_with("worker "));
    assert_eq!(lines, ["a banner"]);
    script.stop().await;
}
