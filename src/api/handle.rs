//! A worker's handle for other threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Context, Info, LocalFuture, Message, Verdict};
use crate::fd::{Fd, Slot};

/// How many calls may wait for the worker.
const CALLS_MAX: usize = 4_096;
/// How many bytes of messages may wait for the worker.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A future that any thread may wait for.
pub type SendFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Call = Box<dyn FnOnce(&Context) + Send>;

/// The worker for other threads: a [`Context`] that is `Send + Clone`.
///
/// A job of [`Context::task`], a thread of the program's own or another tokio runtime reaches
/// clients by it. Each call is queued for the worker's reactor, which carries the calls of one
/// handle out in their order. At most 4,096 calls and 16 MiB of messages wait; what is beyond is
/// told [`Verdict::Full`] and was not queued. Once the worker has left every call is told
/// [`Verdict::Gone`].
#[derive(Clone)]
pub struct Handle {
    calls: mpsc::Sender<(usize, Call)>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Handle {
    /// A handle whose calls this context's worker carries out.
    pub(super) fn new(ctx: &Context) -> Handle {
        let (calls, mut queue) = mpsc::channel::<(usize, Call)>(CALLS_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let (ctx, waiting) = (ctx.clone(), waiting_bytes.clone());
        ctx.clone().spawn(async move {
            while let Some((bytes, call)) = queue.recv().await {
                waiting.fetch_sub(bytes, Ordering::Relaxed);
                call(&ctx);
            }
        });
        Handle { calls, waiting_bytes }
    }

    /// Pushes a message to a client, wherever its connection is, without waiting. `Relayed` means
    /// that the worker will push it; see [`Context::push`].
    pub fn push<'a>(&self, fd: Fd, message: impl Into<Message<'a>>) -> Verdict {
        let message = message.into().into_owned();
        self.queue(message.data.len(), move |ctx| {
            let _ = ctx.push(fd, message);
        })
    }

    /// As [`push`](Self::push), but answers with the verdict of the worker that owns the client.
    /// See [`Context::push_confirmed`].
    pub fn push_confirmed<'a>(
        &self,
        fd: Fd,
        message: impl Into<Message<'a>>,
    ) -> SendFuture<Verdict> {
        let message = message.into().into_owned();
        let asked =
            self.ask(message.data.len(), move |ctx| ctx.reactor().push_confirmed(fd, message));
        Box::pin(async move {
            match asked {
                Ok(answer) => answer.await.unwrap_or(Verdict::Unknown),
                Err(verdict) => verdict,
            }
        })
    }

    /// Pushes to every open connection of the server. See [`Context::broadcast`].
    pub fn broadcast<'a>(&self, message: impl Into<Message<'a>>) -> Verdict {
        let message = message.into().into_owned();
        self.queue(message.data.len(), move |ctx| ctx.broadcast(message))
    }

    /// As [`broadcast`](Self::broadcast), leaving one client out.
    pub fn broadcast_except<'a>(&self, except: Fd, message: impl Into<Message<'a>>) -> Verdict {
        let message = message.into().into_owned();
        self.queue(message.data.len(), move |ctx| ctx.broadcast_except(except, message))
    }

    /// Closes a client's connection with a close frame. See [`Context::close`].
    pub fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        let reason = reason.to_owned();
        self.queue(reason.len(), move |ctx| {
            let _ = ctx.close(fd, code, &reason);
        })
    }

    /// Has the sweep for idle clients leave a client alone, or do so no more. See
    /// [`Context::protect`].
    pub fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.queue(0, move |ctx| {
            ctx.protect(fd, on);
        })
    }

    /// What is known of a client. See [`Context::info`]; `None` also where too many calls wait.
    pub fn info(&self, fd: Fd) -> SendFuture<Option<Info>> {
        let asked = self.ask(0, move |ctx| ctx.reactor().info(fd));
        Box::pin(async move { asked.ok()?.await.ok().flatten() })
    }

    /// Sends bytes to the handler of a worker. See [`Context::send_to_worker`].
    pub fn send_to_worker(&self, to: Slot, data: impl Into<Bytes>) -> Verdict {
        let data = data.into();
        self.queue(data.len(), move |ctx| {
            let _ = ctx.send_to_worker(to, data);
        })
    }

    /// Queues a call that has an answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        bytes: usize,
        question: impl FnOnce(&Context) -> LocalFuture<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Verdict> {
        let (answer, receiver) = oneshot::channel();
        let queued = self.queue(bytes, move |ctx| {
            let asked = question(ctx);
            ctx.spawn(async move {
                // A receiver that is gone only means that nobody waits for the answer any more.
                let _ = answer.send(asked.await);
            });
        });
        if queued.is_ok() { Ok(receiver) } else { Err(queued) }
    }

    pub(super) fn queue(
        &self,
        bytes: usize,
        call: impl FnOnce(&Context) + Send + 'static,
    ) -> Verdict {
        if bytes > BYTES_MAX {
            return Verdict::TooBig;
        }
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queued = match waiting + bytes > BYTES_MAX {
            true => Verdict::Full,
            false => match self.calls.try_send((bytes, Box::new(call))) {
                Ok(()) => return Verdict::Relayed,
                Err(mpsc::error::TrySendError::Full(_)) => Verdict::Full,
                Err(mpsc::error::TrySendError::Closed(_)) => Verdict::Gone,
            },
        };
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{FakeWorker, Sent};

    fn fd() -> Fd {
        Fd::new(0, Slot(0), 7).unwrap()
    }

    /// The fake keeps what was spawned and never runs it: a worker that does not come round.
    #[test]
    fn calls_and_bytes_that_wait_have_a_limit() {
        let fake = FakeWorker::new(0, 1);
        let handle = fake.context().handle();
        for _ in 0..CALLS_MAX {
            assert_eq!(handle.push(fd(), "x"), Verdict::Relayed);
        }
        assert_eq!(handle.push(fd(), "x"), Verdict::Full);
        let other = Handle::new(&fake.context());
        assert_eq!(other.broadcast(vec![0; BYTES_MAX]), Verdict::Relayed);
        assert_eq!(other.broadcast(vec![0; 1]), Verdict::Full);
        assert_eq!(other.broadcast(vec![0; BYTES_MAX + 1]), Verdict::TooBig);
    }

    #[test]
    fn a_call_after_the_workers_end_is_told_gone() {
        let fake = FakeWorker::new(0, 1);
        let handle = fake.context().handle();
        assert!(handle.push(fd(), "x").is_ok());
        fake.spawned(); // Drops the futures, as a worker's end does.
        assert_eq!(handle.push(fd(), "x"), Verdict::Gone);
    }

    #[test]
    fn calls_of_another_thread_are_carried_out_in_their_order() {
        let fake = FakeWorker::new(0, 1);
        let handle = fake.context().handle();
        let pusher = handle.clone();
        std::thread::spawn(move || {
            for text in ["one", "two"] {
                assert_eq!(pusher.push(fd(), text), Verdict::Relayed);
            }
            assert_eq!(pusher.broadcast("three"), Verdict::Relayed);
        })
        .join()
        .unwrap();
        fake.run();
        let pushed = |text: &'static str| Sent::Push(fd(), text.into());
        assert_eq!(fake.take(), [pushed("one"), pushed("two"), Sent::Broadcast("three".into())]);
    }

    #[test]
    fn a_handle_crosses_threads() {
        fn crosses<T: Send + Sync + Clone + 'static>() {}
        crosses::<Handle>();
    }
}
