use super::*;
use crate::api::rooms::PresenceEvent;
use crate::handler::app::rooms::tell_presence;

fn shared() -> Shared {
    let shared = Shared::new(AppSettings::default());
    shared.places.set(vec![0]).unwrap();
    shared
}

fn push(fd: u64, bytes: usize) -> Packet {
    let body = vec![b'x'; bytes].into();
    Packet { fd, flags: VERDICT, body, ..Packet::new(Kind::Push) }
}

#[test]
fn what_is_kept_for_clients_that_are_not_open_is_bounded_by_its_bytes() {
    let shared = shared();
    assert!(matches!(shared.hold(push(7, 10)), Held::Elsewhere(_)));
    for fd in 0..1000 {
        shared.opening.borrow_mut().insert(fd, Opening::default());
    }
    let long = shared.settings.push_max;
    assert!(matches!(shared.hold(push(1, long)), Held::Kept), "one message always fits");
    assert!(matches!(shared.hold(push(1, 10)), Held::Full));
    assert_eq!(shared.opening.borrow()[&1].held[0].flags, 0, "nobody waits any more");
    let (mut kept, most) = (0, shared.settings.held_max);
    while let Held::Kept = shared.hold(push(2, 1000)) {
        kept += 1000;
    }
    assert!((most / 2..=most).contains(&kept), "{kept}");
    let kept = (10..1000).filter(|fd| matches!(shared.hold(push(*fd, long)), Held::Kept));
    assert!((10..=HELD_BYTES_MAX / long).contains(&kept.count()));
    // Who is open or gone makes room.
    shared.opening.borrow_mut().remove(&10);
    assert!(matches!(shared.hold(push(900, long)), Held::Kept));
}

#[test]
fn messages_of_processes_wait_for_one_that_does_not_read_up_to_a_bound() {
    let shared = shared();
    let (body, mut taken) = (vec![0; 2 << 20], 0_usize);
    let pipe = |to| shared.pipe(Slot(1), to, 0, &body);
    while pipe(0) == Verdict::Queued {
        taken += body.len();
    }
    assert!((16 << 20..=64 << 20).contains(&taken), "{taken}");
    assert_eq!([pipe(0), pipe(NOTE)], [Verdict::Full; 2]);
    let small = Shared::new(AppSettings::default());
    small.places.set(vec![0]).unwrap();
    let taken = (0..1_000_000).take_while(|_| small.pipe(Slot(1), 0, 0, b"x").is_ok()).count();
    assert!((50_000..500_000).contains(&taken), "a burst of {taken} small ones");
    assert_eq!(small.pipe(Slot(1), crate::handler::app::codec::TASK, 0, b"x"), Verdict::Gone);
}

#[test]
fn presence_waits_for_a_process_that_does_not_read_up_to_a_bound() {
    let shared = shared();
    shared.wants_presence.set(true);
    let (room, uid, info) = ("r".to_owned(), "u".to_owned(), Some("i".repeat(4096)));
    let event = PresenceEvent { room, uid, info, joined: true };
    (0..20_000).for_each(|_| tell_presence(&shared, &event));
    let waiting = shared.pool.borrow().events();
    assert!((4_000..10_000).contains(&waiting), "{waiting}");
}

#[test]
fn what_keep_gives_is_bounded_for_all_clients_together() {
    let shared = Shared::new(AppSettings { client_memory: 1000, ..AppSettings::default() });
    let mut pool = shared.pool.borrow_mut();
    (1..=3).for_each(|fd| pool.pin(fd, Pin::default()));
    assert!(pool.keep_bytes(1, &[0; 600]) && pool.keep_bytes(2, &[0; 400]));
    assert!(!pool.keep_bytes(3, &[0; 1]) && !pool.keep_bytes(2, &[0; 401]));
    assert_eq!(pool.pinned(2).map(|pin| pin.kept.len()), Some(400));
    assert!(pool.keep_bytes(2, &[1; 400]), "that is no more than before");
    // Who leaves makes room, and who is pinned anew.
    assert!(pool.unpin(1).is_some());
    assert!(pool.keep_bytes(3, &[0; 600]) && !pool.keep_bytes(3, &[0; 601]));
    pool.pin(2, Pin::default());
    assert!(pool.keep_bytes(3, &[0; 1000]));
}

/// Their number alone keeps a client's message waiting, and no other event may ever be done.
#[tokio::test]
async fn who_waits_for_room_goes_on_where_events_are_dropped_that_nobody_wants() {
    let shared = Shared::new(AppSettings { queue_events: 2, ..AppSettings::default() });
    let dropped = [0, 0].map(|place| shared.queue(place, Packet::new(Kind::Presence)));
    let mut waits = std::pin::pin!(shared.queue_later(7, Packet::new(Kind::Message)));
    let mut now = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waits.as_mut().poll(&mut now).is_pending());
    assert!(dropped.iter().all(|id| shared.pool.borrow_mut().withdraw(*id)));
    assert!(waits.as_mut().poll(&mut now).is_pending(), "nobody has told");
    shared.unwanted(&dropped);
    assert!(waits.as_mut().poll(&mut now).is_ready());
}
