//! Rooms, users and sessions, as a handler asks for them.

use std::future::Future;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Act, Call, Change, Member, PresenceList, Publish, SessionError, Tally, Topic};
use crate::api::{Context, Message, Verdict};
use crate::fd::Fd;

/// Rooms, users and sessions.
///
/// A membership lasts from the join to the leave or the end of the connection: a reload, an
/// upgrade and a new manager do not touch it. What one worker asks for here and by `push` is done
/// in the order of the calls.
impl Context {
    /// Puts a client into a room, wherever the client is. A room is there as soon as somebody is
    /// in it. The verdict is `Queued` where the client is this worker's and in the room now,
    /// `Relayed` where another worker will do it, `Gone` where there is no such client, `Full`
    /// over `rooms_per_client` or `rooms_max`, `TooBig` for a name of more than `room_name_max`
    /// bytes, and `NoUser` for a client that is nobody's where the room has presence. Who is in the
    /// room already stays in it once.
    pub fn join(&self, fd: Fd, room: &str) -> Verdict {
        self.change(fd, Change::Join { room: room.to_owned(), info: None })
    }

    /// As [`join`](Self::join), with what presence shows of this member in the room, as JSON: at
    /// most `session_max` bytes. Another call changes what the list shows, and is no event; a
    /// `join` of who is in the room leaves it as it is.
    pub fn join_with(&self, fd: Fd, room: &str, info: &impl Serialize) -> Verdict {
        let join = Change::join_with(fd, room, info);
        join.map_or(Verdict::TooBig, |join| self.change(fd, join))
    }

    /// As [`join`](Self::join), and waits until what any worker publishes from then on reaches
    /// this member. The answer is who is present, for a room that has presence, and else nobody;
    /// or the verdict of a join that was not done, `Unknown` where no answer came within 5
    /// seconds.
    pub fn join_confirmed(
        &self,
        fd: Fd,
        room: &str,
    ) -> impl Future<Output = Result<PresenceList, Verdict>> + 'static {
        let change = Change::Join { room: room.to_owned(), info: None };
        let joined = self.reactor().change_confirmed(fd, change);
        let (reactor, topic) = (self.reactor().clone(), Topic::room(room));
        async move {
            match joined.await {
                Verdict::Queued => reactor.presence(topic).await,
                other => Err(other),
            }
        }
    }

    /// Who is present in a room that has presence (`rooms_presence`), by uid; of any other room
    /// nobody. `Unknown` where no answer came within 5 seconds. On a worker that has members of
    /// the room the events (`on_presence`) go on from this list. In a cluster the list says whether
    /// somebody on another node may be missing ([`PresenceList::is_whole`]).
    pub fn presence(
        &self,
        room: &str,
    ) -> impl Future<Output = Result<PresenceList, Verdict>> + 'static {
        self.reactor().presence(Topic::room(room))
    }

    /// Sends a message to the members of a room that this worker has, and to no others: what each
    /// worker is to say to its own, such as who has come (`on_presence`). The tally is of this
    /// worker alone.
    pub fn publish_here<'a>(&self, room: &str, message: impl Into<Message<'a>>) -> Tally {
        self.reactor().publish_here(Publish::new(vec![Topic::room(room)], message.into()))
    }

    /// Takes a client out of a room. Who was not in the room is not in it now either: `Queued`.
    pub fn leave(&self, fd: Fd, room: &str) -> Verdict {
        self.change(fd, Change::Leave { room: room.to_owned() })
    }

    /// The rooms of a client of this worker; of any other none.
    pub fn rooms(&self, fd: Fd) -> Vec<String> {
        self.reactor().belongings(fd).map(|it| it.rooms).unwrap_or_default()
    }

    /// Sends a message to every member of a room. `Relayed`: it is on its way; a room without
    /// members is no error. `Full`: the way to other workers is at its limit, and only members on
    /// this worker got it. `TooBig`: nobody got it.
    pub fn publish<'a>(&self, room: &str, message: impl Into<Message<'a>>) -> Verdict {
        self.reactor().publish(Publish::new(vec![Topic::room(room)], message.into()))
    }

    /// As [`publish`](Self::publish), leaving one client out.
    pub fn publish_except<'a>(
        &self,
        room: &str,
        except: Fd,
        message: impl Into<Message<'a>>,
    ) -> Verdict {
        let publish = Publish::new(vec![Topic::room(room)], message.into());
        self.reactor().publish(publish.except(except))
    }

    /// As [`publish`](Self::publish), to the members of several rooms, at most 128. Who is in
    /// several of them gets it once.
    pub fn publish_many<'a, R: AsRef<str>>(
        &self,
        rooms: impl IntoIterator<Item = R>,
        message: impl Into<Message<'a>>,
    ) -> Verdict {
        let topics = rooms.into_iter().map(|room| Topic::room(room.as_ref())).collect();
        self.reactor().publish(Publish::new(topics, message.into()))
    }

    /// As [`publish`](Self::publish), and answers what became of it. The tally of a room without
    /// members has zeros.
    pub fn publish_confirmed<'a>(
        &self,
        room: &str,
        message: impl Into<Message<'a>>,
    ) -> impl Future<Output = Result<Tally, Verdict>> + 'static {
        let publish = Publish::new(vec![Topic::room(room)], message.into());
        self.reactor().publish_confirmed(publish)
    }

    /// Makes a connection a user's: what is pushed to the uid reaches each connection that is
    /// bound to it, on whatever worker. A connection has one uid; another bind is in place of
    /// the first. `TooBig`: the uid is not 1 to `uid_max` bytes long.
    pub fn bind(&self, fd: Fd, uid: &str) -> Verdict {
        self.change(fd, Change::Bind { uid: uid.to_owned() })
    }

    /// As [`bind`](Self::bind), and waits until what any worker pushes to the uid from then on
    /// reaches this connection. `Queued`, or the verdict of a bind that was not done; `Unknown`
    /// where no answer came within 5 seconds.
    pub fn bind_confirmed(&self, fd: Fd, uid: &str) -> impl Future<Output = Verdict> + 'static {
        self.reactor().change_confirmed(fd, Change::Bind { uid: uid.to_owned() })
    }

    /// Makes a connection nobody's.
    pub fn unbind(&self, fd: Fd) -> Verdict {
        self.change(fd, Change::Unbind)
    }

    /// The user of a client of this worker.
    pub fn uid(&self, fd: Fd) -> Option<String> {
        self.reactor().belongings(fd)?.uid
    }

    /// Sends a message to each connection of a user. The verdict is that of
    /// [`publish`](Self::publish).
    pub fn push_uid<'a>(&self, uid: &str, message: impl Into<Message<'a>>) -> Verdict {
        self.reactor().publish(Publish::new(vec![Topic::user(uid)], message.into()))
    }

    /// As [`push_uid`](Self::push_uid), and answers what became of it: a tally of zeros is a user
    /// without a connection.
    pub fn push_uid_confirmed<'a>(
        &self,
        uid: &str,
        message: impl Into<Message<'a>>,
    ) -> impl Future<Output = Result<Tally, Verdict>> + 'static {
        let publish = Publish::new(vec![Topic::user(uid)], message.into());
        self.reactor().publish_confirmed(publish)
    }

    /// Closes each connection of a user, as [`close`](Context::close) does. The close is under
    /// way when the call returns; the answer is `Queued`, or `Gone` where the user has no
    /// connection, or `Unknown` where a worker did not answer within 5 seconds.
    pub fn close_uid(
        &self,
        uid: &str,
        code: u16,
        reason: &str,
    ) -> impl Future<Output = Verdict> + 'static {
        let act = Act::Close { code, operator: false };
        let call = Call { topics: vec![Topic::user(uid)], except: 0, act };
        let counted = self.reactor().count(call, reason);
        async move { counted.await.verdict() }
    }

    /// The members of a room on all workers of all nodes, in the order of their numbers: at most
    /// 16,384 of each worker, and those of the workers and nodes that answer within 5 seconds.
    /// While the engine of a cluster is away no other node does; [`count`](Self::count) says so.
    pub fn members(&self, room: &str) -> impl Future<Output = Vec<Member>> + 'static {
        self.reactor().members(Topic::room(room))
    }

    /// The connections of a user, as [`members`](Self::members).
    pub fn connections_of(&self, uid: &str) -> impl Future<Output = Vec<Member>> + 'static {
        self.reactor().members(Topic::user(uid))
    }

    /// How many connections are in a room: `queued` of the tally.
    pub fn count(&self, room: &str) -> impl Future<Output = Tally> + 'static {
        let call = Call { topics: vec![Topic::room(room)], except: 0, act: Act::Count };
        self.reactor().count(call, "")
    }

    /// Has a connection closed at that time (1008 `expired`, cause `expired`), for instance when
    /// the token that it came with expires. A later call is in place of an earlier; `None`: never.
    pub fn expire_at(&self, fd: Fd, time: impl Into<Option<SystemTime>>) -> Verdict {
        let millis = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        self.change(fd, Change::ExpireAt(time.into().map(millis)))
    }

    /// What was kept of a client of this worker by [`set_session`](Self::set_session); `None`
    /// where nothing was. It is kept as JSON, so a `T` with a field more (`#[serde(default)]`) or
    /// less reads it. What cannot be read is told here and in the log, and stays.
    ///
    /// # Errors
    /// This worker has no such client, or what is kept is no `T`.
    pub fn session<T: DeserializeOwned>(&self, fd: Fd) -> Result<Option<T>, SessionError> {
        let kept = self.reactor().belongings(fd).ok_or(SessionError::NotHere)?;
        let Some(json) = kept.session else { return Ok(None) };
        serde_json::from_str(&json).map(Some).map_err(|error| {
            tracing::warn!(fd = fd.as_u64(), %error, "a session cannot be read");
            SessionError::Unreadable(error.to_string())
        })
    }

    /// Keeps a value with a client's connection, wherever that is, in place of what was kept. The
    /// value goes with the connection over reloads and upgrades, and ends with it. `TooBig`: its
    /// JSON is longer than `session_max` bytes. [`Change::Session`] with `None` keeps nothing more.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn set_session<T: Serialize>(&self, fd: Fd, value: &T) -> Result<Verdict, SessionError> {
        let json = serde_json::to_string(value)
            .map_err(|error| SessionError::Unwritable(error.to_string()))?;
        Ok(self.change(fd, Change::Session(Some(json))))
    }

    /// Changes something of a connection, wherever it is. The verdict is as that of
    /// [`join`](Self::join), which does the same for a room.
    pub fn change(&self, fd: Fd, change: Change) -> Verdict {
        self.reactor().change(fd, change)
    }
}
