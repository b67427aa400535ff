//! Whether a client is let in: what is asked of its address, and who gives way when there is no
//! room.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::Door;
use crate::config::Config;
use crate::ipc::scoreboard::Counter;
use crate::sys::address::network;
use crate::worker::clients::admission::{Yielding, part};
use crate::worker::clients::connection::Stage;
use crate::worker::head::{RETRY_AFTER, Reason, Refusal};

fn full(advice: &'static str) -> Refusal {
    Refusal::overloaded("the server is full", RETRY_AFTER).advice(advice)
}

fn too_many_of(advice: &'static str) -> Refusal {
    let refusal = Refusal::overloaded("this address has too many connections", RETRY_AFTER);
    refusal.because(Reason::Address).advice(advice)
}

/// Whether an address is let in at all, by whatever listener.
pub(in crate::worker) fn check_denied(config: &Config, ip: IpAddr) -> Result<(), Refusal> {
    match config.denied.iter().any(|net| net.contains(ip)) {
        false => Ok(()),
        true => {
            let refusal = Refusal::new(403, "this address is not let in");
            Err(refusal.because(Reason::Denied).advice("It stands in denied."))
        }
    }
}

impl Door {
    /// What is asked of a client once, when it comes.
    pub(in crate::worker) fn check_arrival(
        &self,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        if !self.listeners.borrow().takes_clients() {
            return Err(Refusal::stopping());
        }
        if let Some(peer) = peer {
            self.check_denied(peer.ip())?;
        }
        match self.counted(peer) {
            Some(network) => self.check_network(network),
            None => Ok(()),
        }
    }

    fn check_denied(&self, ip: IpAddr) -> Result<(), Refusal> {
        check_denied(&self.settings.config, ip)
    }

    /// Whether a client of this network may come now.
    fn check_network(&self, network: IpAddr) -> Result<(), Refusal> {
        let config = &self.settings.config;
        if config.handshakes_per_second == 0 {
            return Ok(());
        }
        let workers = self.worker_num.get();
        let rate = part(config.handshakes_per_second, workers) as u64;
        let burst = part(config.handshakes_burst, workers) as u64;
        if !self.gate.rates.take(network, rate, burst, self.now_ms.get()) {
            let refusal = Refusal::new(429, "this address comes too often");
            let advice = "handshakes_per_second is reached.";
            let refusal = refusal.because(Reason::Rate).advice(advice);
            return Err(refusal.header("Retry-After", "1"));
        }
        Ok(())
    }

    /// What is asked of a client that a trusted proxy has named in a plain request.
    pub(in crate::worker) fn check_named(&self, client: IpAddr) -> Result<(), Refusal> {
        self.check_denied(client)
    }

    /// What is asked of a client that a trusted proxy has named.
    pub(in crate::worker) fn check_client(&self, client: IpAddr) -> Result<(), Refusal> {
        self.check_denied(client)?;
        self.check_network(network(client))?;
        self.check_share(network(client))
    }

    fn check_share(&self, network: IpAddr) -> Result<(), Refusal> {
        let limit = self.settings.config.connections_per_ip;
        if limit == 0 || self.has_share(network, limit) {
            return Ok(());
        }
        Err(too_many_of("connections_per_ip is reached."))
    }

    fn has_share(&self, network: IpAddr, limit: usize) -> bool {
        let most = part(limit, self.worker_num.get());
        (self.gate.admitted.of(network).all as usize) < most
    }

    pub(in crate::worker) fn check_room(
        self: &Rc<Self>,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let config = &self.settings.config;
        if let Some(network) = self.counted(peer) {
            self.check_share(network)?;
            if self.gate.admitted.has_pending(network, config.handshakes_per_ip) {
                return Err(too_many_of("handshakes_per_ip is reached."));
            }
        }
        if !self.has_descriptors() && !self.somebody_yields() {
            return Err(full("The descriptors of this worker are used up (ulimit -n)."));
        }
        if !self.has_credit() && !self.somebody_yields() {
            return Err(full("max_connection is reached."));
        }
        let crowded = self.gate.admitted.pending() >= config.handshakes_max;
        if crowded && !self.oldest_handshake_yields() {
            return Err(full("handshakes_max is reached."));
        }
        Ok(())
    }

    /// Whether there is memory for one more WebSocket. Where there is none, a body of which nothing
    /// came for a while makes room, else the longest unfinished message.
    pub(in crate::worker) fn check_memory(&self) -> Result<(), Refusal> {
        if !self.budget.is_full() || self.silent_body_yields() || self.longest_message_ends() {
            return Ok(());
        }
        Err(full("client_memory is reached.").because(Reason::Memory))
    }

    /// Has the body that has been silent for longest be waited for no more; false where something
    /// came of each.
    pub(in crate::worker) fn silent_body_yields(&self) -> bool {
        self.yields(self.gate.admitted.silent_body_yields())
    }

    /// Whether this worker has a descriptor to give, beyond its reserve.
    fn has_descriptors(&self) -> bool {
        self.board.row.clients() < self.gate.clients_max
    }

    /// Has whoever holds a place without doing anything give it up: a plain connection that waits
    /// for its client, else the oldest unfinished handshake. False if there is nobody.
    fn somebody_yields(self: &Rc<Self>) -> bool {
        self.plain_yields() || self.oldest_handshake_yields()
    }

    fn oldest_handshake_yields(self: &Rc<Self>) -> bool {
        let oldest = {
            let table = self.table.borrow();
            let unfinished =
                |key| table.get(key).is_some_and(|it| it.pending && it.stage == Stage::Head);
            self.gate.admitted.oldest_handshake(unfinished)
        };
        let Some(key) = oldest else { return false };
        let refusal = Refusal::needed().because(Reason::Handshakes);
        let silent = self.table.borrow().get(key).filter(|it| !it.has_begun()).map(|it| it.peer());
        match silent {
            Some(peer) => {
                self.note_refusal(refusal.status, refusal.reason, &refusal.for_log(), peer);
                self.drop_pending(key);
            }
            None => self.refuse_head(key, refusal),
        }
        true
    }

    /// Whether `max_connection` of all workers has room for one more. Far from the limit they
    /// are counted only now and then, near it each time. A quarter of its equal share is each
    /// worker's own, whatever the others say they have.
    fn has_credit(&self) -> bool {
        let limit = self.settings.config.max_connection as u64;
        if limit == 0 {
            return true;
        }
        let gate = &self.gate;
        if gate.credit.get() > 0 {
            gate.credit.set(gate.credit.get() - 1);
            return true;
        }
        let here = self.board.row.clients();
        if here < self.quarter_of_share(limit) {
            return true;
        }
        let taken = here + self.board.others.borrow().clients(limit);
        let Some(room) = limit.checked_sub(taken + 1) else { return false };
        gate.credit.set(self.quarter_of_share(room).min(256));
        true
    }

    /// A quarter of what each worker would have of `all` if all had the same. What the others
    /// count is their word: should one of them lie, this much of a common limit is left.
    pub(in crate::worker) fn quarter_of_share(&self, all: u64) -> u64 {
        all / (4 * u64::from(self.worker_num.get().max(1)))
    }

    /// Has the plain connection that has waited longest for its client give its place up; false
    /// if none waits.
    pub(in crate::worker) fn plain_yields(&self) -> bool {
        self.yields(self.gate.admitted.oldest_plain_yields())
    }

    fn yields(&self, yielding: Option<Rc<Yielding>>) -> bool {
        let Some(yielding) = yielding else { return false };
        if yielding.go() {
            self.board.sub(Counter::Plain, 1);
        }
        true
    }
}
