//! The requests about rooms, users and sessions.

use super::{Client, Hangup, check_close};
use crate::api::Verdict;
use crate::api::rooms::{Act, Call, Change, TOPICS_MAX, Tally, Topic};
use crate::fd::Fd;
use crate::ipc::control::{Answer, BodyKind, Room, Rooms, line};
use crate::ipc::messages::Origin;
use crate::ipc::scoreboard::Counter;
use crate::manager::cluster::Cluster;
use crate::manager::gathering::{self, Gathered};
use crate::manager::relay::message::Routed;

/// Why a request that names no room and no user, or both, is refused.
const ONE_OF_TWO: &str = "name a room or a uid, and not both";
/// Lines of a list that are sent in one piece.
const LINES: usize = 256;

impl Client {
    /// The nodes of the cluster.
    pub(super) async fn nodes(&mut self) -> Result<Answer, Hangup> {
        let reports = self.manager.borrow().exchange.cluster.as_ref().map(Cluster::node_reports);
        match reports {
            Some(reports) => {
                self.lines(&reports).await?;
                let mut answer = listed(reports.len(), None);
                let away =
                    self.manager.borrow().exchange.cluster.as_ref().and_then(Cluster::engine_away);
                if let Some(why) = away {
                    answer.ok = false;
                    answer.verdict = Some(Verdict::Unknown);
                    answer.error =
                        Some(format!("the engine is away ({why}): this is what was known before"));
                }
                Ok(answer)
            }
            None => Ok(Answer::failed("this server is in no cluster: cluster.engine is empty")),
        }
    }

    pub(super) async fn rooms(&mut self, here: bool) -> Result<Answer, Hangup> {
        let (mut after, mut count, mut short) = (None, 0, None);
        loop {
            let (tally, page) = gathering::rooms(&self.manager, after.as_ref(), here).await;
            short = short.or(Some(tally).filter(|tally| !tally.is_whole()));
            let rooms = page
                .iter()
                .map(|(room, members)| Room { room: room.name().to_owned(), members: *members });
            self.lines(&rooms.collect::<Vec<_>>()).await?;
            count += page.len();
            if page.len() < gathering::ROOMS_PAGE {
                return Ok(listed(count, short.as_ref()));
            }
            after = page.into_iter().next_back().map(|(room, _)| room);
        }
    }

    pub(super) async fn members(
        &mut self,
        room: Option<String>,
        uid: Option<String>,
        here: bool,
    ) -> Result<Answer, Hangup> {
        let Some(topic) = topic(room.as_deref(), uid.as_deref()) else {
            return Ok(Answer::failed(ONE_OF_TWO));
        };
        let Gathered { tally, members, .. } =
            gathering::members(&self.manager, vec![topic], here).await;
        self.lines(&members).await?;
        Ok(listed(members.len(), Some(&tally)))
    }

    async fn lines(&mut self, items: &[impl serde::Serialize]) -> Result<(), Hangup> {
        for part in items.chunks(LINES) {
            let lines: String = part.iter().map(line).collect();
            self.say(&lines).await?;
        }
        Ok(())
    }

    pub(super) async fn publish(
        &mut self,
        (room, uid): (Option<Rooms>, Option<String>),
        (opcode, bytes): (BodyKind, usize),
        except: Option<Fd>,
        here: bool,
    ) -> Result<Answer, Hangup> {
        let body = match self.message_for_many(opcode, bytes).await? {
            Ok(body) => body,
            Err(answer) => return Ok(answer),
        };
        let topics = match (room, uid) {
            (Some(rooms), None) => rooms.topics(),
            (None, Some(uid)) => vec![Topic::user(&uid)],
            _ => return Ok(Answer::failed(ONE_OF_TWO)),
        };
        if !(1..=TOPICS_MAX).contains(&topics.len()) {
            return Ok(Answer::failed(format!("name 1 to {TOPICS_MAX} rooms")));
        }
        self.manager.borrow().exchange.row.add(Counter::Publishes, 1);
        let call = gathering::call(topics, Act::Publish(opcode.into()), except);
        let gathered = gathering::ask(&self.manager, call.clone(), &body, here).await;
        Ok(tally(&gathered.tally, &call))
    }

    pub(super) async fn close_user(
        &mut self,
        uid: &str,
        code: u16,
        reason: &str,
        here: bool,
    ) -> Answer {
        if let Err(answer) = check_close(code, reason) {
            return answer;
        }
        let act = Act::Close { code, operator: true };
        let call = gathering::call(vec![Topic::user(uid)], act, None);
        let gathered = gathering::ask(&self.manager, call.clone(), reason.as_bytes(), here).await;
        tally(&gathered.tally, &call)
    }

    pub(super) async fn change(&mut self, fd: Fd, change: Change) -> Answer {
        let routed = |id| Routed::Change { origin: Origin::Control, id, change };
        self.verdict(fd, routed, &[]).await
    }

    pub(super) async fn session(&mut self, fd: Fd, bytes: usize) -> Result<Answer, Hangup> {
        let body = match self.message(BodyKind::Text, bytes).await? {
            Ok(body) => body,
            Err(answer) => return Ok(answer),
        };
        let json = String::from_utf8(body.bytes).unwrap_or_default();
        if !json.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(&json).is_err() {
            return Ok(Answer::failed("a session must be JSON"));
        }
        let change = Change::Session((!json.is_empty()).then_some(json));
        Ok(self.change(fd, change).await)
    }
}

/// The room or the user that a request names: exactly one.
fn topic(room: Option<&str>, uid: Option<&str>) -> Option<Topic> {
    match (room, uid) {
        (Some(room), None) => Some(Topic::room(room)),
        (None, Some(uid)) => Some(Topic::user(uid)),
        _ => None,
    }
}

/// The end of a list. Where some of those who were asked have not answered, the list is what is
/// known, and is not told as the whole.
pub fn listed(count: usize, tally: Option<&Tally>) -> Answer {
    let mut answer = Answer::ok().and("count", count);
    if let Some(tally) = tally.filter(|tally| !tally.is_whole()) {
        answer.ok = false;
        answer.verdict = Some(Verdict::Unknown);
        answer.error = Some(format!("the list may lack some: {}", tally.missing()));
    }
    answer
}

/// The tally of all workers. A room without members is no error; a user without a connection is
/// gone, as a client would be.
fn tally(tally: &Tally, call: &Call) -> Answer {
    // What only some have been asked for, or have answered, is not told as done.
    let verdict = match tally.verdict() {
        Verdict::Queued if !tally.is_whole() => Verdict::Unknown,
        verdict => verdict,
    };
    let mut answer = Answer::with(tally);
    answer.verdict = Some(verdict);
    let user = call.topics.iter().find(|topic| topic.is_user());
    // The one that is left out may be the only connection, and then the user is there.
    let user = user.filter(|_| call.except == 0);
    if let (Verdict::Gone, Some(user)) = (verdict, user) {
        answer.ok = false;
        answer.error = Some(format!("user {} has no connection", user.name()));
    } else if matches!(verdict, Verdict::Full | Verdict::Unknown) {
        answer.ok = false;
        answer.error = Some(tally.to_string());
    }
    answer
}
