//! `/live` and `/ready`.

use std::rc::Rc;

use serde_json::json;

use super::answer::{error, reply};
use crate::api::HttpResponse;
use crate::worker::peers::Peers;

/// Answers to `/live`: whoever answers lives.
pub(super) fn live() -> HttpResponse {
    reply(200, &json!({ "live": true }))
}

/// Answers to `/ready`.
pub(super) fn ready(worker: &Rc<Peers>) -> HttpResponse {
    match worker.readiness() {
        Ok(()) => reply(200, &json!({ "ready": true })),
        Err(why) => error(503, "not_ready", &why),
    }
}
