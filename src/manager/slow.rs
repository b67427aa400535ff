//! Lists of clients that do not read: every worker is asked, and those with the most bytes that
//! wait are told.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::relay::message::Reply;
use super::{Manager, Shared};
use crate::api::Info;
use crate::fd::WorkerId;
use crate::ipc::link::Lane;
use crate::ipc::messages::{ManagerToWorker, RequestId};
use crate::ipc::packet::Body;

/// For workers to answer: one that hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clients in a list.
pub const SLOW_MAX: u16 = 100;

/// The clients of all workers with the most bytes that wait, and how many workers did not answer.
pub async fn slow(manager: &Shared, limit: u16) -> (Vec<Info>, usize) {
    let limit = limit.min(SLOW_MAX);
    let questions: Vec<_> = {
        let mut manager = manager.borrow_mut();
        let workers: Vec<WorkerId> =
            manager.exchange.workers.iter().map(|worker| worker.id()).collect();
        let ask = |id| {
            let (question, reply) = manager.exchange.commands.ask();
            let message = ManagerToWorker::ListSlow { id: question, limit };
            if let Some(worker) = manager.exchange.workers.get(id) {
                // A worker that takes nothing any more is one that does not answer.
                let _ = worker.link.control(&message);
            }
            (question, reply)
        };
        workers.into_iter().map(ask).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut all, mut silent) = (Vec::new(), 0);
    for (question, reply) in questions {
        match timeout_at(deadline, reply).await {
            Ok(Ok(Reply::Slow(part))) => all.extend(part.into_iter().take(usize::from(limit))),
            _ => silent += 1,
        }
        manager.borrow_mut().exchange.commands.forget(question);
    }
    all.sort_by_key(|info| std::cmp::Reverse(info.queued_bytes));
    all.truncate(usize::from(limit));
    (all, silent)
}

impl Manager {
    /// Answers a worker's question for the clients that do not read.
    pub fn answer_slow(&mut self, asker: WorkerId, id: RequestId, limit: u16) {
        let (Some(me), Some(worker)) = (self.me.upgrade(), self.exchange.workers.get(asker))
        else {
            return;
        };
        let (link, lists) = (Rc::clone(&worker.link), Rc::clone(&worker.lists));
        spawn_local(async move {
            // Nobody closes it.
            let _turn = lists.acquire().await;
            let (part, silent) = slow(&me, limit).await;
            if silent > 0 {
                // The question has no word for a list of which a part is missing: by its deadline
                // nobody knows.
                return;
            }
            let message = ManagerToWorker::ListAnswer { id, part, last: true };
            // Where it cannot be sent, the deadline of the question says that nobody knows.
            let _ = link.send(Lane::Data, &message, Body::Inline(&[]), Vec::new());
        });
    }
}
