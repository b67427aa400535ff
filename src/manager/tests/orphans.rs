//! What is sent to the clients of a killed worker.

use super::*;

/// Slot 1's worker is killed, and slot 0's says this and that to its clients.
async fn orphaned(master: &Master, a: &FakeWorker) {
    let doomed = master.serving(id(1, 1), 1).await;
    master.tell(&MasterToManager::Orphaned(id(1, 1)), &[]);
    master.kill(doomed);
    master.tell(&MasterToManager::Beat(9), &[]);
    assert!(matches!(master.hear().await, ManagerToMaster::Beat(9)));
    a.push(0, fd(1, 5), "first");
    let broadcast = WorkerToManager::Broadcast { opcode: Opcode::Text, except: 0 };
    a.say_with(&broadcast, b"second");
    a.push(8, fd(1, 5), "third");
}

#[test]
fn what_is_sent_to_orphans_goes_to_their_heir_in_order() {
    story(async {
        let master = Master::boot(1, None).await;
        let a = master.serving(id(0, 1), 1).await;
        orphaned(&master, &a).await;
        let mut heir = master.attach(id(1, 2), 1, 12, false);
        master.tell(&MasterToManager::Inherits { heir: id(1, 2), from: id(1, 1) }, &[]);
        assert!(matches!(heir.hear().await.0, ManagerToWorker::WhoAreYou));
        // It is not ready, and has clients all the same.
        assert_eq!(heir.hear_push().await, (fd(1, 5), "first".into()));
        let (broadcast, body) = heir.hear().await;
        assert!(matches!(broadcast, ManagerToWorker::Broadcast { .. }) && body == "second");
        assert_eq!(heir.hear_push().await, (fd(1, 5), "third".into()));
        a.push(0, fd(1, 5), "fourth");
        assert_eq!(heir.hear_push().await, (fd(1, 5), "fourth".into()));
    });
}

#[test]
fn orphans_without_an_heir_are_gone() {
    story(async {
        let master = Master::boot(1, None).await;
        let mut a = master.serving(id(0, 1), 1).await;
        orphaned(&master, &a).await;
        master.tell(&MasterToManager::Disowned(id(1, 1)), &[]);
        let told = a.hear().await.0;
        assert!(matches!(told, ManagerToWorker::Verdict { id: 8, verdict: Verdict::Gone }));
        a.push(9, fd(1, 5), "anybody?");
        let told = a.hear().await.0;
        assert!(matches!(told, ManagerToWorker::Verdict { id: 9, verdict: Verdict::Gone }));
    });
}
