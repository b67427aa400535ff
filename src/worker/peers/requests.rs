//! Questions to other workers that wait for their answer, each with a deadline.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Peers;
use crate::api::rooms::{PresenceList, Topic};
use crate::api::{Info, Verdict};
use crate::ipc::gather::Gather;
use crate::ipc::messages::RequestId;

/// How long an answer may take.
pub(in crate::worker) const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Who waits for an answer.
pub(in crate::worker) enum Waiting {
    Verdict(oneshot::Sender<Verdict>),
    Info(oneshot::Sender<Option<Info>>),
    Tick(oneshot::Sender<Option<u64>>),
    List(oneshot::Sender<Vec<Info>>, Vec<Info>),
    Gather(oneshot::Sender<()>, Rc<RefCell<Gather>>),
    /// Who is present in this room, and what is known of other nodes so far.
    Presence(oneshot::Sender<PresenceList>, Topic, PresenceList),
}

/// The open questions of this worker.
#[derive(Default)]
pub(in crate::worker) struct Requests {
    last: Cell<RequestId>,
    pub waiting: RefCell<HashMap<RequestId, Waiting>>,
}

/// An open question. Dropping it forgets the question.
pub(in crate::worker) struct Question<T> {
    worker: Rc<Peers>,
    pub id: RequestId,
    answer: oneshot::Receiver<T>,
}

impl<T> Question<T> {
    /// The answer, or `None` where none came in time.
    pub async fn answer(mut self) -> Option<T> {
        tokio::time::timeout(ANSWER_TIME, &mut self.answer).await.ok()?.ok()
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        self.worker.requests.waiting.borrow_mut().remove(&self.id);
    }
}

impl Peers {
    pub(in crate::worker) fn ask_verdict(self: &Rc<Self>) -> Question<Verdict> {
        self.ask(Waiting::Verdict)
    }

    pub(in crate::worker) fn ask_info(self: &Rc<Self>) -> Question<Option<Info>> {
        self.ask(Waiting::Info)
    }

    pub(in crate::worker) fn ask_list(self: &Rc<Self>) -> Question<Vec<Info>> {
        self.ask(|sender| Waiting::List(sender, Vec::new()))
    }

    pub(in crate::worker) fn ask_tick(self: &Rc<Self>) -> Question<Option<u64>> {
        self.ask(Waiting::Tick)
    }

    pub(in crate::worker) fn ask<T>(
        self: &Rc<Self>,
        wait: impl FnOnce(oneshot::Sender<T>) -> Waiting,
    ) -> Question<T> {
        let (sender, answer) = oneshot::channel();
        let id = self.requests.last.get() + 1;
        self.requests.last.set(id);
        self.requests.waiting.borrow_mut().insert(id, wait(sender));
        Question { worker: self.clone(), id, answer }
    }

    /// A verdict came. One that nobody waits for any more is forgotten.
    pub(in crate::worker) fn answer_verdict(&self, id: RequestId, verdict: Verdict) {
        if let Some(Waiting::Verdict(sender)) = self.requests.waiting.borrow_mut().remove(&id) {
            let _ = sender.send(verdict);
        }
    }

    pub(in crate::worker) fn answer_info(&self, id: RequestId, info: Option<Info>) {
        if let Some(Waiting::Info(sender)) = self.requests.waiting.borrow_mut().remove(&id) {
            let _ = sender.send(info);
        }
    }

    pub(in crate::worker) fn answer_tick(&self, id: RequestId, number: Option<u64>) {
        if let Some(Waiting::Tick(sender)) = self.requests.waiting.borrow_mut().remove(&id) {
            let _ = sender.send(number);
        }
    }

    pub(in crate::worker) fn answer_list(&self, id: RequestId, mut part: Vec<Info>, last: bool) {
        let mut waiting = self.requests.waiting.borrow_mut();
        let Some(Waiting::List(sender, mut list)) = waiting.remove(&id) else { return };
        list.append(&mut part);
        if last {
            list.sort_by_key(|info| info.fd);
            let _ = sender.send(list);
        } else {
            waiting.insert(id, Waiting::List(sender, list));
        }
    }
}
