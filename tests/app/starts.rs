//! What whoever starts a server with an application hears: why it does not run, and what a slow
//! start waits for.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::daemon::{app, native};
use crate::harness::*;

/// A server whose application is this Python.
fn python(code: &str) -> Setup {
    app(&["python3", "-c", code])
}

#[tokio::test]
async fn an_application_that_cannot_run_fails_the_start_with_its_last_lines() {
    let throws = format!(
        "require '{}'; $app = new Wsd\\App(); \
         $app->on('start', fn () => throw new Exception('no table')); $app->run();",
        crate::support::path("clients/php/autoload.php")
    );
    let cases = [
        (app(&["php", "-r", &throws]), "Exception: no table", "exit status 255"),
        (python("raise ValueError('no database')"), "ValueError: no database", "exit status 1"),
        (app(&["php", "-r", "syntax error here;"]), "Parse error", "exit status 255"),
        (python("print('nothing to do')"), "nothing to do", "exit status 0"),
        (app(&["sh", "-c", "kill -9 $$"]), "printed nothing", "SIGKILL"),
    ];
    for (setup, line, how) in cases {
        let (server, ran) = setup.try_start().await;
        // Who starts the server in the foreground reads the same, though the log is a file.
        let foreground = command(server.starter().arg("start")).await;
        for ran in [ran, foreground] {
            assert_eq!(ran.code, Some(1), "{ran:?}");
            for part in ["the application does not run", line, how, "the log is "] {
                assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
            }
        }
        server.is_gone().await;
    }
}

#[tokio::test]
async fn an_application_that_speaks_another_version_is_told_with_the_cure() {
    let ready = "import os, socket, struct, time\n\
        s = socket.socket(fileno=int(os.environ['WSD_APP_FD']))\n\
        s.sendall(struct.pack('<IBBHIQ', 0, 32, 0, 99, 0, 0))\n\
        time.sleep(60)";
    let (server, ran) = python(ready).try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("the application speaks version 99"), "{ran:?}");
    server.is_gone().await;
}

#[tokio::test]
async fn a_slow_start_says_what_it_waits_for_and_where_the_log_is() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let fixture = crate::support::path("tests/app/fixtures/native.php");
    let wait = "while [ ! -e \"$0\" ]; do sleep 0.05; done; exec php \"$1\"";
    let setup = app(&["sh", "-c", wait, &go.display().to_string(), &fixture]);
    // Its files are written by a first start, which is stopped.
    std::fs::write(&go, "").unwrap();
    let server = setup.start().await;
    server.wsd(["stop"]).await.ok();
    std::fs::remove_file(&go).unwrap();
    let mut start = server.starter();
    let mut child = start.args(["start", "-d"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("the start waits for worker 0: application process 0 of 1") {
        assert_ne!(soon("progress", said.read_line(&mut lines)).await.unwrap(), 0, "{lines}");
    }
    std::fs::write(&go, "").unwrap();
    let mut rest = String::new();
    soon("the end", said.read_to_string(&mut rest)).await.unwrap();
    assert!(soon("its exit", child.wait()).await.unwrap().success(), "{rest}");
    let log = server.path().join("wsd.log").display().to_string();
    assert!(rest.contains("serves http://127.0.0.1:") && rest.contains(&log), "{rest}");
}

#[tokio::test]
async fn a_start_that_is_stopped_has_failed() {
    let server = app(&["sleep", "600"]).start_nothing();
    let mut start = server.starter();
    let mut child = start.arg("start").stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("the start waits for worker 0") {
        assert_ne!(soon("progress", said.read_line(&mut lines)).await.unwrap(), 0, "{lines}");
    }
    server.wsd(["stop"]).await.ok();
    let mut rest = String::new();
    soon("the end", said.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(soon("its exit", child.wait()).await.unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains("stopped before every worker served"), "{rest}");
}

#[tokio::test]
async fn a_reload_to_an_application_that_cannot_run_says_why_and_changes_nothing() {
    let mut server = native().start().await;
    let mut client = server.client().await;
    client.receive().await;
    server.configure("app.command", r#"["python3", "-c", "raise ValueError('no database')"]"#);
    let ran = server.wsd(["reload"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("ValueError: no database"), "{ran:?}");
    until("the reason in the log", async || {
        let log = server.log();
        let told =
            |line: &str| line.contains("reload") && line.contains("ValueError: no database");
        log.lines().any(told).then_some(())
    })
    .await;
    assert_eq!(client.ask("echo still here").await, "still here");
}

#[tokio::test]
async fn status_shows_what_each_process_does_and_takes() {
    let server = native().set("app.task_processes", 1).start().await;
    let mut client = server.client().await;
    client.receive().await;
    let pid: u64 = client.ask("pid").await.parse().unwrap();
    let process = async || {
        let status = server.status().await;
        let all = status["workers"][0]["processes"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|process| process["pid"] == pid)
    };
    let idle =
        until("the process", async || process().await.filter(|it| it["ready"] == true)).await;
    assert!(idle["memory_bytes"].as_u64().unwrap() > 1 << 20, "{idle}");
    assert_eq!((&idle["task"], &idle["restarts"]), (&false.into(), &0.into()), "{idle}");
    client.send("sleep 3").await;
    until("a busy process", async || process().await.filter(|it| it["events"] == 1)).await;
    let page = server.wsd(["status"]).await.ok();
    assert!(page.contains("busy") && page.contains(" task "), "{page}");
    assert_eq!(client.receive().await, "slept");
    let status = server.status().await;
    for part in [&status, &status["manager"], &status["workers"][0]] {
        assert!(part["memory_bytes"].as_u64().unwrap() > 1 << 20, "{part:#}");
        assert!(part["cpu_ms"].is_u64(), "{part:#}");
    }
    client.send("die").await;
    client.closed().await;
    until("the restart", async || {
        let status = server.status().await;
        let all = status["workers"][0]["processes"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|it| it["task"] == false && it["restarts"].as_u64() > Some(0))
    })
    .await;
}

#[tokio::test]
async fn a_balancer_is_told_while_events_wait_and_no_process_takes_one() {
    let server = native().set("app.event_timeout", 0).start().await;
    let ask = async |target: &str| {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let read = async |mut stream: TcpStream| {
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let health = async || read(ask("/healthz").await).await;
    assert!(health().await.starts_with("HTTP/1.1 200 "));
    let go = server.path().join("go");
    let slow = format!("/steps?file={}", go.display());
    // One that is handled, and others that wait behind it.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(ask(&slow).await);
    }
    let told = until("a stalled server", async || {
        let answer = health().await;
        answer.starts_with("HTTP/1.1 503 ").then_some(answer)
    })
    .await;
    assert!(told.contains("events wait, and no process has taken one for"), "{told}");
    std::fs::write(&go, "").unwrap();
    for stream in waiting {
        assert!(read(stream).await.contains("first"));
    }
    let well = async || health().await.starts_with("HTTP/1.1 200 ").then_some(());
    until("a server that is well", well).await;
}
