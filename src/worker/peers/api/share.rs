//! How much of a worker's time the API may have before the clients have a turn.
//!
//! Tasks that are ready run one after the other, and the reactor is one of these. Each connection
//! of the API is a task too, so without a bound a client's message would wait for the answers to
//! all requests that have come at once, such as those of a hundred scrapers. With the bound, the
//! API works for one share; connections beyond the share wait in a queue, and the reactor's next
//! turn calls the first of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::worker::clients::admission::Yielding;
use crate::worker::peers::Peers;

/// For how long connections of the API are at work between two turns of the clients. The piece of
/// work that is begun last may take longer. A fifth of this costs a single push by the API a
/// seventh more and one of a batch two thirds more, since each turn writes what it has.
const SHARE: Duration = Duration::from_millis(1);

/// What the API has had of the time since the last turn of the clients, and who waits.
#[derive(Default)]
pub(super) struct Share {
    spent: Cell<Duration>,
    /// Connections that wait, in the order in which they came.
    waiting: RefCell<VecDeque<Waker>>,
    /// How many that have waited were called, ever.
    called: Cell<u64>,
}

impl Share {
    /// The clients have had a turn. The connection that has waited longest is called; whether
    /// others wait still.
    pub fn begin(&self) -> bool {
        self.spent.set(Duration::ZERO);
        self.call_next();
        !self.waiting.borrow().is_empty()
    }

    /// Whether a connection may be at work now. One that may not is called later, and has the
    /// number of its place in the queue until then.
    fn may_work(&self, place: &mut Option<u64>, waker: &Waker) -> bool {
        match *place {
            // Something else has woken this connection, and others are before it.
            Some(number) if number >= self.called.get() => false,
            Some(_) => {
                *place = None;
                true
            }
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.is_empty() && self.spent.get() < SHARE {
                    return true;
                }
                *place = Some(self.called.get() + waiting.len() as u64);
                waiting.push_back(waker.clone());
                false
            }
        }
    }

    /// A connection was at work for so long. Where time is left, the next one is called.
    fn worked(&self, time: Duration) {
        self.spent.set(self.spent.get() + time);
        if self.spent.get() < SHARE {
            self.call_next();
        }
    }

    fn call_next(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        if let Some(waker) = next {
            self.called.set(self.called.get() + 1);
            waker.wake();
        }
    }
}

/// Does the work of a connection, which has to be all that its task does: whoever waits is called
/// by the waker of the task. A connection that waits here gives its place to no other: perhaps its
/// request has come, and is read next.
pub(super) async fn shared<F: Future>(
    worker: &Peers,
    yielding: &Yielding,
    mut work: Pin<&mut F>,
) -> F::Output {
    let mut place = None;
    poll_fn(|cx| {
        let may_work = worker.api.share.may_work(&mut place, cx.waker());
        yielding.queues.set(!may_work);
        if !may_work {
            // The reactor may sleep, and calls only behind a turn.
            worker.turn.scan_again();
            return Poll::Pending;
        }
        let begun = Instant::now();
        let polled = work.as_mut().poll(cx);
        worker.api.share.worked(begun.elapsed());
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often a connection was called.
    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection: its place in the queue, and how often it was called.
    #[derive(Default)]
    struct Asker(Option<u64>, Arc<Calls>);

    impl Asker {
        fn may_work(&mut self, share: &Share) -> bool {
            share.may_work(&mut self.0, &Waker::from(self.1.clone()))
        }

        fn calls(&self) -> usize {
            self.1.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_api_works_for_a_share_and_then_the_clients_have_a_turn() {
        let (share, mut one, mut two) = (Share::default(), Asker::default(), Asker::default());
        assert!(one.may_work(&share));
        share.worked(SHARE / 2);
        assert!(one.may_work(&share) && two.may_work(&share), "time is left");
        share.worked(SHARE / 2);
        assert!(!one.may_work(&share) && !two.may_work(&share), "the clients are next");
        assert_eq!((one.calls(), two.calls()), (0, 0));
        assert!(share.begin(), "another one waits");
        assert_eq!((one.calls(), two.calls()), (1, 0));
        assert!(one.may_work(&share) && !two.may_work(&share), "one after the other");
        share.worked(SHARE);
        assert_eq!(two.calls(), 0, "the share is used up again");
        assert!(!share.begin(), "nobody waits but who was called");
        assert!(two.may_work(&share));
    }

    #[test]
    fn who_waits_is_called_once_and_before_whoever_comes_later() {
        let share = Share::default();
        let mut askers: Vec<Asker> = (0..3).map(|_| Asker::default()).collect();
        share.worked(SHARE);
        assert!(askers.iter_mut().all(|asker| !asker.may_work(&share)));
        assert!(!askers[2].may_work(&share), "woken by something else, it keeps its place");
        assert!(share.begin());
        let mut late = Asker::default();
        assert!(!late.may_work(&share), "others wait, though time is left");
        for asker in &mut askers {
            assert_eq!(asker.calls(), 1);
            assert!(asker.may_work(&share));
            share.worked(SHARE / 8);
        }
        assert_eq!(askers.iter().map(Asker::calls).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(late.calls(), 1, "called by the last one before it");
        assert!(late.may_work(&share));
    }
}
