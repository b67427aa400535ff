//! Lists of connections: of this node by the registries of its workers, and where a room or a user
//! is named, of all nodes by the word of those who have them.

use std::collections::HashMap;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::rooms_of::listed;
use super::{Client, Hangup, WORKER_PATIENCE};
use crate::api::Verdict;
use crate::api::rooms::{Member, Topic};
use crate::fd::Fd;
use crate::ipc::control::{Answer, Connection, line};
use crate::ipc::messages::Origin;
use crate::ipc::packet::Body;
use crate::manager::gathering::{self, Gathered};
use crate::manager::listing;
use crate::manager::relay::message::{Address, Reply, Routed};
use crate::manager::slow::{SLOW_MAX, slow};
use crate::sys::clock::monotonic_ms;

/// Clients of other nodes that are asked about in one go.
const ASK: usize = 128;

impl Client {
    pub(super) async fn slow(&mut self) -> Result<Answer, Hangup> {
        let (slow, silent) = slow(&self.manager, SLOW_MAX).await;
        let lines: String = slow.iter().map(line).collect();
        self.say(&lines).await?;
        let mut answer = Answer::ok().and("count", slow.len()).and("silent_workers", silent);
        if silent > 0 {
            answer.ok = false;
            answer.verdict = Some(Verdict::Unknown);
            let s = if silent == 1 { "" } else { "s" };
            let whose = format!("{silent} worker{s} did not answer; `wsd status` shows which");
            answer.error = Some(format!("the list may lack some: {whose}"));
        }
        Ok(answer)
    }

    pub(super) async fn connections(
        &mut self,
        room: Option<String>,
        uid: Option<String>,
        here: bool,
    ) -> Result<Answer, Hangup> {
        let (room, uid) = (room.as_deref().map(Topic::room), uid.as_deref().map(Topic::user));
        let topics: Vec<Topic> = [room, uid].into_iter().flatten().collect();
        if topics.is_empty() {
            // Registries know no users, so the workers are asked.
            let (tally, users) = gathering::users(&self.manager).await;
            let uid = |fd: Fd| Some(users.get(&fd).cloned());
            let mut answer = listed(self.connections_here(uid).await?, Some(&tally));
            if !answer.ok {
                answer.error = Some(format!("users may be missing: {}", tally.missing()));
            }
            return Ok(answer);
        }
        let Gathered { tally, members, .. } =
            gathering::members(&self.manager, topics, here).await;
        let node = self.manager.borrow().exchange.cluster.as_ref().map(|cluster| cluster.node);
        let (ours, others): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| node.is_none_or(|it| member.fd.node() == it));
        let ours: HashMap<Fd, Option<String>> =
            ours.into_iter().map(|member| (member.fd, member.uid)).collect();
        let mut count = self.connections_here(|fd| ours.get(&fd).cloned()).await?;
        let mut silent = 0;
        for part in others.chunks(ASK) {
            let (shown, unknown) = self.connections_there(part).await;
            self.say(&shown.iter().map(line).collect::<String>()).await?;
            count += shown.len();
            silent += unknown;
        }
        let mut answer = listed(count, Some(&tally));
        if answer.ok && silent > 0 {
            answer.ok = false;
            answer.verdict = Some(Verdict::Unknown);
            answer.error = Some(format!("the list lacks {silent} whose node did not answer"));
        }
        Ok(answer)
    }

    /// Those of this node that are meant, each with its user.
    async fn connections_here(
        &mut self,
        meant: impl Fn(Fd) -> Option<Option<String>>,
    ) -> Result<usize, Hangup> {
        let mut listing = self.manager.borrow().exchange.listing();
        let mut count = 0;
        while let Some(part) = listing.next_part() {
            let now = monotonic_ms();
            let mut lines = String::new();
            for (id, entry) in part {
                let Some(uid) = meant(entry.fd) else { continue };
                lines += &line(&Connection { uid, ..listing::connection(id, &entry, now) });
                count += 1;
            }
            self.say(&lines).await?;
            yield_now().await;
        }
        Ok(count)
    }

    /// Those of other nodes that live, and how many nobody could tell of.
    async fn connections_there(&self, members: &[Member]) -> (Vec<Connection>, usize) {
        let asked: Vec<_> = {
            let mut manager = self.manager.borrow_mut();
            let ask = members.iter().map(|member| {
                let (id, reply) = manager.exchange.commands.ask();
                let info = Routed::Info { origin: Origin::Control, id };
                let to = Address::Client(member.fd.as_u64());
                manager.exchange.deliver(to, info, Body::Inline(&[]));
                (member, id, reply)
            });
            ask.collect()
        };
        let deadline = Instant::now() + WORKER_PATIENCE;
        let (mut shown, mut unknown) = (Vec::new(), 0);
        for (member, id, reply) in asked {
            match timeout_at(deadline, reply).await {
                Ok(Ok(Reply::Info(info))) => shown.extend((*info).map(|info| Connection {
                    fd: info.fd,
                    worker: info.worker,
                    epoch: None,
                    peer: info.peer,
                    connected_at: info.connected_at,
                    idle_ms: info.idle_ms,
                    uid: member.uid.clone(),
                })),
                Ok(Ok(Reply::Verdict(Verdict::Gone))) => {}
                _ => unknown += 1,
            }
            self.manager.borrow_mut().exchange.commands.forget(id);
        }
        (shown, unknown)
    }
}
