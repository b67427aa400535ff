//! What a pass is to bring about, and what became of it.

use crate::fd::WorkerId;
use crate::ipc::messages::{Left, PassId};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// What is sent to these two waits from now on, and `from` gives a pass.
    Give {
        /// The old worker.
        from: WorkerId,
        /// The new worker.
        to: WorkerId,
        /// Which pass.
        pass: PassId,
    },
    /// Ask the new worker what it has of the pass.
    Take {
        /// The new worker.
        to: WorkerId,
        /// Which pass.
        pass: PassId,
    },
    /// Tell the old worker what was taken: it takes the rest back. Once the kernel has that
    /// message, [`Passes::told`](super::pass::Passes::told) is due.
    Settle {
        /// The old worker.
        from: WorkerId,
        /// Which pass.
        pass: PassId,
        /// What the new worker has.
        taken: Vec<u64>,
    },
    /// These are `to`'s from now on.
    Route {
        /// The new worker.
        to: WorkerId,
        /// The clients.
        fds: Vec<u64>,
    },
    /// What waited goes out.
    Release {
        /// Both ends of the pass, as far as they live; nobody where a new manager has settled, for
        /// which everything has waited.
        ends: Vec<WorkerId>,
        /// Those that have clients which are not served before `Own`, and these clients.
        arriving: Vec<(WorkerId, Vec<u64>)>,
    },
    /// What this worker has of the pass is its own.
    Own {
        /// Which worker.
        id: WorkerId,
        /// Which pass.
        pass: PassId,
    },
    /// The pass is over.
    Passed(Passed),
    /// All before this is done: [`Passes::go_on`](super::pass::Passes::go_on) is due.
    GoOn,
}

/// What became of a pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// The old worker.
    pub from: WorkerId,
    /// How many moved.
    pub moved: u64,
    /// Those that the new worker could not take, although it lives.
    pub refused: Vec<u64>,
    /// Whether the new worker died, so that all of them went back.
    pub went_back: bool,
    /// What the old worker has left; `None` if it died.
    pub left: Option<Left>,
}

/// What to do with connections that an old worker gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// They go to this worker.
    To(WorkerId),
    /// The new worker is dead: they will go back.
    ToNobody,
    /// The manager that asked for them is dead. The old worker has its own descriptors, and says
    /// again what it has given. What it sent to all before this, these clients have had.
    Outdated,
}
