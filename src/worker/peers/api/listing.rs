//! Pages of the open connections.

use std::rc::Rc;

use http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Fault, reply};
use super::paging::{PAGE, Paging};
use super::query::Query;
use super::rooms::{members_page, room, user};
use crate::api::rooms::{Member, Topic};
use crate::api::{HttpResponse, Info};
use crate::ipc::messages::WorkerToManager;
use crate::worker::peers::Peers;

/// Clients that are asked about before others have their turn.
const ASK_TURN: usize = 128;

/// A page: the connections with the smallest numbers above `after`.
pub(super) async fn connections(worker: &Rc<Peers>, parts: &Parts) -> Result<HttpResponse, Fault> {
    let query = Query::of(parts, &["after", "limit", "slow", "room", "uid"])?;
    let mut topics = Vec::new();
    if let Some(name) = query.text("room") {
        topics.push(room(worker, name)?);
    }
    if let Some(uid) = query.text("uid") {
        topics.push(user(worker, uid)?);
    }
    if query.get("slow", "true or false")?.unwrap_or(false) {
        if !topics.is_empty() {
            return Err(Fault::bad("slow lists clients of all rooms and users: leave these out"));
        }
        return slow(worker, &query).await;
    }
    let paging = Paging::of(&query)?;
    if !topics.is_empty() {
        return among(worker, topics, &paging).await;
    }
    let question = worker.ask_list();
    let ask =
        WorkerToManager::ListPage { id: question.id, after: paging.after, limit: paging.limit };
    if !worker.relay(&ask, &[]).is_ok() {
        return Err(Fault::Unavailable("the lane to the manager is full"));
    }
    let Some(page) = question.answer().await else {
        return Err(Fault::Unavailable("the manager did not answer in time"));
    };
    let next = paging.next(page.len(), page.last().map(|info| info.fd));
    let connections: Vec<Value> = page.iter().map(shown).collect();
    Ok(reply(200, &json!({ "connections": connections, "next": next })))
}

/// A page of those that are in all of some topics. Their workers are asked about each.
async fn among(
    worker: &Rc<Peers>,
    topics: Vec<Topic>,
    paging: &Paging,
) -> Result<HttpResponse, Fault> {
    let members = members_page(worker, topics, paging).await?;
    let next = paging.next(members.len(), members.last().map(|member| member.fd));
    let mut asked = Vec::with_capacity(members.len());
    for turn in members.chunks(ASK_TURN) {
        asked.extend(turn.iter().map(|member| worker.info_asking(member.fd)));
        tokio::task::yield_now().await;
    }
    let mut connections = Vec::with_capacity(asked.len());
    for (member, asked) in members.iter().zip(asked) {
        let Ok(info) = asked.answer().await else {
            return Err(Fault::Unavailable("a client's worker did not answer in time"));
        };
        // Who is gone meanwhile is no connection any more.
        connections.extend(info.map(|info| with_uid(&info, member)));
    }
    Ok(reply(200, &json!({ "connections": connections, "next": next })))
}

fn with_uid(info: &Info, member: &Member) -> Value {
    let mut connection = shown(info);
    connection["uid"] = json!(member.uid);
    connection
}

/// The clients that do not read, the one with the most bytes that wait first.
async fn slow(worker: &Rc<Peers>, query: &Query) -> Result<HttpResponse, Fault> {
    if query.text("after").is_some() {
        return Err(Fault::bad("slow has no pages: leave after out"));
    }
    let limit = query.get("limit", "a number from 1 to 100")?.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(Fault::bad("limit is a number from 1 to 100"));
    }
    let question = worker.ask_list();
    let ask = WorkerToManager::ListSlow { id: question.id, limit };
    if !worker.relay(&ask, &[]).is_ok() {
        return Err(Fault::Unavailable("the lane to the manager is full"));
    }
    let Some(mut slow) = question.answer().await else {
        return Err(Fault::Unavailable("not every worker answered in time"));
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
