//! What the threads of a run share: the clock, the phase and how far each has come.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fault::Fault;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Warm,
    Measure,
    Stop,
}

/// A thread's count, alone in its cache line.
#[repr(align(64))]
#[derive(Default)]
struct Count(AtomicU64);

/// Shared by the threads of one run.
pub struct Control {
    started: Instant,
    phase: AtomicU8,
    counts: Vec<Count>,
    ended: AtomicUsize,
    waker: Option<EventFd>,
    /// All connections stand.
    pub ready: Barrier,
    /// The clocks have been read, if nothing comes before the measured time.
    pub start: Barrier,
}

impl Control {
    /// `wake_first`: thread 0 waits for what the others count, as a broadcast's sender does.
    pub fn new(threads: usize, wake_first: bool) -> Result<Control, Fault> {
        let waker = match wake_first && threads > 1 {
            true => Some(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?),
            false => None,
        };
        Ok(Control {
            started: Instant::now(),
            phase: AtomicU8::new(0),
            counts: (0..threads).map(|_| Count::default()).collect(),
            ended: AtomicUsize::new(0),
            waker,
            ready: Barrier::new(threads + 1),
            start: Barrier::new(threads + 1),
        })
    }

    /// A thread says that its connections stand, and waits until it may send.
    pub fn wait_for_start(&self) {
        self.ready.wait();
        self.start.wait();
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Warm,
            1 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// A thread says how many messages it has seen.
    pub fn report(&self, thread: usize, messages: u64) {
        let before = self.counts[thread].0.swap(messages, Ordering::Relaxed);
        if let Some(waker) = self.waker.as_ref().filter(|_| thread > 0 && before != messages) {
            // Full means that the sender has not looked yet, and it will.
            let _ = waker.write(1);
        }
    }

    /// Messages of all threads.
    pub fn messages(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    /// A thread is done.
    pub fn finished(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Every thread is done.
    pub fn all_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.counts.len()
    }

    /// What wakes this thread, if anything does.
    pub fn waker(&self, thread: usize) -> Option<&EventFd> {
        self.waker.as_ref().filter(|_| thread == 0)
    }
}
