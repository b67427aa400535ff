//! What a worker shows of its application processes on its page: a word for each place, which the
//! manager reads for `status`, also while the worker hangs.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Places of one worker: processes of events, and of tasks.
pub const PLACES_MAX: usize = 512;

/// The bits of a word from the highest on: whether there is a process, whether it is ready,
/// whether it does tasks alone; its pid; how many there were before it; its events.
const THERE: u64 = 1 << 63;
const READY: u64 = 1 << 62;
const TASK: u64 = 1 << 61;
const PID_SHIFT: u32 = 39;
const PID_MAX: u64 = (1 << 22) - 1;
const RESTARTS_SHIFT: u32 = 20;
const RESTARTS_MAX: u64 = (1 << 19) - 1;
const EVENTS_MAX: u64 = (1 << 20) - 1;

/// The process of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceState {
    /// Its pid; below 2^22, as the kernel's pids are (proc(5), `pid_max`).
    pub pid: u32,
    /// Whether it said READY.
    pub ready: bool,
    /// Whether it does tasks alone.
    pub task: bool,
    /// How many were started in that place before it.
    pub restarts: u32,
    /// Events that it handles, and that wait for it.
    pub events: u32,
}

impl PlaceState {
    /// As one word, which is never 0. What is beyond its bits is told as the most that they hold.
    pub fn to_word(self) -> u64 {
        let bit = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        let bits = THERE | bit(self.ready, READY) | bit(self.task, TASK);
        let pid = u64::from(self.pid).min(PID_MAX) << PID_SHIFT;
        let restarts = u64::from(self.restarts).min(RESTARTS_MAX) << RESTARTS_SHIFT;
        bits | pid | restarts | u64::from(self.events).min(EVENTS_MAX)
    }

    /// Reads a word; 0 is an empty place.
    pub fn from_word(word: u64) -> Option<PlaceState> {
        (word & THERE != 0).then_some(PlaceState {
            pid: (word >> PID_SHIFT & PID_MAX) as u32,
            ready: word & READY != 0,
            task: word & TASK != 0,
            restarts: (word >> RESTARTS_SHIFT & RESTARTS_MAX) as u32,
            events: (word & EVENTS_MAX) as u32,
        })
    }
}

/// Writes the word of a place.
pub fn write(words: &[AtomicU64], place: usize, state: Option<PlaceState>) {
    if let Some(word) = words.get(place) {
        word.store(state.map_or(0, PlaceState::to_word), Relaxed);
    }
}

/// Reads the places that have a process.
pub fn read(words: &[AtomicU64]) -> impl Iterator<Item = (usize, PlaceState)> {
    let state = |word: &AtomicU64| PlaceState::from_word(word.load(Relaxed));
    words.iter().enumerate().filter_map(move |(place, word)| Some((place, state(word)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_a_place_and_counts_up_to_its_limit() {
        let (pid, ready, task) = ((1 << 22) - 1, true, false);
        let state = PlaceState { pid, ready, task, restarts: 3, events: 1024 };
        assert_eq!(PlaceState::from_word(state.to_word()), Some(state));
        let (ready, task) = (false, true);
        let state = PlaceState { pid: 7, ready, task, restarts: u32::MAX, events: 0 };
        let read = PlaceState::from_word(state.to_word()).unwrap();
        assert_eq!(read, PlaceState { restarts: RESTARTS_MAX as u32, ..state });
        assert_eq!(PlaceState::from_word(0), None);
    }
}
