//! Rooms and users: a message to all of one, who is there, and the end of a user's connections.

use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Fault, reply, tallied};
use super::message::{closing, except, message};
use super::paging::Paging;
use super::query::Query;
use super::route::Route;
use crate::api::HttpResponse;
use crate::api::rooms::{Act, Call, EngineWord, Member, Publish, TOPICS_MAX, Tally, Topic};
use crate::fd::Fd;
use crate::worker::peers::Peers;

/// Sends a message to the members of some rooms.
pub(super) async fn publish(
    worker: &Rc<Peers>,
    parts: &Parts,
    body: Bytes,
) -> Result<HttpResponse, Fault> {
    let query = Query::with_several(parts, &["room", "except"], "room")?;
    let topics: Result<Vec<_>, _> = query.all("room").map(|name| room(worker, name)).collect();
    let topics = topics?;
    if !(1..=TOPICS_MAX).contains(&topics.len()) {
        return Err(Fault::bad(format!("name 1 to {TOPICS_MAX} rooms: ?room=NAME")));
    }
    let publish = Publish::new(topics, message(parts, body)?);
    let publish = Publish { except: except(&query)?, ..publish };
    published(worker, publish, false).await
}

/// Sends a message to the connections of a user.
pub(super) async fn push_user(
    worker: &Rc<Peers>,
    route: &Route,
    parts: &Parts,
    body: Bytes,
) -> Result<HttpResponse, Fault> {
    let query = Query::of(parts, &["except"])?;
    let publish = Publish::new(vec![user(worker, &route.segment)?], message(parts, body)?);
    let publish = Publish { except: except(&query)?, ..publish };
    // The one that is left out may be the only connection, and then the user is there.
    let zeros_are_gone = publish.except.is_none();
    published(worker, publish, zeros_are_gone).await
}

async fn published(
    worker: &Rc<Peers>,
    publish: Publish,
    to_user: bool,
) -> Result<HttpResponse, Fault> {
    let tally = worker.publish_confirmed(publish).await.map_err(Fault::Verdict)?;
    Ok(tallied(&tally, to_user))
}

/// Closes every connection of a user.
pub(super) async fn close_user(
    worker: &Rc<Peers>,
    route: &Route,
    parts: &Parts,
) -> Result<HttpResponse, Fault> {
    let query = Query::of(parts, &["code", "reason"])?;
    let (code, reason) = closing(&query)?;
    let topics = vec![user(worker, &route.segment)?];
    let call = Call { topics, except: 0, act: Act::Close { code, operator: false } };
    Ok(tallied(&worker.count_all(call, reason).await, true))
}

/// A page of the connections of a user.
pub(super) async fn user_info(
    worker: &Rc<Peers>,
    route: &Route,
    parts: &Parts,
) -> Result<HttpResponse, Fault> {
    let page = members_of(worker, vec![user(worker, &route.segment)?], parts).await?;
    let fds: Vec<_> = page.0.iter().map(|member| member.fd).collect();
    Ok(reply(200, &json!({ "uid": route.segment, "connections": fds, "next": page.1 })))
}

/// A page of the members of a room.
pub(super) async fn members(
    worker: &Rc<Peers>,
    route: &Route,
    parts: &Parts,
) -> Result<HttpResponse, Fault> {
    let page = members_of(worker, vec![room(worker, &route.segment)?], parts).await?;
    Ok(reply(200, &json!({ "room": route.segment, "members": page.0, "next": page.1 })))
}

async fn members_of(
    worker: &Rc<Peers>,
    topics: Vec<Topic>,
    parts: &Parts,
) -> Result<(Vec<Member>, Option<Fd>), Fault> {
    let paging = Paging::of(&Query::of(parts, &["after", "limit"])?)?;
    let members = members_page(worker, topics, &paging).await?;
    let next = paging.next(members.len(), members.last().map(|member| member.fd));
    Ok((members, next))
}

/// A page of those that are in all of some topics.
pub(super) async fn members_page(
    worker: &Rc<Peers>,
    topics: Vec<Topic>,
    paging: &Paging,
) -> Result<Vec<Member>, Fault> {
    let asked = worker.members_page(topics, paging.after, u32::from(paging.limit));
    let (tally, mut members) = asked.await;
    whole(&tally)?;
    members.truncate(usize::from(paging.limit));
    Ok(members)
}

/// A page of the rooms, by their names.
pub(super) async fn rooms(worker: &Rc<Peers>, parts: &Parts) -> Result<HttpResponse, Fault> {
    let query = Query::of(parts, &["after", "limit"])?;
    let limit = Paging::limit(&query)?;
    let (tally, rooms) = worker.rooms_page(query.text("after"), u32::from(limit)).await;
    whole(&tally)?;
    let next = rooms.last().filter(|_| rooms.len() == usize::from(limit));
    let next = next.map(|(room, _)| room.name());
    let shown =
        |(room, members): &(Topic, u64)| json!({ "room": room.name(), "members": members });
    let shown: Vec<Value> = rooms.iter().map(shown).collect();
    Ok(reply(200, &json!({ "rooms": shown, "next": next })))
}

/// A list without those of a worker that is silent would say too little.
fn whole(tally: &Tally) -> Result<(), Fault> {
    match tally.is_whole() {
        true => Ok(()),
        // To ask again does no harm.
        false if tally.engine == Some(EngineWord::Away) => {
            Err(Fault::Unavailable("the engine is away: other nodes were not asked"))
        }
        false if tally.answered < tally.workers => {
            Err(Fault::Unavailable("a worker did not answer in time"))
        }
        false => Err(Fault::Unavailable("another node did not answer in time")),
    }
}

/// The room of a name.
pub(super) fn room(worker: &Peers, name: &str) -> Result<Topic, Fault> {
    bounded(name, "the name of a room", worker.settings.config.room_name_max).map(Topic::room)
}

/// The user of a uid.
pub(super) fn user(worker: &Peers, uid: &str) -> Result<Topic, Fault> {
    bounded(uid, "a uid", worker.settings.config.uid_max).map(Topic::user)
}

fn bounded<'a>(name: &'a str, what: &str, max: usize) -> Result<&'a str, Fault> {
    match name.len() <= max {
        true => Ok(name),
        false => Err(Fault::bad(format!("{what} has at most {max} bytes"))),
    }
}
