//! Shared memory that a worker writes and others read: whatever stands there, no count is more than
//! can be, sums do not wrap, and an entry of the registry is a client number or is skipped.
//!
//! Input: words of memory, as a worker that was taken over would write them.

#![no_main]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use libfuzzer_sys::fuzz_target;
use wsd::fd::{FD_MAX, Slot, WorkerId};
use wsd::ipc::registry::Registry;
use wsd::ipc::scoreboard::{Board, Counter, PAGE_BYTES, Page, Totals};
use wsd::sys::memory::Shared;

const TOTAL_MAX: u64 = 1 << 53;

fuzz_target!(|input: &[u8]| {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let words: Vec<u64> = input.chunks_exact(8).map(word).collect();
    counters(&words);
    clients(&words);
});

fn counters(words: &[u64]) {
    let (shared, memfd) = Shared::create("fuzz", PAGE_BYTES).unwrap();
    for (word, value) in shared.words().iter().zip(words) {
        word.store(*value, Relaxed);
    }
    let id = |epoch| WorkerId { slot: Slot(0), epoch };
    let mut board = Board::new(Totals::from(words.to_vec()));
    for epoch in 1..4 {
        board.add(id(epoch), Page::open(memfd.as_fd()).unwrap());
    }
    assert!(board.clients(100) <= 300);
    let page = board.page(id(1)).unwrap().totals();
    for counter in Counter::ALL {
        let (one, before) = (board.get(id(1), counter), board.sum(counter));
        assert!(one <= TOTAL_MAX && one <= before && before <= TOTAL_MAX);
    }
    let before = Counter::ALL.map(|counter| board.sum(counter));
    board.ended(id(1), &page);
    for (counter, before) in Counter::ALL.into_iter().zip(before) {
        assert!(counter.is_gauge() || board.sum(counter) >= before);
    }
}

fn clients(words: &[u64]) {
    let (shared, memfd) = Shared::create("fuzz", words.len().max(1) * 8).unwrap();
    for (word, value) in shared.words().iter().zip(words) {
        word.store(*value, Relaxed);
    }
    let registry = Registry::view(memfd.as_fd()).unwrap();
    assert!(registry.entries().count() <= registry.capacity());
    assert!(registry.entries().all(|entry| entry.fd.as_u64() <= FD_MAX));
    let dead = Registry::open(memfd.as_fd()).unwrap();
    let open: Vec<_> = (0..dead.capacity()).filter_map(|at| Some((at, dead.entry(at)?))).collect();
    for (at, entry) in open.iter().filter(|(_, entry)| !entry.closing) {
        // Whoever claims one has it, and nobody has it twice.
        if dead.claim(*at, entry.fd) {
            assert!(!dead.claim(*at, entry.fd) && dead.entry(*at).unwrap().closing);
            dead.closed(*at);
            assert!(dead.entry(*at).is_none());
        }
    }
}
