//! Who is here, as one worker knows it. A pure state machine: events in, actions out.
//!
//! Each worker owns the users of its own connections and tells the others of each change, with a
//! version that counts them. Three rules keep every roster right, whatever is lost or killed:
//!
//! 1. Whoever sees a gap in a peer's versions, or in what the peer says of them, asks for all.
//! 2. The replacement of a killed worker tells that the dead one's clients are gone.
//! 3. The users of a process not heard of for [`SILENT_TICKS_MAX`] ticks are forgotten. Should
//!    it live after all, rule 1 brings them back.
//!
//! A page shows what its worker knows: every change of a roster is shown to its own users.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Event, LIST_MAX, Named, Note, User, Word};
use crate::fd::{Fd, Slot, WorkerId};

/// How many ticks a process may be silent before its users are forgotten.
const SILENT_TICKS_MAX: u64 = 3;
/// How many users one note carries: about 100 KB, well under any limit on a packet.
const NOTE_USERS_MAX: usize = 1000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Tell one worker.
    Tell(Slot, Note),
    /// Tell every worker, also our slot: two processes share it in a reload, told by the epoch.
    TellAll(Note),
    /// Push to one client of ours.
    Push(Fd, Event),
    /// Push to these clients of ours.
    Show(Vec<Fd>, Event),
    /// Call `flush` soon. Changes wait for each other, as a thousand clients may come at once.
    FlushSoon,
}

struct Entry {
    nick: String,
    home: WorkerId,
}

/// Another process, as far as it was heard.
#[derive(Default)]
struct Peer {
    /// `None` until it told all.
    version: Option<u64>,
    heard: u64,
    /// The tick of our last question, so as not to ask for each of a row of changes.
    asked: Option<u64>,
    parts: u32,
    partial: Vec<Named>,
}

pub(super) struct Roster {
    me: WorkerId,
    users: BTreeMap<Fd, Entry>,
    peers: BTreeMap<WorkerId, Peer>,
    version: u64,
    ticks: u64,
    /// Changes of ours that the other workers were not told of: true for here, false for gone.
    /// Gone is final, since an fd is never reused, whatever a late note may say.
    untold: BTreeMap<Fd, bool>,
    /// Changes that our own users were not shown.
    unshown: BTreeSet<Fd>,
    /// Our users whose pages know an older process's list, or none.
    unwelcomed: BTreeSet<Fd>,
    /// Whether so much changed that pages get a whole list.
    relist: bool,
    flush_due: bool,
}

impl Roster {
    pub(super) fn new(me: WorkerId) -> Roster {
        Roster {
            me,
            users: BTreeMap::new(),
            peers: BTreeMap::new(),
            version: 0,
            ticks: 0,
            untold: BTreeMap::new(),
            unshown: BTreeSet::new(),
            unwelcomed: BTreeSet::new(),
            relist: false,
            flush_due: false,
        }
    }

    /// The nick of a user of ours.
    pub(super) fn nick(&self, fd: Fd) -> Option<&str> {
        self.users.get(&fd).filter(|entry| entry.home == self.me).map(|entry| entry.nick.as_str())
    }

    /// We begin: ask everyone.
    pub(super) fn start(&mut self) -> Vec<Action> {
        vec![Action::TellAll(self.note(Word::Ask { epoch: None }))]
    }

    /// A client of ours came in.
    pub(super) fn open(&mut self, fd: Fd, nick: String) -> Vec<Action> {
        self.place(fd, nick, self.me);
        self.untold.insert(fd, true);
        let mut actions = vec![Action::Push(fd, self.welcome(fd))];
        self.flush_soon(&mut actions);
        actions
    }

    /// A client came over. It is welcomed with the next flush, when the others' answers are here.
    pub(super) fn attach(&mut self, fd: Fd, nick: String) -> Vec<Action> {
        self.place(fd, nick, self.me);
        self.untold.insert(fd, true);
        self.unwelcomed.insert(fd);
        let mut actions = Vec::new();
        self.flush_soon(&mut actions);
        actions
    }

    /// A client of ours took another nick.
    pub(super) fn rename(&mut self, fd: Fd, nick: String) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.place(fd, nick, self.me) {
            self.untold.insert(fd, true);
            self.flush_soon(&mut actions);
        }
        actions
    }

    /// A client of ours, or of a killed process that we replace, is gone. We may never have
    /// known it; others may.
    pub(super) fn close(&mut self, fd: Fd) -> Vec<Action> {
        self.remove(fd);
        self.unwelcomed.remove(&fd);
        self.untold.insert(fd, false);
        let mut actions = Vec::new();
        self.flush_soon(&mut actions);
        actions
    }

    /// A note of another worker came.
    pub(super) fn hear(&mut self, from: Slot, note: Note) -> Vec<Action> {
        let home = WorkerId { slot: from, epoch: note.epoch };
        let mut actions = Vec::new();
        if home == self.me {
            return actions;
        }
        self.peers.entry(home).or_default().heard = self.ticks;
        match note.word {
            Word::Ask { epoch } => {
                if epoch.is_none_or(|epoch| epoch == self.me.epoch) {
                    self.tell_all_to(from, &mut actions);
                }
            }
            Word::Version { version } => {
                if self.peer_version(home) != Some(version) {
                    self.ask(home, &mut actions);
                }
            }
            Word::Change { version, here, gone } => {
                self.hear_change(home, version, here, gone, &mut actions);
            }
            Word::All { version, part, last, users } => {
                self.hear_part(home, part, users);
                if last {
                    self.hear_all(home, version, part);
                }
            }
        }
        if self.relist || !self.unshown.is_empty() {
            self.flush_soon(&mut actions);
        }
        actions
    }

    /// Time passes: a few seconds since the last tick.
    pub(super) fn tick(&mut self) -> Vec<Action> {
        self.ticks += 1;
        let told = Word::Version { version: self.version };
        let (ticks, mut actions) = (self.ticks, vec![Action::TellAll(self.note(told))]);
        self.peers.retain(|_, peer| peer.heard + SILENT_TICKS_MAX >= ticks);
        let before = self.users.len();
        let (me, peers) = (self.me, &self.peers);
        self.users.retain(|_, entry| entry.home == me || peers.contains_key(&entry.home));
        self.relist |= self.users.len() != before;
        if self.relist {
            // One of them may have moved on unseen by us: whoever has it will say so.
            actions.push(Action::TellAll(self.note(Word::Ask { epoch: None })));
        }
        if self.relist || !self.unwelcomed.is_empty() {
            self.flush_soon(&mut actions);
        }
        actions
    }

    /// These users of ours were not shown a change: they get a whole list with the next tick.
    pub(super) fn missed(&mut self, fds: Vec<Fd>) {
        self.unwelcomed.extend(fds);
    }

    /// Tells the other workers and shows our users what changed since the last flush.
    pub(super) fn flush(&mut self) -> Vec<Action> {
        self.flush_due = false;
        let mut actions = Vec::new();
        self.flush_to_workers(&mut actions);
        let unwelcomed = std::mem::take(&mut self.unwelcomed);
        let unshown = std::mem::take(&mut self.unshown);
        let relist = std::mem::take(&mut self.relist) || unshown.len() > LIST_MAX;
        let others: Vec<Fd> = self.mine().filter(|fd| !unwelcomed.contains(fd)).collect();
        if !others.is_empty() && (relist || !unshown.is_empty()) {
            let event = if relist { self.list() } else { self.change(&unshown) };
            actions.push(Action::Show(others, event));
        }
        actions.extend(unwelcomed.into_iter().map(|fd| Action::Push(fd, self.welcome(fd))));
        actions
    }

    fn flush_to_workers(&mut self, actions: &mut Vec<Action>) {
        let untold: Vec<(Fd, bool)> = std::mem::take(&mut self.untold).into_iter().collect();
        for chunk in untold.chunks(NOTE_USERS_MAX) {
            let gone = chunk.iter().filter(|(_, here)| !here).map(|&(fd, _)| fd).collect();
            // One that moved on meanwhile has no nick here; its new process tells of it.
            let named = |&(fd, _): &(Fd, bool)| {
                let nick = self.nick(fd)?.to_owned();
                Some(Named { fd, nick })
            };
            let here = chunk.iter().filter(|(_, here)| *here).filter_map(named).collect();
            self.version += 1;
            let version = self.version;
            actions.push(Action::TellAll(self.note(Word::Change { version, here, gone })));
        }
    }

    fn hear_change(
        &mut self,
        home: WorkerId,
        version: u64,
        here: Vec<Named>,
        gone: Vec<Fd>,
        actions: &mut Vec<Action>,
    ) {
        for user in here {
            // That user may have been ours: then it moved.
            if !self.has_newer_home(user.fd, home) {
                self.place(user.fd, user.nick, home);
            }
        }
        for fd in gone {
            if self.nick(fd).is_none() && !self.has_newer_home(fd, home) {
                self.remove(fd);
            }
        }
        match self.peer_version(home) {
            Some(known) if known + 1 == version => {
                self.peers.entry(home).or_default().version = Some(version);
            }
            _ => self.ask(home, actions),
        }
    }

    fn hear_part(&mut self, home: WorkerId, part: u32, users: Vec<Named>) {
        let peer = self.peers.entry(home).or_default();
        if part == 0 {
            peer.partial.clear();
            peer.parts = 0;
        }
        if part == peer.parts {
            peer.parts += 1;
            peer.partial.extend(users);
        }
    }

    /// Puts what a peer says it has in place of what we thought it had.
    fn hear_all(&mut self, home: WorkerId, version: u64, last_part: u32) {
        let peer = self.peers.entry(home).or_default();
        let users = std::mem::take(&mut peer.partial);
        if std::mem::take(&mut peer.parts) != last_part + 1 {
            // A part was lost. The version stays unequal, so the next telling asks again.
            return;
        }
        peer.version = Some(version);
        let has: BTreeSet<Fd> = users.iter().map(|user| user.fd).collect();
        let before = self.users.len();
        self.users.retain(|fd, entry| entry.home != home || has.contains(fd));
        let mut changed = self.users.len() != before;
        for user in users {
            let is_mine = self.nick(user.fd).is_some();
            if !is_mine && !self.has_newer_home(user.fd, home) {
                changed |= self.put(user.fd, user.nick, home);
            }
        }
        self.relist |= changed;
    }

    fn tell_all_to(&self, to: Slot, actions: &mut Vec<Action>) {
        let mine: Vec<Named> = self
            .users
            .iter()
            .filter(|(_, entry)| entry.home == self.me)
            .map(|(&fd, entry)| Named { fd, nick: entry.nick.clone() })
            .collect();
        let mut chunks: Vec<&[Named]> = mine.chunks(NOTE_USERS_MAX).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let last_part = chunks.len() - 1;
        for (part, users) in chunks.into_iter().enumerate() {
            let (version, users) = (self.version, users.to_vec());
            let word = Word::All { version, part: part as u32, last: part == last_part, users };
            actions.push(Action::Tell(to, self.note(word)));
        }
    }

    fn ask(&mut self, whom: WorkerId, actions: &mut Vec<Action>) {
        let ticks = self.ticks;
        let peer = self.peers.entry(whom).or_default();
        if peer.asked.replace(ticks) != Some(ticks) {
            let note = self.note(Word::Ask { epoch: Some(whom.epoch) });
            actions.push(Action::Tell(whom.slot, note));
        }
    }

    fn peer_version(&self, home: WorkerId) -> Option<u64> {
        self.peers.get(&home).and_then(|peer| peer.version)
    }

    /// Whether a successor of `home` in its slot took the user over. What the older process
    /// says of it then is old.
    fn has_newer_home(&self, fd: Fd, home: WorkerId) -> bool {
        let newer = |has: WorkerId| has.slot == home.slot && has.epoch > home.epoch;
        self.users.get(&fd).is_some_and(|entry| newer(entry.home))
    }

    /// Puts a user where it is now; true if that is news.
    fn put(&mut self, fd: Fd, nick: String, home: WorkerId) -> bool {
        let same = |entry: &Entry| entry.nick == nick && entry.home == home;
        let news = !self.users.get(&fd).is_some_and(same);
        self.users.insert(fd, Entry { nick, home });
        news
    }

    fn place(&mut self, fd: Fd, nick: String, home: WorkerId) -> bool {
        let news = self.put(fd, nick, home);
        if news {
            self.unshown.insert(fd);
        }
        news
    }

    fn remove(&mut self, fd: Fd) {
        if self.users.remove(&fd).is_some() {
            self.unshown.insert(fd);
        }
    }

    fn flush_soon(&mut self, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.flush_due, true) {
            actions.push(Action::FlushSoon);
        }
    }

    fn mine(&self) -> impl Iterator<Item = Fd> + '_ {
        self.users.iter().filter(|(_, entry)| entry.home == self.me).map(|(&fd, _)| fd)
    }

    fn note(&self, word: Word) -> Note {
        Note { epoch: self.me.epoch, word }
    }

    fn user(&self, fd: Fd) -> Option<User> {
        let entry = self.users.get(&fd)?;
        Some(User { fd, nick: entry.nick.clone(), worker: entry.home.slot })
    }

    fn listed(&self) -> Vec<User> {
        self.users.keys().take(LIST_MAX).filter_map(|&fd| self.user(fd)).collect()
    }

    fn welcome(&self, fd: Fd) -> Event {
        Event::Welcome {
            fd,
            nick: self.nick(fd).unwrap_or_default().to_owned(),
            worker: self.me.slot,
            epoch: self.me.epoch,
            count: self.users.len(),
            users: self.listed(),
        }
    }

    fn list(&self) -> Event {
        Event::Users { count: self.users.len(), users: self.listed() }
    }

    fn change(&self, fds: &BTreeSet<Fd>) -> Event {
        let here: Vec<User> = fds.iter().filter_map(|&fd| self.user(fd)).collect();
        let gone = fds.iter().copied().filter(|fd| !self.users.contains_key(fd)).collect();
        Event::Change { count: self.users.len(), here, gone }
    }
}

#[cfg(test)]
mod tests;
