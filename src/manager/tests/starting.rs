//! Messages between workers of which one is not there yet.

use super::*;

#[test]
fn a_message_to_a_slot_without_a_worker_waits_for_it() {
    story(async {
        let master = Master::boot(1, None).await;
        let a = master.serving(id(0, 1), 1).await;
        for text in [&b"first"[..], b"second"] {
            a.say_with(&WorkerToManager::WorkerMessage { to: Slot(1), acts: false }, text);
        }
        // There is no third slot, and never was.
        a.say_with(&WorkerToManager::WorkerMessage { to: Slot(2), acts: false }, b"to nobody");
        a.say(&WorkerToManager::List { id: 1 });
        let mut a = a;
        while !matches!(a.hear().await.0, ManagerToWorker::ListAnswer { .. }) {}
        let mut b = master.attach(id(1, 1), 1, false);
        assert!(matches!(b.hear().await.0, ManagerToWorker::WhoAreYou { .. }));
        for text in ["first", "second"] {
            let (message, body) = b.hear().await;
            let expected = ManagerToWorker::WorkerMessage { from: Slot(0), acts: true };
            assert_eq!(format!("{message:?}"), format!("{expected:?}"));
            assert_eq!(body, text);
        }
    });
}
