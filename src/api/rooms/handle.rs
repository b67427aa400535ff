//! Rooms and users, as other threads ask for them.

use std::time::SystemTime;

use serde::Serialize;

use super::{Change, Member, PresenceList, SessionError, Tally};
use crate::api::{Context, Handle, Message, SendFuture, Verdict};
use crate::fd::Fd;

/// Rooms and users: as the calls of [`Context`], queued for the worker.
impl Handle {
    /// See [`Context::join`].
    pub fn join(&self, fd: Fd, room: &str) -> Verdict {
        self.change(fd, Change::Join { room: room.to_owned(), info: None })
    }

    /// See [`Context::join_with`].
    pub fn join_with(&self, fd: Fd, room: &str, info: &impl Serialize) -> Verdict {
        let join = Change::join_with(fd, room, info);
        join.map_or(Verdict::TooBig, |join| self.change(fd, join))
    }

    /// See [`Context::presence`]. `Err(Unknown)` also where the worker has left meanwhile.
    pub fn presence(&self, room: &str) -> SendFuture<Result<PresenceList, Verdict>> {
        let room = room.to_owned();
        let asked = self.ask(room.len(), move |ctx| Box::pin(ctx.presence(&room)));
        Box::pin(async move { asked?.await.unwrap_or(Err(Verdict::Unknown)) })
    }

    /// See [`Context::join_confirmed`]. `Err(Unknown)` also where the worker has left meanwhile.
    pub fn join_confirmed(&self, fd: Fd, room: &str) -> SendFuture<Result<PresenceList, Verdict>> {
        let room = room.to_owned();
        let asked = self.ask(room.len(), move |ctx| Box::pin(ctx.join_confirmed(fd, &room)));
        Box::pin(async move { asked?.await.unwrap_or(Err(Verdict::Unknown)) })
    }

    /// See [`Context::leave`].
    pub fn leave(&self, fd: Fd, room: &str) -> Verdict {
        self.change(fd, Change::Leave { room: room.to_owned() })
    }

    /// See [`Context::bind`].
    pub fn bind(&self, fd: Fd, uid: &str) -> Verdict {
        self.change(fd, Change::Bind { uid: uid.to_owned() })
    }

    /// See [`Context::bind_confirmed`]. `Unknown` also where the worker has left meanwhile.
    pub fn bind_confirmed(&self, fd: Fd, uid: &str) -> SendFuture<Verdict> {
        let uid = uid.to_owned();
        let asked = self.ask(uid.len(), move |ctx| Box::pin(ctx.bind_confirmed(fd, &uid)));
        Box::pin(async move {
            match asked {
                Ok(answer) => answer.await.unwrap_or(Verdict::Unknown),
                Err(verdict) => verdict,
            }
        })
    }

    /// See [`Context::unbind`].
    pub fn unbind(&self, fd: Fd) -> Verdict {
        self.change(fd, Change::Unbind)
    }

    /// See [`Context::publish`].
    pub fn publish<'a>(&self, room: &str, message: impl Into<Message<'a>>) -> Verdict {
        let (room, message) = (room.to_owned(), message.into().into_owned());
        self.queue(room.len() + message.data.len(), move |ctx| {
            let _ = ctx.publish(&room, message);
        })
    }

    /// See [`Context::publish_except`].
    pub fn publish_except<'a>(
        &self,
        room: &str,
        except: Fd,
        message: impl Into<Message<'a>>,
    ) -> Verdict {
        let (room, message) = (room.to_owned(), message.into().into_owned());
        self.queue(room.len() + message.data.len(), move |ctx| {
            let _ = ctx.publish_except(&room, except, message);
        })
    }

    /// See [`Context::publish_many`].
    pub fn publish_many<'a, R: AsRef<str>>(
        &self,
        rooms: impl IntoIterator<Item = R>,
        message: impl Into<Message<'a>>,
    ) -> Verdict {
        let rooms: Vec<String> = rooms.into_iter().map(|room| room.as_ref().to_owned()).collect();
        let message = message.into().into_owned();
        let bytes = rooms.iter().map(String::len).sum::<usize>() + message.data.len();
        self.queue(bytes, move |ctx| {
            let _ = ctx.publish_many(rooms, message);
        })
    }

    /// See [`Context::publish_confirmed`].
    pub fn publish_confirmed<'a>(
        &self,
        room: &str,
        message: impl Into<Message<'a>>,
    ) -> SendFuture<Result<Tally, Verdict>> {
        let (room, message) = (room.to_owned(), message.into().into_owned());
        let asked = self.ask(room.len() + message.data.len(), move |ctx| {
            Box::pin(ctx.publish_confirmed(&room, message))
        });
        Box::pin(async move { asked?.await.unwrap_or(Err(Verdict::Unknown)) })
    }

    /// See [`Context::push_uid`].
    pub fn push_uid<'a>(&self, uid: &str, message: impl Into<Message<'a>>) -> Verdict {
        let (uid, message) = (uid.to_owned(), message.into().into_owned());
        self.queue(uid.len() + message.data.len(), move |ctx| {
            let _ = ctx.push_uid(&uid, message);
        })
    }

    /// See [`Context::push_uid_confirmed`].
    pub fn push_uid_confirmed<'a>(
        &self,
        uid: &str,
        message: impl Into<Message<'a>>,
    ) -> SendFuture<Result<Tally, Verdict>> {
        let (uid, message) = (uid.to_owned(), message.into().into_owned());
        let asked = self.ask(uid.len() + message.data.len(), move |ctx| {
            Box::pin(ctx.push_uid_confirmed(&uid, message))
        });
        Box::pin(async move { asked?.await.unwrap_or(Err(Verdict::Unknown)) })
    }

    /// See [`Context::close_uid`].
    pub fn close_uid(&self, uid: &str, code: u16, reason: &str) -> SendFuture<Verdict> {
        let (uid, reason) = (uid.to_owned(), reason.to_owned());
        let asked = self.ask(uid.len() + reason.len(), move |ctx| {
            Box::pin(ctx.close_uid(&uid, code, &reason))
        });
        Box::pin(async move {
            match asked {
                Ok(answer) => answer.await.unwrap_or(Verdict::Unknown),
                Err(verdict) => verdict,
            }
        })
    }

    /// See [`Context::connections_of`]; empty also where too many calls wait.
    pub fn connections_of(&self, uid: &str) -> SendFuture<Vec<Member>> {
        let uid = uid.to_owned();
        let asked = self.ask(uid.len(), move |ctx| Box::pin(ctx.connections_of(&uid)));
        Box::pin(async move {
            match asked {
                Ok(answer) => answer.await.unwrap_or_default(),
                Err(_) => Vec::new(),
            }
        })
    }

    /// See [`Context::members`]; empty also where too many calls wait.
    pub fn members(&self, room: &str) -> SendFuture<Vec<Member>> {
        let room = room.to_owned();
        let asked = self.ask(room.len(), move |ctx| Box::pin(ctx.members(&room)));
        Box::pin(async move {
            match asked {
                Ok(answer) => answer.await.unwrap_or_default(),
                Err(_) => Vec::new(),
            }
        })
    }

    /// See [`Context::count`].
    pub fn count(&self, room: &str) -> SendFuture<Result<Tally, Verdict>> {
        let room = room.to_owned();
        let asked = self.ask(room.len(), move |ctx| Box::pin(ctx.count(&room)));
        Box::pin(async move { asked?.await.map_err(|_| Verdict::Unknown) })
    }

    /// See [`Context::expire_at`].
    pub fn expire_at(&self, fd: Fd, time: impl Into<Option<SystemTime>>) -> Verdict {
        let time = time.into();
        self.queue(0, move |ctx| {
            let _ = ctx.expire_at(fd, time);
        })
    }

    /// See [`Context::set_session`].
    pub fn set_session<T: Serialize>(&self, fd: Fd, value: &T) -> Result<Verdict, SessionError> {
        let json = serde_json::to_string(value)
            .map_err(|error| SessionError::Unwritable(error.to_string()))?;
        Ok(self.change(fd, Change::Session(Some(json))))
    }

    fn change(&self, fd: Fd, change: Change) -> Verdict {
        self.queue(change.weight(), move |ctx: &Context| {
            let _ = ctx.change(fd, change);
        })
    }
}
