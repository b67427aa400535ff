//! The answers of several workers to one question, as they come.

use std::collections::BTreeMap;

use crate::api::rooms::{EngineWord, Member, Nodes, Tally, Topic};

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Gather {
    tally: Tally,
    members: Vec<Member>,
    rooms: BTreeMap<Topic, u64>,
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
        self.tally.queued += queued;
        self.tally.full += full;
        if let Some(nodes) = &mut self.tally.nodes {
            nodes.answered += u32::from(whole);
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
