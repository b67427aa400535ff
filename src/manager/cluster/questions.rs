//! Questions to the other nodes who is present in a room, and who waits for the answers. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::api::rooms::{Nodes, Present, Topic};
use crate::fd::WorkerId;
use crate::ipc::messages::RequestId;
use crate::manager::relay::holders::weight;

/// Questions at once, half of which may be about rooms to which this node is not subscribed. A
/// worker that asks beyond is answered with what is known here; rooms of this node are asked about
/// later.
pub const ASKED_MAX: usize = 4_096;
/// Questions of workers that wait for these, all together. Beyond, the same.
const WAITING_MAX: usize = 1 << 16;
/// Bytes of what others have said of rooms that this node is not subscribed to, all together: some
/// hundred thousand users with a short info.
const ELSEWHERE_BYTES_MAX: usize = 64 << 20;

/// A question to the other nodes.
pub struct Question {
    /// Which room it is about.
    pub room: Topic,
    /// Nodes that answer, once the engine has said how many.
    pub nodes: Option<u32>,
    /// Nodes that have answered.
    pub answered: u32,
    /// Whether a node that may have somebody there could not be asked.
    pub misses_some: bool,
    /// Workers that wait for the list.
    pub waiting: Vec<(WorkerId, RequestId)>,
    /// What others have said of a room that this node is not subscribed to.
    pub elsewhere: Option<Elsewhere>,
    /// When it is not waited for any longer, in milliseconds of the monotonic clock.
    pub due_ms: u64,
}

/// The users of a room that this node is not subscribed to.
#[derive(Default)]
pub struct Elsewhere {
    /// By uid.
    pub users: BTreeMap<String, Present>,
    bytes: usize,
    /// Nodes of whose users some found no room.
    cut: u32,
}

impl Elsewhere {
    /// A node has these as well, for which there are so many bytes. How many found no room.
    fn add(&mut self, room: &Topic, list: Vec<Present>, free: usize) -> usize {
        let most = self.bytes + free;
        let mut unheard = 0;
        for present in list {
            let bytes = weight(room, &present.uid, present.info.as_deref());
            if let Some(known) = self.users.get_mut(&present.uid) {
                known.count = known.count.saturating_add(present.count);
            } else if self.bytes + bytes <= most {
                self.bytes += bytes;
                self.users.insert(present.uid.clone(), present);
            } else {
                unheard += 1;
            }
        }
        self.cut += u32::from(unheard > 0);
        unheard
    }

    /// Adds these users to those here, who are in the order of their uids.
    pub fn add_to(self, list: &mut Vec<Present>) {
        let mut elsewhere = self.users;
        for present in &mut *list {
            let more = elsewhere.remove(&present.uid).map_or(0, |it| it.count);
            present.count = present.count.saturating_add(more);
        }
        list.extend(elsewhere.into_values());
    }
}

impl Question {
    /// How many nodes had to answer, by what is known, and how many have said all.
    pub fn nodes(&self, whole: bool) -> Nodes {
        let asked = if whole { Some(self.answered) } else { self.nodes };
        let cut = self.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.cut);
        Nodes { asked, answered: self.answered.saturating_sub(cut) }
    }
}

/// The questions that are under way, under our numbers.
#[derive(Default)]
pub struct Questions {
    by_id: HashMap<u64, Question>,
    /// Those about rooms that this node is subscribed to, of which there is one for each room.
    by_room: HashMap<Topic, u64>,
    /// Workers' questions that wait for any of them.
    waiting: usize,
    elsewhere_bytes: usize,
}

impl Questions {
    /// Whether one more may be asked; `elsewhere`: about a room that is none of this node.
    pub fn has_room(&self, elsewhere: bool) -> bool {
        let of_elsewhere = self.by_id.len() - self.by_room.len();
        self.by_id.len() < ASKED_MAX && !(elsewhere && of_elsewhere >= ASKED_MAX / 2)
    }

    /// A question was asked.
    pub fn begin(&mut self, id: u64, room: Topic, elsewhere: bool, due_ms: u64) {
        if !elsewhere {
            self.by_room.insert(room.clone(), id);
        }
        let elsewhere = elsewhere.then(Elsewhere::default);
        let (nodes, answered, misses_some, waiting) = (None, 0, false, Vec::new());
        let question = Question { room, nodes, answered, misses_some, waiting, elsewhere, due_ms };
        self.by_id.insert(id, question);
    }

    /// A question is over.
    pub fn end(&mut self, id: u64) -> Option<Question> {
        let question = self.by_id.remove(&id)?;
        match &question.elsewhere {
            Some(elsewhere) => self.elsewhere_bytes -= elsewhere.bytes,
            None => {
                self.by_room.remove(&question.room);
            }
        }
        self.waiting -= question.waiting.len();
        Some(question)
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Question> {
        self.by_id.get(&id)
    }

    /// One of them, to change.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Question> {
        self.by_id.get_mut(&id)
    }

    /// The question about a room that this node is subscribed to.
    pub fn about(&self, room: &Topic) -> Option<u64> {
        self.by_room.get(room).copied()
    }

    /// All of them.
    pub fn ids(&self) -> Vec<u64> {
        self.by_id.keys().copied().collect()
    }

    /// Those that are not waited for any longer.
    pub fn due(&self, now: u64) -> Vec<u64> {
        let due = self.by_id.iter().filter(|(_, question)| question.due_ms <= now);
        due.map(|(id, _)| *id).collect()
    }

    /// Whether one more worker's question may wait.
    pub fn may_wait(&self) -> bool {
        self.waiting < WAITING_MAX
    }

    /// A worker's question waits for the answers to this one.
    pub fn wait(&mut self, id: u64, asker: (WorkerId, RequestId)) {
        if let Some(question) = self.by_id.get_mut(&id) {
            question.waiting.push(asker);
            self.waiting += 1;
        }
    }

    /// A node has answered. What the node said of a room that this node is not subscribed to is
    /// kept here, as far as there is room: then the answer is for how many users there was none.
    /// Else the list is given back.
    pub fn answer(&mut self, id: u64, list: Vec<Present>) -> Result<usize, Vec<Present>> {
        let Some(question) = self.by_id.get_mut(&id) else { return Err(list) };
        question.answered = question.answered.saturating_add(1);
        let Some(elsewhere) = &mut question.elsewhere else { return Err(list) };
        let before = elsewhere.bytes;
        let free = ELSEWHERE_BYTES_MAX - self.elsewhere_bytes;
        let unheard = elsewhere.add(&question.room, list, free);
        self.elsewhere_bytes += elsewhere.bytes - before;
        Ok(unheard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    const ASKER: (WorkerId, RequestId) = (WorkerId { slot: Slot(0), epoch: 1 }, 7);

    fn room(id: u64) -> Topic {
        Topic::room(&format!("r{id}"))
    }

    fn list(from: usize, count: usize) -> Vec<Present> {
        let user = |n: usize| Present::new(format!("u{n}"), 1, Some("i".repeat(64 * 1024)));
        (from..from + count).map(user).collect()
    }

    #[test]
    fn what_nodes_say_of_rooms_elsewhere_has_room_for_so_much_over_all_questions() {
        let mut questions = Questions::default();
        for id in [1, 2] {
            questions.begin(id, room(id), true, 0);
        }
        assert_eq!(questions.answer(1, list(0, 600)), Ok(0));
        assert_eq!(questions.answer(1, list(0, 600)), Ok(0), "the same users again");
        let unheard = questions.answer(2, list(0, 600)).unwrap();
        assert!((170..200).contains(&unheard), "{unheard}");
        assert!(questions.elsewhere_bytes <= ELSEWHERE_BYTES_MAX);
        let first = questions.end(1).unwrap();
        assert_eq!(first.nodes(true), Nodes { asked: Some(2), answered: 2 });
        assert_eq!(first.elsewhere.unwrap().users["u0"].count, 2);
        assert_eq!(questions.answer(2, list(600, 400)), Ok(0), "what is over makes room");
        let second = questions.end(2).unwrap();
        assert_eq!(second.nodes(true), Nodes { asked: Some(2), answered: 1 }, "one was cut");
        assert_eq!(questions.elsewhere_bytes, 0);
    }

    #[test]
    fn so_many_questions_of_workers_wait_over_all_rooms() {
        let mut questions = Questions::default();
        for id in 0..4 {
            questions.begin(id, room(id), false, 0);
        }
        let mut waiting = 0;
        while questions.may_wait() {
            questions.wait(waiting % 4, ASKER);
            waiting += 1;
        }
        assert_eq!(waiting as usize, WAITING_MAX);
        let question = questions.end(0).unwrap();
        assert!(questions.may_wait() && question.waiting.len() == WAITING_MAX / 4);
        questions.wait(0, ASKER);
        assert_eq!(questions.waiting, WAITING_MAX / 4 * 3, "nobody waits for what is over");
    }

    #[test]
    fn a_room_here_has_one_question_and_its_answers_are_given_back() {
        let mut questions = Questions::default();
        questions.begin(1, room(1), false, 5);
        questions.begin(2, room(1), true, 6);
        assert_eq!((questions.about(&room(1)), questions.about(&room(2))), (Some(1), None));
        assert_eq!(questions.answer(1, list(0, 1)), Err(list(0, 1)));
        assert_eq!(questions.get(1).unwrap().answered, 1);
        assert_eq!(questions.answer(9, list(0, 1)), Err(list(0, 1)));
        assert_eq!((questions.due(5), questions.ids().len()), (vec![1], 2));
        questions.end(1);
        assert_eq!(questions.about(&room(1)), None);
        assert!(questions.has_room(false));
    }

    #[test]
    fn questions_about_rooms_elsewhere_leave_room_for_those_about_rooms_here() {
        let mut questions = Questions::default();
        let mut begun = 0;
        for elsewhere in [true, false] {
            while questions.has_room(elsewhere) {
                questions.begin(begun, room(begun), elsewhere, 0);
                begun += 1;
            }
            let most = if elsewhere { ASKED_MAX / 2 } else { ASKED_MAX };
            assert_eq!(begun as usize, most);
        }
        questions.end(0);
        assert!(questions.has_room(true) && questions.has_room(false));
    }
}
