//! Behind a real HAProxy, with the file that ships, each node in turn is reloaded, upgraded,
//! drained, stopped and started again, while all talk in one room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::{node, sees};
use crate::harness::*;
use crate::proxy::{HaProxy, free_port};

const NODES: u8 = 3;
const SEATS: usize = 6;
/// Between two messages of a seat, so that a machine with other tests has time for these.
const PACE: Duration = Duration::from_millis(20);

/// A client at one node, from its join on. A seat whose node stops has another stay elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stay {
    seat: usize,
    /// Which stay of the seat.
    nth: u64,
    node: u8,
}

/// What all seats tell the test, and the test tells them.
#[derive(Default)]
struct Hall {
    /// The node that is upgraded or stopped: messages between that node and others may be lost.
    shaken: Option<u8>,
    is_over: bool,
    /// All stays so far.
    stays: BTreeSet<Stay>,
    /// The present stay of each seat, and how often it has spoken.
    said: BTreeMap<usize, (Stay, u64)>,
    /// What a seat has heard last of a seat.
    heard: BTreeMap<(usize, usize), (Stay, u64)>,
}

type Shared = Arc<Mutex<Hall>>;

/// What one stay hears.
struct Ears {
    stay: Stay,
    hall: Shared,
    /// The stays that may have spoken before this one was a member.
    before: BTreeSet<Stay>,
    last: BTreeMap<Stay, u64>,
}

impl Ears {
    /// Takes each message of a stay once and in order. None may be missing but between the shaken
    /// node and another.
    fn hear(&mut self, text: &str) {
        let numbers: Option<Vec<u64>> =
            text.split(' ').skip(1).map(|it| it.parse().ok()).collect();
        let Some([seat, nth, node, number]) = numbers.as_deref() else { panic!("heard {text}") };
        let from = Stay { seat: *seat as usize, nth: *nth, node: *node as u8 };
        let mut hall = self.hall.lock().unwrap();
        let due = match self.last.insert(from, *number) {
            Some(last) => last + 1,
            None if self.before.contains(&from) => *number,
            None => 1,
        };
        let is_shaken = [Some(from.node), Some(self.stay.node)].contains(&hall.shaken);
        let may_miss = is_shaken && from.node != self.stay.node;
        assert!(
            *number == due || may_miss && *number > due,
            "{:?} hears {number} of {from:?}, where {due} was due; shaken: {:?}",
            self.stay,
            hall.shaken
        );
        let heard = hall.heard.entry((self.stay.seat, from.seat)).or_insert((from, 0));
        *heard = (*heard).max((from, *number));
    }
}

/// Takes a seat by the proxy: joins, and tells the hall.
async fn enter(seat: usize, nth: u64, proxy: &str, hall: &Shared) -> (Client, Ears) {
    let mut client = Client::connect(proxy, "/").await;
    let node = (client.who().await.fd >> 47) as u8;
    let stay = Stay { seat, nth, node };
    let mut ears =
        Ears { stay, hall: hall.clone(), before: BTreeSet::new(), last: BTreeMap::new() };
    client.send("join-confirmed me lobby").await;
    let mut heard = Vec::new();
    loop {
        let text = client.receive().await;
        if text.starts_with("join-confirmed") {
            assert_eq!(text, "join-confirmed []");
            break;
        }
        heard.push(text);
    }
    {
        let mut hall = hall.lock().unwrap();
        assert_ne!(hall.shaken, Some(node), "the proxy sends nobody to a node that leaves");
        ears.before = hall.stays.clone();
        hall.stays.insert(stay);
        hall.said.insert(seat, (stay, 0));
    }
    for text in heard {
        ears.hear(&text);
    }
    (client, ears)
}

/// Speaks and hears until all is over (true), or the node says good-bye.
async fn talk(client: &mut Client, ears: &mut Ears) -> bool {
    let Stay { seat, nth, node } = ears.stay;
    for number in 1_u64.. {
        {
            let mut hall = ears.hall.lock().unwrap();
            if hall.is_over {
                return true;
            }
            hall.said.insert(seat, (ears.stay, number));
        }
        client.send(format!("publish lobby talk {seat} {nth} {node} {number}")).await;
        loop {
            match client.next().await {
                Ok(Message::Text(text)) if text.starts_with("talk ") => ears.hear(&text),
                Ok(Message::Text(text)) => {
                    let is_shaken = ears.hall.lock().unwrap().shaken == Some(node);
                    let is_relayed = text.as_str() == "publish relayed";
                    assert!(is_relayed || is_shaken, "{:?}: {text}", ears.stay);
                    break;
                }
                Ok(Message::Close(Some(frame))) => {
                    let shaken = ears.hall.lock().unwrap().shaken;
                    assert_eq!((u16::from(frame.code), shaken), (1001, Some(node)));
                    return false;
                }
                other => panic!("{:?}: {other:?}", ears.stay),
            }
        }
        tokio::time::sleep(PACE).await;
    }
    true
}

/// A seat from the first to the last of its stays.
async fn sit(seat: usize, proxy: String, hall: Shared) {
    for nth in 1.. {
        let (mut client, mut ears) = enter(seat, nth, &proxy, &hall).await;
        if talk(&mut client, &mut ears).await {
            return;
        }
    }
}

/// Waits until each seat has heard of each what was said after this call.
async fn all_hear_all(hall: &Shared) {
    let said = hall.lock().unwrap().said.clone();
    until("each seat to hear each", async || {
        let hall = hall.lock().unwrap();
        let hears = |ear, mouth| hall.heard.get(&(ear, mouth)) > said.get(&mouth);
        (0..SEATS).all(|ear| (0..SEATS).all(|mouth| hears(ear, mouth))).then_some(())
    })
    .await;
}

fn shake(hall: &Shared, node: Option<u8>) {
    hall.lock().unwrap().shaken = node;
}

/// All that an operator does to a node.
async fn roll(nodes: &mut [Server], at: usize, haproxy: &HaProxy, hall: &Shared) {
    nodes[at].wsd(["reload"]).await.ok();
    all_hear_all(hall).await;

    shake(hall, Some(at as u8));
    nodes[at].wsd(["upgrade"]).await.ok();
    for server in &*nodes {
        sees(server, NODES).await;
    }
    until("the gap to be counted", async || {
        (nodes[at].status().await["cluster"]["gaps"].as_u64() > Some(0)).then_some(())
    })
    .await;
    all_hear_all(hall).await;
    shake(hall, None);

    nodes[at].wsd(["drain"]).await.ok();
    assert_eq!(Api::of(&nodes[at]).await.get("/ready").await.status, 503);
    haproxy.takes(at, "DOWN").await;
    // Clients of the drained node stay, and newcomers are with the others.
    all_hear_all(hall).await;
    for _ in 0..NODES {
        let fd = Client::connect(&haproxy.address, "/").await.who().await.fd;
        assert_ne!(fd >> 47, at as u64);
    }

    shake(hall, Some(at as u8));
    nodes[at].wsd(["stop"]).await.ok();
    nodes[at].is_gone().await;
    all_hear_all(hall).await;
    assert_eq!(nodes[at].start_again().await.code, Some(0), "{}", nodes[at].log());
    for server in &*nodes {
        sees(server, NODES).await;
    }
    haproxy.takes(at, "UP").await;
    all_hear_all(hall).await;
    shake(hall, None);
}

/// On which nodes the seats are.
fn taken(hall: &Shared) -> BTreeSet<u8> {
    hall.lock().unwrap().said.values().map(|(stay, _)| stay.node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_each_node_is_changed_and_stopped_and_the_others_lose_nothing() {
    let engine = Engine::start().await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        // The same address after each start, as HAProxy knows it.
        let address = format!("[\"127.0.0.1:{}\"]", free_port().await);
        let setup = node(&engine, number).set("listen", address).set("drain_grace", 3600);
        nodes.push(setup.start().await);
    }
    for server in &nodes {
        sees(server, NODES).await;
    }
    let addresses: Vec<String> = nodes.iter().map(|server| server.address.clone()).collect();
    let directory = tempfile::tempdir().unwrap();
    let haproxy = HaProxy::balancing(directory.path(), &addresses).await;
    for at in 0..nodes.len() {
        haproxy.takes(at, "UP").await;
    }
    let (hall, mut seats) = (Shared::default(), Vec::new());
    for seat in 0..SEATS {
        seats.push(tokio::spawn(sit(seat, haproxy.address.clone(), hall.clone())));
        // One after the other, so that HAProxy has counted whom it has sent where.
        until("the seat to be taken", async || {
            hall.lock().unwrap().said.contains_key(&seat).then_some(())
        })
        .await;
    }
    assert_eq!(taken(&hall), BTreeSet::from([0, 1, 2]));
    all_hear_all(&hall).await;
    for at in 0..nodes.len() {
        roll(&mut nodes, at, &haproxy, &hall).await;
        assert!(!taken(&hall).contains(&(at as u8)), "a seat stays where it went");
    }
    hall.lock().unwrap().is_over = true;
    for seat in seats {
        soon("a seat to be left", seat).await.unwrap();
    }
}
