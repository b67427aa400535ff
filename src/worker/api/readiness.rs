//! Whether balancers are to send clients here: the same answer at `/ready` and, for the public, at
//! `health_path`.

use std::rc::Rc;

use serde_json::json;

use super::answer::{error, reply};
use crate::api::HttpResponse;
use crate::ipc::scoreboard::Fact;
use crate::worker::Worker;
use crate::worker::life::Phase;

impl Worker {
    /// Whether the server can take a client more, or why not.
    pub(in crate::worker) fn readiness(&self) -> Result<(), String> {
        // A master that has told nothing yet has nothing against it.
        let fact = |fact, otherwise| self.api.fact(fact).unwrap_or(otherwise);
        if fact(Fact::Started, 1) == 0 {
            return Err("starting".to_owned());
        }
        if fact(Fact::Draining, 0) == 1 {
            return Err("draining".to_owned());
        }
        if self.phase.get() == Phase::Leaving {
            return Err("stopping".to_owned());
        }
        let limit = self.settings.config.max_connection as u64;
        let others = self.board.others.borrow().clients(limit);
        if limit > 0 && self.board.row.clients().saturating_add(others) >= limit {
            return Err("over capacity: max_connection is reached".to_owned());
        }
        self.handler.health()
    }
}

/// Answers to `/live`: whoever answers lives.
pub(super) fn live() -> HttpResponse {
    reply(200, &json!({ "live": true }))
}

/// Answers to `/ready`.
pub(super) fn ready(worker: &Rc<Worker>) -> HttpResponse {
    match worker.readiness() {
        Ok(()) => reply(200, &json!({ "ready": true })),
        Err(why) => error(503, "not_ready", &why),
    }
}
