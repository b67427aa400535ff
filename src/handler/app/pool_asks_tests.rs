//! What a process is sent only where it has asked for it.

use super::*;
use crate::api::rooms::Belongings;
use crate::close::{Cause, Close};
use crate::handler::app::packets::{WANTS_HAD, WANTS_PRESENCE, close_packet};

#[test]
fn a_process_hears_of_presence_and_of_what_a_client_had_where_it_has_asked_for_that() {
    let mut pool = pool(2);
    for (place, asked) in [(0, WANTS_PRESENCE | WANTS_HAD), (1, 0)] {
        pool.ready(id(place, 1), ALL_WANTED, 0);
        pool.asks(id(place, 1), asked);
    }
    let close = Close::because(Cause::ClientVanished);
    let had = Belongings { uid: Some("ann".to_owned()), ..Belongings::default() };
    for place in 0..2 {
        pool.queue(place, Packet::new(Kind::Presence));
        pool.queue(place, close_packet(1, &close, Some(&had)));
    }
    let (asked, other) = (taken(&mut pool, id(0, 1)), taken(&mut pool, id(1, 1)));
    assert_eq!(kinds(&asked), [(Kind::Presence, 0), (Kind::Close, 1)]);
    assert_eq!(asked[1].body, close_packet(1, &close, Some(&had)).body);
    assert_eq!(kinds(&other), [(Kind::Close, 1)]);
    let nothing = close_packet(1, &close, None);
    assert_eq!((other[0].flags, &other[0].body), (nothing.flags, &nothing.body));
    pool.done(id(0, 1), asked[1].id, true, 0, |_| {});
    pool.done(id(1, 1), other[0].id, true, 0, |_| {});
    assert_eq!(pool.queues.iter().map(|queue| queue.bytes).sum::<usize>(), 0);
}
