//! What waits for answers of workers: control commands, and questions of other nodes.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::message::Reply;
use crate::api::rooms::Member;
use crate::ipc::gather::Gather;
use crate::ipc::messages::RequestId;

/// Bytes that the answers of all workers and nodes to all of them may hold together.
const GATHERED_BYTES_MAX: usize = 48 << 20;

/// All that wait, each under a number of its own.
pub struct Commands {
    /// Those that wait for one answer.
    asked: HashMap<RequestId, oneshot::Sender<Reply>>,
    /// Those that wait for the answers of several workers.
    gathering: Gatherings,
    last: RequestId,
}

impl Commands {
    /// None yet, for the manager of this epoch: what a manager before it asked has other numbers.
    pub fn new(epoch: u32) -> Commands {
        let (asked, gathering) = (HashMap::new(), Gatherings::default());
        Commands { asked, gathering, last: u64::from(epoch) << 32 }
    }

    /// A number for a question, and where its answer will come.
    pub fn ask(&mut self) -> (RequestId, oneshot::Receiver<Reply>) {
        self.last += 1;
        let (sender, receiver) = oneshot::channel();
        self.asked.insert(self.last, sender);
        (self.last, receiver)
    }

    /// Nobody waits for the answer to a question any more.
    pub fn forget(&mut self, id: RequestId) {
        self.asked.remove(&id);
    }

    /// A number for a question to several workers; the receiver is told when all have answered.
    pub fn begin_gather(&mut self, gather: Gather) -> (RequestId, oneshot::Receiver<()>) {
        self.last += 1;
        (self.last, self.gathering.begin(self.last, gather))
    }

    /// Something came for a question to several, if that is still waited for.
    pub fn gathered(&mut self, id: RequestId, add: impl FnOnce(&mut Gather)) {
        self.gathering.add(id, add);
    }

    /// What has come for a question to several, which nobody waits for any more.
    pub fn end_gather(&mut self, id: RequestId) -> Gather {
        self.gathering.end(id)
    }

    /// A worker, or another node, has answered.
    pub fn answer(&mut self, id: RequestId, reply: Reply) {
        match reply {
            Reply::Tally { queued, full } => {
                self.gathering.add(id, |it| it.counted(queued, full));
            }
            Reply::Members { part, last } => {
                if self.has_room(id, part.iter().map(Member::weight).sum()) {
                    self.gathering.add(id, |it| it.listed(part, last));
                }
            }
            Reply::Rooms { part, last } => {
                if self.has_room(id, part.iter().map(|it| it.0.weight()).sum()) {
                    self.gathering.add(id, |it| it.named(part, last));
                }
            }
            Reply::Verdict(_) | Reply::Info(_) | Reply::Slow(_) => {
                if let Some(asker) = self.asked.remove(&id) {
                    // A command that has given up waits no more.
                    let _ = asker.send(reply);
                }
            }
        }
    }

    /// Whether there is room for a part of an answer of so many bytes. Where there is none, the
    /// part is dropped.
    fn has_room(&mut self, id: RequestId, bytes: usize) -> bool {
        let held = self.gathering.bytes();
        let fits = held + bytes <= GATHERED_BYTES_MAX;
        if !fits {
            tracing::error!(held, "a part of a list is dropped: no room for it");
            self.gathering.add(id, Gather::lost_part);
        }
        fits
    }
}

/// Answers of workers to a control command, and who waits until all are there.
struct Gathering {
    /// The answers so far.
    gather: Gather,
    /// Told when all are there.
    whole: Option<oneshot::Sender<()>>,
}

/// Those of all control commands, and of calls of other nodes.
#[derive(Default)]
struct Gatherings {
    by_id: HashMap<RequestId, Gathering>,
    /// What all of them hold.
    bytes: usize,
}

impl Gatherings {
    /// Begins to gather; the answer is told when all are there.
    fn begin(&mut self, id: RequestId, gather: Gather) -> oneshot::Receiver<()> {
        let (whole, receiver) = oneshot::channel();
        self.by_id.insert(id, Gathering { gather, whole: Some(whole) });
        receiver
    }

    /// Something came for one of them, if that still gathers.
    fn add(&mut self, id: RequestId, add: impl FnOnce(&mut Gather)) {
        let Some(gathering) = self.by_id.get_mut(&id) else { return };
        let before = gathering.gather.bytes();
        add(&mut gathering.gather);
        self.bytes = self.bytes - before + gathering.gather.bytes();
        if gathering.gather.is_whole()
            && let Some(whole) = gathering.whole.take()
        {
            // A command that has given up waits no more.
            let _ = whole.send(());
        }
    }

    /// Ends one of them; the answer is what has come.
    fn end(&mut self, id: RequestId) -> Gather {
        let gathering = self.by_id.remove(&id);
        let gather = gathering.map(|gathering| gathering.gather).unwrap_or_default();
        self.bytes -= gather.bytes();
        gather
    }

    /// Bytes that all of them hold.
    fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rooms::Topic;

    #[test]
    fn what_all_gather_is_counted_and_what_has_ended_is_not() {
        let mut gatherings = Gatherings::default();
        let room = |n: u64| (Topic::room(&format!("r{n}")), 1);
        let part = || -> Vec<(Topic, u64)> { (0..9).map(room).collect() };
        let _receivers = [1, 2].map(|id| gatherings.begin(id, Gather::default()));
        gatherings.add(1, |it| it.named(part(), true));
        let one = gatherings.bytes();
        gatherings.add(1, |it| it.named(part(), true));
        assert_eq!((one > 0, gatherings.bytes()), (true, one), "the same rooms again");
        gatherings.add(2, |it| it.named(part(), true));
        assert_eq!(gatherings.bytes(), 2 * one);
        gatherings.end(1);
        gatherings.add(1, |it| it.named(part(), true));
        gatherings.end(1);
        assert_eq!(gatherings.bytes(), one, "nobody gathers for what has ended");
        gatherings.end(2);
        assert_eq!(gatherings.bytes(), 0);
    }
}
