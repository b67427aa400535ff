use bytes::Bytes;
use proptest::prelude::*;

use super::super::codec::{AGAIN, decode, wants};
use super::moves::REPIN_AFTER_MS;
use super::*;

const ALL_WANTED: u8 = wants::HANDSHAKE
    | wants::OPEN
    | wants::MESSAGE
    | wants::CLOSE
    | wants::REQUEST
    | wants::ATTACH
    | wants::IN_ORDER;

fn id(place: u16, epoch: u32) -> ProcessId {
    ProcessId { place, epoch }
}

fn pool(processes: u16) -> Pool {
    Pool::new(&AppSettings { processes, ..AppSettings::default() })
}

fn message(fd: u64, text: &str) -> Packet {
    Packet { fd, code: 1, body: Bytes::from(text.to_owned()), ..Packet::new(Kind::Message) }
}

fn client(pool: &mut Pool, fd: u64, place: u16) {
    pool.pin(fd, Pin { place, ..Pin::default() });
}

fn taken(pool: &mut Pool, process: ProcessId) -> Vec<Packet> {
    let mut out = BytesMut::new();
    pool.take(process, 0, &mut out, usize::MAX);
    std::iter::from_fn(|| decode(&mut out, usize::MAX).unwrap()).collect()
}

fn kinds(packets: &[Packet]) -> Vec<(Kind, u64)> {
    packets.iter().map(|packet| (packet.kind, packet.fd)).collect()
}

#[test]
fn events_wait_for_a_process_and_go_out_once() {
    let mut pool = pool(1);
    pool.queue(0, message(1, "a"));
    assert_eq!(pool.ready(id(0, 1), ALL_WANTED, 0), None);
    let first = taken(&mut pool, id(0, 1));
    assert_eq!(kinds(&first), [(Kind::Message, 1)]);
    assert!(taken(&mut pool, id(0, 1)).is_empty());
    assert!(!pool.idle());
    assert!(pool.done(id(0, 1), first[0].id, false, 0, |_| {}));
    assert!(pool.idle());
    assert!(!pool.done(id(0, 1), first[0].id, false, 0, |_| {}), "done is said once");
}

#[test]
fn no_more_than_the_window_is_sent_ahead() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 2);
    for _ in 0..5 {
        pool.queue(0, message(1, "a"));
    }
    let first = taken(&mut pool, id(0, 1));
    assert_eq!(first.len(), 2);
    pool.done(id(0, 1), first[1].id, true, 0, |_| {});
    assert_eq!(taken(&mut pool, id(0, 1)).len(), 2);
}

#[test]
fn unwanted_events_are_not_sent() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), wants::MESSAGE, 0);
    let open = pool.queue(0, Packet { fd: 1, ..Packet::new(Kind::Open) });
    pool.queue(0, message(1, "a"));
    let mut out = BytesMut::new();
    assert_eq!(pool.take(id(0, 1), 0, &mut out, usize::MAX), [open]);
    assert_eq!(decode(&mut out, 100).unwrap().unwrap().kind, Kind::Message);
}

#[test]
fn the_event_a_process_died_on_is_tried_twice_and_the_others_stay() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    client(&mut pool, 1, 0);
    for text in ["poison", "b"] {
        pool.queue(0, message(1, text));
    }
    taken(&mut pool, id(0, 1));
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 2, ..Loss::default() });
    pool.ready(id(0, 2), ALL_WANTED, 0);
    let again = taken(&mut pool, id(0, 2));
    assert_eq!(kinds(&again), [(Kind::Attach, 1)], "the suspects go alone");
    pool.done(id(0, 2), again[0].id, false, 0, |_| {});
    let suspect = taken(&mut pool, id(0, 2));
    assert_eq!((suspect.len(), suspect[0].flags), (1, AGAIN));
    let loss = pool.lost(id(0, 2), false, 0);
    assert_eq!((loss.again, &loss.dropped[0].body[..], loss.deadly), (0, &b"poison"[..], vec![1]));
    pool.ready(id(0, 3), ALL_WANTED, 0);
    let attach = taken(&mut pool, id(0, 3));
    pool.done(id(0, 3), attach[0].id, false, 0, |_| {});
    assert_eq!(taken(&mut pool, id(0, 3))[0].body, "b", "who stood beside it is tried again");
}

#[test]
fn an_event_that_has_reached_the_worker_is_not_tried_again() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    client(&mut pool, 1, 0);
    for text in ["begun", "not begun"] {
        pool.queue(0, message(1, text));
    }
    taken(&mut pool, id(0, 1));
    pool.reached(id(0, 1));
    let loss = pool.lost(id(0, 1), false, 0);
    assert_eq!((loss.again, &loss.dropped[0].body[..]), (1, &b"begun"[..]));
    assert!(loss.deadly.is_empty(), "the first death is forgiven");
    pool.ready(id(0, 2), ALL_WANTED & !wants::ATTACH, 0);
    let next = taken(&mut pool, id(0, 2));
    assert_eq!((next[0].flags, &next[0].body[..]), (0, &b"not begun"[..]));
    assert_eq!(pool.lost(id(0, 2), false, 0).again, 1);
    pool.ready(id(0, 3), ALL_WANTED & !wants::ATTACH, 0);
    taken(&mut pool, id(0, 3));
    assert_eq!(pool.lost(id(0, 3), false, 0).deadly, [1]);
}

#[test]
fn a_process_that_says_it_ends_has_died_on_nothing() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.queue(0, Packet::new(Kind::Request));
    taken(&mut pool, id(0, 1));
    pool.ended(id(0, 1), true, false);
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 1, ..Loss::default() });
}

#[test]
fn an_event_before_which_two_processes_end_with_a_fatal_error_is_given_up() {
    let mut pool = pool(1);
    client(&mut pool, 1, 0);
    let next = |pool: &mut Pool, epoch| {
        pool.ready(id(0, epoch), ALL_WANTED & !wants::ATTACH, 0);
        kinds(&taken(pool, id(0, epoch)))
    };
    pool.queue(0, message(1, "too long"));
    pool.queue(0, message(2, "b"));
    assert_eq!(next(&mut pool, 1), [(Kind::Message, 1), (Kind::Message, 2)]);
    pool.ended(id(0, 1), true, true);
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 2, ..Loss::default() });
    assert_eq!(next(&mut pool, 2), [(Kind::Message, 1)], "it goes alone");
    pool.ended(id(0, 2), true, true);
    let loss = pool.lost(id(0, 2), false, 0);
    assert_eq!((loss.again, loss.dropped.len(), loss.deadly), (0, 1, vec![1]));
    assert_eq!(next(&mut pool, 3), [(Kind::Message, 2)]);
}

#[test]
fn an_event_that_waits_while_others_fail_is_handled_and_not_given_up() {
    let mut pool = pool(1);
    for fd in [1, 2, 3] {
        pool.queue(0, message(fd, "a"));
    }
    let handle = |pool: &mut Pool, epoch| {
        let event = taken(pool, id(0, epoch)).remove(0);
        assert!(pool.done(id(0, epoch), event.id, false, 0, |_| {}));
        event.fd
    };
    pool.ready(id(0, 1), ALL_WANTED, 0);
    assert_eq!(handle(&mut pool, 1), 1);
    pool.ended(id(0, 1), true, true);
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 2, ..Loss::default() });
    pool.ready(id(0, 2), ALL_WANTED, 0);
    assert_eq!([handle(&mut pool, 2), handle(&mut pool, 2)], [2, 3]);
    pool.ended(id(0, 2), true, true);
    assert_eq!(pool.lost(id(0, 2), false, 0), Loss::default());
}

#[test]
fn a_request_behind_another_event_was_not_begun() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.queue(0, message(1, "first"));
    pool.queue(0, Packet::new(Kind::Request));
    pool.queue(0, message(1, "later"));
    taken(&mut pool, id(0, 1));
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 3, ..Loss::default() });
    assert_eq!(pool.queues[0].all().map(|event| event.tries).collect::<Vec<_>>(), [1, 0, 0]);
    let request = pool.queues[0].waiting[1].packet.id;
    assert!(pool.withdraw(request), "its client left");
    assert!(!pool.withdraw(request));
}

#[test]
fn what_must_not_run_twice_is_given_up() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.queue(0, Packet::new(Kind::Request));
    taken(&mut pool, id(0, 1));
    assert_eq!(pool.lost(id(0, 1), false, 0).dropped.len(), 1);
}

#[test]
fn a_process_that_finishes_nothing_is_overdue() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.queue(0, message(1, "a"));
    taken(&mut pool, id(0, 1));
    assert!(pool.overdue(29_999).is_empty());
    assert_eq!(pool.overdue(30_000), [id(0, 1)]);
    assert_eq!(pool.lost(id(0, 1), true, 30_000).dropped.len(), 1);
}

#[test]
fn a_new_process_takes_over_when_the_old_one_is_through() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    client(&mut pool, 1, 0);
    pool.queue(0, message(1, "old"));
    let old = taken(&mut pool, id(0, 1));
    assert_eq!(pool.ready(id(0, 2), ALL_WANTED, 0), Some(id(0, 1)));
    pool.queue(0, message(1, "new"));
    assert!(taken(&mut pool, id(0, 1)).is_empty(), "the old one gets nothing more");
    assert!(taken(&mut pool, id(0, 2)).is_empty(), "the new one waits");
    pool.done(id(0, 1), old[0].id, false, 0, |_| {});
    let new = taken(&mut pool, id(0, 2));
    assert_eq!(kinds(&new), [(Kind::Attach, 1), (Kind::Message, 1)]);
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss::default());
}

#[test]
fn clients_spread_and_move_with_their_events_when_a_place_stays_empty() {
    let mut pool = pool(2);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.ready(id(1, 1), ALL_WANTED, 0);
    for fd in 1..=4 {
        let place = pool.choose_for_client(None);
        client(&mut pool, fd, place);
    }
    assert_eq!((pool.queues[0].pins, pool.queues[1].pins), (2, 2));
    pool.queue(0, message(1, "a"));
    pool.lost(id(0, 1), false, 0);
    assert!(pool.rehome(REPIN_AFTER_MS - 1).is_empty());
    assert_eq!(pool.rehome(REPIN_AFTER_MS), [1]);
    let seen = taken(&mut pool, id(1, 1));
    assert_eq!(kinds(&seen), [(Kind::Attach, 1), (Kind::Attach, 3), (Kind::Message, 1)]);
    assert_eq!(pool.pinned(1).unwrap().place, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Message(u64),
    Take,
    Done(u8),
    Crash,
    Replace,
    Rehome,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..6).prop_map(Step::Message),
        4 => Just(Step::Take),
        4 => any::<u8>().prop_map(Step::Done),
        1 => Just(Step::Crash),
        1 => Just(Step::Replace),
        1 => Just(Step::Rehome),
    ]
}

/// The processes that a random run plays, and what it has seen of them.
struct World {
    pool: Pool,
    now: u64,
    epochs: [u32; 2],
    running: Vec<Vec<ProcessId>>,
    sent: HashMap<ProcessId, Vec<Packet>>,
    number: HashMap<u64, u32>,
    finished: HashMap<u64, Vec<u32>>,
    given_up: usize,
}

impl World {
    fn new() -> World {
        let mut pool = pool(2);
        pool.ready(id(0, 1), ALL_WANTED, 4);
        pool.ready(id(1, 1), ALL_WANTED, 4);
        for fd in 1..6 {
            let place = pool.choose_for_client(None);
            client(&mut pool, fd, place);
        }
        World {
            pool,
            now: 0,
            epochs: [1, 1],
            running: vec![vec![id(0, 1)], vec![id(1, 1)]],
            sent: HashMap::new(),
            number: HashMap::new(),
            finished: HashMap::new(),
            given_up: 0,
        }
    }

    fn step(&mut self, step: &Step, place: u16) {
        self.now += 400;
        let at = usize::from(place);
        match *step {
            Step::Message(fd) => {
                let count = self.number.entry(fd).or_default();
                *count += 1;
                let place = self.pool.pinned(fd).unwrap().place;
                self.pool.queue(place, message(fd, &count.to_string()));
            }
            Step::Take => {
                for process in self.running[at].clone() {
                    let packets = taken(&mut self.pool, process);
                    self.sent.entry(process).or_default().extend(packets);
                }
            }
            Step::Done(count) => {
                for process in self.running[at].clone() {
                    self.finish(process, count.into());
                }
            }
            Step::Crash => {
                for process in std::mem::take(&mut self.running[at]) {
                    self.sent.remove(&process);
                    self.given_up += self.pool.lost(process, false, self.now).dropped.len();
                }
                self.start(place);
            }
            Step::Replace if self.running[at].len() == 1 => self.start(place),
            Step::Replace => {
                let old = self.running[at][0];
                if self.sent.get(&old).is_none_or(Vec::is_empty) {
                    self.running[at].remove(0);
                    assert_eq!(self.pool.lost(old, false, self.now), Loss::default());
                }
            }
            Step::Rehome => drop(self.pool.rehome(self.now)),
        }
    }

    fn start(&mut self, place: u16) {
        let at = usize::from(place);
        self.epochs[at] += 1;
        let next = id(place, self.epochs[at]);
        self.pool.ready(next, ALL_WANTED, 4);
        self.running[at].push(next);
    }

    fn finish(&mut self, process: ProcessId, count: usize) {
        let queue = self.sent.entry(process).or_default();
        for packet in queue.drain(..queue.len().min(count)) {
            assert!(self.pool.done(process, packet.id, false, self.now, |_| {}));
            if packet.kind == Kind::Message {
                let text = std::str::from_utf8(&packet.body).unwrap();
                self.finished.entry(packet.fd).or_default().push(text.parse().unwrap());
            }
        }
    }
}

proptest! {
    /// Whatever dies or is replaced, each client's events are finished in order, and all but
    /// those that were given up are finished.
    #[test]
    fn order_survives_everything(steps in proptest::collection::vec((step(), 0u16..2), 1..200)) {
        let mut world = World::new();
        for (step, place) in &steps {
            world.step(step, *place);
        }
        for round in 0..400u32 {
            let step = if round % 4 < 2 { Step::Take } else { Step::Done(255) };
            world.step(&step, (round % 2) as u16);
        }
        let total: u32 = world.number.values().sum();
        let seen: usize = world.finished.values().map(Vec::len).sum();
        for list in world.finished.values() {
            prop_assert!(list.is_sorted(), "{:?}", list);
        }
        prop_assert!(world.pool.idle());
        prop_assert!(seen + world.given_up >= total as usize);
        prop_assert!(world.pool.queues.iter().all(|queue| queue.bytes == 0));
    }
}

#[path = "pool_apart_tests.rs"]
mod apart;

#[path = "pool_together_tests.rs"]
mod together;

#[path = "pool_asks_tests.rs"]
mod asks;
