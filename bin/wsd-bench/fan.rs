//! One sends, many receive: when the sender of a broadcast or of pushes sends the next round.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::Stats;
use crate::traffic::Work;

/// How long what is in flight is waited for at the end.
const DRAIN_NANOS: u64 = 1_000_000_000;

/// What the threads of a fan share: when each round began, and how far each thread is.
pub struct Rounds {
    /// When the rounds in flight were sent, or were due.
    stamps: Vec<AtomicU64>,
    /// Rounds that all receivers of a thread have.
    complete: Vec<AtomicU64>,
    /// Messages that the server said it could not push.
    pub lost: AtomicU64,
}

impl Rounds {
    /// At most `window` rounds are in flight.
    pub fn new(window: usize, threads: usize) -> Rounds {
        let zeros = |len| (0..len).map(|_| AtomicU64::new(0)).collect();
        Rounds { stamps: zeros(window), complete: zeros(threads), lost: AtomicU64::new(0) }
    }

    fn window(&self) -> u64 {
        self.stamps.len() as u64
    }

    fn stamp(&self, round: u64) -> &AtomicU64 {
        &self.stamps[(round % self.window()) as usize]
    }

    /// Rounds that everyone has.
    fn complete(&self) -> u64 {
        let all = self.complete.iter().map(|count| count.load(Ordering::Acquire));
        all.min().unwrap_or(0)
    }
}

/// The part of one thread.
pub struct Fan<'a> {
    rounds: &'a Rounds,
    thread: usize,
    /// The client that sends, if it is of this thread.
    sender: Option<usize>,
    /// The round that each client awaits.
    awaits: Vec<u64>,
    /// How many receivers have each round in flight.
    have: Vec<u64>,
    receivers: u64,
    /// Messages to each receiver in a round, and of the sender.
    each: u64,
    messages: u64,
    /// Rounds that all receivers of this thread have.
    complete: u64,
    sent: u64,
    /// Nanoseconds between rounds, and when the first was due.
    interval: Option<f64>,
    since: Option<u64>,
    total: Option<u64>,
    stop_at: Option<u64>,
}

/// How a fan is paced.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Rounds a second; as soon as the window allows where `None`.
    pub rate: Option<f64>,
    /// Rounds in all.
    pub total: Option<u64>,
}

impl<'a> Fan<'a> {
    /// `receivers` of the thread's `clients` get every round.
    pub fn new(
        rounds: &'a Rounds,
        thread: usize,
        sender: Option<usize>,
        (clients, receivers): (usize, usize),
        pace: Pace,
    ) -> Fan<'a> {
        Fan {
            rounds,
            thread,
            sender,
            awaits: vec![0; clients],
            have: vec![0; rounds.stamps.len()],
            receivers: receivers as u64,
            each: 1,
            messages: 1,
            complete: 0,
            sent: 0,
            interval: pace.rate.map(|rate| 1e9 / rate),
            since: None,
            total: pace.total,
            stop_at: None,
        }
    }

    /// In a round the sender sends so many messages, and each receiver gets so many.
    pub fn rounds_of(mut self, messages: usize, each: usize) -> Fan<'a> {
        (self.messages, self.each) = (messages as u64, each as u64);
        self
    }

    /// When the next round is due; now where nothing paces it.
    fn due(&self, now: u64) -> u64 {
        match (self.interval, self.since) {
            (Some(interval), Some(since)) => since + (self.sent as f64 * interval) as u64,
            _ => now,
        }
    }
}

impl Work for Fan<'_> {
    fn arrived(&mut self, client: usize, count: u64, now: u64, stats: &mut Stats) -> u64 {
        if self.sender == Some(client) && self.receivers < self.awaits.len() as u64 {
            // A sender of pushes is told only what went wrong, which `said` has taken.
            return 0;
        }
        for _ in 0..count {
            let round = self.awaits[client] / self.each;
            self.awaits[client] += 1;
            let since = self.rounds.stamp(round).load(Ordering::Relaxed);
            stats.latency(now.saturating_sub(since));
            let have = &mut self.have[(round % self.rounds.window()) as usize];
            *have += 1;
            if *have == self.receivers * self.each {
                *have = 0;
                self.complete += 1;
            }
        }
        stats.count(count);
        self.rounds.complete[self.thread].store(self.complete, Ordering::Release);
        0
    }

    fn tick(&mut self, now: u64, send: &mut Vec<(usize, u64)>) -> Option<u64> {
        let sender = self.sender?;
        self.since.get_or_insert(now);
        let end = self.rounds.complete() + self.rounds.window();
        let end = end.min(self.total.unwrap_or(u64::MAX));
        let before = self.sent;
        while self.sent < end {
            let due = self.due(now);
            if due > now {
                break;
            }
            self.rounds.stamp(self.sent).store(due, Ordering::Relaxed);
            self.sent += 1;
        }
        if self.sent > before {
            send.push((sender, (self.sent - before) * self.messages));
        }
        (self.interval.is_some() && self.sent < end).then(|| self.due(now))
    }

    fn is_done(&self) -> bool {
        self.total == Some(self.rounds.complete())
    }

    /// What is in flight has to arrive before the clients can be used for something else.
    fn may_stop(&mut self, now: u64) -> bool {
        if self.sender.is_none() || self.rounds.complete.len() > 1 {
            return true;
        }
        self.total = Some(self.sent);
        let patience = *self.stop_at.get_or_insert(now + DRAIN_NANOS);
        self.is_done() || now > patience
    }

    fn said(&mut self, _client: usize, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let lost = text.strip_prefix("lost ").and_then(|number| number.parse().ok());
        self.rounds.lost.fetch_add(lost.unwrap_or(0), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_may_be_many_messages_to_each() {
        let rounds = Rounds::new(1, 1);
        let pace = Pace { rate: None, total: None };
        let mut fan = Fan::new(&rounds, 0, Some(0), (2, 2), pace).rounds_of(3, 2);
        let (mut stats, mut send) = (Stats::default(), vec![]);
        fan.tick(10, &mut send);
        assert_eq!(std::mem::take(&mut send), [(0, 3)]);
        fan.arrived(0, 2, 20, &mut stats);
        fan.arrived(1, 1, 20, &mut stats);
        fan.tick(30, &mut send);
        assert!(send.is_empty());
        fan.arrived(1, 1, 40, &mut stats);
        fan.tick(50, &mut send);
        assert_eq!(send, [(0, 3)]);
    }

    #[test]
    fn a_round_is_sent_when_all_have_the_one_before_the_window() {
        let rounds = Rounds::new(2, 2);
        let pace = Pace { rate: None, total: None };
        let mut first = Fan::new(&rounds, 0, Some(0), (2, 2), pace);
        let mut second = Fan::new(&rounds, 1, None, (1, 1), pace);
        let (mut stats, mut send) = (Stats::default(), vec![]);
        first.tick(10, &mut send);
        assert_eq!(std::mem::take(&mut send), [(0, 2)]);
        first.arrived(0, 2, 20, &mut stats);
        first.arrived(1, 1, 20, &mut stats);
        first.tick(30, &mut send);
        assert!(send.is_empty(), "the other thread's client has nothing yet");
        second.arrived(0, 2, 40, &mut stats);
        first.tick(50, &mut send);
        assert_eq!(std::mem::take(&mut send), [(0, 1)]);
        first.arrived(1, 1, 60, &mut stats);
        first.tick(70, &mut send);
        assert_eq!(send, [(0, 1)]);
    }
}
