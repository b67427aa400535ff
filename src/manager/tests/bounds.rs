//! A worker that was taken over tells the manager more than any worker has to tell.

use super::*;
use crate::api::rooms::{Member, Topic};

fn interest(names: impl Iterator<Item = String>) -> WorkerToManager {
    let joined = names.map(|name| Topic::room(&name)).collect();
    WorkerToManager::Interest { number: 0, joined, left: Vec::new(), settled: Vec::new() }
}

fn present(room: &str, uid: &str) -> WorkerToManager {
    WorkerToManager::Present { room: Topic::room(room), uid: uid.to_owned(), count: 1 }
}

/// That the master is asked to kill the worker that has said this.
async fn costs_its_life(message: &WorkerToManager, body: &[u8]) {
    let config = Config { rooms_max: 10, ..Config::default() };
    let master = Master::boot_with(1, None, &config).await;
    let worker = master.serving(id(0, 1), 1).await;
    worker.say_with(message, body);
    let told = master.hear().await;
    assert!(matches!(told, ManagerToMaster::Kill(it) if it == id(0, 1)), "{told:?}");
}

/// That the manager has read it, and the worker lives.
async fn is_read(master: &Master, worker: &mut FakeWorker) {
    worker.say(&WorkerToManager::List { id: 1 });
    while !matches!(worker.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
    master.tell(&MasterToManager::LivenessCheck(9), &[]);
    let told = master.hear().await;
    assert!(matches!(told, ManagerToMaster::Alive(9)), "{told:?}");
}

#[test]
fn a_worker_that_tells_more_topics_than_it_may_have_or_longer_names_is_replaced() {
    let (long, name) = ("x".repeat(256), |n: usize| n.to_string());
    story(async {
        costs_its_life(&interest((0..21).map(name)), b"").await;
        costs_its_life(&interest([long.clone()].into_iter()), b"").await;
        costs_its_life(&present(&long, "u"), b"").await;
        costs_its_life(&present("presence-r", &long), b"").await;
        costs_its_life(&present("presence-r", "u"), &[b'i'; 64 * 1024 + 1]).await;
        let member = Member::new(fd(0, 1).try_into().unwrap(), Some(long.clone()));
        let (origin, id) = (Origin::Control, 1);
        let part = vec![member];
        costs_its_life(&WorkerToManager::Members { origin, id, part, last: true }, b"").await;
        let part = vec![(Topic::room(&long), 1)];
        costs_its_life(&WorkerToManager::Rooms { origin, id, part, last: true }, b"").await;
    });
}

#[test]
fn a_worker_may_have_as_many_topics_as_the_configuration_says_and_what_moves_to_it() {
    story(async {
        let config = Config { rooms_max: 10, ..Config::default() };
        let master = Master::boot_with(1, None, &config).await;
        let mut worker = master.serving(id(0, 1), 1).await;
        for round in 0..5_usize {
            // The same again is no more than before.
            worker.say(&interest((0..20).map(|n| format!("{n:0255}"))));
            let left = (10..20).map(|n| Topic::room(&format!("{n:0255}"))).collect();
            let (joined, settled) = (Vec::new(), Vec::new());
            if round % 2 == 0 {
                worker.say(&WorkerToManager::Interest { number: 0, joined, left, settled });
            }
        }
        worker.say_with(&present("presence-r", &"u".repeat(255)), &[b'i'; 64 * 1024]);
        is_read(&master, &mut worker).await;
    });
}
