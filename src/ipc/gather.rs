//! The answers of several workers to one question, as they come.

use std::collections::BTreeMap;

use crate::api::rooms::{EngineWord, MEMBERS_MAX, Member, Nodes, Tally, Topic};

/// Bytes of members that are kept of one question: some hundred thousand.
const BYTES_MAX: usize = 48 << 20;

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Gather {
    tally: Tally,
    members: Vec<Member>,
    rooms: BTreeMap<Topic, u64>,
    /// What both hold.
    bytes: usize,
    /// Whether there was no room for some of what was told.
    is_over: bool,
    /// Whether it was told how many are asked.
    is_told: bool,
    /// Whether other nodes are asked as well, and it was not told yet how many.
    waits_for_nodes: bool,
}

impl Gather {
    /// Of one server, or of all nodes of a cluster.
    pub fn of(cluster: bool) -> Gather {
        let mut gather = Gather { waits_for_nodes: cluster, ..Gather::default() };
        if cluster {
            // What is not said is not known.
            gather.tally.nodes = Some(Nodes::default());
            gather.tally.engine = Some(EngineWord::Away);
        }
        gather
    }

    /// So many other nodes were asked; `None`: nobody knows.
    pub fn nodes_asked(&mut self, nodes: Option<u32>, away: bool) {
        self.waits_for_nodes = false;
        let answered = self.tally.nodes.map_or(0, |nodes| nodes.answered);
        self.tally.nodes = Some(Nodes { asked: nodes, answered });
        self.tally.engine = Some(if away { EngineWord::Away } else { EngineWord::Ok });
    }

    /// A node has answered, and `whole` says whether for all of its workers.
    pub fn node_counted(&mut self, queued: u64, full: u64, whole: bool) {
        self.tally.queued = self.tally.queued.saturating_add(queued);
        self.tally.full = self.tally.full.saturating_add(full);
        if let Some(nodes) = &mut self.tally.nodes {
            nodes.answered += u32::from(whole && !self.is_over);
        }
    }

    /// So many more were asked, of whom some could not be.
    pub fn asked(&mut self, workers: u32, refused: u32, last: bool) {
        self.tally.workers += workers;
        self.tally.refused += refused;
        self.is_told |= last;
    }

    /// One has answered.
    pub fn counted(&mut self, queued: u64, full: u64) {
        self.tally.answered += 1;
        self.tally.queued = self.tally.queued.saturating_add(queued);
        self.tally.full = self.tally.full.saturating_add(full);
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// There was no room for a part: whoever told it has not answered.
    pub fn lost_part(&mut self) {
        self.is_over = true;
    }

    /// One has told some of its members, and perhaps all. What there is no room for is dropped,
    /// and has not been answered.
    pub fn listed(&mut self, mut part: Vec<Member>, last: bool) {
        let bytes: usize = part.iter().map(Member::weight).sum();
        self.is_over |= self.bytes + bytes > BYTES_MAX;
        if self.is_over {
            return;
        }
        self.bytes += bytes;
        self.members.append(&mut part);
        self.tally.answered += u32::from(last);
    }

    /// One has told some of its rooms with how many members each has there, and perhaps all.
    pub fn named(&mut self, part: Vec<(Topic, u64)>, last: bool) {
        for (room, count) in part {
            let weight = room.weight();
            let known = self.rooms.entry(room).or_insert_with(|| {
                self.bytes += weight;
                0
            });
            *known = known.saturating_add(count);
        }
        // Nobody asks for a longer page, and a page has the smallest names.
        while self.rooms.len() > MEMBERS_MAX {
            self.bytes -= self.rooms.pop_last().map_or(0, |(room, _)| room.weight());
        }
        self.tally.answered += u32::from(last && !self.is_over);
    }

    /// Whether nobody is left to answer.
    pub fn is_whole(&self) -> bool {
        let nodes = self.tally.nodes.unwrap_or_default();
        let nodes_are = nodes.asked.is_none_or(|asked| nodes.answered >= asked);
        let workers_are = self.tally.answered + self.tally.refused >= self.tally.workers;
        self.is_told && workers_are && nodes_are && !self.waits_for_nodes
    }

    /// What has come, also where that is not all.
    pub fn finish(self) -> (Tally, Vec<Member>, BTreeMap<Topic, u64>) {
        let Gather { mut tally, mut members, rooms, is_told, .. } = self;
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
    use crate::fd::{Fd, Slot};

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
    fn what_workers_say_without_end_is_not_kept() {
        let mut gather = Gather::default();
        gather.asked(1, 0, true);
        let member = |fd| Member::new(Fd::new(0, Slot(0), fd).unwrap(), Some("u".repeat(200)));
        for part in 0..4_000 {
            gather.listed((0..100).map(|n| member(part * 100 + n + 1)).collect(), false);
            let rooms = (0..10).map(|n| (Topic::room(&format!("{:06}", part * 10 + n)), 1));
            gather.named(rooms.collect(), false);
        }
        assert!(gather.bytes() < BYTES_MAX + (8 << 20), "{}", gather.bytes());
        // What is dropped is not answered either.
        let was = gather.tally.answered;
        gather.listed((1..1000).map(member).collect(), true);
        assert_eq!(gather.tally.answered, was);
        let (_, members, rooms) = gather.finish();
        assert!((100_000..400_000).contains(&members.len()), "{}", members.len());
        assert_eq!(rooms.len(), MEMBERS_MAX);
        assert!(rooms.contains_key(&Topic::room("000000")), "the smallest names");
    }

    #[test]
    fn of_whom_a_part_was_lost_nobody_has_answered() {
        let mut gather = Gather::of(true);
        gather.asked(1, 0, true);
        gather.nodes_asked(Some(1), false);
        gather.lost_part();
        gather.named(Vec::new(), true);
        gather.listed(Vec::new(), true);
        gather.node_counted(0, 0, true);
        assert!(!gather.is_whole());
        let (tally, ..) = gather.finish();
        assert_eq!((tally.answered, tally.nodes.unwrap().answered), (0, 0));
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
