//! The answers of several workers to one question, as they come.

use std::collections::BTreeMap;

use crate::api::rooms::{Member, Tally, Topic};

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Gather {
    tally: Tally,
    members: Vec<Member>,
    rooms: BTreeMap<Topic, u64>,
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

    /// One has told some of its rooms with how many members each has there, and perhaps all.
    pub fn named(&mut self, part: Vec<(Topic, u64)>, last: bool) {
        for (room, count) in part {
            *self.rooms.entry(room).or_default() += count;
        }
        self.tally.answered += u32::from(last);
    }

    /// Whether nobody is left to answer.
    pub fn is_whole(&self) -> bool {
        self.is_told && self.tally.answered + self.tally.refused >= self.tally.workers
    }

    /// What has come, also where that is not all.
    pub fn finish(self) -> (Tally, Vec<Member>, BTreeMap<Topic, u64>) {
        let Gather { mut tally, mut members, rooms, is_told } = self;
        // Whoever was to say whom it asked has not.
        tally.workers += u32::from(!is_told);
        members.sort_unstable();
        members.dedup_by_key(|member| member.fd);
        (tally, members, rooms)
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
        let (tally, ..) = gather.finish();
        assert_eq!((tally.queued, tally.full), (7, 1));
        assert_eq!((tally.workers, tally.answered, tally.refused), (3, 2, 1));
    }

    #[test]
    fn silence_is_told_as_that() {
        let mut gather = Gather::default();
        gather.asked(1, 0, false);
        gather.counted(3, 0);
        let (tally, ..) = gather.finish();
        assert_eq!((tally.workers, tally.answered), (2, 1));
    }
}
