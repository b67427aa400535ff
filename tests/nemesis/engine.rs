//! The engine that carries a cluster's messages: a real server of Redis, or of another program that
//! speaks the same, with a directory of its own. Where its failover is a fault, it has a replica,
//! and Sentinels watch both.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::daemon::signal;
use crate::pump::Place;

/// The time the engine has for each step: to answer, to follow, to agree.
const STEP: Duration = Duration::from_secs(30);
/// What the Sentinels call the servers.
const SERVICE: &str = "main";
const SENTINELS: usize = 3;
/// The Sentinels take no server for dead that is silent for less, so that what other faults do to
/// the master brings no failover.
const PATIENT_MS: u64 = 60_000;
/// And in a failover.
const IMPATIENT_MS: u64 = 500;
/// Ports are of this range, below those that the kernel gives to whoever asks for any: a server
/// that is started again finds its own still free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What has a replica take the master's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// The master is killed.
    Killed,
    /// The master stands still.
    Stopped,
    /// A Sentinel is told to.
    Asked,
}

/// A process that ends with the run.
struct Process {
    /// 0: it listens at its socket alone.
    port: u16,
    child: Option<Child>,
}

impl Process {
    fn at(port: u16) -> Process {
        Process { port, child: None }
    }

    fn start(&mut self, command: &mut Command) -> Result<(), String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        self.child = Some(child);
        Ok(())
    }

    fn signal(&self, how: Signal) {
        signal(self.pid(), how);
    }

    fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Engine {
    program: String,
    directory: PathBuf,
    /// The wall clock of its servers, where that can be moved.
    pub clock: Option<Clock>,
    /// One, or two that Sentinels watch.
    servers: Vec<Process>,
    /// Which of them is the master.
    master: usize,
    sentinels: Vec<Process>,
}

impl Engine {
    /// Starts one that answers, of that program; `is_watched` by Sentinels or alone.
    pub async fn start(
        program: &str,
        directory: &Path,
        clock: Option<Clock>,
        is_watched: bool,
    ) -> Result<Engine, String> {
        let ports = if is_watched { free_ports(2 + SENTINELS) } else { vec![0] };
        let mut servers: Vec<Process> = ports.into_iter().map(Process::at).collect();
        let sentinels = servers.split_off(servers.len().min(2));
        let (program, directory) = (program.to_owned(), directory.to_owned());
        let mut engine = Engine { program, directory, clock, servers, master: 0, sentinels };
        for place in 0..engine.servers.len() {
            engine.start_server(place).await?;
        }
        if is_watched {
            engine.follows().await?;
        }
        for place in 0..engine.sentinels.len() {
            engine.start_sentinel(place).await?;
        }
        Ok(engine)
    }

    /// All that it is made of, for a pump.
    pub fn places(&self) -> Vec<Place> {
        let servers = self.servers.iter().enumerate().map(|(place, server)| Place::Server {
            socket: self.socket(place),
            port: server.port,
        });
        let sentinels = self.sentinels.iter().map(|it| Place::Sentinel { port: it.port });
        servers.chain(sentinels).collect()
    }

    /// `cluster.engine` of a node, by the ports of its pump.
    pub fn address(&self, pumps: &[u16]) -> String {
        let at = |port: &u16| format!("127.0.0.1:{port}");
        match &pumps[self.servers.len()..] {
            [] => format!("redis://{}", at(&pumps[0])),
            sentinels => {
                let all: Vec<String> = sentinels.iter().map(at).collect();
                format!("redis+sentinel://{}/{SERVICE}", all.join(","))
            }
        }
    }

    fn socket(&self, server: usize) -> PathBuf {
        self.directory.join(format!("engine-{server}.sock"))
    }

    /// Starts the master anew, with nothing in it.
    pub async fn start_again(&mut self) -> Result<(), String> {
        self.start_server(self.master).await
    }

    /// Starts a server with nothing in it: the master, or the replica of that.
    async fn start_server(&mut self, place: usize) -> Result<(), String> {
        let socket = self.socket(place);
        // What it was sent when it was a replica.
        let file = format!("engine-{place}.rdb");
        let _ = std::fs::remove_file(self.directory.join(&file));
        let mut server = Command::new(&self.program);
        server.arg("--port").arg(self.servers[place].port.to_string());
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        server.args(["--repl-diskless-sync-delay", "0", "--dbfilename", &file]);
        server.arg("--unixsocket").arg(&socket).arg("--dir").arg(&self.directory);
        if place != self.master {
            let master = self.servers[self.master].port.to_string();
            server.args(["--replicaof", "127.0.0.1", &master]);
        }
        if let Some(clock) = &self.clock {
            server.envs(clock.environment());
        }
        self.servers[place].start(&mut server)?;
        let answers = async || {
            let said = ask_at(&socket, "PING").await;
            said.is_some_and(|said| said.starts_with("+PONG"))
        };
        step("the engine to answer", answers).await
    }

    async fn start_sentinel(&mut self, place: usize) -> Result<(), String> {
        let (port, master) = (self.sentinels[place].port, self.servers[self.master].port);
        let file = self.directory.join(format!("sentinel-{place}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} {PATIENT_MS}\n\
             sentinel failover-timeout {SERVICE} 1000\n",
            self.directory.display()
        );
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut sentinel = Command::new(&self.program);
        self.sentinels[place].start(sentinel.arg(&file).arg("--sentinel"))?;
        step("a Sentinel to answer", async || names(port, master).await).await
    }

    /// The answer of the master to an inline command, if there is one.
    pub async fn ask(&self, command: &str) -> Option<String> {
        ask_at(&self.socket(self.master), command).await
    }

    /// The master's process.
    pub fn pid(&self) -> i32 {
        self.servers[self.master].pid()
    }

    /// Kills the master.
    pub fn kill(&mut self) {
        self.servers[self.master].kill();
    }

    /// Sends the master a signal.
    pub fn signal(&self, how: Signal) {
        self.servers[self.master].signal(how);
    }

    /// Waits until the replica follows the master.
    async fn follows(&self) -> Result<(), String> {
        let replica = self.socket(1 - self.master);
        step("the replica to follow", async || {
            let said = ask_at(&replica, "INFO replication").await;
            said.is_some_and(|it| it.contains("master_link_status:up"))
        })
        .await
    }

    /// Waits until the replica can take the master's place, and the Sentinels know each other and
    /// that.
    pub async fn can_fail_over(&self) -> Result<(), String> {
        self.follows().await?;
        for sentinel in &self.sentinels {
            let at = sentinel.port;
            step("a Sentinel to know the replica and the others", async || {
                let others = ask_sentinel(at, &format!("SENTINEL CKQUORUM {SERVICE}")).await;
                let others = others.unwrap_or_default();
                let known = ask_sentinel(at, &format!("SENTINEL REPLICAS {SERVICE}")).await;
                let known = known.unwrap_or_default();
                // No flag beside, such as for a server that is down.
                let has = |what: &str| known.contains(&format!("\r\n{what}\r\n"));
                let is_good = has("slave") && has("master-link-status\r\n$2\r\nok");
                is_good && others.starts_with(&format!("+OK {SENTINELS} "))
            })
            .await?;
        }
        Ok(())
    }

    /// Has the replica take the master's place. Who was the master follows, with nothing of its
    /// own in it.
    pub async fn fail_over(&mut self, how: Failover) -> Result<(), String> {
        let (old, new) = (self.master, 1 - self.master);
        if how == Failover::Asked {
            tell(self.sentinels[0].port, &format!("SENTINEL FAILOVER {SERVICE}")).await?;
        } else {
            self.watch_for(IMPATIENT_MS).await?;
            match how {
                Failover::Killed => self.kill(),
                _ => self.signal(Signal::SIGSTOP),
            }
        }
        let port = self.servers[new].port;
        for sentinel in &self.sentinels {
            let agrees = async || names(sentinel.port, port).await;
            step("the Sentinels to agree on another master", agrees).await?;
        }
        self.master = new;
        self.watch_for(PATIENT_MS).await?;
        if how == Failover::Killed {
            return self.start_server(old).await;
        }
        self.servers[old].signal(Signal::SIGCONT);
        // The Sentinels do the same after ten seconds, in which there would be two masters.
        let follow = format!("REPLICAOF 127.0.0.1 {port}");
        for command in [&*follow, "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"] {
            ask_at(&self.socket(old), command).await;
        }
        Ok(())
    }

    /// Tells the Sentinels how long a server is silent before they take it for dead.
    async fn watch_for(&self, millis: u64) -> Result<(), String> {
        let set = format!("SENTINEL SET {SERVICE} down-after-milliseconds {millis}");
        for sentinel in &self.sentinels {
            tell(sentinel.port, &set).await?;
        }
        Ok(())
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    // Runs beside each other begin elsewhere.
    let begin = PORTS.start + (std::process::id() * 16 % 8_000) as u16;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (begin..PORTS.end).filter(is_free).take(count).collect()
}

/// Waits until something is so.
async fn step(what: &str, is_so: impl AsyncFn() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !timeout(STEP, is_so()).await.unwrap_or(false) {
        if began.elapsed() > STEP {
            return Err(format!("waited {STEP:?} for {what}"));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Whether a Sentinel says that the master is at this port.
async fn names(sentinel: u16, port: u16) -> bool {
    let question = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}");
    let said = ask_sentinel(sentinel, &question).await;
    said.is_some_and(|said| said.contains(&format!("\r\n{port}\r\n")))
}

/// Tells a Sentinel to do something.
async fn tell(sentinel: u16, command: &str) -> Result<(), String> {
    match ask_sentinel(sentinel, command).await {
        Some(said) if said.starts_with("+OK") => Ok(()),
        said => Err(format!("a Sentinel refuses {command:?}: {said:?}")),
    }
}

async fn ask_at(socket: &Path, command: &str) -> Option<String> {
    converse(UnixStream::connect(socket).await.ok()?, command).await
}

async fn ask_sentinel(port: u16, command: &str) -> Option<String> {
    converse(TcpStream::connect(("127.0.0.1", port)).await.ok()?, command).await
}

/// The answer to an inline command.
async fn converse<S>(mut stream: S, command: &str) -> Option<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
    // A Sentinel knows no QUIT.
    stream.shutdown().await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
