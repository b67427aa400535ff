//! What the old worker sends to clients that it has given, also when the new one dies, and what
//! neither of the two may claim.

use super::*;

/// A handover from slot 0's old worker, and slot 1's worker looking on.
struct Scene {
    master: Master,
    old: FakeWorker,
    other: FakeWorker,
    second: FakeWorker,
}

impl Scene {
    /// A reload that has come to its first handover; its new worker is the second of the two.
    async fn set() -> (Scene, FakeWorker) {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 1).await;
        let other = master.serving(id(1, 1), 1).await;
        master.tell(&MasterToManager::ReloadRequested, &[]);
        master.prepare(2).await;
        let new_worker = master.serving(id(0, 2), 2).await;
        let second = master.serving(id(1, 2), 2).await;
        let order = old.hear().await.0;
        assert!(matches!(order, ManagerToWorker::HandOver { to } if to == id(0, 2)));
        (Scene { master, old, other, second }, new_worker)
    }

    fn gives(&self, serial: u64) {
        self.old.gives(fd(0, serial));
    }

    fn broadcasts(&self, body: &str) {
        let message = WorkerToManager::Broadcast { opcode: Opcode::Text, except: 0 };
        self.old.say_with(&message, body.as_bytes());
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

    /// The new worker has died: another is asked for, and the old worker is told.
    async fn replaced(&mut self) -> FakeWorker {
        assert!(matches!(self.master.hear().await, ManagerToMaster::Spawn(Slot(0))));
        let new_worker = self.master.serving(id(0, 3), 2).await;
        let order = self.old.hear().await.0;
        assert!(matches!(order, ManagerToWorker::HandOver { to } if to == id(0, 3)), "{order:?}");
        new_worker
    }
}

impl FakeWorker {
    fn adopted(&self, serial: u64) {
        self.say(&WorkerToManager::Adopted {
            from: id(0, 1),
            fds: vec![fd(0, serial)],
            had: vec![],
        });
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
            ManagerToWorker::Close { fd, .. } => format!("{} close {body}", serial(fd)),
            ManagerToWorker::Adopted { fds } => format!("let go {}", serial(fds[0])),
            ManagerToWorker::Verdict { id, verdict } => format!("?{id} {verdict:?}"),
            ManagerToWorker::Refused { count } => format!("refused {count}"),
            ManagerToWorker::Own => "own".to_owned(),
            ManagerToWorker::Drain { .. } => "drain".to_owned(),
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
fn what_the_old_worker_sends_to_those_it_gave_waits_for_who_takes_them() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.gives(5);
        scene.gives(6);
        scene.old.push(0, fd(0, 5), "push");
        scene.old.push(7, fd(0, 5), "confirmed");
        scene.broadcasts("broadcast");
        let long = "x".repeat(100_000);
        scene.old.push(0, fd(0, 6), &long);
        let close = WorkerToManager::Close { id: 0, fd: fd(0, 5), code: 4000 };
        scene.old.say_with(&close, b"bye");
        new_worker.hears_in_order(&["adopt 5", "adopt 6"]).await;
        scene.dies(new_worker).await;
        scene.old.push(0, fd(0, 6), "between");
        scene.broadcasts("again");
        let mut new_worker = scene.replaced().await;
        scene.old.push(8, fd(0, 6), "behind");
        scene.is_read().await;
        scene.gives(5);
        scene.gives(6);
        scene.old.push(0, fd(0, 6), "last");
        new_worker.hears_in_order(&["adopt 5", "adopt 6"]).await;
        scene.old.say(&WorkerToManager::HandedOver { moved: 2, stayed: 0 });
        new_worker.adopted(5);
        new_worker.adopted(6);
        let waited = ["5 push", "5 confirmed ?7", "all broadcast", &format!("6 {long}")];
        new_worker.hears_in_order(&waited).await;
        new_worker.hears_in_order(&["5 close bye", "6 between", "all again"]).await;
        new_worker.hears_in_order(&["6 behind ?8", "6 last", "own"]).await;
        scene.old.hears_in_order(&["let go 5", "let go 6", "drain"]).await;
    });
}

#[test]
fn who_was_taken_over_is_gone_with_the_new_worker_and_the_others_are_given_again() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.gives(5);
        scene.gives(6);
        scene.old.push(0, fd(0, 5), "first");
        scene.broadcasts("broadcast");
        scene.old.push(0, fd(0, 6), "second");
        new_worker.hears_in_order(&["adopt 5", "adopt 6"]).await;
        new_worker.adopted(5);
        scene.old.hears_in_order(&["let go 5"]).await;
        scene.dies(new_worker).await;
        let mut new_worker = scene.replaced().await;
        scene.old.push(7, fd(0, 5), "gone?");
        scene.old.hears_in_order(&["5 gone? ?7"]).await;
        scene.gives(6);
        new_worker.hears_in_order(&["adopt 6"]).await;
        scene.old.say(&WorkerToManager::HandedOver { moved: 2, stayed: 0 });
        new_worker.adopted(6);
        new_worker.hears_in_order(&["5 first", "all broadcast", "6 second", "own"]).await;
    });
}

#[test]
fn what_nobody_took_is_left_to_the_old_worker_and_its_broadcasts_are_told() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.gives(5);
        scene.old.push(0, fd(0, 5), "push");
        scene.old.push(7, fd(0, 5), "confirmed");
        scene.broadcasts("broadcast");
        new_worker.hears_in_order(&["adopt 5"]).await;
        scene.dies(new_worker).await;
        let new_worker = scene.replaced().await;
        scene.old.push(8, fd(0, 5), "behind");
        scene.dies(new_worker).await;
        let mut heard = Vec::new();
        for _ in 0..5 {
            heard.push(scene.old.hears().await);
        }
        // What is told comes first, and the rest in its order.
        let told = heard.iter().position(|it| it == "refused 1").unwrap();
        heard.remove(told);
        assert_eq!(heard, ["5 push", "5 confirmed ?7", "5 behind ?8", "drain"]);
    });
}

#[test]
fn a_worker_that_gives_somebody_elses_client_is_killed() {
    story(async {
        let (mut scene, mut new_worker) = Scene::set().await;
        scene.old.gives(fd(1, 3));
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
        scene.old.say(&WorkerToManager::HandedOver { moved: 1, stayed: 0 });
        let fds = vec![fd(1, 3), fd(0, 5)];
        new_worker.say(&WorkerToManager::Adopted { from: id(0, 1), fds, had: vec![fd(1, 4)] });
        new_worker.hears_in_order(&["adopt 5", "own"]).await;
        let order = scene.other.hear().await.0;
        assert!(matches!(order, ManagerToWorker::HandOver { to } if to == id(1, 2)));
        scene.old.push(0, fd(1, 3), "whose?");
        scene.old.push(0, fd(1, 4), "and whose?");
        scene.is_read_by_all().await;
        scene.other.say(&WorkerToManager::HandedOver { moved: 0, stayed: 0 });
        let mut pushes = Vec::new();
        while pushes.len() < 2 {
            if let (ManagerToWorker::Push { fd, .. }, body) = scene.second.hear().await {
                pushes.push((fd, body));
            }
        }
        assert_eq!(pushes, [(fd(1, 3), "whose?".into()), (fd(1, 4), "and whose?".into())]);
    });
}

#[test]
fn the_word_that_all_is_given_means_the_taker_it_was_said_of() {
    story(async {
        let (mut scene, new_worker) = Scene::set().await;
        let all = WorkerToManager::HandedOver { moved: 2, stayed: 0 };
        scene.gives(5);
        scene.gives(6);
        scene.dies(new_worker).await;
        scene.old.say(&all);
        let mut new_worker = scene.replaced().await;
        scene.old.say(&all);
        scene.gives(5);
        new_worker.hears_in_order(&["adopt 5"]).await;
        new_worker.adopted(5);
        scene.old.hears_in_order(&["let go 5"]).await;
        scene.gives(6);
        new_worker.hears_in_order(&["adopt 6"]).await;
        new_worker.adopted(6);
        scene.old.hears_in_order(&["let go 6"]).await;
        scene.old.say(&all);
        new_worker.hears_in_order(&["own"]).await;
        scene.old.hears_in_order(&["drain"]).await;
    });
}

#[test]
fn who_follows_a_worker_that_dies_follows_the_next() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut old = master.serving(id(0, 1), 0).await;
        let new_worker = master.serving(id(0, 2), 1).await;
        let _other = master.serving(id(1, 1), 1).await;
        old.say(&WorkerToManager::Rested);
        let order = old.hear().await.0;
        assert!(matches!(order, ManagerToWorker::HandOver { to } if to == id(0, 2)));
        old.gives(fd(0, 6));
        master.kill(new_worker);
        let _next = master.serving(id(0, 3), 1).await;
        let order = loop {
            match old.hear().await.0 {
                ManagerToWorker::Own => {}
                order => break order,
            }
        };
        assert!(matches!(order, ManagerToWorker::HandOver { to } if to == id(0, 3)), "{order:?}");
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
        }
        thief.say(&WorkerToManager::List { id: 1 });
        while !matches!(thief.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        pusher.push(0, fd(1, 5), "for the owner");
        assert_eq!(owner.hear_push().await, (fd(1, 5), "for the owner".into()));
    });
}
