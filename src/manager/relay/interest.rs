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

/// The table of interest.
#[derive(Debug)]
pub struct Interest {
    by_topic: HashMap<Topic, Vec<Part>>,
    last_mark: Mark,
}

impl Interest {
    /// Nobody's yet, for the manager of this epoch: no two managers give the same mark.
    pub fn new(epoch: u32) -> Interest {
        Interest { by_topic: HashMap::new(), last_mark: u64::from(epoch) << 32 }
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
        self.part(worker, topic).told = true;
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
        self.by_topic.retain(|_, parts| {
            parts.retain(|part| part.worker != worker);
            !parts.is_empty()
        });
    }

    fn part(&mut self, worker: WorkerId, topic: Topic) -> &mut Part {
        let parts = self.by_topic.entry(topic).or_default();
        let index = parts.iter().position(|part| part.worker == worker).unwrap_or_else(|| {
            parts.push(Part { worker, told: false, mark: 0 });
            parts.len() - 1
        });
        &mut parts[index]
    }

    fn change(&mut self, worker: WorkerId, topic: Topic, change: impl FnOnce(&mut Part)) {
        let Entry::Occupied(mut entry) = self.by_topic.entry(topic) else { return };
        let parts = entry.get_mut();
        let Some(index) = parts.iter().position(|part| part.worker == worker) else { return };
        change(&mut parts[index]);
        if !parts[index].told && parts[index].mark == 0 {
            parts.swap_remove(index);
        }
        if entry.get().is_empty() {
            entry.remove();
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
    fn two_managers_give_different_marks() {
        let (mut one, mut two) = (Interest::new(1), Interest::new(2));
        let stale = send(&mut one, 0);
        send(&mut two, 0);
        two.settled(id(0), room(), stale);
        assert!(two.has(&[room()], id(0)));
    }
}
