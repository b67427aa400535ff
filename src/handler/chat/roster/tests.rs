use super::*;

/// Workers whose notes go through queues that a test can cut.
struct Net {
    rosters: BTreeMap<Slot, Roster>,
    queue: std::collections::VecDeque<(Slot, Slot, Note)>,
    shown: Vec<(Fd, Event)>,
}

impl Net {
    fn new(workers: u8) -> Net {
        let mut net =
            Net { rosters: BTreeMap::new(), queue: Default::default(), shown: Vec::new() };
        for slot in 0..workers {
            net.start(slot, 1);
        }
        net.settle();
        net
    }

    fn start(&mut self, slot: u8, epoch: u32) {
        let id = WorkerId { slot: Slot(slot), epoch };
        self.rosters.insert(Slot(slot), Roster::new(id));
        self.on(slot, Roster::start);
    }

    fn on(&mut self, slot: u8, event: impl FnOnce(&mut Roster) -> Vec<Action>) {
        let Some(roster) = self.rosters.get_mut(&Slot(slot)) else { return };
        for action in event(roster) {
            match action {
                Action::Tell(to, note) => self.queue.push_back((Slot(slot), to, note)),
                Action::TellAll(note) => {
                    for to in 0..4 {
                        self.queue.push_back((Slot(slot), Slot(to), note.clone()));
                    }
                }
                Action::Push(fd, event) => self.shown.push((fd, event)),
                Action::Show(fds, event) => {
                    self.shown.extend(fds.into_iter().map(|fd| (fd, event.clone())));
                }
                Action::FlushSoon => {}
            }
        }
    }

    fn flush(&mut self) {
        for slot in 0..4 {
            self.on(slot, Roster::flush);
        }
    }

    fn settle(&mut self) {
        self.flush();
        while let Some((from, to, note)) = self.queue.pop_front() {
            self.on(to.0, |roster| roster.hear(from, note));
            if self.queue.is_empty() {
                self.flush();
            }
        }
    }

    fn tick(&mut self) {
        for slot in 0..4 {
            self.on(slot, Roster::tick);
        }
        self.settle();
    }

    fn open(&mut self, slot: u8, serial: u64, nick: &str) -> Fd {
        let fd = Fd::new(0, Slot(slot), serial).unwrap();
        self.on(slot, |roster| roster.open(fd, nick.to_owned()));
        fd
    }

    fn nicks(&self, slot: u8) -> Vec<&str> {
        self.rosters[&Slot(slot)].users.values().map(|entry| entry.nick.as_str()).collect()
    }

    fn everyone_knows(&self, nicks: &[&str]) {
        for slot in self.rosters.keys() {
            assert_eq!(self.nicks(slot.0), nicks, "worker {slot}");
        }
    }

    /// What a page would list, having followed all it was shown.
    fn page_of(&self, fd: Fd) -> Vec<String> {
        let mut page = BTreeMap::new();
        for (_, event) in self.shown.iter().filter(|(to, _)| *to == fd) {
            match event {
                Event::Welcome { users, .. } | Event::Users { users, .. } => {
                    page = users.iter().map(|user| (user.fd, user.nick.clone())).collect();
                }
                Event::Change { here, gone, count } => {
                    page.extend(here.iter().map(|user| (user.fd, user.nick.clone())));
                    page.retain(|fd, _| !gone.contains(fd));
                    assert_eq!(page.len(), *count);
                }
                Event::Said { .. } | Event::Error { .. } => {}
            }
        }
        page.into_values().collect()
    }
}

#[test]
fn everyone_sees_everyone_across_workers() {
    let mut net = Net::new(3);
    let ada = net.open(0, 1, "ada");
    let bob = net.open(1, 1, "bob");
    net.settle();
    net.everyone_knows(&["ada", "bob"]);
    net.on(1, |roster| roster.rename(bob, "robert".into()));
    net.settle();
    assert_eq!(net.page_of(ada), ["ada", "robert"]);
    net.on(0, |roster| roster.close(ada));
    net.settle();
    net.everyone_knows(&["robert"]);
    assert_eq!(net.page_of(bob), ["robert"]);
}

#[test]
fn a_killed_workers_users_are_forgotten_by_its_replacement() {
    let mut net = Net::new(2);
    let ada = net.open(0, 1, "ada");
    let bob = net.open(1, 1, "bob");
    net.settle();
    net.start(1, 2);
    net.settle();
    net.on(1, |roster| roster.close(bob));
    net.settle();
    net.everyone_knows(&["ada"]);
    assert_eq!(net.page_of(ada), ["ada"]);
}

#[test]
fn a_fresh_worker_learns_who_is_here_and_its_first_client_sees_it() {
    let mut net = Net::new(2);
    net.open(0, 1, "ada");
    net.settle();
    net.start(2, 1);
    let eve = net.open(2, 1, "eve");
    assert_eq!(net.page_of(eve), ["eve"]);
    net.settle();
    assert_eq!(net.page_of(eve), ["ada", "eve"]);
}

#[test]
fn a_lost_change_is_mended_by_the_next_beat() {
    let mut net = Net::new(2);
    net.open(0, 1, "ada");
    net.flush();
    net.queue.clear();
    assert!(net.nicks(1).is_empty());
    net.tick();
    net.everyone_knows(&["ada"]);
}

#[test]
fn a_lost_change_is_mended_by_the_next_change() {
    let mut net = Net::new(2);
    let ada = net.open(0, 1, "ada");
    net.settle();
    net.on(0, |roster| roster.close(ada));
    net.flush();
    net.queue.clear();
    net.open(0, 2, "bob");
    net.settle();
    net.everyone_knows(&["bob"]);
}

#[test]
fn a_lost_part_of_an_answer_changes_nothing() {
    let mut roster = Roster::new(WorkerId { slot: Slot(0), epoch: 1 });
    let users = vec![Named { fd: Fd::new(0, Slot(1), 1).unwrap(), nick: "ada".into() }];
    let word = Word::All { version: 7, part: 1, last: true, users };
    roster.hear(Slot(1), Note { epoch: 1, word });
    assert!(roster.users.is_empty());
    let version = Note { epoch: 1, word: Word::Version { version: 7 } };
    let ask = Note { epoch: 1, word: Word::Ask { epoch: Some(1) } };
    assert_eq!(roster.hear(Slot(1), version), [Action::Tell(Slot(1), ask)]);
}

#[test]
fn a_process_that_falls_silent_is_forgotten_and_may_come_back() {
    let mut net = Net::new(2);
    let ada = net.open(0, 1, "ada");
    net.open(1, 1, "bob");
    net.settle();
    let silent = net.rosters.remove(&Slot(1)).unwrap();
    for _ in 0..SILENT_TICKS_MAX {
        net.tick();
        assert_eq!(net.page_of(ada), ["ada", "bob"]);
    }
    net.tick();
    assert_eq!(net.page_of(ada), ["ada"]);
    net.rosters.insert(Slot(1), silent);
    net.tick();
    assert_eq!(net.page_of(ada), ["ada", "bob"]);
    net.everyone_knows(&["ada", "bob"]);
}

#[test]
fn a_user_who_is_handed_over_stays() {
    let mut net = Net::new(2);
    let ada = net.open(0, 1, "ada");
    let bob = net.open(1, 1, "bob");
    net.settle();
    net.shown.retain(|(fd, _)| *fd == bob);
    net.start(1, 2);
    net.settle();
    assert_eq!(net.nicks(0), ["ada", "bob"]);
    net.on(1, |roster| roster.attach(bob, "bob".into()));
    net.settle();
    net.everyone_knows(&["ada", "bob"]);
    assert_eq!(net.page_of(bob), ["ada", "bob"]);
    for _ in 0..2 * SILENT_TICKS_MAX {
        net.tick();
    }
    net.everyone_knows(&["ada", "bob"]);
    let left = |event: &Event| matches!(event, Event::Change { gone, .. } if !gone.is_empty());
    assert!(!net.shown.iter().any(|(fd, event)| *fd == ada && left(event)));
}

#[test]
fn an_old_processs_answer_takes_no_user_back() {
    let mut net = Net::new(2);
    let bob = net.open(1, 1, "bob");
    net.settle();
    let mut old = net.rosters.remove(&Slot(1)).unwrap();
    net.start(1, 2);
    net.on(1, |roster| roster.attach(bob, "bob".into()));
    net.settle();
    let ask = Note { epoch: 1, word: Word::Ask { epoch: None } };
    for action in old.hear(Slot(0), ask) {
        let Action::Tell(to, note) = action else { panic!("{action:?}") };
        net.on(to.0, |roster| roster.hear(Slot(1), note));
    }
    assert_eq!(net.rosters[&Slot(0)].users[&bob].home.epoch, 2);
}

#[test]
fn many_users_go_in_parts_and_a_page_gets_a_capped_list() {
    let mut net = Net::new(2);
    let ada = net.open(0, 1, "ada");
    net.settle();
    let many = NOTE_USERS_MAX as u64 * 2 + 5;
    for serial in 1..=many {
        net.open(1, serial, "x");
    }
    net.settle();
    assert_eq!(net.nicks(0).len() as u64, many + 1);
    net.start(0, 2);
    net.settle();
    assert_eq!(net.nicks(0).len() as u64, many);
    let lists: Vec<_> = net.shown.iter().filter(|(fd, _)| *fd == ada).collect();
    let Some((_, Event::Users { count, users })) = lists.last() else { panic!("{lists:?}") };
    assert_eq!((*count as u64, users.len()), (many + 1, LIST_MAX));
}

#[test]
fn a_burst_of_changes_asks_for_one_flush() {
    let mut roster = Roster::new(WorkerId { slot: Slot(0), epoch: 1 });
    let mut asked = 0;
    for serial in 1..100 {
        let fd = Fd::new(0, Slot(0), serial).unwrap();
        asked += roster.open(fd, "x".into()).iter().filter(|a| **a == Action::FlushSoon).count();
    }
    assert_eq!(asked, 1);
    assert_eq!(roster.flush().len(), 2);
    assert!(roster.flush().is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    Rename(u8, usize),
    Close(u8, usize),
    /// kill -9, then a replacement that is told of every client of the dead one.
    Kill(u8),
    HandOver(u8),
    Flush,
    Deliver(usize),
    Lose(usize),
    Tick,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let slot = 0..3u8;
    let step = prop_oneof![
        3 => slot.clone().prop_map(Step::Open),
        1 => (slot.clone(), 0..5usize).prop_map(|(slot, nth)| Step::Rename(slot, nth)),
        2 => (slot.clone(), 0..5usize).prop_map(|(slot, nth)| Step::Close(slot, nth)),
        1 => slot.clone().prop_map(Step::Kill),
        1 => slot.prop_map(Step::HandOver),
        4 => Just(Step::Flush),
        4 => (0..12usize).prop_map(Step::Deliver),
        1 => (0..12usize).prop_map(Step::Lose),
        1 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 0..80)
}

/// A net and what is true of it.
struct World {
    net: Net,
    truth: BTreeMap<u8, BTreeMap<Fd, String>>,
    epochs: BTreeMap<u8, u32>,
    serial: u64,
}

impl World {
    fn restart(&mut self, slot: u8) {
        let epoch = self.epochs.entry(slot).or_insert(1);
        *epoch += 1;
        let epoch = *epoch;
        self.net.start(slot, epoch);
    }

    fn step(&mut self, step: Step) {
        self.serial += 1;
        match step {
            Step::Open(slot) => {
                let fd = self.net.open(slot, self.serial, "new");
                self.truth.entry(slot).or_default().insert(fd, "new".into());
            }
            Step::Rename(slot, nth) => {
                let Some((&fd, nick)) = self.truth.entry(slot).or_default().iter_mut().nth(nth)
                else {
                    return;
                };
                *nick = format!("renamed-{}", self.serial);
                let nick = nick.clone();
                self.net.on(slot, |roster| roster.rename(fd, nick));
            }
            Step::Close(slot, nth) => {
                let users = self.truth.entry(slot).or_default();
                let Some(&fd) = users.keys().nth(nth) else { return };
                users.remove(&fd);
                self.net.on(slot, |roster| roster.close(fd));
            }
            Step::Kill(slot) => {
                self.restart(slot);
                for fd in self.truth.remove(&slot).unwrap_or_default().into_keys() {
                    self.net.on(slot, |roster| roster.close(fd));
                }
            }
            Step::HandOver(slot) => {
                self.restart(slot);
                for (fd, nick) in self.truth.get(&slot).cloned().unwrap_or_default() {
                    self.net.on(slot, |roster| roster.attach(fd, nick));
                }
            }
            Step::Flush => self.net.flush(),
            Step::Deliver(notes) => {
                for _ in 0..notes {
                    let Some((from, to, note)) = self.net.queue.pop_front() else { return };
                    self.net.on(to.0, |roster| roster.hear(from, note));
                }
            }
            Step::Lose(notes) => {
                let notes = notes.min(self.net.queue.len());
                self.net.queue.drain(..notes);
            }
            Step::Tick => {
                for slot in 0..4 {
                    self.net.on(slot, Roster::tick);
                }
            }
        }
    }
}

proptest::proptest! {
    /// The promise of the module: whatever was lost or killed, all rosters and all pages are
    /// right again a few ticks after it stops.
    #[test]
    fn all_rosters_and_pages_come_to_the_truth(steps in steps()) {
        let net = Net::new(3);
        let (truth, epochs) = Default::default();
        let mut world = World { net, truth, epochs, serial: 0 };
        for step in steps {
            world.step(step);
        }
        for _ in 0..SILENT_TICKS_MAX + 3 {
            world.net.tick();
        }
        let all: BTreeMap<Fd, String> = world.truth.values().flatten()
            .map(|(&fd, nick)| (fd, nick.clone())).collect();
        for (slot, roster) in &world.net.rosters {
            let users: BTreeMap<Fd, String> =
                roster.users.iter().map(|(&fd, entry)| (fd, entry.nick.clone())).collect();
            assert_eq!(users, all, "worker {slot}");
        }
        let nicks: Vec<String> = all.values().cloned().collect();
        for &fd in all.keys() {
            assert_eq!(world.net.page_of(fd), nicks);
        }
    }
}
