//! Requests that a quick process may answer in one write.

use super::*;
use crate::handler::app::codec::TOGETHER;

const ENOUGH: usize = 5_000;

/// A pool with a process that has finished many requests at once.
fn quick() -> Pool {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.asks(id(0, 1), GATHERS);
    warm(&mut pool, Kind::Request);
    pool
}

/// The process of the first place finishes many events at once.
fn warm(pool: &mut Pool, kind: Kind) {
    for _ in 0..ENOUGH {
        pool.queue(0, Packet { fd: 1, ..Packet::new(kind) });
        let event = taken(pool, id(0, 1)).remove(0);
        pool.done(id(0, 1), event.id, false, 0, |_| {});
    }
}

fn requests(pool: &mut Pool, count: usize) {
    for _ in 0..count {
        pool.queue(0, Packet::new(Kind::Request));
    }
}

fn flags(packets: &[Packet]) -> Vec<bool> {
    packets.iter().map(|packet| packet.flags & TOGETHER != 0).collect()
}

#[test]
fn a_process_that_is_not_known_as_quick_is_sent_two_requests_and_none_together() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.asks(id(0, 1), GATHERS);
    requests(&mut pool, 20);
    assert_eq!(flags(&taken(&mut pool, id(0, 1))), [false, false]);
}

#[test]
fn quick_messages_do_not_make_a_process_one_whose_pages_are_quick() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.asks(id(0, 1), GATHERS);
    warm(&mut pool, Kind::Message);
    requests(&mut pool, 20);
    assert_eq!(flags(&taken(&mut pool, id(0, 1))), [false, false]);
}

#[test]
fn a_process_that_answers_one_request_after_the_other_is_sent_none_together() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    warm(&mut pool, Kind::Request);
    requests(&mut pool, 20);
    assert_eq!(flags(&taken(&mut pool, id(0, 1))), [false, false]);
    assert_eq!(pool.lost(id(0, 1), false, 0).dropped.len(), 1, "its death costs one");
}

#[test]
fn a_process_that_stood_by_answers_together_as_others_do() {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.stands_by(id(0, 2), ALL_WANTED, 0);
    pool.asks(id(0, 2), GATHERS);
    assert_eq!(pool.lost(id(0, 1), false, 0).placed, Some(id(0, 2)));
    for _ in 0..ENOUGH {
        requests(&mut pool, 1);
        let event = taken(&mut pool, id(0, 2)).remove(0);
        pool.done(id(0, 2), event.id, false, 0, |_| {});
    }
    requests(&mut pool, 2);
    assert_eq!(flags(&taken(&mut pool, id(0, 2))), [true, false]);
}

#[test]
fn the_next_request_may_never_come_where_its_visitor_leaves() {
    let mut pool = quick();
    requests(&mut pool, 2);
    let mut out = BytesMut::new();
    pool.take(id(0, 1), 0, &mut out, 1);
    let first = decode(&mut out, usize::MAX).unwrap().unwrap();
    assert_eq!(flags(std::slice::from_ref(&first)), [true]);
    assert!(pool.withdraw(first.id + 1), "what was not sent is taken back");
    assert!(taken(&mut pool, id(0, 1)).is_empty());
    pool.queue(0, message(1, "a"));
    let next = taken(&mut pool, id(0, 1));
    let loss = pool.lost(id(0, 1), false, 0);
    assert_eq!((loss.dropped.len(), loss.again, next.len()), (1, 1, 1), "a message is no request");
}

#[test]
fn a_quick_process_is_sent_requests_in_groups_of_sixteen() {
    let mut pool = quick();
    requests(&mut pool, 36);
    let sent = taken(&mut pool, id(0, 1));
    let group = [vec![true; 15], vec![false]].concat();
    assert_eq!(flags(&sent), [&group[..], &group[..]].concat());
    pool.done(id(0, 1), sent[15].id, true, 0, |_| {});
    assert_eq!(flags(&taken(&mut pool, id(0, 1))), [true, true, true, false], "the last ends it");
}

#[test]
fn a_request_goes_together_with_no_other_event() {
    let mut pool = quick();
    requests(&mut pool, 1);
    pool.queue(0, message(1, "a"));
    requests(&mut pool, 2);
    assert_eq!(flags(&taken(&mut pool, id(0, 1))), [false, false, true, false]);
}

/// Whether a process is quick one of whose requests, of so many, takes so long.
fn is_quick(of: usize, took_ms: u64) -> bool {
    let mut pool = pool(1);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.asks(id(0, 1), GATHERS);
    for at in 1..=3 * ENOUGH {
        requests(&mut pool, 1);
        let request = taken(&mut pool, id(0, 1)).remove(0);
        let took_ms = if at % of == 0 { took_ms } else { 0 };
        pool.done(id(0, 1), request.id, false, took_ms, |_| {});
    }
    requests(&mut pool, 2);
    flags(&taken(&mut pool, id(0, 1)))[0]
}

#[test]
fn slow_pages_make_a_process_a_slow_one() {
    assert!(is_quick(1, 1));
    assert!(!is_quick(1, 3), "all of them");
    assert!(!is_quick(20, 50), "some");
    assert!(!is_quick(3 * ENOUGH, 2_000), "the last, which took long");
}

#[test]
fn a_process_that_waits_for_its_processor_now_and_then_is_quick_all_the_same() {
    assert!(is_quick(30, 4));
}

#[test]
fn a_dead_process_costs_the_requests_that_go_together_and_no_others() {
    let mut pool = quick();
    requests(&mut pool, 40);
    let sent = taken(&mut pool, id(0, 1));
    assert_eq!(sent.len(), 32);
    let loss = pool.lost(id(0, 1), false, 0);
    let ids = |packets: &[Packet]| packets.iter().map(|packet| packet.id).collect::<Vec<_>>();
    assert_eq!((ids(&loss.dropped), loss.again), (ids(&sent[..16]), 16));
    pool.ready(id(0, 2), ALL_WANTED, 0);
    let again = taken(&mut pool, id(0, 2));
    assert_eq!(ids(&again), ids(&sent[16..18]), "what was not begun comes to the next process");
    assert_eq!(flags(&again), [false, false]);
}

#[test]
fn a_process_that_says_it_ends_has_begun_no_request_of_those_together() {
    let mut pool = quick();
    requests(&mut pool, 8);
    let sent = taken(&mut pool, id(0, 1));
    pool.done(id(0, 1), sent[2].id, true, 0, |_| {});
    pool.ended(id(0, 1), true, false);
    assert_eq!(pool.lost(id(0, 1), false, 0), Loss { again: 5, ..Loss::default() });
}

#[test]
fn no_address_is_suspected_where_a_process_died_on_one_of_several() {
    let mut pool = pool(2);
    pool.ready(id(0, 1), ALL_WANTED, 0);
    pool.ready(id(1, 1), ALL_WANTED, 0);
    pool.asks(id(0, 1), GATHERS);
    warm(&mut pool, Kind::Request);
    let addresses = ["192.0.2.66", "192.0.2.1"].map(|text| text.parse().ok());
    for address in addresses {
        pool.queue_of(address, 0, Packet::new(Kind::Request));
    }
    taken(&mut pool, id(0, 1));
    assert_eq!(pool.lost(id(0, 1), false, 0).dropped.len(), 2);
    assert!(!pool.suspects.is_anybody_apart());
}
