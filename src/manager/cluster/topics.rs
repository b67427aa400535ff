//! Which topics this node is subscribed to: those that a worker has members of. The first join is
//! told at once, and confirmed when the engine has it; the last leave lingers, so that clients
//! that come back at once cost nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Cluster;
use crate::api::rooms::Topic;
use crate::fd::WorkerId;
use crate::ipc::cluster::messages::ManagerToCourier;
use crate::ipc::packet::Body;
use crate::manager::Manager;
use crate::sys::clock::monotonic_ms;

/// How long a topic without members is still subscribed to.
const LINGER_MS: u64 = 1_000;
/// Confirmations that wait. Beyond, a worker that was taken over asks for more than any worker
/// does, and hears the confirmation too early.
const WAITING_MAX: usize = 1 << 18;
/// Topics in one message.
const PART: usize = 128;

/// The topics.
#[derive(Default)]
pub struct Topics {
    subscribed: HashSet<Topic>,
    /// Those without members, and when they are to be left.
    lingering: HashMap<Topic, u64>,
    /// Confirmations of workers that wait for the courier's word of a number.
    waiting: VecDeque<(u64, WorkerId, u64)>,
    last: u64,
    noted: u64,
}

impl Topics {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.subscribed.len() as u64
    }

    /// A topic has members now, or has none. Whether it is new.
    fn change(&mut self, topic: &Topic, has_members: bool, now: u64) -> bool {
        if !has_members {
            if self.subscribed.contains(topic) {
                self.lingering.entry(topic.clone()).or_insert(now + LINGER_MS);
            }
            return false;
        }
        self.lingering.remove(topic);
        self.subscribed.insert(topic.clone())
    }

    /// Those that have lingered long enough.
    fn take_due(&mut self, now: u64) -> Vec<Topic> {
        let due = self.lingering.iter().filter(|(_, due)| **due <= now);
        let due: Vec<Topic> = due.map(|(topic, _)| topic.clone()).collect();
        for topic in &due {
            self.lingering.remove(topic);
            self.subscribed.remove(topic);
        }
        due
    }
}

impl Cluster {
    fn tell_topics(&mut self, joined: Vec<Topic>, left: Vec<Topic>) {
        let Some(link) = &self.link else { return };
        let parts = |topics: Vec<Topic>| topics.chunks(PART).map(<[Topic]>::to_vec).collect();
        let (joined, left): (Vec<_>, Vec<_>) = (parts(joined), parts(left));
        let joined = joined.into_iter().map(|part| (part, Vec::new()));
        let left = left.into_iter().map(|part| (Vec::new(), part));
        for (joined, left) in joined.chain(left) {
            self.topics.last += 1;
            let number = self.topics.last;
            let interest = ManagerToCourier::Interest { number, joined, left };
            if let Err(error) = link.insist(&interest, Body::Inline(&[]), Vec::new()) {
                tracing::error!(%error, "the courier is not told of topics");
            }
        }
    }
}

impl Manager {
    /// What has changed of the workers' interest is told to the courier.
    pub(in crate::manager) fn follow_topics(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let now = monotonic_ms();
        let mut joined = Vec::new();
        for topic in self.interest.take_changes() {
            let has_members = self.interest.has_any(&topic);
            if cluster.topics.change(&topic, has_members, now) {
                joined.push(topic);
            }
        }
        if !joined.is_empty() {
            cluster.tell_topics(joined, Vec::new());
        }
    }

    pub(super) fn leave_topics(&mut self, now: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let left = cluster.topics.take_due(now);
        if !left.is_empty() {
            cluster.tell_topics(Vec::new(), left.clone());
            self.leave_presence(&left);
        }
    }

    /// A courier is new: it learns everything.
    pub(super) fn tell_all_topics(&mut self) {
        self.follow_topics();
        let Some(cluster) = &mut self.cluster else { return };
        let topics: Vec<Topic> = cluster.topics.subscribed.iter().cloned().collect();
        cluster.tell_topics(topics, Vec::new());
        if self.owners_due_at.is_none() {
            self.tell_topics_whole();
        }
    }

    /// Every worker has said which topics it has members of.
    pub(in crate::manager) fn tell_topics_whole(&mut self) {
        self.follow_topics();
        let link = self.cluster.as_ref().and_then(|cluster| cluster.link.as_ref());
        let Some(link) = link else { return };
        if let Err(error) = link.insist(&ManagerToCourier::Whole, Body::Inline(&[]), Vec::new()) {
            tracing::error!(%error, "the courier is not told that all is told");
        }
    }

    /// What a worker said of its members was read. The worker is told so, once the engine knows it
    /// too: then a publish of any node finds the member.
    pub(in crate::manager) fn note_interest(&mut self, worker: WorkerId, number: u64) {
        self.follow_topics();
        if let Some(cluster) = &mut self.cluster
            && cluster.link.is_some()
            && cluster.topics.noted < cluster.topics.last
            && cluster.topics.waiting.len() < WAITING_MAX
        {
            let last = cluster.topics.last;
            return cluster.topics.waiting.push_back((last, worker, number));
        }
        if let Some(worker) = self.workers.get(worker) {
            worker.noted(number);
        }
    }

    /// The engine knows everything up to a number, or nobody waits for it.
    pub(super) fn note_topics(&mut self, number: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.topics.noted = number.min(cluster.topics.last);
        while let Some((_, worker, number)) =
            cluster.topics.waiting.pop_front_if(|it| it.0 <= number)
        {
            if let Some(worker) = self.workers.get(worker) {
                worker.noted(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_join_is_new_and_the_last_leave_lingers() {
        let mut topics = Topics::default();
        let room = Topic::room("r");
        assert!(topics.change(&room, true, 0) && !topics.change(&room, true, 0));
        assert!(!topics.change(&room, false, 100));
        assert!(topics.take_due(1_099).is_empty());
        assert!(!topics.change(&room, true, 1_099), "who comes back at once costs nothing");
        topics.change(&room, false, 2_000);
        assert_eq!(topics.take_due(3_000).len(), 1);
        assert!(topics.len() == 0 && topics.change(&room, true, 3_000));
    }
}
