//! What `scripts/bench-cluster` measures with: a courier alone, with this program in the place of
//! its master and its manager, and messages from one node to another.
//!
//! ```text
//! bench_cluster courier PROGRAM ENGINE CORE SECONDS    a courier alone, out and in
//! bench_cluster rooms PROGRAM ENGINE CORE ROOMS        how soon so many are subscribed to again
//! bench_cluster offer FROM TO RATE SECONDS             so many publishes a second
//! bench_cluster latency FROM TO ENGINE ROUNDS          a push by number, beside a bare publish
//! ```
//!
//! Each prints one line of JSON.

mod courier_alone;
mod engine_client;
mod node_client;

use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let measured = match words[..] {
        ["courier", program, engine, core, seconds] => seconds
            .parse()
            .map_err(Failure::from)
            .and_then(|seconds| courier_alone::throughput((program, engine, core), seconds)),
        ["rooms", program, engine, core, rooms] => rooms
            .parse()
            .map_err(Failure::from)
            .and_then(|rooms| courier_alone::resubscribe((program, engine, core), rooms)),
        ["offer", from, to, rate, seconds] => match (rate.parse(), seconds.parse()) {
            (Ok(rate), Ok(seconds)) => node_client::offer(from, to, rate, seconds),
            _ => Err("RATE and SECONDS are numbers".into()),
        },
        ["latency", from, to, engine, rounds] => rounds
            .parse()
            .map_err(Failure::from)
            .and_then(|rounds| node_client::latency(from, to, engine, rounds)),
        _ => Err("see the head of bench_cluster.rs".into()),
    };
    match measured {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_cluster: {error}");
            ExitCode::FAILURE
        }
    }
}
