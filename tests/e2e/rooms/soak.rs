//! Many clients in many rooms over many reloads and upgrades: nothing is lost and nobody hears what
//! is for others. `scripts/soak-rooms CLIENTS RELOADS UPGRADES` chooses how many.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;

/// Rooms of each client, and for how many clients there is one room more.
const ROOMS_EACH: usize = 10;
const CLIENTS_PER_ROOM: usize = 5;
/// Handshakes and joins that are under way at once.
const ENTERING: usize = 64;

/// How many, as the environment says.
struct Scale {
    clients: usize,
    reloads: usize,
    upgrades: usize,
}

impl Scale {
    fn of_environment() -> Scale {
        let text = std::env::var("ROOMS_SOAK").unwrap_or_else(|_| "5000,100,20".to_owned());
        let numbers: Vec<usize> =
            text.split(',').map(|it| it.parse().expect("a number")).collect();
        let [clients, reloads, upgrades] = numbers[..] else { panic!("ROOMS_SOAK={text}") };
        Scale { clients, reloads, upgrades }
    }

    fn rooms(&self) -> usize {
        (self.clients / CLIENTS_PER_ROOM).max(ROOMS_EACH)
    }

    /// The rooms of a client, each of another number.
    fn rooms_of(&self, client: usize) -> Vec<usize> {
        (0..ROOMS_EACH).map(|nth| (client * ROOMS_EACH + nth) % self.rooms()).collect()
    }

    /// How many members each room has.
    fn members(&self) -> Vec<u64> {
        let mut members = vec![0; self.rooms()];
        (0..self.clients).flat_map(|it| self.rooms_of(it)).for_each(|room| members[room] += 1);
        members
    }
}

/// One client in its rooms, bound and with a session.
async fn enter(server: &Server, index: usize, rooms: &[usize]) -> Client {
    let mut client = Client::connect(&server.address, "/").await;
    for room in rooms {
        assert_eq!(client.ask(format!("join-confirmed me r{room}")).await, "join-confirmed []");
    }
    assert_eq!(client.ask(format!("bind me u{index}")).await, "bind queued");
    assert_eq!(client.ask(format!("keep me s{index}")).await, "keep queued");
    client
}

/// Hears all until each of its rooms has said that it is over: what it has heard last, by room.
async fn hear(mut client: Client, rooms: Vec<usize>) -> (Client, BTreeMap<usize, u64>) {
    let (mut last, mut over) = (BTreeMap::new(), 0);
    while over < rooms.len() {
        let text = match client.next_ever().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            other => panic!("a text was to come, not {other:?}"),
        };
        let (room, number) = text.split_once(' ').expect("a room and a number");
        let room: usize = room.parse().expect("a room");
        assert!(rooms.contains(&room), "heard of room {room}, in {rooms:?}");
        if number == "over" {
            over += 1;
            continue;
        }
        let number: u64 = number.parse().expect("a number");
        let before = last.insert(room, number).unwrap_or(0);
        assert_eq!(number, before + 1, "room {room}: each once, in order");
    }
    (client, last)
}

/// Publishes to each room in turn until all deploys are done; how often to each.
async fn publish(publisher: &mut Client, members: &[u64], is_over: impl Fn() -> bool) -> Vec<u64> {
    let mut published = vec![0; members.len()];
    while !is_over() {
        for (room, count) in members.iter().enumerate() {
            published[room] += 1;
            let number = published[room];
            let tally = publisher.ask(format!("tally r{room} {room} {number}")).await;
            assert_eq!(tally, format!("tally queued for {count} true"), "room {room}");
        }
    }
    for room in 0..members.len() {
        publisher.ask(format!("tally r{room} {room} over")).await;
    }
    published
}

async fn deploy(server: &Server, scale: &Scale) {
    for number in 0..scale.reloads.max(scale.upgrades) {
        if number < scale.reloads {
            server.wsd(["reload"]).await.ok();
        }
        if number < scale.upgrades {
            // Each with another session type than the one before.
            crate::upgrade::install_build(server, number % 2 == 0);
            crate::upgrade::upgrade(server).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; scripts/soak-rooms"]
async fn many_clients_in_ten_rooms_each_lose_nothing_over_reloads_and_upgrades() {
    let scale = Scale::of_environment();
    let setup =
        Setup::own_testbed().set("worker_num", 4).set("max_connection", scale.clients + 100);
    let server = Arc::new(setup.start().await);
    let entering = Arc::new(Semaphore::new(ENTERING));
    let mut clients = Vec::new();
    for index in 0..scale.clients {
        let (server, entering, rooms) = (server.clone(), entering.clone(), scale.rooms_of(index));
        clients.push(tokio::spawn(async move {
            let _turn = entering.acquire().await;
            (enter(&server, index, &rooms).await, rooms)
        }));
    }
    let mut listening = Vec::new();
    for client in clients {
        let (client, rooms) = client.await.expect("a client that enters");
        listening.push(tokio::spawn(hear(client, rooms)));
    }
    let mut publisher = server.client().await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Acquire);
    let members = scale.members();
    let (published, ()) = tokio::join!(publish(&mut publisher, &members, is_over), async {
        deploy(&server, &scale).await;
        over.store(true, std::sync::atomic::Ordering::Release);
    });
    let mut heard = 0;
    for (index, client) in listening.into_iter().enumerate() {
        let (mut client, last) = client.await.expect("a member's part");
        for room in scale.rooms_of(index) {
            assert_eq!(last.get(&room), Some(&published[room]), "client {index}, room {room}");
            heard += published[room];
        }
        assert_eq!(client.ask("uid me").await, format!("uid u{index}"));
        let session = format!("session Ok(Some(\"s{index}\"))");
        assert_eq!(client.ask("session me").await, session);
    }
    let Scale { clients, reloads, upgrades } = scale;
    println!(
        "{clients} clients, {reloads} reloads, {upgrades} upgrades: {heard} heard, each once"
    );
}
