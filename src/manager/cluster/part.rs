//! How this node leaves the others: nobody asks it anything more, and what was asked is answered.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Cluster;
use crate::ipc::cluster::messages::ManagerToCourier;
use crate::ipc::link::Link;
use crate::ipc::packet::Body;
use crate::manager::Shared;

/// For all of that: less than the master gives the manager to leave.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Answers that are owed at once. Who asks beyond is told that nothing was done.
const OWED_MAX: usize = 32 * 1024;

/// The answers to other nodes that are still to be given.
pub struct Answers {
    /// Whoever has one to give has a copy.
    owed: mpsc::Sender<Infallible>,
    all_given: mpsc::Receiver<Infallible>,
    /// Told when nobody asks any more.
    parted: Option<oneshot::Sender<()>>,
}

/// An answer to another node that is to be given before this is dropped.
pub struct Owed(
    #[expect(dead_code, reason = "its end is what is waited for")] mpsc::Sender<Infallible>,
);

impl Default for Answers {
    fn default() -> Answers {
        let (owed, all_given) = mpsc::channel(1);
        Answers { owed, all_given, parted: None }
    }
}

impl Answers {
    /// One more is to be given; `None` where too many are.
    pub fn owe(&self) -> Option<Owed> {
        (self.owed.strong_count() <= OWED_MAX).then(|| Owed(self.owed.clone()))
    }

    /// Nobody asks any more.
    pub fn parted(&mut self) {
        if let Some(parted) = self.parted.take() {
            // Who waits may have given up.
            let _ = parted.send(());
        }
    }
}

/// Leaves the other nodes, if there are any: the courier takes nothing more from them, and what
/// came before is answered.
pub async fn part(manager: &Shared) {
    let (sender, parted) = oneshot::channel();
    let link = {
        let mut manager = manager.borrow_mut();
        // In an upgrade this manager leaves, and the node does not.
        let stops = manager.stopping;
        let cluster = manager.exchange.cluster.as_mut().filter(|_| stops);
        cluster.and_then(|cluster| cluster.begin_to_part(sender))
    };
    let Some(link) = link else { return };
    let answered = async {
        // An end says that the courier is gone, with whatever was asked.
        if parted.await.is_ok() {
            let answers = manager
                .borrow_mut()
                .exchange
                .cluster
                .as_mut()
                .map(|it| std::mem::take(&mut it.answers));
            if let Some(Answers { owed, mut all_given, .. }) = answers {
                drop(owed);
                all_given.recv().await;
            }
        }
        link.flush().await
    };
    match timeout(PATIENCE, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the courier went first"),
        Err(_) => tracing::warn!("another node may be left without an answer"),
    }
}

impl Cluster {
    fn begin_to_part(&mut self, sender: oneshot::Sender<()>) -> Option<Rc<Link>> {
        let link = self.link.clone()?;
        self.answers.parted = Some(sender);
        self.topics.part();
        if let Err(error) = link.insist(&ManagerToCourier::Part, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the courier is not told that the node leaves");
            return None;
        }
        Some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_are_owed_and_no_more_until_one_is_given() {
        let answers = Answers::default();
        let mut owed: Vec<Owed> = std::iter::from_fn(|| answers.owe()).collect();
        assert_eq!(owed.len(), OWED_MAX);
        owed.pop();
        owed.extend(answers.owe());
        assert!(owed.len() == OWED_MAX && answers.owe().is_none());
    }
}
