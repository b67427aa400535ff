//! What the tests are written in: a real server, real clients, and waiting for what is told.

mod api;
mod chat;
mod client;
mod costs;
mod deaf;
mod engine;
mod notify;
mod processes;
mod programs;
mod raw;
mod server;
mod stolen;

use std::future::Future;
use std::time::{Duration, Instant};

pub use api::{Api, Reply};
pub use chat::all_of_eight_hear_each_whatever_dies;
pub use client::{Client, Closed};
pub use costs::{Costs, memory, processor_time};
pub use deaf::DeafProxy;
pub use engine::{Engine, SentinelGroup};
pub use notify::NotifySocket;
pub use processes::{Process, is_alive, kill, marked, open_descriptors, stat_letter};
pub use programs::{example, repository, stock_program};
pub use raw::{COMPRESSED, FIN, PING, Raw, TEXT, frame, handshake, in_parts, packed};
pub use server::{Ran, Server, Setup, Worker, command};
pub use stolen::Stolen;

/// Nothing that a test waits for takes this long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The answer of a future that has to come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited {} s for {what}", PATIENCE.as_secs()))
}

/// Asks again and again until the answer is a value.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
