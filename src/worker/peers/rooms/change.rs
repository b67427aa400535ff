//! Joins, leaves, binds, sessions and expiry: of clients here at once, of all others by their
//! worker.

use std::rc::Rc;

use crate::api::Verdict;
use crate::api::rooms::Change;
use crate::fd::Fd;
use crate::ipc::messages::{Origin, RequestId, WorkerToWorker};
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::moving::route::Route;
use crate::worker::peers::Peers;

impl Peers {
    /// Changes something of a client, wherever it is. `id`: who waits for the verdict of another
    /// worker, or 0.
    pub(in crate::worker) fn change(&self, fd: Fd, change: Change, id: RequestId) -> Verdict {
        match self.route(fd) {
            Route::Here(key) => self.change_here(key, change),
            Route::Gone => Verdict::Gone,
            _ if self.is_beyond_limits(&change) => Verdict::TooBig,
            Route::Arriving(pass) => self.defer(pass, DeferredSend::Change { fd, change, id }),
            Route::Elsewhere => {
                let message = WorkerToWorker::Change { id, fd: fd.as_u64(), change };
                self.send_to_client(fd, message, &[])
            }
        }
    }

    /// Another worker, or an operator, changes something of a client of ours.
    pub(in crate::worker) fn change_routed(
        self: &Rc<Self>,
        (origin, id): (Origin, RequestId),
        fd: u64,
        mark: u64,
        change: Change,
    ) {
        let joins = change.joins();
        let verdict = match self.routed(fd) {
            Ok(key) => self.change_here(key, change),
            Err(verdict) => verdict,
        };
        if let (Some(topic), true) = (&joins, mark != 0) {
            self.say_interest(0, Vec::new(), Vec::new(), vec![(topic.clone(), mark)]);
        }
        let has_joined = joins.is_some() && verdict == Verdict::Queued;
        self.when_noted(has_joined, id, move |worker| worker.tell_verdict(origin, id, verdict));
    }

    /// Answers the question `id`, if there is one. Who waits for a join waits until everybody's
    /// publishes find the member.
    pub(in crate::worker) fn when_noted(
        self: &Rc<Self>,
        has_joined: bool,
        id: RequestId,
        answer: impl FnOnce(&Peers) + 'static,
    ) {
        if id == 0 {
            return;
        }
        if !has_joined {
            return answer(self);
        }
        let (worker, noted) = (self.clone(), self.until_noted());
        tokio::task::spawn_local(async move {
            if noted.await.is_ok() {
                answer(&worker);
            }
        });
    }

    /// As [`change`](Self::change), with the verdict of whoever has the client, at a time from
    /// which on every publish finds the member.
    pub(in crate::worker) fn change_confirmed(
        self: &Rc<Self>,
        fd: Fd,
        change: Change,
    ) -> crate::api::LocalFuture<Verdict> {
        let question = self.ask_verdict();
        let joins = change.joins().is_some();
        match self.change(fd, change, question.id) {
            Verdict::Relayed => {
                Box::pin(async move { question.answer().await.unwrap_or(Verdict::Unknown) })
            }
            Verdict::Queued if joins => {
                let noted = self.until_noted();
                Box::pin(async move {
                    let patience = crate::worker::peers::requests::ANSWER_TIME;
                    match tokio::time::timeout(patience, noted).await {
                        Ok(Ok(())) => Verdict::Queued,
                        _ => Verdict::Unknown,
                    }
                })
            }
            verdict => Box::pin(std::future::ready(verdict)),
        }
    }
}
