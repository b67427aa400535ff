//! Joins, leaves, binds, sessions and expiry: of clients here at once, of all others by their
//! worker.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::Verdict;
use crate::api::rooms::{Change, Topic};
use crate::fd::Fd;
use crate::ipc::messages::{Origin, RequestId, WorkerToWorker};
use crate::worker::Worker;
use crate::worker::deferred::DeferredSend;
use crate::worker::push::Route;
use crate::worker::table::{Key, Table};
use crate::worker::timers::{NEVER, TICK_MS, Tick, tick};

impl Worker {
    /// Changes something of a client, wherever it is. `id`: who waits for the verdict of another
    /// worker, or 0.
    pub(in crate::worker) fn change(&self, fd: Fd, change: Change, id: RequestId) -> Verdict {
        match self.route(fd) {
            Route::Here(key) => self.change_here(key, change),
            Route::Gone => Verdict::Gone,
            _ if self.is_beyond_limits(&change) => Verdict::TooBig,
            Route::Arriving(pass) => self.defer(pass, DeferredSend::Change { fd, change, id }),
            Route::Elsewhere => {
                let message = WorkerToWorker::Change { id, fd: fd.as_u64(), change };
                self.send_to_client(fd, message, &[])
            }
        }
    }

    /// Whether a name or a session is longer than it may be.
    fn is_beyond_limits(&self, change: &Change) -> bool {
        let config = &self.settings.config;
        match change {
            Change::Join { room, info } => {
                let info = info.as_ref().map_or(0, String::len);
                room.len() > config.room_name_max || info as u64 > config.session_max
            }
            Change::Leave { room } => room.len() > config.room_name_max,
            Change::Bind { uid } => uid.is_empty() || uid.len() > config.uid_max,
            Change::Session(json) => {
                json.as_ref().is_some_and(|json| json.len() as u64 > config.session_max)
            }
            Change::Unbind | Change::ExpireAt(_) => false,
        }
    }

    /// Changes something of a client of this worker.
    pub(in crate::worker) fn change_here(&self, key: Key, change: Change) -> Verdict {
        if self.is_beyond_limits(&change) {
            return Verdict::TooBig;
        }
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key).filter(|it| it.is_open()) else {
            return Verdict::Gone;
        };
        match change {
            Change::Join { room, info } => {
                return self.join_here(&mut table, key, Topic::room(&room), info);
            }
            Change::Leave { room } => self.leave_here(&mut table, key, &Topic::room(&room)),
            Change::Bind { uid } => return self.bind_here(&mut table, key, Topic::user(&uid)),
            Change::Unbind => self.unbind_here(&mut table, key),
            Change::Session(json) => {
                connection.personal().session = json.map(String::into_boxed_str);
                connection.drop_needless_personal();
                self.reckon(connection);
            }
            Change::ExpireAt(at) => {
                connection.personal().expires_at = at.map_or(NEVER, |at| self.tick_of(at));
                connection.drop_needless_personal();
                self.look_again(key, connection);
            }
        }
        Verdict::Queued
    }

    /// The tick of a time in milliseconds since 1970, at least the next.
    fn tick_of(&self, at: u64) -> Tick {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wait = at.saturating_sub(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let ticks = Tick::try_from(wait.div_ceil(TICK_MS)).unwrap_or(NEVER / 2).min(NEVER / 2);
        tick(self.now_ms.get()) + ticks.max(1)
    }

    fn join_here(
        &self,
        table: &mut Table,
        key: Key,
        topic: Topic,
        info: Option<String>,
    ) -> Verdict {
        let config = &self.settings.config;
        if self.has_presence(&topic) && self.user_of(table, key).is_none() {
            return Verdict::NoUser;
        }
        let full = {
            let rooms = self.rooms.table.borrow();
            let of = table.get(key).map(|it| &it.memberships);
            let (mut is_in, mut count) = (false, 0);
            for its in of.into_iter().flat_map(|of| rooms.topics_of(of)) {
                is_in |= *its == topic;
                count += usize::from(!its.is_user());
            }
            let rooms_full = rooms.len() >= config.rooms_max && !rooms.has(&topic);
            !is_in && (count >= config.rooms_per_client || rooms_full)
        };
        if full {
            return Verdict::Full;
        }
        self.enter_room(table, key, topic, info);
        Verdict::Queued
    }

    fn leave_here(&self, table: &mut Table, key: Key, topic: &Topic) {
        let now = tick(self.now_ms.get());
        let user = self.has_presence(topic).then(|| self.user_of(table, key)).flatten();
        if self.rooms.table.borrow_mut().leave(table, key.index, topic, now) {
            if let Some(user) = user {
                self.exit_presence(topic, user.name());
            }
            self.board.sub(crate::ipc::scoreboard::Counter::Memberships, 1);
        }
        if let Some(connection) = table.get_mut(key) {
            connection.set_info(topic, None);
        }
    }

    fn bind_here(&self, table: &mut Table, key: Key, user: Topic) -> Verdict {
        if self.user_of(table, key).as_ref() == Some(&user) {
            return Verdict::Queued;
        }
        let rooms_max = self.settings.config.rooms_max;
        let rooms = self.rooms.table.borrow();
        if rooms.len() >= rooms_max && !rooms.has(&user) {
            return Verdict::Full;
        }
        drop(rooms);
        // Where it is present one user leaves and another comes.
        let present_in = self.presence_rooms_of(table, key);
        if let Some(before) = self.user_of(table, key) {
            present_in.iter().for_each(|room| self.exit_presence(room, before.name()));
            self.leave_here(table, key, &before);
        }
        self.enter_room(table, key, user, None);
        present_in.iter().for_each(|room| self.enter_presence(table, key, room));
        Verdict::Queued
    }

    /// It is nobody's any more, and so in no room that has presence.
    fn unbind_here(&self, table: &mut Table, key: Key) {
        for room in self.presence_rooms_of(table, key) {
            self.leave_here(table, key, &room);
        }
        if let Some(user) = self.user_of(table, key) {
            self.leave_here(table, key, &user);
        }
    }

    /// Whose a connection is.
    pub(super) fn user_of(&self, table: &Table, key: Key) -> Option<Topic> {
        let rooms = self.rooms.table.borrow();
        rooms.topics_of(&table.get(key)?.memberships).find(|topic| topic.is_user()).cloned()
    }

    /// Another worker, or an operator, changes something of a client of ours.
    pub(in crate::worker) fn change_routed(
        self: &Rc<Self>,
        (origin, id): (Origin, RequestId),
        fd: u64,
        mark: u64,
        change: Change,
    ) {
        let joins = change.joins();
        let verdict = match self.routed(fd) {
            Ok(key) => self.change_here(key, change),
            Err(verdict) => verdict,
        };
        if let (Some(topic), true) = (&joins, mark != 0) {
            self.say_interest(0, Vec::new(), Vec::new(), vec![(topic.clone(), mark)]);
        }
        let has_joined = joins.is_some() && verdict == Verdict::Queued;
        self.when_noted(has_joined, id, move |worker| worker.tell_verdict(origin, id, verdict));
    }

    /// Answers the question `id`, if there is one. Who waits for a join waits until everybody's
    /// publishes find the member.
    pub(in crate::worker) fn when_noted(
        self: &Rc<Self>,
        has_joined: bool,
        id: RequestId,
        answer: impl FnOnce(&Worker) + 'static,
    ) {
        if id == 0 {
            return;
        }
        if !has_joined {
            return answer(self);
        }
        let (worker, noted) = (self.clone(), self.until_noted());
        tokio::task::spawn_local(async move {
            if noted.await.is_ok() {
                answer(&worker);
            }
        });
    }

    /// As [`change`](Self::change), with the verdict of whoever has the client, at a time from
    /// which on every publish finds the member.
    pub(in crate::worker) fn change_confirmed(
        self: &Rc<Self>,
        fd: Fd,
        change: Change,
    ) -> crate::api::LocalFuture<Verdict> {
        let question = self.ask_verdict();
        let joins = change.joins().is_some();
        match self.change(fd, change, question.id) {
            Verdict::Relayed => {
                Box::pin(async move { question.answer().await.unwrap_or(Verdict::Unknown) })
            }
            Verdict::Queued if joins => {
                let noted = self.until_noted();
                Box::pin(async move {
                    let patience = crate::worker::requests::ANSWER_TIME;
                    match tokio::time::timeout(patience, noted).await {
                        Ok(Ok(())) => Verdict::Queued,
                        _ => Verdict::Unknown,
                    }
                })
            }
            verdict => Box::pin(std::future::ready(verdict)),
        }
    }
}
