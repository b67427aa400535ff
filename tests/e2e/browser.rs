//! The chat page in a real Chromium; `tests/browser/chat.mjs` drives it.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::harness::*;

/// What it says next. A browser takes its time, above all to start.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(4 * PATIENCE, lines.next_line()).await;
    line.expect("a word of the browser in time").unwrap()
}

/// Two tabs chat across two workers; one worker is killed; its tab comes back by itself.
#[tokio::test]
async fn two_tabs_chat_across_two_workers_and_survive_the_death_of_one() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(directory.join("node_modules").is_dir(), "scripts/test runs `npm ci` there");
    let server = Setup::stock().start().await;
    let mut node = Command::new("node");
    node.arg("chat.mjs").arg(format!("http://{}/", server.address)).arg("--kill");
    node.current_dir(directory).kill_on_drop(true);
    node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut node = node.spawn().expect("the package nodejs");
    let mut stdin = node.stdin.take().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = next(&mut lines).await {
        if let Some(place) = line.strip_prefix("ready ") {
            let slot: u64 = place.split(' ').nth(1).unwrap().parse().unwrap();
            let worker = server.serving(slot, None).await;
            kill(worker.pid, Signal::SIGKILL);
            stdin.write_all(b"killed\n").await.unwrap();
        }
        said.push(line);
    }
    let status = soon("the browser to end", node.wait()).await.unwrap();
    assert!(status.success(), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("ok ")), "{said:?}");
}
