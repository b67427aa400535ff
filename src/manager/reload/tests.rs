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

    fn moving(&mut self, from: WorkerId, fds: &[u64]) -> &mut Story {
        self.on(Event::Moving { from, fds: fds.to_vec() })
    }

    fn adopted(&mut self, by: WorkerId, fds: &[u64]) -> &mut Story {
        self.on(Event::Adopted { by, fds: fds.to_vec(), had: Vec::new() })
    }

    fn exited(&mut self, id: WorkerId) -> &mut Story {
        self.on(Event::Exited { id, how: "signal SIGKILL".to_owned() })
    }

    /// Hands everything of a worker over without trouble.
    fn all_moves(&mut self, from: WorkerId, to: WorkerId, fds: &[u64]) -> &mut Story {
        self.moving(from, fds).on(Event::HandedOver { from }).adopted(to, fds)
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

fn flip(from: WorkerId, to: WorkerId, adopted: &[u64]) -> Action {
    Action::Flip { from, to, stay: vec![], adopted: adopted.to_vec() }
}

fn release() -> Action {
    Action::Release { to: None, adopted: vec![] }
}

fn hand_over(from: WorkerId, to: WorkerId) -> Action {
    Action::HandOver { from, to }
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
    story.moving(id(0, 1), &[1]).moving(id(0, 1), &[2]).adopted(id(0, 2), &[1]);
    story.on(Event::HandedOver { from: id(0, 1) });
    assert_eq!(story.take(), [], "one is still on its way");
    story.adopted(id(0, 2), &[2]);
    let next = hand_over(id(1, 1), id(1, 2));
    let flipped = flip(id(0, 1), id(0, 2), &[1, 2]);
    assert_eq!(story.take(), [flipped, Action::Drain(id(0, 1)), next]);
    story.now = 212;
    story.on(Event::Stays { from: id(1, 1), fds: vec![9] });
    story.all_moves(id(1, 1), id(1, 2), &[7]);
    let verdict = story.verdict();
    assert_eq!(verdict.slots, [moved(0, 0, 2, 0), moved(1, 1, 1, 1)]);
    assert_eq!((verdict.generation, verdict.took_ms, verdict.is_ok()), (2, 212, true));
    assert_eq!(story.take().last(), Some(&Action::Commit { worker_num: 2 }));
}

#[test]
fn after_each_round_its_routes_change_and_what_waited_goes_out() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    let (from, to) = (id(0, 1), id(0, 2));
    let next = hand_over(from, to);
    let round = |fds: &[u64]| {
        let release = Action::Release { to: Some(to), adopted: fds.to_vec() };
        [Action::FlipSome { to, moved: fds.to_vec() }, release]
    };
    story.take();
    story.moving(from, &[1, 2]).on(Event::Gave { from }).on(Event::Rested { from });
    assert_eq!(story.take(), [], "they are still on their way");
    story.adopted(to, &[1, 2]);
    let [flip_some, release] = round(&[1, 2]);
    assert_eq!(story.take(), [flip_some, release, next]);
    // The next ends with somebody whose handler runs: nothing waits for it.
    story.moving(from, &[3]).adopted(to, &[3]).on(Event::Gave { from });
    assert_eq!(story.take(), round(&[3]));
    assert!(story.reload.pauses(from));
    story.on(Event::Rested { from });
    assert_eq!(story.take(), [hand_over(from, to)]);
    story.all_moves(from, to, &[4]);
    assert_eq!(story.verdict().slots, [moved(0, 0, 4, 0)]);
    assert_eq!(story.take()[0], flip(from, to, &[4]));
}

#[test]
fn a_new_worker_that_dies_between_two_rounds_is_started_once_more() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    let (from, to) = (id(0, 1), id(0, 2));
    story.moving(from, &[1]).on(Event::Gave { from }).adopted(to, &[1]).exited(to);
    assert_eq!(story.take().last(), Some(&Action::Spawn(Slot(0))));
    // Its word was for the one that is dead.
    story.on(Event::Rested { from });
    assert_eq!(story.take(), []);
    story.ready(0, 3);
    assert_eq!(story.take(), [hand_over(from, id(0, 3))]);
    story.all_moves(from, id(0, 3), &[2]);
    assert_eq!(story.verdict().slots[0].moved, 1);
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
    assert!(story.on(Event::Tick).verdict().failure.is_some());
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
    story.all_moves(id(0, 2), id(0, 1), &[5]);
    let next = hand_over(id(2, 2), id(0, 1));
    assert_eq!(story.take(), [flip(id(0, 2), id(0, 1), &[5]), next]);
    story.all_moves(id(2, 2), id(0, 1), &[]);
    assert!(!story.verdict().is_ok());
    assert_eq!(story.take(), [flip(id(2, 2), id(0, 1), &[]), Action::Abort]);
}

#[test]
fn new_workers_that_are_late_abort() {
    let mut story = Story::begin(1);
    story.prepared(1).attach(0, 2);
    story.take();
    story.now = LIMITS.boot_ms;
    let why = story.on(Event::Tick).verdict().failure.unwrap();
    assert_eq!(why, "New workers were not ready within 30 s: 0.");
    assert_eq!(story.take(), [Action::Abort]);
}

#[test]
fn connections_of_a_removed_slot_move_to_another() {
    let mut story = Story::begin(3);
    story.prepared(2).ready(0, 2).ready(1, 2);
    story.all_moves(id(0, 1), id(0, 2), &[1]).all_moves(id(1, 1), id(1, 2), &[2]);
    story.take();
    story.all_moves(id(2, 1), id(0, 2), &[3]);
    let verdict = story.verdict();
    assert_eq!(verdict.slots, [moved(0, 0, 1, 0), moved(1, 1, 1, 0), moved(2, 0, 1, 0)]);
}

#[test]
fn new_slots_just_start() {
    let mut story = Story::begin(1);
    story.prepared(3).ready(0, 2).ready(1, 2).ready(2, 2);
    story.all_moves(id(0, 1), id(0, 2), &[]);
    assert_eq!(story.verdict().slots, [moved(0, 0, 0, 0)]);
    assert_eq!(story.take().last(), Some(&Action::Commit { worker_num: 3 }));
}

#[test]
fn an_old_worker_that_dies_has_given_what_it_gave() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    story.take();
    story.moving(id(0, 1), &[1, 2]).exited(id(0, 1));
    assert_eq!(story.take(), [], "what is on its way arrives");
    story.adopted(id(0, 2), &[1, 2]);
    let verdict = story.verdict();
    assert_eq!(verdict.slots[0].moved, 2);
    assert!(verdict.slots[0].failed.as_deref().unwrap().contains("SIGKILL"));
    let flipped = flip(id(0, 1), id(0, 2), &[1, 2]);
    assert_eq!(story.take(), [flipped, Action::Commit { worker_num: 1 }]);
}

#[test]
fn what_the_new_worker_could_not_take_stays_and_is_told() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    story.moving(id(0, 1), &[1, 2]).moving(id(0, 1), &[3]).moving(id(0, 1), &[4]);
    // One of the first batch, nothing said of the second, all of the third.
    story.adopted(id(0, 2), &[2]).adopted(id(0, 2), &[4]);
    story.take();
    story.on(Event::HandedOver { from: id(0, 1) });
    let verdict = story.verdict();
    assert_eq!((verdict.slots[0].moved, verdict.slots[0].stayed), (2, 2));
    assert!(verdict.slots[0].failed.is_some());
    let flip =
        Action::Flip { from: id(0, 1), to: id(0, 2), stay: vec![1, 3], adopted: vec![2, 4] };
    assert_eq!(story.take()[0], flip);
}

#[test]
fn a_new_worker_that_dies_is_started_once_more_and_the_rest_moves() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    story.moving(id(0, 1), &[1]).moving(id(0, 1), &[2]).adopted(id(0, 2), &[1]);
    story.take();
    story.exited(id(0, 2));
    assert_eq!(story.take(), [Action::Spawn(Slot(0))]);
    // The master's own word about the same death asks for nothing more.
    story.on(Event::SpawnFailed { slot: Slot(0), why: "It died.".to_owned() });
    assert_eq!(story.take(), []);
    story.ready(0, 3);
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 3))]);
    story.all_moves(id(0, 1), id(0, 3), &[2, 3]);
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
    assert_eq!(story.take(), [release(), Action::Drain(id(0, 1)), next]);
    story.all_moves(id(1, 1), id(1, 2), &[]);
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
    story.all_moves(id(0, 1), id(0, 2), &[]);
    assert_eq!(story.take(), [flip(id(0, 1), id(0, 2), &[]), Action::Drain(id(0, 1))]);
    story.ready(1, 3);
    assert_eq!(story.take(), [hand_over(id(1, 1), id(1, 3))]);
}

#[test]
fn a_new_worker_that_sits_on_a_batch_is_killed() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).moving(id(0, 1), &[1]);
    story.take();
    story.now = LIMITS.hand_over_ms;
    story.on(Event::Tick);
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
    story.on(Event::Tick);
    assert_eq!(story.take(), []);
    story.now += 1;
    story.on(Event::Tick);
    assert_eq!(story.verdict().slots[0].moved, 0);
}

#[test]
fn a_batch_that_came_twice_counts_once() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2).moving(id(0, 1), &[1, 2]).moving(id(0, 1), &[1, 2]);
    story.adopted(id(0, 2), &[1, 2]).on(Event::HandedOver { from: id(0, 1) });
    story.take();
    story.on(Event::Adopted { by: id(0, 2), fds: vec![], had: vec![1, 2] });
    assert_eq!(story.verdict().slots[0].moved, 2);
    let (from, to) = (id(0, 1), id(0, 2));
    let flip = Action::Flip { from, to, stay: vec![], adopted: vec![1, 2] };
    assert_eq!(story.take()[0], flip);
}

#[test]
fn what_stayed_follows_by_a_move_of_its_own() {
    let (reload, actions) = Reload::follow(id(0, 1), id(0, 2), LIMITS, 0);
    let mut story = Story { reload, actions, now: 0 };
    assert_eq!(story.take(), [hand_over(id(0, 1), id(0, 2))]);
    story.moving(id(0, 1), &[1]).on(Event::HandedOver { from: id(0, 1) });
    story.adopted(id(0, 2), &[1]);
    assert_eq!(story.verdict().slots[0].moved, 1);
    let (from, to) = (id(0, 1), id(0, 2));
    assert_eq!(story.take(), [Action::Flip { from, to, stay: vec![], adopted: vec![1] }]);
}

#[test]
fn a_worker_that_dies_while_it_takes_what_stayed_is_not_started_by_the_reload() {
    let (reload, actions) = Reload::follow(id(0, 1), id(0, 2), LIMITS, 0);
    let mut story = Story { reload, actions, now: 0 };
    story.moving(id(0, 1), &[1]).exited(id(0, 2));
    assert!(!story.verdict().is_ok());
    assert!(!story.take().iter().any(|action| matches!(action, Action::Spawn(_))));
}

#[test]
fn a_handover_that_does_not_end_keeps_what_arrived() {
    let mut story = Story::begin(1);
    story.prepared(1).ready(0, 2);
    story.moving(id(0, 1), &[1]).adopted(id(0, 2), &[1]);
    story.take();
    story.now = LIMITS.hand_over_ms;
    story.on(Event::Tick);
    let verdict = story.verdict();
    assert_eq!(verdict.slots[0].moved, 1);
    assert!(!verdict.is_ok());
    let some = Action::FlipSome { to: id(0, 2), moved: vec![1] };
    let rest = [release(), Action::Drain(id(0, 1)), Action::Commit { worker_num: 1 }];
    let actions = story.take();
    assert_eq!(actions[0], some);
    assert_eq!(actions[1..], rest);
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
