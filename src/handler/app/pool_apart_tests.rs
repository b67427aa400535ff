use super::*;

const BAD: &str = "192.0.2.66";
const GOOD: &str = "192.0.2.1";

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// A pool whose places have processes that are ready.
fn ready(places: u16) -> Pool {
    let mut pool = pool(places);
    (0..places).for_each(|place| assert_eq!(pool.ready(id(place, 1), ALL_WANTED, 0), None));
    pool
}

fn request(pool: &mut Pool, from: &str) -> u32 {
    let place = pool.choose(address(from));
    pool.queue_of(address(from), place, Packet::new(Kind::Request))
}

/// An event that ends the process at a place.
fn poison(pool: &mut Pool, from: &str, place: u16, epoch: u32) {
    pool.queue_of(address(from), place, Packet::new(Kind::Request));
    taken(pool, id(place, epoch));
    assert_eq!(pool.lost(id(place, epoch), false, pool.now_ms).dropped.len(), 1);
    pool.ready(id(place, epoch + 1), ALL_WANTED, 0);
}

/// A WebSocket of an address.
fn socket(pool: &mut Pool, fd: u64, from: &str) -> u16 {
    let place = pool.choose_for_client(address(from));
    pool.pin(fd, Pin { place, address: address(from), ..Pin::default() });
    place
}

#[test]
fn an_address_that_a_process_died_on_is_served_by_one_place_which_serves_nobody_else() {
    let mut pool = ready(3);
    request(&mut pool, BAD);
    assert_eq!(taken(&mut pool, id(0, 1)).len(), 1);
    // More of the same address wait, also behind others.
    let bad: Vec<u32> = (0..9).map(|_| request(&mut pool, BAD)).collect();
    let good: Vec<u32> = (0..9).map(|_| request(&mut pool, GOOD)).collect();
    assert_eq!(pool.lost(id(0, 1), false, 0).dropped.len(), 1);
    pool.ready(id(0, 2), ALL_WANTED, 0);
    let waiting = |pool: &Pool, place: usize| -> Vec<u32> {
        pool.queues[place].waiting.iter().map(|event| event.packet.id).collect()
    };
    assert_eq!(waiting(&pool, 2), bad);
    let mut others = [waiting(&pool, 0), waiting(&pool, 1)].concat();
    others.sort_unstable();
    assert_eq!(others, good);
    assert!((0..9).all(|_| pool.choose(address(GOOD)) != 2));
    assert_ne!(pool.choose_for_client(address(GOOD)), 2);
    assert_eq!(pool.choose(address(BAD)), 2);

    // What waits for a place that stays empty does not come to others either.
    pool.lost(id(2, 1), false, 0);
    pool.rehome(REPIN_AFTER_MS);
    assert_eq!(waiting(&pool, 2), bad);
    // Time heals.
    pool.watch(60_000);
    pool.rehome(60_000);
    assert!(waiting(&pool, 2).is_empty());
}

#[test]
fn what_a_process_had_not_begun_goes_where_an_address_is_served_that_is_apart_by_then() {
    let mut pool = ready(3);
    for place in [0, 1, 1] {
        pool.queue_of(address(BAD), place, Packet::new(Kind::Request));
    }
    request(&mut pool, GOOD);
    for place in [0, 1] {
        taken(&mut pool, id(place, 1));
    }
    pool.lost(id(0, 1), false, 0);
    assert_eq!(pool.places_for(address(BAD)), 2..3);
    assert_eq!(pool.lost(id(1, 1), false, 0).again, 1);
    let of_place = |place: usize| -> Vec<_> {
        pool.queues[place].waiting.iter().map(|event| event.address).collect()
    };
    assert_eq!(of_place(2), [address(BAD)], "it costs that place a process and no other");
    assert_eq!([of_place(0), of_place(1)].concat(), [address(GOOD)]);
}

#[test]
fn an_address_that_exits_often_is_served_apart_and_one_that_exits_once_is_not() {
    let mut pool = pool(2);
    request(&mut pool, "192.0.2.7");
    for epoch in 1..=4 {
        assert_eq!(pool.places_for(None), 0..2, "{epoch}");
        pool.ready(id(0, epoch), ALL_WANTED, 0);
        let event = pool.queue_of(address(GOOD), 0, Packet::new(Kind::Request));
        taken(&mut pool, id(0, epoch));
        assert!(pool.done(id(0, epoch), event, false, 0, |_| {}));
        pool.ended(id(0, epoch), true, false);
        pool.lost(id(0, epoch), false, 0);
    }
    assert_eq!(pool.places_for(address(GOOD)), 1..2);
    assert_eq!(pool.places_for(None), 0..1);
}

#[test]
fn an_address_is_set_apart_however_much_it_sends_as_long_as_others_come_at_all() {
    let mut pool = ready(3);
    for now_ms in (0..10_000).step_by(10) {
        pool.watch(now_ms);
        pool.suspects.note(BAD.parse().unwrap(), now_ms);
        if now_ms % 2000 == 0 {
            pool.suspects.note(GOOD.parse().unwrap(), now_ms);
        }
    }
    poison(&mut pool, BAD, 0, 1);
    assert_eq!(pool.places_for(address(BAD)), 2..3);
    assert_eq!(pool.places_for(address(GOOD)), 0..2);
}

#[test]
fn an_address_from_which_nearly_everything_comes_is_not_set_apart() {
    let mut pool = ready(3);
    for now_ms in (0..10_000).step_by(100) {
        pool.watch(now_ms);
        request(&mut pool, BAD);
        // A health check that comes from elsewhere.
        if now_ms % 5000 == 0 {
            request(&mut pool, GOOD);
        }
    }
    (0..3).for_each(|place| drop(taken(&mut pool, id(place, 1))));
    assert_eq!(pool.lost(id(0, 1), false, 9900).dropped.len(), 1);
    assert_eq!(pool.places_for(address(BAD)), 0..3, "a proxy that nobody named");
    assert_eq!(pool.places_for(address(GOOD)), 0..3);
    // Nor is one that is alone.
    let mut pool = ready(3);
    poison(&mut pool, BAD, 0, 1);
    assert_eq!(pool.places_for(address(BAD)), 0..3);
}

#[test]
fn a_websocket_client_that_ends_processes_sets_its_address_apart_as_a_request_does() {
    let mut pool = ready(3);
    let place = socket(&mut pool, 1, BAD);
    request(&mut pool, GOOD);
    pool.queue(place, message(1, "poison"));
    taken(&mut pool, id(place, 1));
    assert_eq!(pool.lost(id(place, 1), false, 0).again, 1);
    // What it is tried again on is the place of that address, and so is whoever comes from there.
    assert_eq!(pool.pinned(1).unwrap().place, 2);
    let seen = taken(&mut pool, id(2, 1));
    assert_eq!(kinds(&seen), [(Kind::Attach, 1)]);
    assert_eq!(socket(&mut pool, 2, BAD), 2);
    assert_ne!(socket(&mut pool, 3, GOOD), 2);
    pool.done(id(2, 1), seen[0].id, false, 0, |_| {});
    assert_eq!(kinds(&taken(&mut pool, id(2, 1))), [(Kind::Message, 1)]);
    assert_eq!(pool.lost(id(2, 1), false, 0).deadly, [1]);
}

#[test]
fn clients_of_the_place_of_a_suspect_share_one_death_and_move_with_their_events() {
    let mut pool = ready(2);
    assert_eq!((socket(&mut pool, 1, GOOD), socket(&mut pool, 2, GOOD)), (0, 1));
    poison(&mut pool, BAD, 0, 1);
    assert_eq!(pool.pinned(2).unwrap().place, 1, "the process that the client is with lives");
    // The next death is one that this client shares.
    pool.queue_of(address(BAD), 1, Packet::new(Kind::Request));
    taken(&mut pool, id(1, 1));
    let pipe = pool.queue(1, Packet { fd: 2, ..Packet::new(Kind::Pipe) });
    for text in ["one", "two"] {
        pool.queue(1, message(2, text));
    }
    assert_eq!(pool.lost(id(1, 1), false, 0).dropped.len(), 1);
    assert_eq!(pool.pinned(2).unwrap().place, 0);
    pool.ready(id(1, 2), ALL_WANTED, 0);
    let there = taken(&mut pool, id(1, 2));
    assert_eq!(there.iter().map(|packet| packet.id).collect::<Vec<_>>(), [pipe]);
    let here: Vec<_> = taken(&mut pool, id(0, 2)).iter().map(|it| (it.kind, it.fd)).collect();
    let message = (Kind::Message, 2);
    assert_eq!(here, [(Kind::Attach, 1), (Kind::Attach, 2), message, message]);
    assert!(pool.queues[1].pins == 0 && pool.queues[0].pins == 2);
}

#[test]
fn the_client_whose_number_a_message_between_processes_has_by_chance_is_not_its_sender() {
    for says_end in [true, false] {
        let mut pool = pool(1);
        client(&mut pool, 7, 0);
        pool.queue(0, Packet { fd: 7, ..Packet::new(Kind::Pipe) });
        for epoch in [1, 2] {
            assert!(!pool.is_busy(7), "the client has no event");
            pool.ready(id(0, epoch), ALL_WANTED & !wants::ATTACH, 0);
            assert_eq!(kinds(&taken(&mut pool, id(0, epoch))), [(Kind::Pipe, 7)]);
            if says_end {
                pool.ended(id(0, epoch), true, true);
            }
            let loss = pool.lost(id(0, epoch), false, 0);
            assert!(loss.deadly.is_empty(), "{loss:?}");
            assert_eq!((loss.again, loss.dropped.len()), if epoch == 1 { (1, 0) } else { (0, 1) });
        }
    }
}
