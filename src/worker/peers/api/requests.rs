//! The requests of `/v1`, one after the other.

use std::rc::Rc;

use bytes::Bytes;
use data_encoding::BASE64;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Fault, fault, raw, reply, told};
use super::message::{closing, except, message, plain};
use super::object::Object;
use super::query::{Query, number};
use super::route::{Name, Route};
use super::{OPEN_API, metrics, readiness, rooms};
use crate::api::{HttpResponse, Message, Opcode, Verdict};
use crate::fd::Fd;
use crate::worker::peers::Peers;

/// Messages in one batch.
const BATCH_MAX: usize = 1000;
/// Of which so many are pushed before clients have their turn.
const BATCH_TURN: usize = 128;
/// Why nothing is asked of a client of another node.
const CUT_OFF: &str = "the client is another node's, and the engine is away; nothing was done";

/// What the body of `/v1/push` is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    messages: Vec<Object<Item>>,
}

/// A message of a batch: `text` or `binary`, which is base64.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    fd: Fd,
    text: Option<String>,
    binary: Option<String>,
}

/// What became of a message of a batch.
#[derive(Debug, Serialize)]
struct Outcome {
    fd: Fd,
    verdict: Verdict,
}

/// Does what is asked.
pub(super) async fn answer(
    worker: &Rc<Peers>,
    route: Route,
    parts: &Parts,
    body: Bytes,
) -> HttpResponse {
    let done = match route.endpoint.name {
        Name::Live => Ok(readiness::live()),
        Name::Ready => Ok(readiness::ready(worker)),
        Name::Metrics => Ok(metrics::answer(worker).await),
        Name::OpenApi => Ok(raw(200, Bytes::from_static(OPEN_API.as_bytes()))),
        Name::Connections => super::listing::connections(worker, parts).await,
        Name::Info => info(worker, &route, parts).await,
        Name::Push => push(worker, &route, parts, body).await,
        Name::Close => close(worker, &route, parts).await,
        Name::Batch => batch(worker, parts, body).await,
        Name::Broadcast => broadcast(worker, parts, body),
        Name::Publish => rooms::publish(worker, parts, body).await,
        Name::UserInfo => rooms::user_info(worker, &route, parts).await,
        Name::UserPush => rooms::push_user(worker, &route, parts, body).await,
        Name::UserClose => rooms::close_user(worker, &route, parts).await,
        Name::Rooms => rooms::rooms(worker, parts).await,
        Name::Members => rooms::members(worker, &route, parts).await,
    };
    done.unwrap_or_else(fault)
}

/// The client that a path names. That one of another node cannot be asked while the engine is away
/// is said before anything is done, so that whoever asks may ask again.
fn client(worker: &Peers, route: &Route) -> Result<Fd, Fault> {
    let number = number(&route.segment).and_then(|number| Fd::try_from(number).ok());
    match number {
        None => Err(Fault::bad("the path names no client number")),
        Some(fd) if worker.is_cut_off(fd) => Err(Fault::Unavailable(CUT_OFF)),
        Some(fd) => Ok(fd),
    }
}

async fn info(worker: &Rc<Peers>, route: &Route, parts: &Parts) -> Result<HttpResponse, Fault> {
    Query::of(parts, &[])?;
    match worker.info_asking(client(worker, route)?).answer().await {
        Ok(Some(info)) => Ok(reply(200, &json!(info))),
        Ok(None) => Err(Fault::Verdict(Verdict::Gone)),
        // To ask again does no harm.
        Err(_) => Err(Fault::Unavailable("the client's worker did not answer in time")),
    }
}

async fn push(
    worker: &Rc<Peers>,
    route: &Route,
    parts: &Parts,
    body: Bytes,
) -> Result<HttpResponse, Fault> {
    Query::of(parts, &[])?;
    let (fd, message) = (client(worker, route)?, message(parts, body)?);
    let pushed = worker.push_asking(fd, message.opcode, &message.data);
    Ok(told(pushed.verdict().await))
}

async fn close(worker: &Rc<Peers>, route: &Route, parts: &Parts) -> Result<HttpResponse, Fault> {
    let (fd, query) = (client(worker, route)?, Query::of(parts, &["code", "reason"])?);
    let (code, reason) = closing(&query)?;
    Ok(told(worker.close_told(fd, code, reason).await))
}

async fn batch(worker: &Rc<Peers>, parts: &Parts, body: Bytes) -> Result<HttpResponse, Fault> {
    Query::of(parts, &[])?;
    plain(parts)?;
    let Object(batch): Object<Batch> = serde_json::from_slice(&body)
        .map_err(|error| Fault::bad(format!("not a batch of messages: {error}")))?;
    if batch.messages.len() > BATCH_MAX {
        return Err(Fault::bad(format!("a batch has at most {BATCH_MAX} messages")));
    }
    // All of it is read before any of it is done.
    let mut messages = Vec::with_capacity(batch.messages.len());
    for (index, Object(item)) in batch.messages.into_iter().enumerate() {
        messages.push((item.fd, item.message(index)?));
    }
    let mut pushed = Vec::with_capacity(messages.len());
    for turn in messages.chunks(BATCH_TURN) {
        for (fd, message) in turn {
            pushed.push((*fd, worker.push_asking(*fd, message.opcode, &message.data)));
        }
        tokio::task::yield_now().await;
    }
    let mut results = Vec::with_capacity(pushed.len());
    for (fd, pushed) in pushed {
        results.push(Outcome { fd, verdict: pushed.verdict().await });
    }
    Ok(reply(200, &json!({ "results": results })))
}

impl Item {
    fn message(self, index: usize) -> Result<Message<'static>, Fault> {
        let bad = |why: &str| Fault::bad(format!("message {index} {why}"));
        match (self.text, self.binary) {
            (Some(text), None) => Ok(Message { opcode: Opcode::Text, data: text.into() }),
            (None, Some(text)) => {
                let data = BASE64.decode(text.as_bytes()).map_err(|_| bad("is no base64"))?;
                Ok(Message { opcode: Opcode::Binary, data: data.into() })
            }
            _ => Err(bad("needs text, or binary in base64")),
        }
    }
}

fn broadcast(worker: &Rc<Peers>, parts: &Parts, body: Bytes) -> Result<HttpResponse, Fault> {
    let except = except(&Query::of(parts, &["except"])?)?;
    match worker.broadcast_all(message(parts, body)?, except) {
        // The clients of this worker had it: whoever repeats this would tell them twice.
        Verdict::Full => Err(Fault::Verdict(Verdict::Unknown)),
        // The clients of this node have it, so this is done as far as it can be.
        Verdict::LocalOnly => Ok(reply(200, &json!({ "verdict": Verdict::LocalOnly }))),
        verdict => Ok(told(verdict)),
    }
}
