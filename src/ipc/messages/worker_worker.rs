//! From a worker to another, over a direct link.

use serde::{Deserialize, Serialize};

use super::{ManagerToWorker, Origin, Reach, RequestId, WorkerToManager};
use crate::api::Opcode;
use crate::api::rooms::{Call, Change};
use crate::fd::WorkerId;

/// Worker to worker, over a direct link, whose packets name the worker that sends. As the
/// messages of these names to and from the manager.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerToWorker {
    /// A push to a client of yours. Body: the payload.
    Push {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What it is.
        opcode: Opcode,
    },
    /// Close a client of yours. Body: the reason.
    Close {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// The close code.
        code: u16,
    },
    /// What do you know of this client?
    Info {
        /// Which question.
        id: RequestId,
        /// The client.
        fd: u64,
    },
    /// Leave a client of yours alone when the idle are swept, or do so no more.
    Protect {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// Whether it is left alone.
        on: bool,
    },
    /// Change something of a client of yours.
    Change {
        /// 0: no verdict wanted.
        id: RequestId,
        /// The client.
        fd: u64,
        /// What.
        change: Change,
    },
    /// A message for your members of some topics, or a question about them. Body: the payload, or
    /// the reason of a close.
    Call {
        /// 0: no tally wanted.
        id: RequestId,
        /// What.
        call: Call,
    },
}

impl WorkerToWorker {
    /// The same for the manager to pass on; what is for members, for those of `reach`.
    pub fn by_manager(self, reach: Reach) -> WorkerToManager {
        match self {
            WorkerToWorker::Push { id, fd, opcode } => WorkerToManager::Push { id, fd, opcode },
            WorkerToWorker::Close { id, fd, code } => WorkerToManager::Close { id, fd, code },
            WorkerToWorker::Info { id, fd } => WorkerToManager::Info { id, fd },
            WorkerToWorker::Protect { id, fd, on } => WorkerToManager::Protect { id, fd, on },
            WorkerToWorker::Change { id, fd, change } => {
                WorkerToManager::Change { id, fd, change }
            }
            WorkerToWorker::Call { id, call } => WorkerToManager::Call { id, reach, call },
        }
    }

    /// The same as the manager would have passed it on for `from`.
    pub fn passed_on_for(self, from: WorkerId) -> ManagerToWorker {
        let origin = Origin::Worker(from);
        match self {
            WorkerToWorker::Push { id, fd, opcode } => {
                ManagerToWorker::Push { origin, id, fd, opcode }
            }
            WorkerToWorker::Close { id, fd, code } => {
                ManagerToWorker::Close { origin, id, fd, code, operator: false }
            }
            WorkerToWorker::Info { id, fd } => ManagerToWorker::Info { origin, id, fd },
            WorkerToWorker::Protect { id, fd, on } => {
                ManagerToWorker::Protect { origin, id, fd, on }
            }
            WorkerToWorker::Change { id, fd, change } => {
                ManagerToWorker::Change { origin, id, fd, mark: 0, change }
            }
            WorkerToWorker::Call { id, call } => {
                ManagerToWorker::Call { origin, id, only: Vec::new(), call }
            }
        }
    }
}
