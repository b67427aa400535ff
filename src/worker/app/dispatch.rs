//! Calling the handler: one event of a connection at a time, and no panic gets out.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use super::App;
use crate::api::{Context, Flow, Frame, LocalFuture};
use crate::close::{Cause, Close};
use crate::fd::{Fd, Slot};
use crate::ipc::scoreboard::Counter;
use crate::worker::clients::key::Key;

/// A handler panicked; it was logged and counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Panicked;

/// A future whose panic is an answer.
struct Guarded<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Future for Guarded<T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl App {
    /// What the handler still has under way for a connection, if anything. A panic has nothing.
    pub(in crate::worker) fn under_way(&self, key: Key) -> Option<LocalFuture<()>> {
        let fd = self.table.borrow().get(key).filter(|it| it.opened)?.fd?;
        let context = self.context()?;
        let drain = AssertUnwindSafe(|| self.handler.on_drain(context, fd));
        match catch_unwind(drain) {
            Ok(Flow::Pending(drained)) => Some(drained),
            Ok(Flow::Ready(())) => None,
            Err(_) => {
                tracing::error!(fd = fd.as_u64(), event = "drain", "a handler panicked");
                self.add(Counter::Panics, 1);
                None
            }
        }
    }

    /// Calls a handler about a connection, and goes on with `then` when it has ended: at once,
    /// or later in a task of its own. Until then the connection is busy.
    pub(in crate::worker) fn call<T: 'static>(
        self: &Rc<Self>,
        key: Key,
        fd: Fd,
        event: &'static str,
        handler: impl FnOnce(&Context) -> Flow<T>,
        then: impl FnOnce(&Rc<App>, Key, Result<T, Panicked>) + 'static,
    ) {
        let begun = self.begin(event, Some(fd), handler);
        self.follow(key, fd, event, begun, then);
    }

    /// Goes on with `then` when a handler that has begun has ended.
    fn follow<T: 'static>(
        self: &Rc<Self>,
        key: Key,
        fd: Fd,
        event: &'static str,
        begun: Begun<T>,
        then: impl FnOnce(&Rc<App>, Key, Result<T, Panicked>) + 'static,
    ) {
        match begun {
            Begun::Done(answer) => then(self, key, answer),
            Begun::Goes(future) => {
                if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                    connection.busy = true;
                }
                let worker = self.clone();
                tokio::task::spawn_local(async move {
                    let answer = worker.answer(event, Some(fd), future.await);
                    if let Some(connection) = worker.table.borrow_mut().get_mut(key) {
                        connection.busy = false;
                    }
                    then(&worker, key, answer);
                    worker.resume(key);
                    worker.changed.notify_waiters();
                });
            }
        }
    }

    /// Delivers messages that are here whole, one after the other, with one guard against panics
    /// for all of them: `next` gives them out until it has no more. A handler that goes on, or
    /// panics, ends the row.
    pub(in crate::worker) fn deliver_row<'a>(
        self: &Rc<Self>,
        key: Key,
        mut next: impl FnMut() -> Option<Frame<'a>>,
    ) {
        const EVENT: &str = "on_message";
        let Some(context) = self.context() else { return };
        let mut at_work = None;
        let row = catch_unwind(AssertUnwindSafe(|| {
            while let Some(frame) = next() {
                let fd = frame.fd;
                at_work = Some(fd);
                if let Flow::Pending(future) = self.handler.on_message(context, frame) {
                    return Some((fd, future));
                }
                at_work = None;
            }
            None
        }));
        let (fd, begun) = match (row, at_work) {
            (Ok(None), _) => return,
            (Ok(Some((fd, future))), _) => (fd, self.poll_once(EVENT, Some(fd), future)),
            (Err(panic), Some(fd)) => (fd, Begun::Done(self.answer(EVENT, Some(fd), Err(panic)))),
            // Not the handler's.
            (Err(panic), None) => resume_unwind(panic),
        };
        self.follow(key, fd, EVENT, begun, |worker, key, answer| worker.panic_closes(key, answer));
    }

    /// Calls a handler about no connection, and waits for it.
    pub(in crate::worker) async fn call_alone<T>(
        self: &Rc<Self>,
        event: &'static str,
        handler: impl FnOnce(&Context) -> Flow<T>,
    ) -> Result<T, Panicked> {
        match self.begin(event, None, handler) {
            Begun::Done(answer) => answer,
            Begun::Goes(future) => self.answer(event, None, future.await),
        }
    }

    /// Calls a handler about no connection, and lets it go on by itself.
    pub(in crate::worker) fn call_aside(
        self: &Rc<Self>,
        event: &'static str,
        handler: impl FnOnce(&Context) -> Flow,
    ) {
        if let Begun::Goes(future) = self.begin(event, None, handler) {
            let worker = self.clone();
            tokio::task::spawn_local(async move {
                // Logged and counted there; there is no connection to end.
                let _ = worker.answer(event, None, future.await);
            });
        }
    }

    /// Calls a handler and polls what it returns once.
    fn begin<T>(
        &self,
        event: &'static str,
        fd: Option<Fd>,
        handler: impl FnOnce(&Context) -> Flow<T>,
    ) -> Begun<T> {
        let Some(context) = self.context() else { return Begun::Done(Err(Panicked)) };
        match catch_unwind(AssertUnwindSafe(|| handler(context))) {
            Ok(Flow::Ready(answer)) => Begun::Done(Ok(answer)),
            Ok(Flow::Pending(future)) => self.poll_once(event, fd, future),
            Err(panic) => Begun::Done(self.answer(event, fd, Err(panic))),
        }
    }

    fn poll_once<T>(
        &self,
        event: &'static str,
        fd: Option<Fd>,
        future: LocalFuture<T>,
    ) -> Begun<T> {
        let mut future = Guarded(future);
        // Whoever is still pending after this is polled again by its task, so no wake is lost.
        let mut cx = TaskContext::from_waker(Waker::noop());
        match Pin::new(&mut future).poll(&mut cx) {
            Poll::Ready(answer) => Begun::Done(self.answer(event, fd, answer)),
            Poll::Pending => Begun::Goes(future),
        }
    }

    fn answer<T>(
        &self,
        event: &'static str,
        fd: Option<Fd>,
        answer: Result<T, Box<dyn Any + Send>>,
    ) -> Result<T, Panicked> {
        answer.map_err(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let fd = fd.map_or(0, Fd::as_u64);
            let text = text.unwrap_or("no text");
            tracing::error!(fd, event, panic = ?text, "a handler panicked");
            self.add(Counter::Panics, 1);
            Panicked
        })
    }

    /// What follows every event of an open connection: a panic costs it.
    pub(in crate::worker) fn panic_closes(
        self: &Rc<Self>,
        key: Key,
        answer: Result<(), Panicked>,
    ) {
        if answer.is_err() {
            self.start_close(key, Close::because(Cause::HandlerPanic));
        }
    }
}

enum Begun<T> {
    Done(Result<T, Panicked>),
    Goes(Guarded<T>),
}

impl App {
    /// Another worker, or this one, has sent this to the handler. `acts`: whether this process
    /// does what is done once for the slot.
    pub(in crate::worker) fn worker_message(
        self: &Rc<Self>,
        from: Slot,
        acts: bool,
        data: bytes::Bytes,
    ) {
        let (handler, acts) = (self.handler.clone(), Rc::new(acts));
        self.call_aside("on_worker_message", move |context| {
            match handler.on_worker_message(&context.of_message(&acts), from, data) {
                Flow::Ready(()) => Flow::Ready(()),
                Flow::Pending(future) => Flow::later(async move {
                    future.await;
                    drop(acts);
                }),
            }
        });
    }
}
