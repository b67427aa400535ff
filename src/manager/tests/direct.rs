//! Direct links, between played workers.

use super::*;
use crate::manager::relay::direct::PEERS_MAX;

/// A manager with two workers that know of direct links.
async fn two() -> (Master, FakeWorker, FakeWorker) {
    let master = Master::boot(1, None).await;
    let a = master.serving(id(0, 1), 1).await;
    let b = master.serving(id(1, 1), 1).await;
    for worker in [&a, &b] {
        worker.say(&WorkerToManager::Peers { from: vec![] });
    }
    (master, a, b)
}

/// Slot 1's worker gets a link to slot 0's, once both have said what they know.
async fn up(a: &mut FakeWorker, b: &mut FakeWorker) -> u64 {
    a.push(0, fd(1, 5), "introduced");
    b.hear_push().await;
    b.say(&WorkerToManager::WantDirect { to: Slot(0) });
    let (message, _, ends) = b.hear_with_fds().await;
    let ManagerToWorker::Direct { link, to } = message else { panic!("{message:?}") };
    assert_eq!((to, ends.len()), (id(0, 1), 1));
    b.push(0, fd(0, 5), "before");
    b.say(&WorkerToManager::Through { link });
    assert_eq!(a.hear_push().await, (fd(0, 5), "before".into()));
    let (message, _, ends) = a.hear_with_fds().await;
    assert_eq!(ends.len(), 1);
    assert!(matches!(message, ManagerToWorker::Peer { from, link: it }
        if from == id(1, 1) && it == link));
    link
}

/// The reload's part until connections would move.
async fn reload(master: &Master, control: &mut Commander) -> FakeWorker {
    control.send("{\"cmd\":\"reload\"}\n").await;
    master.prepare(1).await;
    master.serving(id(0, 2), 2).await
}

#[test]
fn a_link_comes_behind_all_that_went_by_the_manager() {
    story(async {
        let (_master, mut a, mut b) = two().await;
        let link = up(&mut a, &mut b).await;
        // Another is not made while there is one.
        b.say(&WorkerToManager::WantDirect { to: Slot(0) });
        b.say(&WorkerToManager::Indirect { link });
        b.push(0, fd(0, 5), "after");
        assert!(matches!(a.hear().await.0, ManagerToWorker::PeerLeft { link: it } if it == link));
        assert_eq!(a.hear_push().await, (fd(0, 5), "after".into()));
        a.say(&WorkerToManager::PeerEnded { link });
        a.push(0, fd(1, 5), "ended");
        assert_eq!(b.hear_push().await.1, "ended");
        b.say(&WorkerToManager::WantDirect { to: Slot(0) });
        assert!(
            matches!(b.hear().await.0, ManagerToWorker::Direct { link: it, .. } if it != link)
        );
    });
}

#[test]
fn connections_move_when_nobody_sends_to_them_directly_any_more() {
    story(async {
        let (master, mut a, mut b) = two().await;
        let link = up(&mut a, &mut b).await;
        let mut control = master.control().await;
        let _new = reload(&master, &mut control).await;
        assert!(matches!(b.hear().await.0, ManagerToWorker::EndDirect { link: it } if it == link));
        b.say(&WorkerToManager::Indirect { link });
        assert!(matches!(a.hear().await.0, ManagerToWorker::PeerLeft { .. }));
        // Nor is a link made now.
        b.say(&WorkerToManager::WantDirect { to: Slot(0) });
        let status = master.control().await.ask("{\"cmd\":\"status\"}\n").await;
        assert_eq!(status.more["reload"]["state"], "handing");
        // Until then nothing is held.
        b.push(0, fd(0, 5), "meanwhile");
        assert_eq!(a.hear_push().await, (fd(0, 5), "meanwhile".into()));
        a.say(&WorkerToManager::PeerEnded { link });
        assert!(matches!(a.hear().await.0, ManagerToWorker::HandOver { to } if to == id(0, 2)));
    });
}

#[test]
fn a_sender_that_dies_holds_up_nobody_whose_worker_has_taken_all_it_sent() {
    story(async {
        let (master, mut a, mut b) = two().await;
        let link = up(&mut a, &mut b).await;
        let mut control = master.control().await;
        let _new = reload(&master, &mut control).await;
        master.kill(b);
        assert!(matches!(a.hear().await.0, ManagerToWorker::PeerLeft { link: it } if it == link));
        a.say(&WorkerToManager::PeerEnded { link });
        assert!(matches!(a.hear().await.0, ManagerToWorker::HandOver { to } if to == id(0, 2)));
    });
}

#[test]
fn a_new_manager_is_told_of_links_and_waits_for_their_end() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut a = master.attach(id(0, 1), 1, true);
        let b = master.attach(id(1, 1), 1, true);
        a.say(&WorkerToManager::Peers { from: vec![(7, id(1, 1))] });
        for (worker, slot) in [(&a, 0), (&b, 1)] {
            worker.owns(2, vec![(fd(slot, 1), fd(slot, 9))]);
        }
        assert!(matches!(a.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        b.push(0, fd(0, 5), "settled");
        while !matches!(a.hear().await.0, ManagerToWorker::Push { .. }) {}
        let mut control = master.control().await;
        let _new = reload(&master, &mut control).await;
        a.say(&WorkerToManager::List { id: 3 });
        assert!(matches!(a.hear().await.0, ManagerToWorker::ListAnswer { id: 3, .. }));
        a.say(&WorkerToManager::PeerEnded { link: 7 });
        assert!(matches!(a.hear().await.0, ManagerToWorker::HandOver { to } if to == id(0, 2)));
    });
}

#[test]
fn of_more_links_than_there_are_a_new_manager_waits_for_no_more() {
    let most = PEERS_MAX as u64;
    story(async {
        let master = Master::boot(2, None).await;
        let mut a = master.attach(id(0, 1), 1, true);
        let b = master.attach(id(1, 1), 1, true);
        for links in [0..most - 1, most - 1..2 * most] {
            let from = links.map(|link| (link, id(1, 1))).collect();
            a.say(&WorkerToManager::Peers { from });
        }
        for (worker, slot) in [(&a, 0), (&b, 1)] {
            worker.owns(2, vec![(fd(slot, 1), fd(slot, 9))]);
        }
        b.push(0, fd(0, 5), "settled");
        while !matches!(a.hear().await.0, ManagerToWorker::Push { .. }) {}
        let mut control = master.control().await;
        let _new = reload(&master, &mut control).await;
        for link in 0..most {
            a.say(&WorkerToManager::PeerEnded { link });
        }
        assert!(matches!(a.hear().await.0, ManagerToWorker::HandOver { to } if to == id(0, 2)));
    });
}

#[test]
fn a_link_that_ended_before_a_new_manager_was_told_of_it_has_its_fence() {
    story(async {
        let master = Master::boot(2, None).await;
        let mut a = master.attach(id(0, 1), 1, true);
        let mut b = master.attach(id(1, 1), 1, true);
        assert!(matches!(b.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        b.say(&WorkerToManager::Indirect { link: 7 });
        b.push(0, fd(0, 5), "after");
        b.say(&WorkerToManager::List { id: 3 });
        assert!(matches!(b.hear().await.0, ManagerToWorker::ListAnswer { id: 3, .. }));
        a.say(&WorkerToManager::Peers { from: vec![(7, id(1, 1))] });
        for (worker, slot) in [(&a, 0), (&b, 1)] {
            worker.owns(2, vec![(fd(slot, 1), fd(slot, 9))]);
        }
        assert!(matches!(a.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        assert!(matches!(a.hear().await.0, ManagerToWorker::PeerLeft { link: 7 }));
        assert_eq!(a.hear_push().await, (fd(0, 5), "after".into()));
    });
}
