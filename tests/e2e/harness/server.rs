//! A server under test: the real binary with a directory of its own, gone when it is dropped.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use wsd::ipc::control::CONTROL_SOCKET;

use super::{Client, Process, example, is_alive, kill, marked, soon, stock_program, until};

/// How a server is to be started.
pub struct Setup {
    directory: TempDir,
    program: PathBuf,
    keys: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    descriptors: Option<u64>,
    under: Vec<String>,
    starter: Option<User>,
}

/// What a command answered.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The output of a command that has to succeed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Runs a command to the end of its output.
pub async fn command(command: &mut Command) -> Ran {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon("a command to end", command.output()).await.expect("run the command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Setup {
    /// The stock daemon, with two workers on a port of the kernel's choice.
    pub fn stock() -> Setup {
        Setup::program(stock_program())
    }

    /// A program of `examples/`.
    pub fn example(name: &str) -> Setup {
        Setup::program(example(name))
    }

    /// The server whose clients command it; see `testbed.rs`.
    pub fn testbed() -> Setup {
        let setup = Setup::program(env!("CARGO_BIN_EXE_testbed"));
        let log = setup.directory.path().join("events").display().to_string();
        setup.env("TESTBED_EVENTS", &log)
    }

    /// As [`testbed`](Self::testbed), but a copy of its own that a test may replace or spoil.
    pub fn own_testbed() -> Setup {
        let mut setup = Setup::testbed();
        let own = setup.directory.path().join("testbed");
        std::fs::copy(&setup.program, &own).unwrap();
        setup.program = own;
        let misbehave = setup.directory.path().join("misbehave").display().to_string();
        setup.env("TESTBED_MISBEHAVE", &misbehave)
    }

    /// The file of TEST_POINT, in a directory where also a process that is not root's may take the
    /// file away.
    pub fn point(self) -> (Setup, PathBuf) {
        let directory = self.directory.path().join("points");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let file = directory.join("point");
        (self.env("TEST_POINT", &file.display().to_string()), file)
    }

    fn program(program: impl AsRef<Path>) -> Setup {
        let directory = tempfile::Builder::new().prefix("wsd-e2e-").tempdir().unwrap();
        // What a worker of another user needs to be, and to note what its handler sees.
        let events = directory.path().join("events");
        std::fs::write(&events, "").unwrap();
        for (path, mode) in [(directory.path(), 0o711), (&events, 0o666)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let setup = Setup {
            program: program.as_ref().to_owned(),
            keys: Vec::new(),
            environment: Vec::new(),
            descriptors: None,
            under: Vec::new(),
            starter: None,
            directory,
        };
        let runtime = setup.directory.path().join("run");
        let log = setup.directory.path().join("wsd.log");
        setup
            .set("listen", r#"["127.0.0.1:0"]"#)
            .set("worker_num", 2)
            // Tests call the server what they like; who means the default sets it.
            .set("allowed_hosts", r#"["*"]"#)
            .set("runtime_dir", format!("{:?}", runtime.display().to_string()))
            .set("log_file", format!("{:?}", log.display().to_string()))
            .set("max_wait_time", r#""5s""#)
            .set("reload_jitter", r#""1s""#)
            .set_all(std::env::var("E2E_USER").ok().map(|user| ("user", format!("{user:?}"))))
    }

    fn set_all(self, pairs: impl IntoIterator<Item = (&'static str, String)>) -> Setup {
        pairs.into_iter().fold(self, |setup, (key, value)| setup.set(key, value))
    }

    /// A key of the configuration file, its value as TOML.
    pub fn set(mut self, key: &str, value: impl ToString) -> Setup {
        put(&mut self.keys, key, value.to_string());
        self
    }

    /// A variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        put(&mut self.environment, name, value.to_owned());
        self
    }

    /// Gives it the HTTP API, on a socket in its directory.
    pub fn with_api(self) -> Setup {
        let socket = format!("unix:{}", self.path().join("api.sock").display());
        self.set("api.listen", format!("[{socket:?}]"))
    }

    /// Limits the descriptors of each process.
    pub fn descriptors(mut self, limit: u64) -> Setup {
        self.descriptors = Some(limit);
        self
    }

    /// Another program in the place of the one that was named.
    pub fn run_by(mut self, program: &Path) -> Setup {
        self.program = program.to_owned();
        self
    }

    /// Starts it by way of a program that executes its last arguments.
    pub fn under(mut self, words: &[&str]) -> Setup {
        self.under = words.iter().map(|word| word.to_string()).collect();
        self
    }

    /// Has the server started, and commanded, by another user. Needs root.
    pub fn started_by(mut self, name: &str) -> Setup {
        let user = User::from_name(name).expect("users").expect("that user");
        chown(self.directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        self.starter = Some(user);
        self
    }

    /// The directory the server has to itself; its runtime directory is `run` in it.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it in the background and returns when it serves.
    pub async fn start(self) -> Server {
        let (server, ran) = self.try_start().await;
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, server.log());
        server
    }

    /// A server that is configured and not started.
    pub fn start_nothing(self) -> Server {
        let server = Server { setup: self, address: String::new() };
        server.write_config();
        server
    }

    /// As [`start`](Self::start), with what the start said, whatever it was.
    pub async fn try_start(self) -> (Server, Ran) {
        let mut server = Server { setup: self, address: String::new() };
        server.write_config();
        let ran = server.start_again().await;
        (server, ran)
    }
}

fn put(pairs: &mut Vec<(String, String)>, key: &str, value: String) {
    pairs.retain(|(known, _)| known != key);
    pairs.push((key.to_owned(), value));
}

/// A running server. Dropping it asserts that nothing of it is left.
pub struct Server {
    setup: Setup,
    /// The first listener: `127.0.0.1:` and the port.
    pub address: String,
}

/// A worker, as `status` has it.
#[derive(Debug, Clone)]
pub struct Worker {
    pub slot: u64,
    pub pid: i32,
    pub state: String,
}

impl Server {
    /// Starts it, for the first time or after it ended, and says how that went.
    pub async fn start_again(&mut self) -> Ran {
        let mut start = self.starter();
        let ran = command(start.args(["start", "-d"])).await;
        if ran.code == Some(0) {
            let listen = self.status().await["listen"][0].as_str().map(str::to_owned);
            self.address = listen.expect("an address");
        }
        ran
    }

    /// The program as `start` runs it: with the configuration, environment and limits, and the
    /// mark by which its processes are known.
    pub fn starter(&self) -> Command {
        let setup = &self.setup;
        let limit = setup.descriptors.map(|limit| format!("--nofile={limit}"));
        let limit = limit.into_iter().flat_map(|limit| ["prlimit".to_owned(), limit]);
        let words = setup.under.iter().cloned().chain(limit).map(OsString::from);
        let program = self.program(setup.starter.as_ref());
        let program = program.as_std();
        let words = words.chain([program.get_program().to_owned()]);
        let mut words = words.chain(program.get_args().map(OsStr::to_owned));
        let mut command = Command::new(words.next().expect("the program"));
        command.args(words);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        let (name, value) = self.mark().split_once('=').map(own).expect("a pair");
        command.env(name, value).arg("-c").arg(self.config_file());
        command
    }

    /// The program as it is run by a user; `None`: by ours.
    fn program(&self, user: Option<&User>) -> Command {
        let Some(user) = user else { return Command::new(&self.setup.program) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg("--clear-groups").arg(&self.setup.program);
        command
    }

    /// A command of its command line, given by another user. Needs root.
    pub async fn wsd_as<A: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        let user = User::from_name(name).expect("users").expect("that user");
        let mut program = self.program(Some(&user));
        command(program.args(arguments).arg("-c").arg(self.config_file())).await
    }

    fn mark(&self) -> String {
        format!("E2E_SERVER={}", self.setup.path().display())
    }

    fn config_file(&self) -> PathBuf {
        self.setup.path().join("wsd.toml")
    }

    /// The server's own directory.
    pub fn path(&self) -> &Path {
        self.setup.path()
    }

    /// The runtime directory.
    pub fn runtime(&self) -> PathBuf {
        self.path_key("runtime_dir")
    }

    /// The path that a key of the configuration names.
    fn path_key(&self, key: &str) -> PathBuf {
        let value = self.setup.keys.iter().find(|(name, _)| name == key).expect(key);
        PathBuf::from(value.1.trim_matches('"'))
    }

    /// Changes a key of the configuration file; a reload reads it.
    pub fn configure(&mut self, key: &str, value: impl ToString) {
        put(&mut self.setup.keys, key, value.to_string());
        self.write_config();
    }

    fn write_config(&self) {
        let lines = self.setup.keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
        std::fs::write(self.config_file(), lines.collect::<String>()).unwrap();
    }

    /// A command of its command line.
    pub async fn wsd<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut program = self.program(self.setup.starter.as_ref());
        command(program.args(arguments).arg("-c").arg(self.config_file())).await
    }

    /// What the manager says of everything; `status --json` prints the same.
    pub async fn status(&self) -> Value {
        until("the status", async || self.control(r#"{"cmd":"status"}"#).await?.pop()).await
    }

    /// What the manager says of each connection; `connections --json` prints the same.
    pub async fn connections(&self) -> Vec<Value> {
        let mut lines =
            until("the list", async || self.control(r#"{"cmd":"connections"}"#).await).await;
        lines.pop();
        lines
    }

    /// Asks over the control socket: the lines of the answer, the last of which has `ok`. `None`
    /// where the manager died meanwhile.
    async fn control(&self, request: &str) -> Option<Vec<Value>> {
        self.control_in(&self.runtime(), request).await
    }

    /// As the server's own, by the socket in that directory.
    pub async fn control_in(&self, runtime: &Path, request: &str) -> Option<Vec<Value>> {
        let stream = UnixStream::connect(runtime.join(CONTROL_SOCKET)).await.ok()?;
        let (reader, mut writer) = stream.into_split();
        writer.write_all(format!("{request}\n").as_bytes()).await.ok()?;
        let mut lines = BufReader::new(reader).lines();
        let mut answer: Vec<Value> = Vec::new();
        while answer.last().is_none_or(|line| line["ok"].is_null()) {
            let line = soon("the manager", lines.next_line()).await.ok()??;
            answer.push(serde_json::from_str(&line).expect("JSON"));
        }
        Some(answer)
    }

    pub async fn master(&self) -> i32 {
        self.status().await["master_pid"].as_i64().expect("master_pid") as i32
    }

    pub async fn manager(&self) -> i32 {
        self.status().await["manager_pid"].as_i64().expect("manager_pid") as i32
    }

    /// The courier's pid.
    pub fn courier(&self) -> i32 {
        let courier = self.processes().into_iter().find(|it| it.name == "wsd: courier");
        courier.expect("a courier").pid
    }

    /// Every worker process, of whatever state.
    pub async fn workers(&self) -> Vec<Worker> {
        let status = self.status().await;
        let workers = status["workers"].as_array().expect("workers").iter();
        workers
            .map(|worker| Worker {
                slot: worker["slot"].as_u64().expect("slot"),
                pid: worker["pid"].as_i64().expect("pid") as i32,
                state: worker["state"].as_str().expect("state").to_owned(),
            })
            .collect()
    }

    /// The worker that serves a slot, once there is one that is not `but`.
    pub async fn serving(&self, slot: u64, but: Option<i32>) -> Worker {
        until("a serving worker", || async {
            let workers = self.workers().await;
            workers.into_iter().find(|worker| {
                worker.slot == slot && worker.state == "serving" && Some(worker.pid) != but
            })
        })
        .await
    }

    /// Waits until exactly `count` clients are connected.
    pub async fn has_connections(&self, count: usize) {
        until("the number of connections", || async {
            (self.status().await["connections"] == count).then_some(())
        })
        .await;
    }

    /// A client of this server at `/`.
    pub async fn client(&self) -> Client {
        Client::connect(&self.address, "/").await
    }

    /// A client that sits on the worker of `slot` (testbed only): the kernel chooses, so this
    /// tries until it did.
    pub async fn client_on(&self, slot: u64) -> Client {
        until("a client on that worker", || async {
            let mut client = self.client().await;
            let who = client.who().await;
            (who.slot == slot).then_some(client)
        })
        .await
    }

    /// What the testbed noted of opens and closes, one event a line.
    pub fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every process of this server that lives.
    pub fn processes(&self) -> Vec<Process> {
        marked(&self.mark(), &self.config_file())
    }

    /// Waits until no process of it is left.
    pub async fn is_gone(&self) {
        until("every process to end", || async { self.processes().is_empty().then_some(()) })
            .await;
    }

    /// Where its log is.
    pub fn log_file(&self) -> PathBuf {
        self.path_key("log_file")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Ends everything at once; panics where something survives its master.
    fn end(&self) {
        let processes = self.processes();
        let masters = processes.iter().filter(|process| process.name == "wsd: master");
        for master in masters {
            // It may be ending by itself.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(master.pid), Signal::SIGQUIT);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes.iter().any(|process| is_alive(process.pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.processes();
        for process in &left {
            kill(process.pid, Signal::SIGKILL);
        }
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of the server\n{}---", self.log());
        }
        self.end();
    }
}
