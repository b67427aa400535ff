//! What the giver of a handover sends to clients that it has given and that have not arrived. It
//! goes to the taker at once, behind the batch that has the client; until the taker has answered
//! the batch it stands here as well. Should the taker die before, the giver gives the batch to
//! the replacement, and what stood behind it follows.
//!
//! A client's messages stand behind its own batch, and a broadcast behind each batch. So nobody's
//! wait for a batch of others, and in which order batches come again does not matter.

use std::rc::Rc;

use super::Manager;
use super::hold::{HELD_BYTES_MAX, ITEM_BYTES, Kept};
use super::switch::{Address, Errand};
use crate::api::{Opcode, Verdict};
use crate::fd::WorkerId;
use crate::ipc::messages::Origin;
use crate::ipc::packet::Body;

/// The batches on their way, and what stands behind them.
#[derive(Debug, Default)]
pub struct Trail {
    steps: Vec<Step>,
}

/// A batch.
#[derive(Debug)]
struct Step {
    fds: Vec<u64>,
    /// Whether the present taker was given it.
    given: bool,
    behind: Vec<Word>,
    bytes: usize,
    /// Messages that were passed on and found no room here: the taker's death loses them.
    unkept: u64,
}

/// A message.
#[derive(Debug)]
struct Word {
    to: To,
    errand: Errand,
    body: Rc<Kept>,
}

#[derive(Debug, Clone, Copy)]
enum To {
    One(u64),
    AllBut(u64),
}

/// A message to one client.
pub type Letter = (u64, Errand, Rc<Kept>);

impl Step {
    fn new(fds: Vec<u64>, given: bool) -> Step {
        Step { fds, given, behind: Vec::new(), bytes: 0, unkept: 0 }
    }

    fn add(&mut self, word: Word, bytes: usize) {
        self.bytes += bytes;
        self.behind.push(word);
    }

    fn clients_but(&self, except: u64) -> impl Iterator<Item = u64> {
        self.fds.iter().copied().filter(move |fd| *fd != except)
    }

    fn letters(&self) -> Vec<Letter> {
        let mut letters = Vec::new();
        for Word { to, errand, body } in &self.behind {
            match *to {
                To::One(fd) => letters.push((fd, *errand, Rc::clone(body))),
                To::AllBut(except) => letters
                    .extend(self.clients_but(except).map(|fd| (fd, *errand, Rc::clone(body)))),
            }
        }
        letters
    }
}

impl Trail {
    /// Whether a client is on its way.
    pub fn has(&self, fd: u64) -> bool {
        self.steps.iter().any(|step| step.fds.contains(&fd))
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether some are still to be given to the present taker, since the last one died.
    pub fn waits(&self) -> bool {
        self.steps.iter().any(|step| !step.given)
    }

    /// A batch comes, for the first time or again. Where there is a taker it is given to that,
    /// and the answer is what is to follow it there.
    pub fn moves(&mut self, fds: &[u64], has_taker: bool) -> Vec<Letter> {
        match self.steps.iter_mut().find(|step| step.fds == fds) {
            Some(step) if has_taker && !step.given => {
                step.given = true;
                step.letters()
            }
            Some(_) => Vec::new(),
            None => {
                self.steps.push(Step::new(fds.to_vec(), has_taker));
                Vec::new()
            }
        }
    }

    /// Whether the present taker was given this client.
    pub fn is_given(&self, fd: u64) -> bool {
        self.steps.iter().any(|step| step.given && step.fds.contains(&fd))
    }

    /// Keeps a message to a client on its way. False where it waits for a taker and there is no
    /// room, so that it is lost.
    pub fn keep(&mut self, fd: u64, errand: Errand, body: Rc<Kept>) -> bool {
        let weight = body.len() + ITEM_BYTES;
        let has_room = self.bytes() + weight <= HELD_BYTES_MAX;
        let Some(step) = self.steps.iter_mut().find(|step| step.fds.contains(&fd)) else {
            return false;
        };
        if has_room {
            step.add(Word { to: To::One(fd), errand, body }, weight);
        } else if step.given {
            step.unkept += u64::from(errand.is_unconfirmed());
        }
        has_room || step.given
    }

    /// Keeps a broadcast for all on their way. The answer is how many have lost it, since they
    /// wait for a taker and there is no room.
    pub fn keep_for_all(&mut self, errand: Errand, except: u64, body: &Rc<Kept>) -> u64 {
        let weight = body.len() + ITEM_BYTES * self.steps.len();
        let has_room = self.bytes() + weight <= HELD_BYTES_MAX;
        let mut lost = 0;
        // All share the body, which weighs where it mostly stays longest.
        let mut len = body.len();
        for step in self.steps.iter_mut().rev() {
            if has_room {
                let word = Word { to: To::AllBut(except), errand, body: Rc::clone(body) };
                step.add(word, std::mem::take(&mut len) + ITEM_BYTES);
            } else {
                let count = step.clients_but(except).count() as u64;
                *(if step.given { &mut step.unkept } else { &mut lost }) += count;
            }
        }
        lost
    }

    /// The taker has answered a batch: it has these. What was sent to them shares its fate from
    /// now on, and what it left out of the batch is not on its way any more.
    pub fn arrived(&mut self, fds: &[u64]) {
        self.steps.retain(|step| !step.fds.iter().any(|fd| fds.contains(fd)));
    }

    /// The taker has died: all is to come again. The answer is how many messages are lost.
    pub fn taker_died(&mut self) -> u64 {
        let lost = |step: &mut Step| {
            step.given = false;
            std::mem::take(&mut step.unkept)
        };
        self.steps.iter_mut().map(lost).sum()
    }

    /// The handover is over. The answer is what no taker was given.
    pub fn end(&mut self) -> Vec<Letter> {
        let steps = std::mem::take(&mut self.steps);
        steps.iter().filter(|step| !step.given).flat_map(Step::letters).collect()
    }

    fn bytes(&self) -> usize {
        self.steps.iter().map(|step| step.bytes).sum()
    }
}

impl Manager {
    /// The worker that gives connections now.
    pub fn giver(&self) -> Option<WorkerId> {
        self.reloads.current.as_ref()?.giver()
    }

    fn taker(&self) -> Option<WorkerId> {
        let (_, to) = self.reloads.current.as_ref()?.moving()?;
        Some(to)
    }

    /// Whether what the giver says of how far it is was said of a taker that is dead. It will say
    /// it again, behind the batches it gives again.
    pub fn is_outdated(&self, from: WorkerId) -> bool {
        self.giver() == Some(from) && (self.taker().is_none() || self.trail.waits())
    }

    /// The giver writes to a client on its way.
    pub fn deliver_behind(&mut self, fd: u64, errand: Errand, body: Body<'_>) {
        let body = Rc::new(Kept::new(body));
        if self.trail.is_given(fd) && !self.send_to_taker(fd, errand, &body) {
            return;
        }
        if !self.trail.keep(fd, errand, body) {
            self.refuse(errand, Verdict::Full);
        }
    }

    /// The giver writes to all, also to the clients on their way. Where they have a taker, that
    /// gets the broadcast as everybody does.
    pub fn broadcast_behind(&mut self, from: WorkerId, opcode: Opcode, except: u64, body: Kept) {
        let errand = Errand::Push { origin: Origin::Worker(from), id: 0, opcode };
        let lost = self.trail.keep_for_all(errand, except, &Rc::new(body));
        self.refuse_broadcast(Some(from), lost);
    }

    /// A batch was given to the taker, or would have been if there were one.
    pub fn follow_batch(&mut self, fds: &[u64]) {
        let to = self.taker();
        let reload = self.reloads.current.as_ref();
        let has = |fd: &u64| to.is_some() && reload.is_some_and(|reload| reload.has(*fd));
        // Whom the taker has is not on its way, though the giver has not heard of it yet.
        let fds: Vec<u64> = fds.iter().copied().filter(|fd| !has(fd)).collect();
        if fds.is_empty() {
            return;
        }
        for (fd, errand, body) in self.trail.moves(&fds, to.is_some()) {
            self.send_to_taker(fd, errand, &body);
        }
    }

    fn send_to_taker(&mut self, fd: u64, errand: Errand, body: &Kept) -> bool {
        match body.body() {
            Ok(body) => self.pass_on(self.taker(), Address::Client(fd), errand, body),
            Err(_) => {
                self.refuse(errand, Verdict::Full);
                false
            }
        }
    }

    /// A worker has died; what it said before has been read.
    pub fn lost_taker(&mut self, dead: WorkerId) {
        if self.taker() == Some(dead) {
            let lost = self.trail.taker_died();
            self.refuse_broadcast(self.giver(), lost);
        }
    }

    /// No more will be given of what is on its way.
    pub fn end_trail(&mut self) {
        for (_, errand, _) in self.trail.end() {
            self.refuse(errand, Verdict::Full);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fd::Slot;

    fn push(id: u64) -> Errand {
        let origin = Origin::Worker(WorkerId { slot: Slot(0), epoch: 1 });
        Errand::Push { origin, id, opcode: Opcode::Text }
    }

    fn body(len: usize) -> Rc<Kept> {
        Rc::new(Kept::Bytes(Bytes::from(vec![0; len])))
    }

    /// To whom these are, and how long.
    fn short(letters: Vec<Letter>) -> Vec<(u64, usize)> {
        letters.into_iter().map(|(fd, _, body)| (fd, body.len())).collect()
    }

    #[test]
    fn what_stands_behind_a_batch_comes_with_it_once_for_each_taker() {
        let mut trail = Trail::default();
        assert!(trail.moves(&[1, 2], true).is_empty());
        assert!(trail.keep(1, push(0), body(10)));
        assert_eq!(trail.keep_for_all(push(0), 0, &body(20)), 0);
        trail.moves(&[3], true);
        assert!(trail.keep(3, push(0), body(30)));
        assert_eq!(trail.keep_for_all(push(0), 2, &body(40)), 0);
        assert!(trail.moves(&[3], true).is_empty(), "it has that already");
        for _ in 0..2 {
            assert_eq!(trail.taker_died(), 0);
            assert!(trail.waits() && trail.has(1) && !trail.is_given(1));
            assert!(trail.moves(&[3], false).is_empty(), "to nobody");
            // The order of the batches is not that of the first time.
            assert_eq!(short(trail.moves(&[3], true)), [(3, 30), (3, 40)]);
            assert!(trail.waits() && trail.is_given(3));
            let behind = [(1, 10), (1, 20), (2, 20), (1, 40)];
            assert_eq!(short(trail.moves(&[1, 2], true)), behind);
            assert!(!trail.waits());
        }
        assert!(trail.end().is_empty() && trail.is_empty());
    }

    #[test]
    fn what_has_arrived_is_over_and_the_rest_is_given_out_at_the_end() {
        let mut trail = Trail::default();
        trail.moves(&[1, 2], true);
        trail.keep(1, push(0), body(10));
        trail.moves(&[3, 4], true);
        trail.keep(4, push(7), body(20));
        // Only one of them was taken: the batch is answered all the same.
        trail.arrived(&[2]);
        assert!(!trail.has(1) && trail.has(3));
        trail.taker_died();
        trail.moves(&[5], false);
        trail.keep(5, push(0), body(30));
        assert_eq!(trail.keep_for_all(push(0), 5, &body(40)), 0);
        assert_eq!(short(trail.end()), [(4, 20), (3, 40), (4, 40), (5, 30)]);
        assert_eq!((trail.bytes(), trail.is_empty()), (0, true));
    }

    #[test]
    fn what_finds_no_room_is_lost_at_once_or_with_the_taker() {
        let mut trail = Trail::default();
        trail.moves(&[1, 2, 3], true);
        trail.keep(1, push(0), body(HELD_BYTES_MAX - ITEM_BYTES));
        assert!(trail.keep(2, push(0), body(0)), "the taker has it");
        assert!(trail.keep(2, push(9), body(0)), "its deadline tells of that one");
        assert_eq!(trail.keep_for_all(push(0), 3, &body(0)), 0);
        assert_eq!(trail.taker_died(), 3);
        assert!(!trail.keep(2, push(0), body(0)));
        assert_eq!(trail.keep_for_all(push(0), 3, &body(0)), 2);
        assert_eq!(trail.taker_died(), 0);
        trail.arrived(&[1]);
        assert_eq!(trail.bytes(), 0);
    }

    #[test]
    fn a_broadcast_weighs_once_however_many_batches_it_stands_behind() {
        let mut trail = Trail::default();
        (1..=8).for_each(|fd| drop(trail.moves(&[fd], true)));
        assert_eq!(trail.keep_for_all(push(0), 0, &body(5_000_000)), 0);
        assert_eq!(trail.bytes(), 5_000_000 + 8 * ITEM_BYTES);
        (1..=7).for_each(|fd| trail.arrived(&[fd]));
        assert_eq!(trail.bytes(), 5_000_000 + ITEM_BYTES);
    }
}
