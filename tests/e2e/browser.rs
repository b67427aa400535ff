//! The chat page in a real Chromium; `tests/browser/chat.mjs` drives it.

use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::*;
use crate::proxy::Nginx;

/// What it says next. A browser takes its time, above all to start.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(4 * PATIENCE, lines.next_line()).await;
    line.expect("a word of the browser in time").unwrap()
}

/// A browser that chats at `url`, with these options more.
struct Browser {
    node: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn start(url: &str, options: &[&str]) -> Browser {
        let directory = repository().join("tests/browser");
        assert!(directory.join("node_modules").is_dir(), "scripts/test runs `npm ci` there");
        let mut node = Command::new("node");
        node.arg("chat.mjs").arg(url).args(options).current_dir(directory).kill_on_drop(true);
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut node = node.spawn().expect("the package nodejs");
        let stdin = node.stdin.take().unwrap();
        let lines = BufReader::new(node.stdout.take().unwrap()).lines();
        Browser { node, stdin, lines }
    }

    async fn tell(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn serves(mut self, said: &[String]) {
        let status = soon("the browser to end", self.node.wait()).await.unwrap();
        assert!(status.success(), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("ok ")), "{said:?}");
    }
}

/// Two tabs chat across two workers; one worker is killed; its tab comes back by itself.
#[tokio::test]
async fn two_tabs_chat_across_two_workers_and_survive_the_death_of_one() {
    let server = Setup::stock().start().await;
    let mut browser = Browser::start(&format!("http://{}/", server.address), &["--kill"]);
    let mut said = Vec::new();
    while let Some(line) = next(&mut browser.lines).await {
        if let Some(place) = line.strip_prefix("ready ") {
            let slot: u64 = place.split(' ').nth(1).unwrap().parse().unwrap();
            let worker = server.serving(slot, None).await;
            kill(worker.pid, Signal::SIGKILL);
            browser.tell("killed").await;
        }
        said.push(line);
    }
    browser.serves(&said).await;
}

/// Two tabs chat over wss, through nginx with TLS, and stay connected over a reload.
#[tokio::test]
async fn two_tabs_chat_over_wss_and_stay_over_a_reload() {
    let server = Setup::stock().set("trusted_proxies", r#"["127.0.0.1"]"#).start().await;
    let nginx = Nginx::with_tls(server.path(), &server.address).await;
    let url = format!("https://{}/", nginx.address);
    let mut browser = Browser::start(&url, &["--self-signed", "--reload"]);
    let mut said = Vec::new();
    while let Some(line) = next(&mut browser.lines).await {
        if line == "reload" {
            server.wsd(["reload"]).await.ok();
            browser.tell("reloaded").await;
        }
        said.push(line);
    }
    assert!(said.iter().any(|line| line == "reload"), "{said:?}");
    browser.serves(&said).await;
}
