//! Pages of the open connections.

use std::rc::Rc;

use http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Fault, reply};
use super::query::Query;
use crate::api::{HttpResponse, Info};
use crate::ipc::messages::WorkerToManager;
use crate::worker::peers::Peers;

/// Connections on a page unless told.
const PAGE: u16 = 100;
/// Connections on a page at the most.
const PAGE_MAX: u16 = 1000;

/// A page: the connections with the smallest numbers above `after`.
pub(super) async fn connections(worker: &Rc<Peers>, parts: &Parts) -> Result<HttpResponse, Fault> {
    let query = Query::of(parts, &["after", "limit", "slow"])?;
    if query.get("slow", "true or false")?.unwrap_or(false) {
        return slow(worker, &query).await;
    }
    let after = query.get("after", "a client number")?.unwrap_or(0);
    let limit = query.get("limit", "a number from 1 to 1000")?.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Fault::bad(format!("limit is {limit}; write a number from 1 to {PAGE_MAX}")));
    }
    let question = worker.ask_list();
    let ask = WorkerToManager::ListPage { id: question.id, after, limit };
    if !worker.relay(&ask, &[]).is_ok() {
        return Err(Fault::Unavailable("the lane to the manager is full"));
    }
    let Some(page) = question.answer().await else {
        return Err(Fault::Unavailable("the manager did not answer in time"));
    };
    let next = page.last().filter(|_| page.len() == usize::from(limit)).map(|info| info.fd);
    let connections: Vec<Value> = page.iter().map(shown).collect();
    Ok(reply(200, &json!({ "connections": connections, "next": next })))
}

/// The clients that do not read, the one with the most bytes that wait first.
async fn slow(worker: &Rc<Peers>, query: &Query) -> Result<HttpResponse, Fault> {
    if query.text("after").is_some() {
        return Err(Fault::bad("slow has no pages: leave after out"));
    }
    let limit = query.get("limit", "a number from 1 to 100")?.unwrap_or(PAGE).min(PAGE);
    let question = worker.ask_list();
    let ask = WorkerToManager::ListSlow { id: question.id, limit };
    if !worker.relay(&ask, &[]).is_ok() {
        return Err(Fault::Unavailable("the lane to the manager is full"));
    }
    let Some(mut slow) = question.answer().await else {
        return Err(Fault::Unavailable("the manager did not answer in time"));
    };
    slow.sort_by_key(|info| std::cmp::Reverse(info.queued_bytes));
    Ok(reply(200, &json!({ "connections": slow, "next": null })))
}

/// A connection as a list shows it; `/v1/connections/{fd}` tells more.
fn shown(info: &Info) -> Value {
    json!({
        "fd": info.fd,
        "worker": info.worker,
        "peer": info.peer,
        "connected_at": info.connected_at,
        "idle_ms": info.idle_ms,
    })
}
