//! The clients of a test: how many there are, how they come, and what they send.

use crate::cli::Cli;
use crate::control::Control;
use crate::fault::Fault;
use crate::opener::{Plan, open_all};
use crate::run::{Outcome, run};
use crate::server::Server;
use crate::stats::Stats;
use crate::target::Target;
use crate::traffic::Client;

/// Handshakes under way at once: below any server's backlog.
pub const PARALLEL: usize = 64;

/// Clients in equal parts on some threads.
pub struct Crowd<'a> {
    pub cli: &'a Cli,
    pub target: &'a Target,
    pub server: Option<&'a Server>,
    pub connections: usize,
    pub threads: usize,
    pub control: Control,
}

impl<'a> Crowd<'a> {
    /// As many as `cli` says, or `otherwise`. `wake_first`: thread 0 waits for what the others
    /// count.
    pub fn new(
        cli: &'a Cli,
        target: &'a Target,
        server: Option<&'a Server>,
        otherwise: usize,
        wake_first: bool,
    ) -> Result<Crowd<'a>, Fault> {
        let connections = cli.connections.unwrap_or(otherwise);
        let threads = cli.threads.min(connections);
        let control = Control::new(threads, wake_first)?;
        Ok(Crowd { cli, target, server, connections, threads, control })
    }

    /// How many clients a thread has.
    pub fn part(&self, thread: usize) -> usize {
        share(self.connections, self.threads, thread)
    }

    /// Opens the clients, has each thread `prepare` its part, and lets each `work` with its part
    /// once all stand.
    pub fn run(
        &self,
        prepare: impl Fn(Vec<Client>) -> Result<Vec<Client>, Fault> + Sync,
        work: impl Fn(usize, Vec<Client>) -> Result<Stats, Fault> + Sync,
    ) -> Result<Outcome, Fault> {
        run(self.cli, &self.control, self.threads, self.server, |thread| {
            let first: usize = (0..thread).map(|other| self.part(other)).sum();
            let clients = open(self.cli, self.target, first, self.part(thread));
            let clients = clients.and_then(&prepare);
            self.control.wait_for_start();
            let worked = clients.and_then(|clients| work(thread, clients));
            // One that failed is done as well, or the others would be waited for in vain.
            worked.inspect_err(|_| self.control.finished())
        })
    }
}

/// Opens `share` connections, the first of which is number `first`.
pub fn open(cli: &Cli, target: &Target, first: usize, share: usize) -> Result<Vec<Client>, Fault> {
    let mut clients = Vec::with_capacity(share);
    let plan =
        Plan { count: share, first: Some(first), parallel: PARALLEL, patience: cli.timeout };
    open_all(target, plan, |opened| {
        clients.push(Client::new(opened));
        true
    })?;
    Ok(clients)
}

/// The `index`th of `parts` nearly equal parts.
pub fn share(whole: usize, parts: usize, index: usize) -> usize {
    whole / parts + usize::from(index < whole % parts)
}

/// Text that compresses about as well as the JSON of a chat does.
pub fn payload(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut text = Vec::with_capacity(size + 64);
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(
            format!("{{\"room\":\"lobby\",\"id\":{state},\"text\":").as_bytes(),
        );
    }
    text.truncate(size);
    text
}
