//! Which workers have members of which topic. Pure: it is told what workers say, and what is sent
//! to them, and answers who is to have what is for a topic's members.
//!
//! Interest is by worker and never by slot. A change that makes a client of a worker a member
//! counts as interest from the moment it is sent there, until that worker says that the change is
//! done or refused: what follows it by the same way must find the member.

#[cfg(test)]
mod model;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::api::rooms::Topic;
use crate::fd::WorkerId;

/// A change that was sent to a worker, which says when it is done. 0: none.
pub type Mark = u64;

/// One worker's members of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    worker: WorkerId,
    /// It has said that it has members.
    told: bool,
    /// The last change that may give it one.
    mark: Mark,
}

/// How many parts of the table are one worker's.
#[derive(Debug, Default)]
struct Share {
    parts: usize,
    /// Those of which the worker has said that they have members.
    told: usize,
}

/// The table of interest.
#[derive(Debug)]
pub struct Interest {
    by_topic: HashMap<Topic, Vec<Part>>,
    shares: HashMap<WorkerId, Share>,
    last_mark: Mark,
    /// Topics that somebody has become interested in, or nobody is any more, where that is
    /// wanted.
    changes: Option<Vec<Topic>>,
}

impl Interest {
    /// Nobody's yet, for the manager of this epoch: no two managers give the same mark.
    pub fn new(epoch: u32) -> Interest {
        let last_mark = u64::from(epoch) << 32;
        Interest { by_topic: HashMap::new(), shares: HashMap::new(), last_mark, changes: None }
    }

    /// Notes from here on which topics change between some interest and none.
    pub fn watch(&mut self) {
        self.changes = Some(Vec::new());
    }

    /// The topics that have changed so since the last time, some perhaps back again.
    pub fn take_changes(&mut self) -> Vec<Topic> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether any worker may have members.
    pub fn has_any(&self, topic: &Topic) -> bool {
        self.by_topic.contains_key(topic)
    }

    /// How many topics somebody is interested in.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// The topics that may have members.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.by_topic.keys()
    }

    /// Whether a worker may have members of one of these.
    pub fn has(&self, topics: &[Topic], worker: WorkerId) -> bool {
        let parts = topics.iter().filter_map(|topic| self.by_topic.get(topic)).flatten();
        parts.into_iter().any(|part| part.worker == worker)
    }

    /// A worker has members now.
    pub fn told(&mut self, worker: WorkerId, topic: Topic) {
        let part = self.part(worker, topic);
        if !std::mem::replace(&mut part.told, true) {
            self.shares.entry(worker).or_default().told += 1;
        }
    }

    /// In how many topics a worker has said to have members.
    pub fn told_by(&self, worker: WorkerId) -> usize {
        self.shares.get(&worker).map_or(0, |share| share.told)
    }

    /// How many topics a worker may get a member of by changes that it has not said to be done.
    pub fn unsettled_by(&self, worker: WorkerId) -> usize {
        self.shares.get(&worker).map_or(0, |share| share.parts - share.told)
    }

    /// A worker has none since a while. What was sent to it since may still give it one.
    pub fn left(&mut self, worker: WorkerId, topic: Topic) {
        self.change(worker, topic, |part| part.told = false);
    }

    /// The mark to send with the next change that may give a worker a member.
    pub fn next_mark(&mut self) -> Mark {
        self.last_mark += 1;
        self.last_mark
    }

    /// A change that may give a worker a member was sent there.
    pub fn sent(&mut self, worker: WorkerId, topic: Topic, mark: Mark) {
        self.part(worker, topic).mark = mark;
    }

    /// A worker has done or refused what was sent with a mark, and all that was sent before.
    pub fn settled(&mut self, worker: WorkerId, topic: Topic, mark: Mark) {
        self.change(worker, topic, |part| {
            if part.mark == mark {
                part.mark = 0;
            }
        });
    }

    /// A worker is no more.
    pub fn forget(&mut self, worker: WorkerId) {
        self.shares.remove(&worker);
        let changes = &mut self.changes;
        self.by_topic.retain(|topic, parts| {
            parts.retain(|part| part.worker != worker);
            if parts.is_empty() {
                changes.iter_mut().for_each(|changes| changes.push(topic.clone()));
            }
            !parts.is_empty()
        });
    }

    fn part(&mut self, worker: WorkerId, topic: Topic) -> &mut Part {
        if let Some(changes) = &mut self.changes
            && !self.by_topic.contains_key(&topic)
        {
            changes.push(topic.clone());
        }
        let parts = self.by_topic.entry(topic).or_default();
        let index = parts.iter().position(|part| part.worker == worker).unwrap_or_else(|| {
            parts.push(Part { worker, told: false, mark: 0 });
            self.shares.entry(worker).or_default().parts += 1;
            parts.len() - 1
        });
        &mut parts[index]
    }

    fn change(&mut self, worker: WorkerId, topic: Topic, change: impl FnOnce(&mut Part)) {
        let Entry::Occupied(mut entry) = self.by_topic.entry(topic) else { return };
        let parts = entry.get_mut();
        let Some(index) = parts.iter().position(|part| part.worker == worker) else { return };
        let was_told = parts[index].told;
        change(&mut parts[index]);
        let is_over = !parts[index].told && parts[index].mark == 0;
        if let Some(share) = self.shares.get_mut(&worker) {
            share.told -= usize::from(was_told && !parts[index].told);
            share.parts -= usize::from(is_over);
        }
        if is_over {
            parts.swap_remove(index);
        }
        if entry.get().is_empty() {
            let (topic, _) = entry.remove_entry();
            if let Some(changes) = &mut self.changes {
                changes.push(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    fn id(slot: u8) -> WorkerId {
        WorkerId { slot: Slot(slot), epoch: 1 }
    }

    fn room() -> Topic {
        Topic::room("r")
    }

    fn send(interest: &mut Interest, slot: u8) -> Mark {
        let mark = interest.next_mark();
        interest.sent(id(slot), room(), mark);
        mark
    }

    #[test]
    fn a_join_that_was_sent_counts_until_it_is_settled() {
        let mut interest = Interest::new(1);
        let (first, second) = (send(&mut interest, 0), send(&mut interest, 0));
        assert!(interest.has(&[room()], id(0)) && !interest.has(&[room()], id(1)));
        interest.settled(id(0), room(), first);
        assert!(interest.has(&[room()], id(0)), "the second may give a member");
        interest.settled(id(0), room(), second);
        assert!(!interest.has(&[room()], id(0)), "both were refused");
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn what_a_worker_said_before_a_join_came_to_it_does_not_end_the_interest() {
        let mut interest = Interest::new(1);
        interest.told(id(0), room());
        let mark = send(&mut interest, 0);
        interest.left(id(0), room());
        assert!(interest.has(&[room()], id(0)));
        interest.told(id(0), room());
        interest.settled(id(0), room(), mark);
        assert!(interest.has(&[room()], id(0)));
        interest.left(id(0), room());
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn interest_is_by_worker() {
        let mut interest = Interest::new(1);
        let old = WorkerId { slot: Slot(0), epoch: 1 };
        let new = WorkerId { slot: Slot(0), epoch: 2 };
        interest.told(old, room());
        interest.told(new, room());
        interest.forget(old);
        assert!(interest.has(&[room(), Topic::user("u")], new));
        assert!(!interest.has(&[room()], old));
    }

    #[test]
    fn the_topics_of_each_worker_are_counted_once() {
        let mut interest = Interest::new(1);
        let mark = send(&mut interest, 0);
        assert_eq!((interest.told_by(id(0)), interest.unsettled_by(id(0))), (0, 1));
        for _ in 0..2 {
            interest.told(id(0), room());
            interest.told(id(0), Topic::user("u"));
            interest.told(id(1), room());
        }
        assert_eq!((interest.told_by(id(0)), interest.unsettled_by(id(0))), (2, 0));
        interest.left(id(0), room());
        interest.left(id(0), room());
        assert_eq!((interest.told_by(id(0)), interest.unsettled_by(id(0))), (1, 1));
        interest.settled(id(0), room(), mark);
        assert_eq!((interest.told_by(id(0)), interest.unsettled_by(id(0))), (1, 0));
        assert_eq!(interest.told_by(id(1)), 1);
        interest.forget(id(0));
        interest.left(id(1), room());
        assert_eq!((interest.told_by(id(0)), interest.told_by(id(1))), (0, 0));
    }

    #[test]
    fn two_managers_give_different_marks() {
        let (mut one, mut two) = (Interest::new(1), Interest::new(2));
        let stale = send(&mut one, 0);
        send(&mut two, 0);
        two.settled(id(0), room(), stale);
        assert!(two.has(&[room()], id(0)));
    }
}
