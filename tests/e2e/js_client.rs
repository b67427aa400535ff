//! The client of `clients/js` against a server that is killed, reloaded and stopped: in Node, in
//! Chromium and in Firefox. `tests/browser/client-story.js` is what it goes through.

use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::harness::*;

/// Runs the story at some place (see `client.mjs`), and does to the server what it asks for.
async fn goes_through_the_story(place: &[&str]) {
    let mut server = Setup::stock()
        .set("handler", r#""echo""#)
        .set("worker_num", 1)
        .set("allowed_origins", r#"["*"]"#)
        .start()
        .await;
    let mut node = Command::new("node");
    if place == ["node"] {
        // Node 22 needs no word of it.
        node.arg("--experimental-websocket");
    }
    node.arg("client.mjs").arg(format!("ws://{}/", server.address)).args(place);
    node.current_dir(repository().join("tests/browser")).kill_on_drop(true);
    node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut node = node.spawn().expect("the package nodejs");
    let mut stdin = node.stdin.take().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    loop {
        // A browser takes its time to start.
        let line = tokio::time::timeout(4 * PATIENCE, lines.next_line()).await;
        let Some(line) = line.expect("a word of the client in time").unwrap() else { break };
        said.push(line.clone());
        let answer = match line.as_str() {
            "close it" => {
                let fd = fd_of_the_client(&server).await;
                let reason = "retry after 700 ms";
                server.wsd(["close", &fd, "--code", "1012", "--reason", reason]).await.ok();
                None
            }
            "kill it" => {
                kill(server.serving(0, None).await.pid, Signal::SIGKILL);
                None
            }
            "reload" => {
                server.wsd(["reload"]).await.ok();
                Some("reloaded")
            }
            "stop" => {
                // The same port after the stop.
                server.configure("listen", format!(r#"["{}"]"#, server.address));
                server.wsd(["stop"]).await.ok();
                assert_eq!(server.start_again().await.code, Some(0));
                Some("started")
            }
            "close it for good" => {
                let fd = fd_of_the_client(&server).await;
                server.wsd(["close", &fd]).await.ok();
                None
            }
            _ => None,
        };
        if let Some(answer) = answer {
            stdin.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
    }
    let status = soon("the client to end", node.wait()).await.unwrap();
    assert!(status.success(), "{said:?}");
    assert!(said.last().is_some_and(|line| line.starts_with("ok 4 connections")), "{said:?}");
}

async fn fd_of_the_client(server: &Server) -> String {
    server.has_connections(1).await;
    server.connections().await[0]["fd"].to_string()
}

#[tokio::test]
async fn the_js_client_comes_back_in_node() {
    goes_through_the_story(&["node"]).await;
}

#[tokio::test]
async fn the_js_client_comes_back_in_chromium() {
    goes_through_the_story(&["chromium"]).await;
}

#[tokio::test]
async fn the_js_client_comes_back_in_firefox() {
    goes_through_the_story(&["firefox-esr"]).await;
}

/// The same from the file for a script tag.
#[tokio::test]
async fn the_js_client_comes_back_from_a_script_tag() {
    goes_through_the_story(&["chromium", "--global"]).await;
}

#[tokio::test]
async fn the_js_client_passes_its_own_tests_and_its_script_is_made_from_it() {
    for arguments in [&["build.js", "--check"][..], &["--test", "test/"]] {
        let mut node = Command::new("node");
        let ran = command(node.args(arguments).current_dir(repository().join("clients/js"))).await;
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    }
}

/// `types.ts` is compiled, and what it compiles to holds the real module to the types.
#[tokio::test]
async fn the_types_of_the_js_client_compile_and_tell_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display().to_string();
    let tests = repository().join("tests/browser");
    assert!(tests.join("node_modules/typescript").is_dir(), "scripts/test runs `npm ci` there");
    let mut tsc = Command::new("node");
    tsc.args(["node_modules/typescript/bin/tsc", "--strict", "--exactOptionalPropertyTypes"]);
    tsc.args(["--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]);
    tsc.args(["--rootDir", "../..", "--outDir", &out, "types.ts"]).current_dir(&tests);
    let ran = command(&mut tsc).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);

    let client = directory.path().join("clients/js");
    std::fs::create_dir_all(&client).unwrap();
    std::fs::copy(repository().join("clients/js/wsd.js"), client.join("wsd.js")).unwrap();
    std::fs::write(directory.path().join("package.json"), r#"{ "type": "module" }"#).unwrap();
    let compiled = directory.path().join("tests/browser/types.js");
    let ran = command(Command::new("node").arg(compiled)).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}
