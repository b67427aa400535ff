//! Joins, leaves, binds, sessions and expiry: of clients here at once, of all others by their
//! worker.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::Verdict;
use crate::api::rooms::{Change, Topic};
use crate::worker::base::ticks::{NEVER, TICK_MS, Tick, tick};
use crate::worker::clients::Clients;
use crate::worker::clients::connection::Connection;
use crate::worker::clients::key::Key;
use crate::worker::clients::rooms::table::{Memberships, Rooms};
use crate::worker::clients::table::Table;

/// Whether a client has more with it after a change than before.
fn takes_more(connection: &Connection, change: &Change) -> bool {
    let length = |text: Option<&str>| text.map_or(0, str::len);
    match change {
        Change::Join { room, info: Some(info) } => {
            info.len() > length(connection.info_in(&Topic::room(room)).as_deref())
        }
        Change::Session(Some(json)) => {
            let personal = connection.personal.as_ref();
            let session = personal.and_then(|personal| personal.session.as_deref());
            json.len() > length(session)
        }
        _ => false,
    }
}

impl Clients {
    /// Whether a name or a session is longer than it may be.
    pub(in crate::worker) fn is_beyond_limits(&self, change: &Change) -> bool {
        let config = &self.settings.config;
        match change {
            Change::Join { room, info } => {
                let info = info.as_ref().map_or(0, String::len);
                room.len() > config.room_name_max || info as u64 > config.session_max
            }
            Change::Bind { uid } => uid.is_empty() || uid.len() > config.uid_max,
            Change::Session(json) => {
                json.as_ref().is_some_and(|json| json.len() as u64 > config.session_max)
            }
            // Who is in a room whose name is too long by now may leave.
            Change::Leave { .. } | Change::Unbind | Change::ExpireAt(_) => false,
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
        if self.budget.is_full() && takes_more(connection, &change) {
            return Verdict::Full;
        }
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
            let (rooms, of) =
                (self.rooms.table.borrow(), table.get(key).map(|it| &it.memberships));
            let has_all = of.is_some_and(|of| rooms.count_of(of) >= config.rooms_per_client);
            // Most are far below both limits, and need not be looked through for each room.
            (has_all || rooms.len() >= config.rooms_max)
                && of.is_some_and(|of| self.is_full_for(&rooms, of, &topic))
        };
        if full {
            return Verdict::Full;
        }
        self.enter_room(table, key, topic, info);
        Verdict::Queued
    }

    /// Whether a client may be in no room more, or this worker have none, and the topic is one.
    fn is_full_for(&self, rooms: &Rooms, of: &Memberships, topic: &Topic) -> bool {
        let config = &self.settings.config;
        let (mut is_in, mut count) = (false, 0);
        for its in rooms.topics_of(of) {
            is_in |= its == topic;
            count += usize::from(!its.is_user());
        }
        let rooms_full = rooms.len() >= config.rooms_max && !rooms.has(topic);
        !is_in && (count >= config.rooms_per_client || rooms_full)
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
            self.reckon(connection);
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
}
