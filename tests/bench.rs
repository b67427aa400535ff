//! wsd-bench against servers that do as told.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use tokio_tungstenite::tungstenite::{Message, accept};

/// A server with a thread for each connection, which answers a message with what `answer` says.
fn serve(answer: fn(Message) -> Option<Message>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut socket = accept(stream.unwrap()).unwrap();
                while let Ok(message) = socket.read() {
                    let sent = match message {
                        Message::Text(_) | Message::Binary(_) => answer(message),
                        _ => None,
                    };
                    if sent.is_some_and(|sent| socket.send(sent).is_err()) {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn bench(arguments: &str) -> Output {
    let words = arguments.split_whitespace();
    Command::new(env!("CARGO_BIN_EXE_wsd-bench")).args(words).output().unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_echo_is_counted_to_the_last_message() {
    let address = serve(Some);
    for extra in ["", "-p 7", "-s 70K --binary", "--fragment 5", "-r 100000", "--threads 2"] {
        let output = bench(&format!("{address} -c 3 -n 500 --json {extra}"));
        assert_eq!(output.status.code(), Some(0), "{extra}: {output:?}");
        let report = report(&output);
        assert_eq!(report["messages"], 500, "{extra}");
        assert!(report["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{extra}");
        assert!(report["server_cpu_us_each"].is_number(), "the server is of this machine");
    }
}

#[test]
fn another_answer_is_no_echo() {
    let address = serve(|_| Some(Message::text("this is server")));
    let output = bench(&format!("{address} -c 2 -n 10 --json"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(report(&output)["errors"].to_string().contains("14 bytes, not 64"), "{output:?}");
    let output = bench(&format!("{address} -c 2 -n 10 --json --any-reply"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn silence_is_an_error_after_the_timeout() {
    let address = serve(|_| None);
    let output = bench(&format!("{address} -c 2 -n 10 --json --timeout 0.2"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(report(&output)["errors"].to_string().contains("no message for 0.2 s"));
}

#[test]
fn connections_are_opened_held_and_closed() {
    let address = serve(Some);
    let output = bench(&format!("{address} -t connect -n 50 --json"));
    assert_eq!(report(&output)["handshakes"], 50, "{output:?}");
    let output = bench(&format!("{address} -t close -c 20 --json"));
    assert_eq!(report(&output)["closed"], 20, "{output:?}");
    let output = bench(&format!("{address} -t idle -c 20 -d 0.1 -s 1K --json"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(report(&output)["memory_per_connection_after_message"].is_number());
}

/// The server of the package, in a directory of its own until it is dropped.
struct BenchServer {
    address: SocketAddr,
    master: std::process::Child,
    _directory: tempfile::TempDir,
}

impl BenchServer {
    fn start() -> BenchServer {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench_server"));
        command.arg("start").stdout(std::process::Stdio::null());
        for set in [
            format!("listen={address}"),
            "worker_num=2".to_owned(),
            format!("runtime_dir={}", at("run")),
            format!("pid_file={}", at("pid")),
        ] {
            command.args(["--set", &set]);
        }
        let master = command.spawn().unwrap();
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        BenchServer { address, master, _directory: directory }
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.master.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.master.wait().unwrap();
    }
}

#[test]
fn rooms_are_published_to_joined_and_left() {
    let server = BenchServer::start();
    let address = server.address;
    for (extra, deliveries) in
        [("-c 6", 60), ("-c 6 --rooms 3", 60), ("-c 6 --rooms 3 --each 2", 120)]
    {
        let output = bench(&format!("{address} -t publish -n 10 --json {extra}"));
        assert_eq!(output.status.code(), Some(0), "{extra}: {output:?}");
        assert_eq!(report(&output)["deliveries"], deliveries, "{extra}");
    }
    let output = bench(&format!("{address} -t publish -c 5 --rooms 3 --json"));
    assert_eq!(output.status.code(), Some(2), "rooms that are not alike: {output:?}");
    let output = bench(&format!("{address} -t join -c 3 --rooms 7 -n 10 --json"));
    assert_eq!(report(&output)["joins"], 70, "{output:?}");
    let output = bench(&format!("{address} -t leave -c 20 --rooms 4 --json"));
    let report = report(&output);
    assert_eq!(report["closed"], 20, "{output:?}");
    assert!(report["handshakes"].as_u64().unwrap() > 0);
}

#[test]
fn the_exit_code_tells_who_is_at_fault() {
    assert_eq!(bench("--size lots").status.code(), Some(2));
    assert_eq!(bench("wss://127.0.0.1/").status.code(), Some(2));
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(bench(&unused.to_string()).status.code(), Some(3));
}
