//! Timers of a worker, and of the whole server.

use std::rc::Rc;
use std::time::Duration;

use super::{Context, LocalFuture};

/// The shortest period of a timer of the whole server: each tick asks the manager.
const SERVER_TICK_MIN: Duration = Duration::from_millis(100);

impl Context {
    /// Calls `f` once, after `delay`. The timer ends with the worker's process: a reload drops it,
    /// and the new process sets its own in `on_worker_start`. Swoole's `after`.
    pub fn after(&self, delay: Duration, f: impl FnOnce() + 'static) -> Timer {
        let (timer, cancelled) = Timer::new();
        self.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => f(),
                _ = cancelled => {}
            }
        });
        timer
    }

    /// Calls `f` each `period`, at least 1 ms, until the timer is cleared or the worker's process
    /// ends. Late ticks are skipped, not made up for. Each worker that calls this has a timer of
    /// its own; [`server_tick`](Self::server_tick) is one for the whole server. Swoole's `tick`.
    pub fn tick(&self, period: Duration, mut f: impl FnMut() + 'static) -> Timer {
        let (timer, mut cancelled) = Timer::new();
        let period = period.max(Duration::from_millis(1));
        self.spawn(async move {
            let mut interval =
                tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = interval.tick() => f(),
                    _ = &mut cancelled => break,
                }
            }
        });
        timer
    }

    /// Calls `f` each `period`, in one worker of the whole server, until the timer is cleared:
    /// whichever worker that has a timer of this name asks first. So call it in each worker, in
    /// `on_worker_start`; a reload or the death of a worker goes unnoticed. `f` gets the number of
    /// the tick, which grows by one with each period and goes on over reloads.
    ///
    /// A tick runs at most once. It is left out where no worker, or no manager, could ask for it
    /// in time; late ticks are not made up for. A period is at least 100 ms; a name has at most 128
    /// bytes, and a server 1,024 names.
    pub fn server_tick(
        &self,
        name: impl Into<String>,
        period: Duration,
        mut f: impl FnMut(u64) + 'static,
    ) -> Timer {
        let (timer, mut cancelled) = Timer::new();
        let (reactor, name) = (Rc::clone(self.reactor()), name.into());
        let period = period.max(SERVER_TICK_MIN);
        self.spawn(async move {
            loop {
                tokio::select! {
                    number = reactor.server_tick(&name, period) => {
                        if let Some(number) = number {
                            f(number);
                        }
                    }
                    _ = &mut cancelled => break,
                }
            }
        });
        timer
    }
}

/// A running timer. Dropping it lets the timer run on; `clear` ends it. Swoole's timer id.
pub struct Timer(Option<tokio::sync::oneshot::Sender<()>>);

impl Timer {
    fn new() -> (Timer, LocalFuture<()>) {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let cancelled = async move {
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        (Timer(Some(sender)), Box::pin(cancelled))
    }

    /// Ends the timer. Swoole's `clearTimer`.
    pub fn clear(mut self) {
        if let Some(sender) = self.0.take() {
            // The timer may have run out already, which is what was wanted.
            let _ = sender.send(());
        }
    }
}
