//! When an echo client sends: after each answer, or by the clock.

use crate::stats::Stats;
use crate::traffic::Work;

/// Keeps a fixed number of messages in flight on each connection.
pub struct Closed {
    /// When each message in flight was sent: a ring for each client.
    stamps: Vec<u64>,
    heads: Vec<usize>,
    pipeline: usize,
    begun: bool,
    /// Messages still to send and still to come; no end where `None`.
    left: Option<(u64, u64)>,
}

impl Closed {
    pub fn new(clients: usize, pipeline: usize, total: Option<u64>) -> Closed {
        Closed {
            stamps: vec![0; clients * pipeline],
            heads: vec![0; clients],
            pipeline,
            begun: false,
            left: total.map(|total| (total, total)),
        }
    }

    /// How many of `wanted` may still be sent.
    fn grant(&mut self, wanted: u64) -> u64 {
        let Some((to_send, _)) = &mut self.left else { return wanted };
        let granted = wanted.min(*to_send);
        *to_send -= granted;
        granted
    }
}

impl Work for Closed {
    fn arrived(&mut self, client: usize, count: u64, now: u64, stats: &mut Stats) -> u64 {
        let ring = &mut self.stamps[client * self.pipeline..][..self.pipeline];
        let head = &mut self.heads[client];
        for _ in 0..count {
            // The answer's place is also that of the message that follows it.
            stats.latency(now.saturating_sub(ring[*head]));
            ring[*head] = now;
            *head = if *head + 1 == ring.len() { 0 } else { *head + 1 };
        }
        stats.count(count);
        if let Some((_, to_come)) = &mut self.left {
            *to_come = to_come.saturating_sub(count);
        }
        self.grant(count)
    }

    fn tick(&mut self, now: u64, send: &mut Vec<(usize, u64)>) -> Option<u64> {
        if !self.begun {
            self.begun = true;
            self.stamps.fill(now);
            for client in 0..self.heads.len() {
                let count = self.grant(self.pipeline as u64);
                send.push((client, count));
            }
        }
        None
    }

    fn is_done(&self) -> bool {
        matches!(self.left, Some((_, 0)))
    }
}

/// Sends by the clock, whether answers come or not, to one client after the other.
///
/// The latency of a message runs from when it was *due*. So a server that stalls is charged for
/// everything that had to wait meanwhile, which a client that waits with it would never see
/// (coordinated omission).
pub struct Open {
    interval: f64,
    since: Option<u64>,
    sent: u64,
    answered: Vec<u64>,
    total: Option<u64>,
    to_come: u64,
}

impl Open {
    /// `rate`: messages a second over all clients of this thread.
    pub fn new(clients: usize, rate: f64, total: Option<u64>) -> Open {
        Open {
            interval: 1e9 / rate,
            since: None,
            sent: 0,
            answered: vec![0; clients],
            total,
            to_come: total.unwrap_or(u64::MAX),
        }
    }

    fn due(&self, nth: u64) -> u64 {
        self.since.unwrap_or(0) + (nth as f64 * self.interval) as u64
    }
}

impl Work for Open {
    fn arrived(&mut self, client: usize, count: u64, now: u64, stats: &mut Stats) -> u64 {
        let clients = self.answered.len() as u64;
        for _ in 0..count {
            let nth = self.answered[client] * clients + client as u64;
            self.answered[client] += 1;
            stats.latency(now.saturating_sub(self.due(nth)));
        }
        stats.count(count);
        self.to_come = self.to_come.saturating_sub(count);
        0
    }

    fn tick(&mut self, now: u64, send: &mut Vec<(usize, u64)>) -> Option<u64> {
        self.since.get_or_insert(now);
        let end = self.total.unwrap_or(u64::MAX);
        while self.sent < end && self.due(self.sent) <= now {
            send.push(((self.sent % self.answered.len() as u64) as usize, 1));
            self.sent += 1;
        }
        (self.sent < end).then(|| self.due(self.sent))
    }

    fn is_done(&self) -> bool {
        self.to_come == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_keeps_its_pipeline_full_and_ends_at_the_total() {
        let (mut work, mut stats, mut send) =
            (Closed::new(2, 4, Some(10)), Stats::recording(), vec![]);
        work.tick(100, &mut send);
        assert_eq!(send, [(0, 4), (1, 4)]);
        assert_eq!(work.arrived(0, 3, 150, &mut stats), 2, "ten in all");
        assert_eq!(work.arrived(1, 4, 160, &mut stats), 0);
        assert!(!work.is_done());
        assert_eq!(work.arrived(0, 3, 200, &mut stats), 0);
        assert!(work.is_done());
        assert_eq!((stats.messages(), stats.histogram.min()), (10, 50));
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_every_message_that_was_due() {
        // 1,000 a second for two clients; nothing is answered for 10 ms.
        let (mut work, mut stats, mut send) =
            (Open::new(2, 1000.0, None), Stats::recording(), vec![]);
        let first = 5_000_000;
        assert_eq!(work.tick(first, &mut send), Some(first + 1_000_000));
        work.tick(first + 9_000_000, &mut send);
        assert_eq!(send.len(), 10);
        let now = first + 10_000_000;
        work.arrived(0, 5, now, &mut stats);
        work.arrived(1, 5, now, &mut stats);
        let (min, max) = (stats.histogram.min(), stats.histogram.max());
        assert!((999_000..1_001_000).contains(&min), "{min}");
        assert!((9_990_000..10_010_000).contains(&max), "{max}");
    }
}
