//! A Redis of a test's own, at a Unix socket in a directory of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{kill, until};

/// A redis-server, ended when it is dropped.
pub struct Engine {
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Engine {
    /// Starts one that answers.
    pub async fn start() -> Engine {
        Engine::start_with(&[]).await
    }

    /// As [`start`](Self::start), with arguments more.
    pub async fn start_with(arguments: &[&str]) -> Engine {
        let directory = tempfile::Builder::new().prefix("wsd-engine-").tempdir().unwrap();
        let arguments = arguments.iter().map(|word| word.to_string()).collect();
        let mut engine = Engine { directory, arguments, process: None };
        engine.start_again().await;
        engine
    }

    /// Starts it anew, with nothing in it.
    pub async fn start_again(&mut self) {
        let mut server = Command::new("redis-server");
        server.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocketperm",
            "777",
        ]);
        server.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.directory.path());
        server.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let started = server.spawn();
        self.process = Some(started.expect("redis-server, which scripts/test installs"));
        until("the engine to answer", async || self.ask("PING")).await;
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("engine.sock")
    }

    /// Its address, as `cluster.engine` takes it in TOML.
    pub fn address(&self) -> String {
        format!("\"unix:{}\"", self.socket().display())
    }

    /// The answer to an inline command, if it answers.
    pub fn ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a process");
        kill(process.id() as i32, signal);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a process");
        process.kill().expect("kill the engine");
        process.wait().expect("reap the engine");
        // What it has left would refuse whoever tries to connect, as it should.
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
