//! The command line.

// The comments of the options are the help's text as well, which is no Markdown.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls, rustdoc::invalid_html_tags)]

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures a WebSocket server.
#[derive(Parser, Debug, Clone)]
#[command(name = "wsd-bench", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// The server: ws://HOST:PORT/PATH, HOST:PORT, [::1]:PORT or unix:/path/to.sock
    #[arg(default_value = "ws://127.0.0.1:8000/")]
    pub url: String,

    /// What to measure
    #[arg(short, long, value_enum, default_value = "echo")]
    pub test: Test,

    /// Connections: of push the targets, of connect the handshakes under way [default: 100;
    /// connect 64; idle and close 10000]
    #[arg(short, long, value_name = "N", value_parser = positive, help_heading = "Load")]
    pub connections: Option<usize>,

    /// Messages in flight on each connection (for broadcast and push: rounds in flight)
    #[arg(short, long, value_name = "N", value_parser = positive, default_value = "1",
          help_heading = "Load")]
    pub pipeline: usize,

    /// Bytes of a message; K and M may follow [default: 64]
    #[arg(short, long, value_name = "BYTES", value_parser = bytes, help_heading = "Load")]
    pub size: Option<usize>,

    /// Rooms, of publish, join and leave
    #[arg(long, value_name = "N", value_parser = positive, default_value = "1",
          help_heading = "Load")]
    pub rooms: usize,

    /// Rooms that each client is in, of publish and leave
    #[arg(long, value_name = "N", value_parser = positive, default_value = "1",
          help_heading = "Load")]
    pub each: usize,

    /// Stop after this many messages (connect: handshakes) instead of a time
    #[arg(short = 'n', long, value_name = "N", value_parser = positive, help_heading = "Load")]
    pub number: Option<usize>,

    /// Measure for this many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "5",
          help_heading = "Load")]
    pub duration: Duration,

    /// Run this many seconds before measuring [default: a tenth of --duration; 0 with --number]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, help_heading = "Load")]
    pub warmup: Option<Duration>,

    /// Open loop: send so many messages a second over all connections, answered or not; latency
    /// then counts from when each was due
    #[arg(short, long, value_name = "PER_SECOND", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,

    /// Threads of the generator; each has its share of the connections
    #[arg(long, value_name = "N", value_parser = positive, default_value = "1",
          help_heading = "Load")]
    pub threads: usize,

    /// Send binary messages instead of text
    #[arg(long, help_heading = "Messages")]
    pub binary: bool,

    /// Send each message in fragments of so many bytes
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Messages")]
    pub fragment: Option<usize>,

    /// Offer permessage-deflate, and send compressed where the server agrees
    #[arg(long, help_heading = "Messages")]
    pub deflate: bool,

    /// Take any answer for an echo, not only the very bytes that were sent
    #[arg(long, help_heading = "Messages")]
    pub any_reply: bool,

    /// The path to ask for, in place of the URL's (a unix: URL has none)
    #[arg(long, help_heading = "Handshake")]
    pub path: Option<String>,

    /// The Origin header
    #[arg(long, help_heading = "Handshake")]
    pub origin: Option<String>,

    /// Another header, `Name: value`; may be given again
    #[arg(short = 'H', long = "header", value_name = "HEADER", help_heading = "Handshake")]
    pub headers: Vec<String>,

    /// The longest that a handshake, or a stop of all answers, may last before it is an error
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10",
          help_heading = "Handshake")]
    pub timeout: Duration,

    /// The server's main process, where it is not the one that listens at the URL
    #[arg(long, help_heading = "Server and report")]
    pub pid: Option<i32>,

    /// Print the report as one line of JSON
    #[arg(long, help_heading = "Server and report")]
    pub json: bool,

    /// Print no progress
    #[arg(short, long, help_heading = "Server and report")]
    pub quiet: bool,
}

impl Cli {
    /// Bytes of a message.
    pub fn size(&self) -> usize {
        self.size.unwrap_or(64)
    }

    /// Whether silence is what the test is about.
    pub fn is_quiet_by_nature(&self) -> bool {
        self.test == Test::Idle
    }
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// Each client sends, the server sends it back
    Echo,
    /// One client sends "broadcast ...", everyone receives (needs bench_server)
    Broadcast,
    /// One client publishes to each room in turn, the members receive (needs bench_server)
    Publish,
    /// Each client joins and leaves --rooms, again and again (needs bench_server)
    Join,
    /// All leave --rooms of presence at once while others come (needs bench_server)
    Leave,
    /// One client has its worker push to clients of another worker (needs bench_server)
    Push,
    /// Connections that stand and do nothing: memory for each, also after one message each
    Idle,
    /// Handshake after handshake: how many a second, at which cost
    Connect,
    /// All connections say goodbye at once
    Close,
    /// No server: a bare relay between processes, the floor under `push`
    Relay,
}

const AFTER_HELP: &str = "\
Examples:
  wsd-bench                                  100 clients, each waiting for its echo
  wsd-bench -c 1000 -p 32 -d 30              throughput: 32 messages in flight on each
  wsd-bench -r 20000 -d 60                   latency under a given load, stalls included
  wsd-bench -s 16K --binary --json           large binary messages, a report for scripts
  wsd-bench -t idle -c 15000 -s 64K          memory of idle connections, before and after 64 KiB
  wsd-bench -t connect -n 20000              handshakes
  wsd-bench -t publish -c 10000 --rooms 1000  a publish to each of 1,000 rooms of 10, in turn
  taskset -c 1 wsd-bench ...                 keeps the generator off the server's cores

How to read it:
  Without --rate the clients wait for the server, so latency only says how fast it answers when
  it is fully busy. For what users will feel, give a --rate below the limit.
  `server` is CPU time of the server's whole process tree, found by its listening port when it
  runs on this machine; if `client` shows a fully used core, give the generator more --threads.

Exit codes: 0 all well, 1 connections were lost, 2 wrong usage, 3 no server, or not a fit one.";

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1 << 10),
        None => match lower.strip_suffix('m') {
            Some(digits) => (digits, 1 << 20),
            None => (&*lower, 1),
        },
    };
    let number: usize = digits.parse().map_err(|_| "not a size like 64, 16K or 1M")?;
    match number.checked_mul(unit) {
        Some(size) if size <= 64 << 20 => Ok(size),
        _ => Err("at most 64M".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.trim_end_matches('s').parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("not a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(bytes("16K"), Ok(16384));
        assert_eq!(bytes("1m"), Ok(1 << 20));
        assert!(bytes("1G").is_err());
        assert!(bytes("65M").is_err());
    }
}
