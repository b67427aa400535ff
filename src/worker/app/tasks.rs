//! Blocking jobs: a bounded queue and a few threads, started when the first job comes.

use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::api::TaskError;

/// Jobs that may wait for each thread.
const WAITING_PER_THREAD: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The pool.
pub(in crate::worker) struct Jobs {
    threads: usize,
    queue: OnceCell<(Sender<Job>, Receiver<Job>)>,
    running: Cell<usize>,
    done: Arc<AtomicU64>,
    counted: Cell<u64>,
}

impl Jobs {
    pub fn new(threads: usize) -> Jobs {
        Jobs {
            threads: threads.max(1),
            queue: OnceCell::new(),
            running: Cell::new(0),
            done: Arc::default(),
            counted: Cell::new(0),
        }
    }

    /// Queues a job. Another thread is started until there are as many as configured.
    pub fn run(&self, job: Job) -> Result<(), TaskError> {
        let (sender, receiver) =
            self.queue.get_or_init(|| bounded(self.threads * WAITING_PER_THREAD));
        match sender.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                return Err(TaskError::Full);
            }
        }
        if self.running.get() < self.threads && !receiver.is_empty() {
            self.start(receiver.clone());
        }
        Ok(())
    }

    fn start(&self, receiver: Receiver<Job>) {
        let done = self.done.clone();
        let work = move || {
            for job in receiver {
                // The caller learns of a panic by the result that never comes.
                let _ = catch_unwind(AssertUnwindSafe(job));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let name = format!("wsd-task-{}", self.running.get());
        match std::thread::Builder::new().name(name).spawn(work) {
            Ok(_) => self.running.set(self.running.get() + 1),
            Err(error) => tracing::error!(%error, "cannot start a task thread"),
        }
    }

    /// Jobs that were done since this was last asked.
    pub fn newly_done(&self) -> u64 {
        let done = self.done.load(Ordering::Relaxed);
        done - self.counted.replace(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_no_thread_and_a_full_queue_says_so() {
        let jobs = Jobs::new(1);
        let (release, gate) = bounded::<()>(0);
        let (started, begun) = bounded(1);
        jobs.run(Box::new(|| panic!("on purpose"))).unwrap();
        jobs.run(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        }))
        .unwrap();
        begun.recv().unwrap();
        for _ in 0..WAITING_PER_THREAD {
            jobs.run(Box::new(|| {})).unwrap();
        }
        assert_eq!(jobs.run(Box::new(|| {})), Err(TaskError::Full));
        release.send(()).unwrap();
        assert_eq!(jobs.running.get(), 1);
    }
}
