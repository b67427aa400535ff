use super::*;

const LIMITS: Limits = Limits { prepare_ms: 60_000, boot_ms: 30_000, hand_over_ms: 45_000 };

fn id(slot: u8, epoch: u32) -> WorkerId {
    WorkerId { slot: Slot(slot), epoch }
}

/// A reload of so many old workers to so many new ones, driven event by event.
struct Story {
    reload: Reload,
    actions: Vec<Action>,
    now: u64,
}

impl Story {
    fn begin(old: u8) -> Story {
        let old = (0..old).map(|slot| (id(slot, 1), true));
        let (reload, actions) = Reload::begin(old, LIMITS, 0);
        Story { reload, actions, now: 0 }
    }

    fn on(&mut self, event: Event) -> &mut Story {
        self.actions.extend(self.reload.on(event, self.now));
        self
    }

    fn prepared(&mut self, worker_num: u16) -> &mut Story {
        self.on(Event::Prepared { generation: 2, worker_num })
    }

    fn attach(&mut self, slot: u8, epoch: u32) -> &mut Story {
        self.on(Event::Attached { id: id(slot, epoch), generation: 2 })
    }

    fn ready(&mut self, slot: u8, epoch: u32) -> &mut Story {
        self.attach(slot, epoch).on(Event::Ready(id(slot, epoch)))
    }

    fn rests(&mut self, from: WorkerId) -> &mut Story {
        self.on(Event::CanGive { from })
    }

    /// A pass of so many is over.
    fn passed(&mut self, from: WorkerId, moved: u64, left: Left) -> &mut Story {
        self.passes(Passed { moved, ..pass(from, left) })
    }

    fn passes(&mut self, passed: Passed) -> &mut Story {
        self.on(Event::Passed(passed))
    }

    fn exited(&mut self, id: WorkerId) -> &mut Story {
        self.on(Event::Exited { id, how: "signal SIGKILL".to_owned() })
    }

    /// Hands everything of a worker over without trouble.
    fn all_moves(&mut self, from: WorkerId, count: u64) -> &mut Story {
        self.rests(from).passed(from, count, Left::Nothing)
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn verdict(&mut self) -> ReloadVerdict {
        match self.actions.pop() {
            Some(Action::Finished(verdict)) => verdict,
            other => panic!("not over but {other:?}, before it {:?}", self.actions),
        }
    }
}

fn moved(slot: u8, to: u8, moved: u64, stayed: u64) -> SlotVerdict {
    SlotVerdict { slot: Slot(slot), to: Slot(to), moved, stayed, failed: None }
}

fn pass(from: WorkerId, left: Left) -> Passed {
    Passed { from, moved: 0, refused: Vec::new(), went_back: false, left: Some(left) }
}

fn flip(from: WorkerId, to: WorkerId) -> Action {
    Action::Flip { from, to, stay: vec![] }
}

fn hand_over(from: WorkerId, to: WorkerId) -> Action {
    Action::HandOver { from, to }
}

fn give(from: WorkerId, to: WorkerId) -> Action {
    Action::Give { from, to }
}

#[test]
fn a_reload_moves_slot_by_slot_and_commits() {
    let mut story = Story::begin(2);
    assert_eq!(story.take(), [Action::Prepare]);
    story.prepared(2);
    assert_eq!(story.take(), [Action::Spawn(Slot(0)), Action::Spawn(Slot(1))]);
    story.ready(1, 2);
    assert_eq!(story.take(), []);
    story.ready(0, 2);
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 2))]);
    story.rests(id(0, 1));
    assert_eq!(story.take(), [give(id(0, 1), id(0, 2))]);
    story.passed(id(0, 1), 2, Left::Nothing);
    let next = hand_over(id(1, 1), id(1, 2));
    assert_eq!(story.take(), [flip(id(0, 1), id(0, 2)), Action::Drain(id(0, 1)), next]);
    story.now = 212;
    story.rests(id(1, 1)).on(Event::Stays { from: id(1, 1), fds: vec![9] });
    story.passed(id(1, 1), 1, Left::Nothing);
    let verdict = story.verdict();
    assert_eq!(verdict.slots, [moved(0, 0, 2, 0), moved(1, 1, 1, 1)]);
    assert_eq!((verdict.generation, verdict.took_ms, verdict.is_ok()), (2, 212, true));
    assert_eq!(story.take().last(), Some(&Action::Commit { worker_num: 2 }));
}

#[test]
fn of_more_clients_that_stay_than_any_worker_has_no_more_are_kept() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1));
    let half = STAY_MAX as u64 / 2 + 1;
    for first in [0, half] {
        let fds = (first..first + half).collect();
        story.on(Event::Stays { from: id(0, 1), fds });
    }
    story.passed(id(0, 1), 1, Left::Nothing);
    assert_eq!(story.verdict().slots[0].stayed, STAY_MAX as u64);
}

#[test]
fn the_next_pass_begins_when_the_last_is_over_and_the_old_worker_has_more() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    let (from, to) = (id(0, 1), id(0, 2));
    story.take();
    story.rests(from);
    assert_eq!(story.take(), [give(from, to)]);
    story.passed(from, 2, Left::More);
    assert_eq!(story.take(), [give(from, to)]);
    // The next ends with somebody whose handler runs: nothing waits for it.
    story.passed(from, 1, Left::Busy);
    assert_eq!(story.take(), []);
    story.rests(from);
    assert_eq!(story.take(), [give(from, to)]);
    // It may rest before the manager knows that the pass is over.
    story.rests(from).passed(from, 0, Left::Busy);
    assert_eq!(story.take(), [give(from, to)]);
    story.passed(from, 1, Left::Nothing);
    assert_eq!(story.verdict().slots, [moved(0, 0, 4, 0)]);
    assert_eq!(story.take()[0], flip(from, to));
}

#[test]
fn a_pass_that_goes_back_is_given_to_the_next() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    let (from, to) = (id(0, 1), id(0, 2));
    story.rests(from).on(Event::Stays { from, fds: vec![7] }).exited(to);
    assert_eq!(story.take().last(), Some(&Action::Spawn(Slot(0))));
    story.ready(0, 3);
    assert_eq!(story.take(), [hand_over(from, id(0, 3))]);
    story.rests(from);
    assert_eq!(story.take(), [], "the pass is not back yet");
    story.passes(Passed { went_back: true, ..pass(from, Left::Nothing) });
    assert_eq!(story.take(), [give(from, id(0, 3))]);
    story.passed(from, 2, Left::Nothing);
    assert_eq!(story.verdict().slots[0].moved, 2);
    assert_eq!(story.take()[0], flip(from, id(0, 3)), "who stays is told anew");
}

#[test]
fn a_refused_preparation_changes_nothing() {
    let mut story = Story::begin(1);
    story.on(Event::PrepareFailed("No such key.".to_owned()));
    assert_eq!(story.verdict().failure.as_deref(), Some("No such key."));
    assert_eq!(story.take(), [Action::Prepare]);
}

#[test]
fn a_silent_master_is_given_up() {
    let mut story = Story::begin(1);
    story.now = LIMITS.prepare_ms;
    assert!(story.on(Event::Tick { waits_for: None }).verdict().failure.is_some());
}

#[test]
fn a_new_worker_that_cannot_start_aborts_and_the_old_never_noticed() {
    let mut story = Story::begin(2);
    story.prepared(2);
    story.take();
    story.on(Event::SpawnFailed { slot: Slot(1), why: "It died: exit status 3.".to_owned() });
    assert_eq!(story.verdict().failure.as_deref(), Some("It died: exit status 3."));
    assert_eq!(story.take(), [Action::Abort]);
}

#[test]
fn what_a_new_worker_accepted_goes_back_before_the_abort() {
    let mut story = Story::begin(2);
    story.prepared(3).ready(0, 2).ready(2, 2);
    story.take();
    story.attach(1, 2).exited(id(1, 2));
    assert_eq!(story.take(), [hand_over(id(0, 2), id(0, 1))]);
    story.all_moves(id(0, 2), 1);
    let next = hand_over(id(2, 2), id(0, 1));
    assert_eq!(story.take(), [give(id(0, 2), id(0, 1)), flip(id(0, 2), id(0, 1)), next]);
    story.all_moves(id(2, 2), 0);
    assert!(!story.verdict().is_ok());
    let rest = [give(id(2, 2), id(0, 1)), flip(id(2, 2), id(0, 1)), Action::Abort];
    assert_eq!(story.take(), rest);
}

#[test]
fn new_workers_that_are_late_abort() {
    let mut story = Story::begin(1);
    story.prepared(1).attach(0, 2);
    story.take();
    story.now = LIMITS.boot_ms;
    let why = story.on(Event::Tick { waits_for: None }).verdict().failure.unwrap();
    assert_eq!(why, "New workers were not ready within 30 s: 0.");
    assert_eq!(story.take(), [Action::Abort]);
}

#[test]
fn connections_of_a_removed_slot_move_to_another() {
    let mut story = Story::begin(3);
    story.prepared(2).ready(0, 2).ready(1, 2);
    story.all_moves(id(0, 1), 1).all_moves(id(1, 1), 1).all_moves(id(2, 1), 1);
    let verdict = story.verdict();
    assert_eq!(verdict.slots, [moved(0, 0, 1, 0), moved(1, 1, 1, 0), moved(2, 0, 1, 0)]);
}

#[test]
fn new_slots_just_start() {
    let mut story = Story::begin(1);
    story.prepared(3).ready(0, 2).ready(1, 2).ready(2, 2);
    story.all_moves(id(0, 1), 0);
    assert_eq!(story.verdict().slots, [moved(0, 0, 0, 0)]);
    assert_eq!(story.take().last(), Some(&Action::Commit { worker_num: 3 }));
}

#[test]
fn an_old_worker_that_dies_has_given_what_it_gave() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1));
    story.take();
    story.exited(id(0, 1));
    assert_eq!(story.take(), [], "what is on its way arrives");
    story.passes(Passed { moved: 2, left: None, ..pass(id(0, 1), Left::Nothing) });
    let verdict = story.verdict();
    assert_eq!(verdict.slots[0].moved, 2);
    assert!(verdict.slots[0].failed.as_deref().unwrap().contains("SIGKILL"));
    assert_eq!(story.take(), [flip(id(0, 1), id(0, 2)), Action::Commit { worker_num: 1 }]);
}

#[test]
fn a_pass_of_a_dead_worker_that_ends_before_its_death_is_told_is_the_last() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1)).rests(id(0, 1));
    story.take();
    story.passes(Passed { left: None, ..pass(id(0, 1), Left::Nothing) });
    assert_eq!(story.take(), []);
    assert!(!story.exited(id(0, 1)).verdict().is_ok());
}

#[test]
fn what_the_new_worker_could_not_take_stays_and_is_told() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1));
    story.take();
    let refused = vec![1, 3];
    story.passes(Passed { moved: 2, refused, ..pass(id(0, 1), Left::Nothing) });
    let verdict = story.verdict();
    assert_eq!((verdict.slots[0].moved, verdict.slots[0].stayed), (2, 2));
    assert!(verdict.slots[0].failed.is_some());
    let flip = Action::Flip { from: id(0, 1), to: id(0, 2), stay: vec![1, 3] };
    assert_eq!(story.take()[0], flip);
}

#[test]
fn what_was_refused_and_moved_with_a_later_pass_does_not_stay() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1));
    story.passes(Passed { refused: vec![1], ..pass(id(0, 1), Left::More) });
    story.passed(id(0, 1), 1, Left::Nothing);
    assert_eq!(story.verdict().slots[0].stayed, 0);
    assert!(story.take().contains(&flip(id(0, 1), id(0, 2))));
}

#[test]
fn a_new_worker_that_dies_is_started_once_more_and_the_rest_moves() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1)).passed(id(0, 1), 2, Left::Busy);
    story.take();
    story.exited(id(0, 2));
    assert_eq!(story.take(), [Action::Spawn(Slot(0))]);
    // The master's own word about the same death asks for nothing more.
    story.on(Event::SpawnFailed { slot: Slot(0), why: "It died.".to_owned() });
    assert_eq!(story.take(), []);
    story.ready(0, 3);
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 3))]);
    story.all_moves(id(0, 1), 2);
    let verdict = story.verdict();
    assert_eq!(verdict.slots[0].moved, 2);
    let failed = verdict.slots[0].failed.as_deref().unwrap();
    assert_eq!(
        failed,
        "The new worker 0.2 died while it took over, with 2 connections: signal SIGKILL."
    );
}

#[test]
fn a_new_worker_that_dies_twice_is_given_up_and_the_old_drains() {
    let mut story = Story::begin(2);
    story.prepared(2).ready(0, 2).ready(1, 2);
    story.exited(id(0, 2)).ready(0, 3);
    story.take();
    story.exited(id(0, 3));
    let next = hand_over(id(1, 1), id(1, 2));
    assert_eq!(story.take(), [Action::Drain(id(0, 1)), next]);
    story.all_moves(id(1, 1), 0);
    let verdict = story.verdict();
    assert!(verdict.slots[0].failed.is_some() && verdict.slots[1].failed.is_none());
    assert_eq!(story.take().last(), Some(&Action::Commit { worker_num: 2 }));
}

#[test]
fn a_new_worker_that_dies_before_its_turn_is_back_for_it() {
    let mut story = Story::begin(2);
    story.prepared(2).ready(0, 2).ready(1, 2);
    story.take();
    story.exited(id(1, 2));
    assert_eq!(story.take(), [Action::Spawn(Slot(1))]);
    story.all_moves(id(0, 1), 0);
    let give = give(id(0, 1), id(0, 2));
    assert_eq!(story.take(), [give, flip(id(0, 1), id(0, 2)), Action::Drain(id(0, 1))]);
    story.ready(1, 3);
    assert_eq!(story.take(), [hand_over(id(1, 1), id(1, 3))]);
}

#[test]
fn a_worker_that_holds_a_pass_up_is_killed() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1));
    story.take();
    story.now = LIMITS.hand_over_ms;
    story.on(Event::Tick { waits_for: Some(id(0, 2)) });
    assert_eq!(story.take(), [Action::Kill(id(0, 2))]);
    story.exited(id(0, 2));
    assert_eq!(story.take(), [Action::Spawn(Slot(0))]);
}

#[test]
fn a_handover_that_had_to_wait_has_all_its_time_from_then_on() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    story.take();
    story.reload.moves_from(1000);
    story.now = LIMITS.hand_over_ms + 999;
    story.on(Event::Tick { waits_for: None });
    assert_eq!(story.take(), []);
    story.now += 1;
    story.on(Event::Tick { waits_for: None });
    assert_eq!(story.verdict().slots[0].moved, 0);
}

#[test]
fn what_stayed_follows_by_a_move_of_its_own() {
    let (reload, actions) = Reload::follow(id(0, 1), id(0, 2), LIMITS, 0);
    let mut story = Story { reload, actions, now: 0 };
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 2))]);
    story.all_moves(id(0, 1), 1);
    assert_eq!(story.verdict().slots[0].moved, 1);
    assert_eq!(story.take(), [give(id(0, 1), id(0, 2)), flip(id(0, 1), id(0, 2))]);
}

#[test]
fn a_worker_that_dies_while_it_takes_what_stayed_is_not_started_by_the_reload() {
    let (reload, actions) = Reload::follow(id(0, 1), id(0, 2), LIMITS, 0);
    let mut story = Story { reload, actions, now: 0 };
    story.rests(id(0, 1)).exited(id(0, 2));
    assert!(!story.verdict().is_ok());
    assert!(!story.take().iter().any(|action| matches!(action, Action::Spawn(_))));
}

#[test]
fn a_handover_that_does_not_end_keeps_what_arrived() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).rests(id(0, 1)).passed(id(0, 1), 1, Left::Busy);
    story.take();
    story.now = LIMITS.hand_over_ms;
    story.on(Event::Tick { waits_for: None });
    let verdict = story.verdict();
    assert_eq!(verdict.slots[0].moved, 1);
    assert!(!verdict.is_ok());
    assert_eq!(story.take(), [Action::Drain(id(0, 1)), Action::Commit { worker_num: 1 }]);
}

#[test]
fn an_old_worker_that_was_not_ready_has_nothing_to_give() {
    let (reload, actions) = Reload::begin([(id(0, 1), false)], LIMITS, 0);
    let mut story = Story { reload, actions, now: 0 };
    story.prepared(1).ready(0, 2);
    assert!(story.verdict().is_ok());
    let rest = [Action::Drain(id(0, 1)), Action::Commit { worker_num: 1 }];
    assert_eq!(story.take()[2..], rest);
}

#[test]
fn an_old_worker_replaced_meanwhile_is_the_one_that_hands_over() {
    let mut story = Story::begin(1);
    story.prepared(1).exited(id(0, 1));
    story.on(Event::Attached { id: id(0, 2), generation: 1 }).on(Event::Ready(id(0, 2)));
    story.take();
    story.ready(0, 3);
    assert_eq!(story.take(), [hand_over(id(0, 2), id(0, 3))]);
}

#[test]
fn a_successor_goes_on_where_the_last_manager_ended() {
    let old = [(id(0, 1), true), (id(1, 1), true)];
    let new = [(id(0, 2), true)];
    let (reload, actions) = Reload::resume(2, 2, old, new, LIMITS, 0);
    assert_eq!(actions, [Action::Spawn(Slot(1))]);
    let mut story = Story { reload, actions: vec![], now: 0 };
    story.ready(1, 2);
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 2))]);
}
