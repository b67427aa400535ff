//! A pass: what waits meanwhile, what becomes of it when one of the two dies, and what neither of
//! them may claim.

use super::*;

/// A handover from slot 0's old worker, and slot 1's worker looking on.
struct Scene {
    master: Master,
    old: FakeWorker,
    other: FakeWorker,
    second: FakeWorker,
    pass: PassId,
}

impl Scene {
    /// A reload that has come to its first pass; the new worker is the second of the two.
    async fn set() -> (Scene, FakeWorker) {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 1).await;
        let other = master.serving(id(1, 1), 1).await;
        master.tell(&MasterToManager::ReloadRequested, &[]);
        master.prepare(2).await;
        let new_worker = master.serving(id(0, 2), 2).await;
        let second = master.serving(id(1, 2), 2).await;
        let pass = old.is_asked(id(0, 2)).await;
        (Scene { master, old, other, second, pass }, new_worker)
    }

    fn gives(&self, serial: u64) {
        self.old.gives(self.pass, fd(0, serial));
    }

    /// The old worker has given the pass, and has nothing more.
    fn gave_all(&self) {
        self.old.gave(self.pass, Left::Nothing);
    }

    fn broadcasts(&self, body: &str) {
        broadcast(&self.old, body);
    }

    /// Until the manager has read what the old worker said.
    async fn is_read(&mut self) {
        self.old.push(0, fd(1, 1), "read?");
        while !matches!(self.other.hear().await.0, ManagerToWorker::Push { .. }) {}
    }

    /// The same, while what is for the second old worker waits.
    async fn is_read_by_all(&mut self) {
        self.old.say(&WorkerToManager::List { id: 1 });
        while !matches!(self.old.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
    }

    async fn dies(&mut self, new_worker: FakeWorker) {
        self.is_read().await;
        self.master.kill(new_worker);
    }
}

fn broadcast(worker: &FakeWorker, body: &str) {
    let message = WorkerToManager::Broadcast { opcode: Opcode::Text, except: 0 };
    worker.say_with(&message, body.as_bytes());
}

impl FakeWorker {
    fn adopted(&self, pass: PassId, serials: &[u64]) {
        let fds = serials.iter().map(|serial| fd(0, *serial)).collect();
        self.say(&WorkerToManager::Adopted { pass, fds });
    }

    /// The next message in short.
    async fn hears(&mut self) -> String {
        let (message, body) = self.hear().await;
        let body = String::from_utf8_lossy(&body).into_owned();
        let serial = |fd: u64| Fd::try_from(fd).unwrap().serial();
        match message {
            ManagerToWorker::Adopt { fds, .. } => format!("adopt {}", serial(fds[0])),
            ManagerToWorker::Push { fd, id: 0, .. } => format!("{} {body}", serial(fd)),
            ManagerToWorker::Push { fd, id, .. } => format!("{} {body} ?{id}", serial(fd)),
            ManagerToWorker::Broadcast { .. } => format!("all {body}"),
            ManagerToWorker::Missed { .. } => format!("missed {body}"),
            ManagerToWorker::WorkerMessage { .. } => format!("slot {body}"),
            ManagerToWorker::Close { fd, .. } => format!("{} close {body}", serial(fd)),
            ManagerToWorker::Settled { taken, .. } => {
                let taken: Vec<u64> = taken.into_iter().map(serial).collect();
                format!("settled {taken:?}")
            }
            ManagerToWorker::Give { .. } => "give".to_owned(),
            ManagerToWorker::Take { .. } => "take".to_owned(),
            ManagerToWorker::HandOver { .. } => "hand over".to_owned(),
            ManagerToWorker::Verdict { id, verdict } => format!("?{id} {verdict:?}"),
            ManagerToWorker::Refused { count } => format!("refused {count}"),
            ManagerToWorker::Own { .. } => "own".to_owned(),
            ManagerToWorker::Drain { .. } => "drain".to_owned(),
            ManagerToWorker::WhoAreYou { .. } => "who are you".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn hears_in_order(&mut self, all: &[&str]) {
        for expected in all {
            assert_eq!(self.hears().await, *expected);
        }
    }
}

#[test]
fn what_is_sent_to_those_on_their_way_waits_for_who_takes_them() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        scene.gives(6);
        scene.old.push(0, fd(0, 5), "push");
        scene.old.push(7, fd(0, 5), "confirmed");
        scene.broadcasts("broadcast");
        let long = "x".repeat(100_000);
        scene.old.push(0, fd(0, 6), &long);
        let close = WorkerToManager::Close { id: 0, fd: fd(0, 5), code: 4000 };
        scene.old.say_with(&close, b"bye");
        scene.other.push(0, fd(0, 6), "of another");
        scene.gave_all();
        new_worker.hears_in_order(&["adopt 5", "adopt 6", "take"]).await;
        new_worker.adopted(pass, &[5, 6]);
        scene.old.hears_in_order(&["settled [5, 6]", "drain"]).await;
        let mut waited = Vec::new();
        for _ in 0..6 {
            waited.push(new_worker.hears().await);
        }
        let another = waited.iter().position(|it| it == "6 of another").unwrap();
        waited.remove(another);
        let of_old =
            ["5 push", "5 confirmed ?7", "all broadcast", &format!("6 {long}"), "5 close bye"];
        assert_eq!(waited, of_old);
        new_worker.hears_in_order(&["own"]).await;
    });
}

#[test]
fn a_pass_whose_new_worker_dies_goes_back_whole() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        scene.gives(6);
        scene.old.push(0, fd(0, 5), "push");
        scene.broadcasts("broadcast");
        new_worker.hears_in_order(&["adopt 5", "adopt 6"]).await;
        scene.dies(new_worker).await;
        assert!(matches!(scene.master.hear().await, ManagerToMaster::Spawn(Slot(0))));
        scene.old.push(0, fd(0, 6), "between");
        scene.gave_all();
        scene.old.hears_in_order(&["settled []"]).await;
        scene.old.push(0, fd(0, 6), "behind");
        scene.old.adopted(pass, &[5, 6]);
        scene
            .old
            .hears_in_order(&["5 push", "missed broadcast", "6 between", "6 behind", "own"])
            .await;
        let mut new_worker = scene.master.serving(id(0, 3), 2).await;
        let pass = scene.old.is_asked(id(0, 3)).await;
        scene.old.gives(pass, fd(0, 5));
        scene.old.gave(pass, Left::Nothing);
        new_worker.hears_in_order(&["adopt 5", "take"]).await;
        new_worker.adopted(pass, &[5]);
        new_worker.hears_in_order(&["own"]).await;
        scene.old.hears_in_order(&["settled [5]", "drain"]).await;
    });
}

#[test]
fn what_the_new_worker_could_not_take_goes_back_alone() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        scene.gives(6);
        scene.gave_all();
        new_worker.hears_in_order(&["adopt 5", "adopt 6", "take"]).await;
        broadcast(&new_worker, "before the answer");
        new_worker.adopted(pass, &[5]);
        broadcast(&new_worker, "behind the answer");
        new_worker.say(&WorkerToManager::List { id: 1 });
        while !matches!(new_worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        scene.old.hears_in_order(&["settled [5]"]).await;
        scene.old.push(0, fd(0, 5), "to 5");
        scene.old.push(0, fd(0, 6), "to 6");
        scene.old.adopted(pass, &[6]);
        let all = ["all before the answer", "all behind the answer", "6 to 6", "own", "drain"];
        scene.old.hears_in_order(&all).await;
        new_worker.hears_in_order(&["missed before the answer", "5 to 5", "own"]).await;
    });
}

#[test]
fn what_an_old_worker_gave_before_it_died_is_taken() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        scene.other.push(0, fd(0, 5), "push");
        new_worker.hears_in_order(&["adopt 5"]).await;
        scene.is_read().await;
        let Scene { master, old, mut other, second, .. } = scene;
        master.kill(old);
        new_worker.hears_in_order(&["take"]).await;
        new_worker.adopted(pass, &[5]);
        new_worker.hears_in_order(&["5 push", "own"]).await;
        other.is_asked(id(1, 2)).await;
        drop(second);
    });
}

#[test]
fn a_worker_that_gives_one_twice_is_killed() {
    story(async {
        let (scene, mut new_worker) = Scene::set().await;
        scene.gives(5);
        new_worker.hears_in_order(&["adopt 5"]).await;
        scene.gives(5);
        let said = scene.master.hear().await;
        assert!(matches!(said, ManagerToMaster::Kill(it) if it == id(0, 1)), "{said:?}");
    });
}

#[test]
fn a_worker_that_gives_somebody_elses_client_is_killed() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.old.gives(scene.pass, fd(1, 3));
        let said = scene.master.hear().await;
        assert!(matches!(said, ManagerToMaster::Kill(it) if it == id(0, 1)), "{said:?}");
        scene.gives(5);
        scene.is_read().await;
        new_worker.hears_in_order(&["adopt 5"]).await;
    });
}

#[test]
fn a_new_worker_has_nothing_that_it_was_not_given() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.gives(5);
        scene.gave_all();
        let fds = vec![fd(1, 3), fd(0, 5), fd(1, 4)];
        new_worker.hears_in_order(&["adopt 5", "take"]).await;
        new_worker.say(&WorkerToManager::Adopted { pass: scene.pass, fds });
        new_worker.hears_in_order(&["own"]).await;
        let pass = scene.other.is_asked(id(1, 2)).await;
        scene.old.push(0, fd(1, 3), "whose?");
        scene.old.push(0, fd(1, 4), "and whose?");
        scene.is_read_by_all().await;
        scene.other.gave(pass, Left::Nothing);
        let mut pushes = Vec::new();
        while pushes.len() < 2 {
            if let (ManagerToWorker::Push { fd, .. }, body) = scene.other.hear().await {
                pushes.push((fd, body));
            }
        }
        assert_eq!(pushes, [(fd(1, 3), "whose?".into()), (fd(1, 4), "and whose?".into())]);
    });
}

#[test]
fn what_is_said_of_a_pass_that_is_over_counts_for_no_other() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        scene.old.gave(pass, Left::More);
        new_worker.hears_in_order(&["adopt 5", "take"]).await;
        new_worker.adopted(pass, &[5]);
        new_worker.hears_in_order(&["own"]).await;
        scene.old.hears_in_order(&["settled [5]", "give"]).await;
        // It says it again, of the pass that is over.
        scene.gives(7);
        scene.gave_all();
        new_worker.adopted(pass, &[7]);
        scene.pass += 1;
        scene.gives(6);
        scene.gave_all();
        new_worker.hears_in_order(&["adopt 6", "take"]).await;
        new_worker.adopted(scene.pass, &[6]);
        new_worker.hears_in_order(&["own"]).await;
        scene.old.hears_in_order(&["settled [6]", "drain"]).await;
    });
}

#[test]
fn who_follows_a_worker_that_dies_follows_the_next() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 0).await;
        let new_worker = master.serving(id(0, 2), 1).await;
        let _other = master.serving(id(1, 1), 1).await;
        old.say(&WorkerToManager::CanGive);
        let pass = old.is_asked(id(0, 2)).await;
        old.gives(pass, fd(0, 6));
        old.gave(pass, Left::Nothing);
        master.kill(new_worker);
        old.hears_in_order(&["settled []"]).await;
        old.adopted(pass, &[6]);
        old.hears_in_order(&["own"]).await;
        let mut next = master.serving(id(0, 3), 1).await;
        let pass = old.is_asked(id(0, 3)).await;
        old.gives(pass, fd(0, 6));
        old.gave(pass, Left::Nothing);
        next.hears_in_order(&["adopt 6", "take"]).await;
    });
}

/// What a new manager does with a pass that the last one left: the old worker gives 5 and 6.
async fn after_a_manager() -> (Master, FakeWorker, FakeWorker) {
    let master = Master::boot(2, Some(2)).await;
    let mut old = master.attach(id(0, 1), 1, true);
    let mut new_worker = master.attach(id(0, 2), 2, true);
    old.hears_in_order(&["who are you"]).await;
    new_worker.hears_in_order(&["who are you"]).await;
    let gives = WorkerToManager::Gives { manager: 2, pass: 9, fds: vec![fd(0, 5), fd(0, 6)] };
    old.say(&gives);
    old.push(0, fd(0, 5), "of the old");
    old.owns(2, vec![]);
    (master, old, new_worker)
}

#[test]
fn a_new_manager_ends_a_pass_that_the_new_worker_has() {
    story(async {
        let (_master, mut old, mut new_worker) = after_a_manager().await;
        let holds = |fds| WorkerToManager::Holds {
            manager: 2,
            pass: 9,
            from: id(0, 1),
            fds,
            answered: true,
        };
        new_worker.say(&holds(vec![fd(0, 5), fd(0, 6), fd(1, 7)]));
        new_worker.owns(2, vec![]);
        old.hears_in_order(&["settled [5, 6]"]).await;
        new_worker.hears_in_order(&["5 of the old", "own"]).await;
    });
}

#[test]
fn a_new_manager_gives_back_a_pass_that_did_not_come() {
    story(async {
        let (_master, mut old, new_worker) = after_a_manager().await;
        new_worker.owns(2, vec![]);
        old.hears_in_order(&["settled []"]).await;
        old.adopted(9, &[5, 6]);
        old.hears_in_order(&["5 of the old", "own"]).await;
    });
}

#[test]
fn a_new_manager_waits_for_the_word_of_who_may_have_a_pass() {
    story(async {
        let (master, mut old, new_worker) = after_a_manager().await;
        // It dies instead.
        master.kill(new_worker);
        old.hears_in_order(&["settled []"]).await;
    });
}

#[test]
fn a_worker_that_claims_clients_of_others_has_nothing_of_theirs() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut thief = master.serving(id(0, 1), 1).await;
        let mut owner = master.serving(id(1, 1), 1).await;
        let pusher = master.serving(id(2, 1), 1).await;
        for manager in [0, 1, 2] {
            thief.owns(manager, vec![(fd(1, 1), fd(1, 1000)), (fd(1, 5), fd(1, 5))]);
            let fds = vec![fd(1, 5)];
            let (pass, from, answered) = (7, id(1, 1), true);
            thief.say(&WorkerToManager::Holds { manager, pass, from, fds, answered });
            thief.say(&WorkerToManager::Adopted { pass: 7, fds: vec![fd(1, 5)] });
        }
        thief.say(&WorkerToManager::List { id: 1 });
        while !matches!(thief.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        pusher.push(0, fd(1, 5), "for the owner");
        assert_eq!(owner.hear_push().await, (fd(1, 5), "for the owner".into()));
    });
}

#[test]
fn clients_of_others_do_not_stay_with_an_old_worker_that_names_them() {
    story(async {
        let (mut scene, new_worker) = Scene::set().await;
        let stays = [fd(1, 5), fd(0, 7)].map(|fd| (fd, "its handler runs".to_owned()));
        scene.old.say(&WorkerToManager::Stays { fds: stays.to_vec() });
        scene.gave_all();
        scene.old.hears_in_order(&["drain"]).await;
        new_worker.push(0, fd(1, 5), "for its owner");
        new_worker.push(0, fd(0, 7), "for who stayed");
        scene.other.hears_in_order(&["hand over", "5 for its owner"]).await;
        scene.old.hears_in_order(&["7 for who stayed"]).await;
    });
}

/// The next message of another worker: whether this one acts.
async fn acts(worker: &mut FakeWorker) -> bool {
    loop {
        if let ManagerToWorker::WorkerMessage { acts, .. } = worker.hear().await.0 {
            return acts;
        }
    }
}

#[test]
fn of_the_processes_of_a_slot_that_get_a_message_one_acts() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.old.gave(scene.pass, Left::Busy);
        let message = |acts| WorkerToManager::WorkerMessage { to: Slot(0), acts };
        for sender in [&scene.other, &scene.old, &new_worker] {
            sender.say(&message(false));
        }
        for _ in 0..3 {
            assert_eq!([acts(&mut scene.old).await, acts(&mut new_worker).await], [false, true]);
        }
        scene.old.say(&message(true));
        assert!(!acts(&mut new_worker).await, "its sender has had it and acts");
        new_worker.say(&message(true));
        assert!(!acts(&mut scene.old).await);
    });
}

#[test]
fn what_an_old_worker_has_told_its_clients_is_told_by_the_new_one_to_those_it_had_given() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let says = |old: &FakeWorker, text: &str| {
            old.say_with(
                &WorkerToManager::WorkerMessage { to: Slot(0), acts: true },
                text.as_bytes(),
            );
        };
        says(&scene.old, "before");
        scene.gives(5);
        says(&scene.old, "behind");
        scene.is_read().await;
        scene.old.gave(scene.pass, Left::Busy);
        new_worker.hears_in_order(&["slot before", "adopt 5", "take"]).await;
        new_worker.adopted(scene.pass, &[5]);
        new_worker.hears_in_order(&["own", "slot behind"]).await;
    });
}

#[test]
fn a_message_to_a_slot_whose_clients_move_finds_each_client_with_one_process() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        let pass = scene.pass;
        scene.gives(5);
        for (sender, text) in [(&scene.other, "a"), (&scene.old, "b"), (&new_worker, "c")] {
            let message = WorkerToManager::WorkerMessage { to: Slot(0), acts: false };
            sender.say_with(&message, text.as_bytes());
        }
        scene.is_read().await;
        scene.old.gave(pass, Left::Busy);
        new_worker.hears_in_order(&["adopt 5", "take"]).await;
        new_worker.adopted(pass, &[5]);
        let mut at_new = Vec::new();
        while at_new.len() < 4 {
            at_new.push(new_worker.hears().await);
        }
        at_new[1..].sort();
        assert_eq!(at_new, ["own", "slot a", "slot b", "slot c"], "handlers hear of 5 with `Own`");
        assert_eq!(scene.old.hears().await, "settled [5]");
        let mut at_old =
            [scene.old.hears().await, scene.old.hears().await, scene.old.hears().await];
        at_old.sort();
        assert_eq!(at_old, ["slot a", "slot b", "slot c"]);
    });
}
