//! A developer's start of an application, and code that changes while the server runs.

use std::io::Write;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::harness::{Client, Ran, command, soon, stock_program, until};
use crate::sites::{Script, free_port};
use crate::support::{copy_laravel, path};

/// A Laravel application that its developer starts by hand.
struct Project {
    directory: TempDir,
    port: u16,
}

impl Project {
    async fn new() -> Project {
        let directory = tempfile::tempdir().unwrap();
        copy_laravel(directory.path());
        Project { directory, port: free_port().await }
    }

    fn php(&self, words: &[&str]) -> Command {
        let mut php = Command::new("php");
        php.args(words).current_dir(self.directory.path());
        php.env("TEST_WSD_PACKAGE", path("clients/php/autoload.php"));
        php.env("LARAVELS_LISTEN_PORT", self.port.to_string()).env("LARAVELS_WORKER_NUM", "1");
        php.env("WSD_BIN", stock_program()).kill_on_drop(true);
        php
    }

    async fn run(&self, words: &[&str]) -> Ran {
        command(&mut self.php(words)).await
    }

    /// Starts a server in the foreground, with what it says on standard error.
    async fn serve(&self, words: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
        let mut php = self.php(words);
        php.env("LARAVELS_DAEMONIZE", "false").stdin(Stdio::null());
        php.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = php.spawn().unwrap();
        let lines = BufReader::new(server.stderr.take().unwrap()).lines();
        until("the server", async || self.connect().await.ok()).await;
        (server, lines)
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).await
    }

    async fn page(&self, target: &str) -> String {
        let mut stream = self.connect().await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the page", stream.read_to_string(&mut answer)).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn add_to(&self, file: &str, code: &str) {
        let file = self.directory.path().join(file);
        let file = std::fs::OpenOptions::new().append(true).open(file);
        file.unwrap().write_all(code.as_bytes()).unwrap();
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Where a test failed; else the server is stopped already.
        let mut stop = self.php(&["bin/laravels", "stop"]);
        let _ = stop.as_std_mut().stderr(Stdio::null()).stdout(Stdio::null()).status();
        let _ = std::fs::remove_dir_all(format!("/run/wsd-127.0.0.1-{}", self.port));
    }
}

async fn end(mut server: Child) {
    crate::harness::kill(server.id().unwrap() as i32, nix::sys::signal::Signal::SIGTERM);
    soon("its end", server.wait()).await.unwrap();
}

/// Reads lines until one has this in it.
async fn told(lines: &mut Lines<BufReader<ChildStderr>>, what: &str) {
    loop {
        let line = soon(what, lines.next_line()).await.unwrap().expect("another line");
        if line.contains(what) {
            return;
        }
    }
}

#[tokio::test]
async fn artisan_starts_the_server_as_laravels_does() {
    let project = Project::new().await;
    let refused = project.run(&["artisan", "wsd:start", "-d", "--watch"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("--watch is for development"), "{refused:?}");
    let started = project.run(&["artisan", "wsd:start", "-d"]).await;
    assert_eq!(started.code, Some(0), "{started:?}");
    assert_eq!(project.page("/").await, "<p>Hello from todo</p>\n");
    project.run(&["bin/laravels", "stop"]).await.ok();
    assert!(project.connect().await.is_err(), "it was stopped");
    std::fs::remove_file(project.directory.path().join("bin/laravels")).unwrap();
    let nothing = project.run(&["artisan", "wsd:start"]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stdout.contains("artisan laravels publish"), "{nothing:?}");
    project.run(&["artisan", "laravels", "publish"]).await.ok();
}

#[tokio::test]
async fn a_watched_application_reloads_when_its_code_changes() {
    let project = Project::new().await;
    let (server, mut said) = project.serve(&["artisan", "wsd:start", "--watch"]).await;
    let mut client = Client::connect(&format!("127.0.0.1:{}", project.port), "/ws").await;
    client.receive().await;
    project.add_to("routes/web.php", "\nRoute::get('/added', fn () => 'just written');\n");
    told(&mut said, "watch: reloaded").await;
    assert_eq!(project.page("/added").await, "just written");
    assert_eq!(client.ask("hello").await, "you said hello", "no client was dropped");
    // Code that does not load is told of, and the code before goes on.
    project.add_to("routes/web.php", "\nRoute::get(;\n");
    told(&mut said, "watch: ").await;
    assert_eq!(project.page("/added").await, "just written");
    end(server).await;
}

const WATCHED: &str = "<?php
require PACKAGE;
$server = new Swoole\\WebSocket\\Server('127.0.0.1', (int) getenv('PORT'));
$server->set(['worker_num' => 1, 'watch' => [__DIR__], 'log_level' => 5]);
$server->on('message', function ($server, $frame) {
    $server->push($frame->fd, require __DIR__ . '/answer.php');
});
$server->start();
";

#[tokio::test]
async fn a_script_that_is_watched_reloads_when_a_file_of_its_changes() {
    let directory = tempfile::tempdir().unwrap();
    let write =
        |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let package = format!("'{}'", path("clients/php/autoload.php"));
    write("server.php", &WATCHED.replace("PACKAGE", &package));
    write("answer.php", "<?php return 'first';\n");
    let script = directory.path().join("server.php");
    // What the process has read it keeps, as most do that are served for long.
    let words = ["-d", "opcache.validate_timestamps=0", script.to_str().unwrap()];
    let server = Script::start(&words).await;
    let mut client = Client::connect(&server.address, "/").await;
    assert_eq!(client.ask("which").await, "first");
    write("answer.php", "<?php return 'the second';\n");
    until("the new answer", async || (client.ask("which").await == "the second").then_some(()))
        .await;
    server.stop().await;
}
