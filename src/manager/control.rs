//! Serves the control socket: one task for each connection, each with its own deadlines, so a
//! slow command never holds up another.

mod bodies;
mod connections;
mod names;
mod rooms_of;

use std::rc::Rc;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

use self::bodies::Room;
use super::Shared;
use super::peers::{Access, Peers};
use super::relay::message::{Address, Reply, Routed, Wide};
use crate::api::Verdict;
use crate::api::rooms::Change;
use crate::close::{REASON_BYTES_MAX, code_may_be_sent};
use crate::fd::Fd;
use crate::ipc::control::{
    Answer, BodyKind, LINE_BYTES_MAX, NONE_UNDER_WAY, ReloadVerdict, Request,
};
use crate::ipc::messages::{ManagerToMaster, Origin, StopMode};
use crate::ipc::packet::Body;
use crate::sys::point;

/// Connections at once of those who may ask everything, and as many of the application: however
/// many this one opens, the server can still be commanded.
const CLIENTS_MAX: u64 = 64;
/// For a client to send a body, or to take a part of an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// A connection on which nothing is asked for so long is ended.
const IDLE_PATIENCE: Duration = Duration::from_secs(300);
/// For a worker to answer.
const WORKER_PATIENCE: Duration = Duration::from_secs(5);
/// For the master to say that the generation of a reload serves.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where a message for all did not go to all.
const NOT_TAKEN: &str = "not every worker has the message: one did not take it, since its lane is \
    full or no memory or descriptor is left";

/// Accepts for ever.
pub async fn serve(manager: Shared, listener: UnixListener, peers: Peers) {
    let (of_apps, of_others) = (Room::new(), Room::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let manager = Rc::clone(&manager);
        let (of_apps, of_others) = (of_apps.clone(), of_others.clone());
        spawn_local(async move {
            let access = access(&manager, &stream, &peers);
            let of_app = u64::from(access.as_ref().is_ok_and(|access| *access == Access::Clients));
            manager.borrow_mut().control_clients += 1;
            manager.borrow_mut().control_apps += of_app;
            let room = if of_app == 1 { of_apps } else { of_others };
            let (reader, writer) = stream.into_split();
            let (manager_of, reader) = (Rc::clone(&manager), BufReader::new(reader));
            let mut client = Client { manager: manager_of, peers, room, reader, writer };
            match access {
                Err(answer) => client.say(&answer.line()).await.unwrap_or_default(),
                Ok(access) => client.live(access).await,
            }
            manager.borrow_mut().control_clients -= 1;
            manager.borrow_mut().control_apps -= of_app;
        });
    }
}

/// What a connection may be used for, or why it is not served.
fn access(manager: &Shared, stream: &UnixStream, peers: &Peers) -> Result<Access, Answer> {
    let peer = stream
        .peer_cred()
        .map_err(|error| Answer::failed(format!("cannot tell who is asking: {error}")))?;
    let uid = Uid::from_raw(peer.uid());
    let access = peers.access(uid).ok_or_else(|| {
        let why = format!("uid {uid} may not control this server");
        tracing::warn!(why, "refused");
        Answer::failed(peers.refusal(uid))
    })?;
    let apps = manager.borrow().control_apps;
    let others = manager.borrow().control_clients - apps;
    let count = if access == Access::Clients { apps } else { others };
    match count < CLIENTS_MAX {
        true => Ok(access),
        false => Err(Answer::failed("too many control connections are open")),
    }
}

struct Client {
    manager: Shared,
    peers: Peers,
    /// Room for the bodies of its requests.
    room: Room,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// The client is gone, or breaks the protocol: its connection ends.
struct Hangup;

impl Client {
    /// Request after request, until the client leaves.
    async fn live(&mut self, access: Access) {
        while let Ok(Ok(Some(request))) = timeout(IDLE_PATIENCE, self.read_request()).await {
            let names = names::check(&request, &self.manager.borrow().exchange.settings);
            if let Err(answer) = names {
                let said = self.say(&answer.line()).await;
                // What follows may be the body of this request, so the connection cannot go on.
                if said.is_err() || matches!(request, Request::Publish { .. }) {
                    return;
                }
                continue;
            }
            let answer = match access.allows(&request) {
                true => self.handle(request).await,
                false => Ok(Answer::failed(self.peers.refusal_of(&request))),
            };
            let Ok(answer) = answer else { return };
            if self.say(&answer.line()).await.is_err() {
                return;
            }
        }
    }

    async fn read_request(&mut self) -> Result<Option<Request>, Hangup> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX as u64);
        limited.read_until(b'\n', &mut bytes).await.map_err(|_| Hangup)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let wrong = match bytes.ends_with(b"\n") {
            false if bytes.len() == LINE_BYTES_MAX => {
                format!("the request is longer than {LINE_BYTES_MAX} bytes")
            }
            false => return Ok(None),
            true => match serde_json::from_slice(&bytes) {
                Ok(request) => return Ok(Some(request)),
                Err(error) => format!("not a request: {error}"),
            },
        };
        // What follows may be the body of this request, so the connection cannot go on.
        self.say(&Answer::failed(wrong).line()).await?;
        Err(Hangup)
    }

    async fn say(&mut self, text: &str) -> Result<(), Hangup> {
        match timeout(CLIENT_PATIENCE, self.writer.write_all(text.as_bytes())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Hangup),
        }
    }

    async fn handle(&mut self, request: Request) -> Result<Answer, Hangup> {
        Ok(match request {
            Request::Ping {} => Answer::ok()
                .and("pid", std::process::id())
                .and("version", env!("CARGO_PKG_VERSION")),
            Request::Status {} => Answer::with(&self.manager.borrow().status()),
            Request::Slow {} => self.slow().await?,
            Request::Connections { room, uid, here } => self.connections(room, uid, here).await?,
            Request::Nodes {} => self.nodes().await?,
            Request::Rooms { here } => self.rooms(here).await?,
            Request::Members { room, uid, here } => self.members(room, uid, here).await?,
            Request::Publish { room, uid, opcode, bytes, except, here } => {
                self.publish((room, uid), (opcode, bytes), except, here).await?
            }
            Request::CloseUser { uid, code, reason, here } => {
                self.close_user(&uid, code, &reason, here).await
            }
            Request::Join { fd, room, info } => {
                let info = info.map(|info| info.to_string());
                self.change(fd, Change::Join { room, info }).await
            }
            Request::Leave { fd, room } => self.change(fd, Change::Leave { room }).await,
            Request::Bind { fd, uid } => {
                let change = uid.map_or(Change::Unbind, |uid| Change::Bind { uid });
                self.change(fd, change).await
            }
            Request::Session { fd, bytes } => self.session(fd, bytes).await?,
            Request::Push { fd, opcode, bytes } => self.push(fd, opcode, bytes).await?,
            Request::Broadcast { opcode, bytes, except, here } => {
                self.broadcast(opcode, bytes, except, here).await?
            }
            Request::Close { fd, code, reason } => self.close(fd, code, &reason).await,
            Request::Info { fd } => self.info(fd).await,
            Request::Reload {} => {
                let (sender, verdict) = oneshot::channel();
                self.manager.borrow_mut().request_reload(Some(sender));
                self.reload_answer(verdict.await).await
            }
            Request::Wait { upgrade } => {
                let (sender, verdict) = oneshot::channel();
                self.manager.borrow_mut().await_reload(sender, upgrade);
                match verdict.await {
                    Err(_) if upgrade => Answer::failed(NONE_UNDER_WAY),
                    verdict => self.reload_answer(verdict).await,
                }
            }
            Request::Stop { mode } => {
                self.tell_master(&ManagerToMaster::Stop(StopMode::from(mode)))
            }
            Request::Reopen {} => self.tell_master(&ManagerToMaster::Reopen),
            Request::Drain { undo } => self.tell_master(&ManagerToMaster::Drain { on: !undo }),
            Request::Upgrade {} => {
                let (sender, failed) = oneshot::channel();
                self.manager.borrow_mut().reloads.await_upgrade(sender);
                point::reached("manager-is-asked-to-upgrade");
                self.tell_master(&ManagerToMaster::Upgrade);
                // Where it succeeds, this process ends and the connection with it.
                failed.await.map_or_else(|_| Err(Hangup), |why| Ok(Answer::failed(why)))?
            }
        })
    }

    fn tell_master(&self, message: &ManagerToMaster) -> Answer {
        self.manager.borrow().master.send(message);
        Answer::ok()
    }

    async fn push(&mut self, fd: Fd, opcode: BodyKind, bytes: usize) -> Result<Answer, Hangup> {
        let body = match self.message(opcode, bytes).await? {
            Ok(body) => body,
            Err(answer) => return Ok(answer),
        };
        let opcode = opcode.into();
        let routed = |id| Routed::Push { origin: Origin::Control, id, opcode };
        Ok(self.verdict(fd, routed, &body).await)
    }

    async fn broadcast(
        &mut self,
        opcode: BodyKind,
        bytes: usize,
        except: Option<Fd>,
        here: bool,
    ) -> Result<Answer, Hangup> {
        let body = match self.message_for_many(opcode, bytes).await? {
            Ok(body) => body,
            Err(answer) => return Ok(answer),
        };
        let except = except.map_or(0, Fd::as_u64);
        let mut manager = self.manager.borrow_mut();
        let wide = Wide::broadcast(None, opcode.into(), except);
        let (spread, local_only) = match here {
            true => (manager.exchange.spread(wide, Body::Inline(&body)), false),
            false => manager.exchange.spread_everywhere(wide, Body::Inline(&body)),
        };
        let verdict = match manager.exchange.cluster.is_some() && !here {
            true if local_only => Some(Verdict::LocalOnly),
            true => Some(Verdict::Relayed),
            false => None,
        };
        let answer = Answer { verdict, ..Answer::ok().and("workers", spread.slots) };
        Ok(match spread.refused {
            0 => answer,
            _ => Answer { ok: false, error: Some(NOT_TAKEN.to_owned()), ..answer },
        })
    }

    async fn close(&mut self, fd: Fd, code: u16, reason: &str) -> Answer {
        if let Err(answer) = check_close(code, reason) {
            return answer;
        }
        let origin = Origin::Control;
        let routed = |id| Routed::Close { origin, id, code, operator: true };
        self.verdict(fd, routed, reason.as_bytes()).await
    }

    async fn info(&mut self, fd: Fd) -> Answer {
        let routed = |id| Routed::Info { origin: Origin::Control, id };
        match self.route_and_wait(fd, routed, &[]).await {
            Some(Reply::Info(info)) => match *info {
                Some(info) => Answer::with(&info),
                None => Answer::verdict(fd, Verdict::Gone),
            },
            Some(Reply::Verdict(verdict)) if verdict != Verdict::Unknown => {
                Answer::verdict(fd, verdict)
            }
            _ => {
                let in_time = || format!("nobody could tell in time of client {fd}");
                let error = Some(self.cut_off(fd).unwrap_or_else(in_time));
                Answer { error, ..Answer::verdict(fd, Verdict::Unknown) }
            }
        }
    }

    async fn verdict(&self, fd: Fd, routed: impl FnOnce(u64) -> Routed, body: &[u8]) -> Answer {
        match self.route_and_wait(fd, routed, body).await {
            Some(Reply::Verdict(verdict)) if verdict != Verdict::Unknown => {
                Answer::verdict(fd, verdict)
            }
            _ => {
                let unknown = Answer::verdict(fd, Verdict::Unknown);
                Answer { error: self.cut_off(fd).or(unknown.error), ..unknown }
            }
        }
    }

    /// Why nobody can tell of a client, where it is another node's and the engine is away.
    fn cut_off(&self, fd: Fd) -> Option<String> {
        let manager = self.manager.borrow();
        let cluster = manager.exchange.cluster.as_ref().filter(|it| it.is_abroad(fd.as_u64()))?;
        let why = cluster.engine_away()?;
        Some(format!("client {fd} is another node's, and the engine is away ({why})"))
    }

    /// The verdict of a reload, once the master has done all that belongs to it: sockets have their
    /// new modes then, and removed addresses are free.
    async fn reload_answer(
        &self,
        verdict: Result<ReloadVerdict, oneshot::error::RecvError>,
    ) -> Answer {
        let Ok(verdict) = verdict else {
            return Answer::failed("the manager ended before the reload did");
        };
        if verdict.failure.is_none() {
            let mut committed = self.manager.borrow().reloads.committed();
            let is_done = committed.wait_for(|generation| *generation >= verdict.generation);
            // Where the master says nothing, the verdict is what is known.
            let _ = timeout(COMMIT_PATIENCE, is_done).await;
        }
        let mut answer = Answer::with(&verdict);
        answer.ok = verdict.is_ok();
        if !answer.ok {
            let partly = || "not every slot could hand its connections over".to_owned();
            answer.error = Some(verdict.failure.unwrap_or_else(partly));
        }
        answer
    }

    async fn route_and_wait(
        &self,
        fd: Fd,
        routed: impl FnOnce(u64) -> Routed,
        body: &[u8],
    ) -> Option<Reply> {
        let (id, reply) = self.manager.borrow_mut().exchange.commands.ask();
        let to = Address::Client(fd.as_u64());
        self.manager.borrow_mut().exchange.deliver(to, routed(id), Body::Inline(body));
        let reply = timeout(WORKER_PATIENCE, reply).await;
        self.manager.borrow_mut().exchange.commands.forget(id);
        reply.ok()?.ok()
    }
}

/// What is wrong with a close that is asked for.
pub fn check_close(code: u16, reason: &str) -> Result<(), Answer> {
    if !code_may_be_sent(code) {
        return Err(Answer::failed(format!(
            "{code} may not be sent: use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
        )));
    }
    if reason.len() > REASON_BYTES_MAX {
        let why = format!("a reason has at most {REASON_BYTES_MAX} bytes");
        return Err(Answer::failed(why));
    }
    Ok(())
}
