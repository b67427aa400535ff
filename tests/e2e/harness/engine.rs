//! A Redis of a test's own, at a Unix socket in a directory of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
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

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
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

/// A master, a replica, and a Sentinel that watches them, at ports of their own.
pub struct SentinelGroup {
    directory: TempDir,
    sentinel_port: u16,
    /// The master first.
    processes: Vec<Child>,
}

impl SentinelGroup {
    /// Starts them, and waits until the Sentinel knows the replica.
    pub async fn start() -> SentinelGroup {
        let directory = tempfile::Builder::new().prefix("wsd-engine-").tempdir().unwrap();
        let [master, replica, sentinel_port] = free_ports();
        let mut group = SentinelGroup { directory, sentinel_port, processes: Vec::new() };
        group.spawn(master, &[]);
        let of = master.to_string();
        group.spawn(replica, &["--replicaof", "127.0.0.1", &of]);
        until("the master", async || ask_at(master, "PING")).await;
        let config = group.directory.path().join("sentinel.conf");
        let text = format!(
            "port {sentinel_port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n",
            group.directory.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let mut sentinel = Command::new("redis-sentinel");
        sentinel.arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = sentinel.spawn().expect("redis-sentinel, which scripts/test installs");
        group.processes.push(sentinel);
        until("the Sentinel to know the replica", async || {
            let known = ask_at(sentinel_port, "SENTINEL replicas main")?;
            known.contains(&replica.to_string()).then_some(())
        })
        .await;
        until("the replica to follow", async || {
            ask_at(replica, "INFO replication")?.contains("master_link_status:up").then_some(())
        })
        .await;
        group
    }

    fn spawn(&mut self, port: u16, more: &[&str]) {
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        server.arg(port.to_string()).arg("--dir").arg(self.directory.path());
        server.args(["--repl-diskless-sync-delay", "0"]).args(more);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().expect("redis-server, which scripts/test installs");
        self.processes.push(server);
    }

    /// Its address, as `cluster.engine` takes it in TOML.
    pub fn address(&self) -> String {
        format!("\"redis+sentinel://127.0.0.1:{}/main\"", self.sentinel_port)
    }

    /// Kills the first master.
    pub fn kill_master(&mut self) {
        let mut master = self.processes.remove(0);
        master.kill().expect("kill the master");
        master.wait().expect("reap the master");
    }
}

impl Drop for SentinelGroup {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free_ports() -> [u16; 3] {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    [0, 1, 2].map(|index| listeners[index].local_addr().unwrap().port())
}

fn ask_at(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    // A Sentinel knows no QUIT.
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
