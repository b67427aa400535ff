//! Which topics this node is subscribed to: those that a worker has members of. The first join is
//! told at once, and confirmed when the engine has it; the last leave lingers, so that clients
//! that come back at once cost nothing.
//!
//! Only so much is on its way to the courier. Of what it has not been told, the difference waits
//! and no history: a room that came and went while the engine was slow is nothing to tell.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::Cluster;
use crate::api::rooms::Topic;
use crate::fd::WorkerId;
use crate::ipc::cluster::messages::ManagerToCourier;
use crate::ipc::packet::Body;
use crate::manager::Exchange;
use crate::manager::workers::Workers;
use crate::sys::clock::monotonic_ms;

/// How long a topic without members is still subscribed to.
const LINGER_MS: u64 = 1_000;
/// Confirmations that wait. Beyond, a worker that was taken over asks for more than any worker
/// does, and hears the confirmation too early.
const WAITING_MAX: usize = 1 << 18;
/// Topics in one message.
const PART: usize = 128;
/// Topics on their way to the courier, beyond which others wait here until it has said that the
/// engine has some of them: an engine that is slower than the workers' clients come and go would
/// let the lane grow without end.
pub const ON_THE_WAY_MAX: usize = 16 * 1024;

/// The topics.
#[derive(Default)]
pub struct Topics {
    subscribed: HashSet<Topic>,
    /// Those without members, and when they are to be left.
    lingering: HashMap<Topic, u64>,
    /// Those that the courier knows to be otherwise, under the number of the change.
    untold: BTreeMap<u64, Topic>,
    numbers: HashMap<Topic, u64>,
    /// Confirmations of workers that wait for the courier's word of a number.
    waiting: VecDeque<(u64, WorkerId, u64)>,
    /// The number of the last change.
    last: u64,
    /// What the courier was told and has not noted: the last number in a message, and how many
    /// topics are in that.
    on_the_way: VecDeque<(u64, usize)>,
    /// How many topics that is in all.
    on_the_way_topics: usize,
    noted: u64,
}

/// What the courier is told in one message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    number: u64,
    joined: Vec<Topic>,
    left: Vec<Topic>,
}

impl Topics {
    /// None yet, and changes have numbers beyond this one: what the courier notes of the manager
    /// before is no word of ours.
    pub fn beyond(last: u64) -> Topics {
        Topics { last, ..Topics::default() }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.subscribed.len() as u64
    }

    /// Whether what other nodes say of a topic comes here: somebody is in it, or was a moment ago.
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.subscribed.contains(topic)
    }

    /// Whether the courier knows something else of a topic.
    pub fn is_untold(&self, topic: &Topic) -> bool {
        self.numbers.contains_key(topic)
    }

    /// A topic has members now, or has none.
    fn change(&mut self, topic: &Topic, has_members: bool, now: u64) {
        if !has_members {
            if self.subscribed.contains(topic) {
                self.lingering.entry(topic.clone()).or_insert(now + LINGER_MS);
            }
            return;
        }
        self.lingering.remove(topic);
        if self.subscribed.insert(topic.clone()) {
            self.turn(topic);
        }
    }

    /// Those that have lingered long enough.
    fn take_due(&mut self, now: u64) -> Vec<Topic> {
        let due = self.lingering.iter().filter(|(_, due)| **due <= now);
        let due: Vec<Topic> = due.map(|(topic, _)| topic.clone()).collect();
        for topic in &due {
            self.lingering.remove(topic);
            self.subscribed.remove(topic);
            self.turn(topic);
        }
        due
    }

    /// A topic is subscribed to, or is no more: to be told, or, where the courier was not told the
    /// last time, not.
    fn turn(&mut self, topic: &Topic) {
        if let Some(number) = self.numbers.remove(topic) {
            self.untold.remove(&number);
            return;
        }
        self.last += 1;
        self.untold.insert(self.last, topic.clone());
        self.numbers.insert(topic.clone(), self.last);
    }

    /// What the courier is to be told next, where no more than so many topics are on their way.
    fn next_part(&mut self, on_the_way_max: usize) -> Option<Part> {
        if self.on_the_way_topics >= on_the_way_max || self.untold.is_empty() {
            return None;
        }
        let mut part = Part::default();
        let mut count = 0;
        while count < PART
            && let Some((number, topic)) = self.untold.pop_first()
        {
            count += 1;
            self.numbers.remove(&topic);
            part.number = number;
            match self.subscribed.contains(&topic) {
                true => part.joined.push(topic),
                false => part.left.push(topic),
            }
        }
        self.on_the_way.push_back((part.number, count));
        self.on_the_way_topics += count;
        Some(part)
    }

    /// The engine knows what was told up to a number.
    fn note(&mut self, number: u64) {
        self.noted = self.noted.max(number.min(self.last));
        while let Some((_, topics)) = self.on_the_way.pop_front_if(|it| it.0 <= number) {
            self.on_the_way_topics -= topics;
        }
    }

    /// The number up to which nothing of what has changed is still to be told or noted.
    fn settled(&self) -> u64 {
        match (self.on_the_way.is_empty(), self.untold.first_key_value()) {
            (false, _) => self.noted,
            (true, Some((first, _))) => first - 1,
            (true, None) => self.last,
        }
    }

    /// This node leaves the others: what the courier was not told by now it is not told any more.
    pub fn part(&mut self) {
        self.untold.clear();
        self.numbers.clear();
    }

    /// There is no courier any more: the next one knows nothing.
    fn forget_courier(&mut self) {
        self.on_the_way.clear();
        self.on_the_way_topics = 0;
        self.untold.clear();
        self.numbers.clear();
        for topic in &self.subscribed {
            self.last += 1;
            self.untold.insert(self.last, topic.clone());
            self.numbers.insert(topic.clone(), self.last);
        }
    }
}

impl Cluster {
    /// Tells the courier what has changed, as far as it has noted what it was told before.
    fn tell_topics(&mut self, on_the_way_max: usize) {
        let Some(link) = &self.link else { return };
        while let Some(Part { number, joined, left }) = self.topics.next_part(on_the_way_max) {
            self.presence.told(&joined);
            let interest = ManagerToCourier::Interest { number, joined, left };
            if let Err(error) = link.insist(&interest, Body::Inline(&[]), Vec::new()) {
                tracing::error!(%error, "the courier is not told of topics");
            }
        }
    }
}

impl Cluster {
    /// The engine knows what it was told up to a number: there is room to tell it more.
    pub(super) fn note_topics(&mut self, workers: &Workers, number: u64) {
        self.topics.note(number);
        self.tell_topics(ON_THE_WAY_MAX);
        self.confirm_interest(workers, self.topics.settled());
        self.ask_unasked();
    }

    /// The courier is gone, and nobody waits for its word any more.
    pub(super) fn lose_topics(&mut self, workers: &Workers) {
        self.topics.forget_courier();
        self.confirm_interest(workers, u64::MAX);
    }

    fn confirm_interest(&mut self, workers: &Workers, settled: u64) {
        while let Some((_, worker, number)) =
            self.topics.waiting.pop_front_if(|it| it.0 <= settled)
        {
            if let Some(worker) = workers.get(worker) {
                worker.noted(number);
            }
        }
    }
}

impl Exchange {
    /// What has changed of the workers' interest is told to the courier.
    pub(in crate::manager) fn follow_topics(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let now = monotonic_ms();
        for topic in self.interest.take_changes() {
            let has_members = self.interest.has_any(&topic);
            cluster.topics.change(&topic, has_members, now);
        }
        cluster.tell_topics(ON_THE_WAY_MAX);
    }

    pub(super) fn leave_topics(&mut self, now: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let left = cluster.topics.take_due(now);
        if !left.is_empty() {
            cluster.tell_topics(ON_THE_WAY_MAX);
            self.leave_presence(&left);
        }
    }

    /// A courier is new: it learns everything.
    pub(super) fn tell_all_topics(&mut self) {
        self.follow_topics();
        if self.owners_due_at.is_none() {
            self.tell_topics_whole();
        }
    }

    /// Every worker has said which topics it has members of. All of them are told before, which are
    /// as many as the workers have.
    pub(in crate::manager) fn tell_topics_whole(&mut self) {
        self.follow_topics();
        if let Some(cluster) = &mut self.cluster {
            cluster.tell_topics(usize::MAX);
        }
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
            && cluster.topics.settled() < cluster.topics.last
            && cluster.topics.waiting.len() < WAITING_MAX
        {
            let last = cluster.topics.last;
            return cluster.topics.waiting.push_back((last, worker, number));
        }
        if let Some(worker) = self.workers.get(worker) {
            worker.noted(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: u64) -> Topic {
        Topic::room(&name.to_string())
    }

    /// All that may be told now.
    fn told(topics: &mut Topics) -> Vec<Part> {
        std::iter::from_fn(|| topics.next_part(ON_THE_WAY_MAX)).collect()
    }

    #[test]
    fn the_first_join_is_told_and_the_last_leave_lingers() {
        let mut topics = Topics::default();
        let join = Part { number: 1, joined: vec![room(7)], left: Vec::new() };
        topics.change(&room(7), true, 0);
        topics.change(&room(7), true, 0);
        assert_eq!(told(&mut topics), [join]);
        topics.change(&room(7), false, 100);
        assert!(topics.take_due(1_099).is_empty());
        topics.change(&room(7), true, 1_099);
        assert!(told(&mut topics).is_empty(), "who comes back at once costs nothing");
        topics.change(&room(7), false, 2_000);
        assert_eq!(topics.take_due(3_000).len(), 1);
        let leave = Part { number: 2, joined: Vec::new(), left: vec![room(7)] };
        assert_eq!((topics.len(), told(&mut topics)), (0, vec![leave]));
    }

    #[test]
    fn of_rooms_that_come_and_go_while_the_engine_is_slow_the_difference_waits() {
        let mut topics = Topics::default();
        let (kept, mut sent) = (1_000_000, 0);
        topics.change(&room(kept), true, 0);
        let mut count = |topics: &mut Topics| {
            for part in told(topics) {
                sent += part.joined.len() + part.left.len();
            }
        };
        // Each room is joined and left, and none of that is noted.
        for name in 0..100_000 {
            topics.change(&room(name), true, name);
            count(&mut topics);
            topics.change(&room(name), false, name);
            topics.take_due(name + LINGER_MS);
            count(&mut topics);
        }
        assert!(sent <= ON_THE_WAY_MAX + PART, "{sent}");
        assert!(topics.untold.len() <= 2 && topics.numbers.len() == topics.untold.len());
        assert_eq!(topics.len(), 1);
        topics.note(topics.last);
        assert!(told(&mut topics).len() <= 1 && !topics.is_untold(&room(kept)));
    }

    /// What an engine knows that takes one part after the other.
    #[derive(Default)]
    struct Told {
        parts: VecDeque<Part>,
        known: HashSet<Topic>,
    }

    impl Told {
        fn take_one(&mut self, topics: &mut Topics) {
            let Some(Part { number, joined, left }) = self.parts.pop_front() else { return };
            self.known.extend(joined);
            left.iter().for_each(|topic| assert!(self.known.remove(topic), "left unknown"));
            topics.note(number);
        }
    }

    #[test]
    fn whatever_comes_and_goes_the_engine_knows_each_join_that_is_settled_and_in_the_end_all() {
        for seed in 0..100_u64 {
            let mut dice = seed;
            let mut roll = |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (dice >> 33) % sides
            };
            let (mut topics, mut told, mut joins) =
                (Topics::default(), Told::default(), Vec::new());
            for now in 0..1_000 {
                let topic = room(roll(8));
                match roll(6) {
                    0 | 1 => {
                        topics.change(&topic, true, now);
                        joins.push((topics.last, topic));
                    }
                    2 => {
                        topics.change(&topic, false, now);
                        joins.retain(|(_, joined)| *joined != topic);
                    }
                    3 => drop(topics.take_due(now + roll(2) * LINGER_MS)),
                    4 => told.parts.extend(topics.next_part(3)),
                    _ => told.take_one(&mut topics),
                }
                let settled = topics.settled();
                for (_, topic) in joins.extract_if(.., |(number, _)| *number <= settled) {
                    assert!(told.known.contains(&topic), "seed {seed}, at {now}: {topic:?}");
                }
            }
            told.parts.extend(std::iter::from_fn(|| topics.next_part(usize::MAX)));
            while !told.parts.is_empty() {
                told.take_one(&mut topics);
            }
            assert_eq!((told.known, topics.settled()), (topics.subscribed, topics.last));
        }
    }

    #[test]
    fn a_node_that_leaves_comes_to_no_topic_any_more() {
        let mut topics = Topics::default();
        for name in 0..=ON_THE_WAY_MAX as u64 {
            topics.change(&room(name), true, 0);
        }
        assert_eq!(told(&mut topics).len(), ON_THE_WAY_MAX / PART);
        topics.part();
        topics.note(topics.last);
        assert!(told(&mut topics).is_empty() && topics.settled() == topics.last);
    }

    #[test]
    fn who_waits_for_a_join_waits_until_it_is_told_and_noted() {
        let mut topics = Topics::default();
        for name in 0..ON_THE_WAY_MAX as u64 {
            topics.change(&room(name), true, 0);
        }
        let first = told(&mut topics).len();
        topics.change(&room(99_999), true, 0);
        let (number, behind) = (topics.last, topics.last - 1);
        assert!(told(&mut topics).is_empty() && topics.is_untold(&room(99_999)));
        assert!(topics.settled() < number);
        topics.note(behind);
        assert_eq!((first, topics.settled()), (ON_THE_WAY_MAX / PART, behind));
        assert_eq!(told(&mut topics)[0].joined, [room(99_999)]);
        assert_eq!(topics.settled(), behind, "it is on its way");
        topics.note(number);
        assert_eq!(topics.settled(), number);
        // Another courier knows of none of them.
        topics.forget_courier();
        assert!(topics.is_untold(&room(99_999)) && topics.untold.len() as u64 == topics.len());
    }
}
