//! The answers of all workers to one question, as they come.

use std::cell::RefCell;
use std::rc::Rc;

use crate::api::rooms::{Member, Tally};
use crate::ipc::messages::RequestId;
use crate::worker::Worker;
use crate::worker::requests::{Question, Waiting};

/// What was answered so far.
#[derive(Debug, Default)]
pub(in crate::worker) struct Gather {
    tally: Tally,
    members: Vec<Member>,
    /// Whether it was told how many are asked.
    is_told: bool,
}

impl Gather {
    /// So many more were asked, of whom some could not be.
    pub fn asked(&mut self, workers: u32, refused: u32, last: bool) {
        self.tally.workers += workers;
        self.tally.refused += refused;
        self.is_told |= last;
    }

    /// One has answered.
    pub fn counted(&mut self, queued: u64, full: u64) {
        self.tally.answered += 1;
        self.tally.queued += queued;
        self.tally.full += full;
    }

    /// One has told some of its members, and perhaps all.
    pub fn listed(&mut self, mut part: Vec<Member>, last: bool) {
        self.members.append(&mut part);
        self.tally.answered += u32::from(last);
    }

    /// Whether nobody is left to answer.
    pub fn is_whole(&self) -> bool {
        self.is_told && self.tally.answered + self.tally.refused >= self.tally.workers
    }

    /// What has come, also where that is not all.
    pub fn take(gather: &RefCell<Gather>) -> (Tally, Vec<Member>) {
        let Gather { mut tally, mut members, is_told } = gather.take();
        // Whoever was to say whom it asked has not.
        tally.workers += u32::from(!is_told);
        members.sort_unstable();
        members.dedup_by_key(|member| member.fd);
        (tally, members)
    }
}

impl Worker {
    /// Begins to gather answers. The question is answered when all are there.
    pub(in crate::worker) fn ask_gather(self: &Rc<Self>) -> (Question<()>, Rc<RefCell<Gather>>) {
        let gather = Rc::<RefCell<Gather>>::default();
        let kept = Rc::clone(&gather);
        (self.ask(|sender| Waiting::Gather(sender, kept)), gather)
    }

    /// Something came for those that are gathered under this number, if they still are.
    pub(in crate::worker) fn gathered(&self, id: RequestId, add: impl FnOnce(&mut Gather)) {
        let mut waiting = self.requests.waiting.borrow_mut();
        let Some(Waiting::Gather(_, gather)) = waiting.get(&id) else { return };
        let mut gather = gather.borrow_mut();
        add(&mut gather);
        let is_whole = gather.is_whole();
        drop(gather);
        if is_whole && let Some(Waiting::Gather(sender, _)) = waiting.remove(&id) {
            // Who asked may have given up.
            let _ = sender.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_when_all_that_were_asked_have_answered() {
        let mut gather = Gather::default();
        gather.asked(1, 0, false);
        gather.counted(3, 0);
        // The manager may have asked others.
        assert!(!gather.is_whole());
        gather.asked(2, 1, true);
        assert!(!gather.is_whole());
        gather.counted(4, 1);
        assert!(gather.is_whole());
        let (tally, _) = Gather::take(&RefCell::new(gather));
        assert_eq!((tally.queued, tally.full), (7, 1));
        assert_eq!((tally.workers, tally.answered, tally.refused), (3, 2, 1));
    }

    #[test]
    fn silence_is_told_as_that() {
        let mut gather = Gather::default();
        gather.asked(1, 0, false);
        gather.counted(3, 0);
        let (tally, _) = Gather::take(&RefCell::new(gather));
        assert_eq!((tally.workers, tally.answered), (2, 1));
    }
}
