//! What a client can do to a server by what it sends or does not read, at full scale:
//! `scripts/soak attacks` runs these, each says what it cost, and docs/attacks.md has the figures.
//! The same at a scale at which nothing is measured stands in `frames.rs` and `limits.rs`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::time::interval;

use crate::harness::*;

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;

/// A server with one worker, whose process it is that pays.
async fn one_worker(setup: Setup) -> (Server, i32) {
    let server = setup.set("worker_num", 1).start().await;
    let worker = server.serving(0, None).await.pid;
    (server, worker)
}

/// All that the server has read, of whomever.
async fn bytes_in(server: &Server) -> u64 {
    server.status().await["counters"]["bytes_in"].as_u64().unwrap()
}

/// Has each of a crowd send the same, and waits until the server has read it all.
async fn all_send(server: &Server, crowd: &mut [Raw], bytes: &[u8]) {
    let all = bytes_in(server).await + (crowd.len() * bytes.len()) as u64;
    for raw in crowd {
        raw.send(bytes).await;
    }
    until("all to be read", || async { (bytes_in(server).await >= all).then_some(()) }).await;
}

async fn crowd(server: &Server, clients: usize) -> Vec<Raw> {
    let mut crowd = Vec::new();
    for _ in 0..clients {
        crowd.push(Raw::upgraded(&server.address).await);
    }
    server.has_connections(clients).await;
    crowd
}

#[tokio::test]
#[ignore = "measures; scripts/soak"]
async fn four_mebibytes_in_small_fragments_take_linear_time() {
    let (server, worker) = one_worker(
        Setup::testbed().set("package_max_length", 5 * MIB).set("max_fragments", 1 << 23),
    )
    .await;
    // Two bytes a character, so that fragments end within characters.
    let text = format!("quiet {}", "é".repeat(2 << 20));
    for size in [text.len(), 64, 1] {
        let wire = in_parts(TEXT, text.as_bytes(), size);
        let mut raw = Raw::upgraded(&server.address).await;
        let costs = Costs::from_now([worker]);
        raw.send(&wire).await;
        raw.send(frame(FIN | TEXT, b"echo done")).await;
        assert_eq!(raw.bytes(11).await, b"\x81\x09echo done");
        let cost = costs.so_far();
        println!("4 MiB of text in fragments of {size} bytes: {cost}");
        assert!(cost.processor < Duration::from_secs(1));
    }
}

#[tokio::test]
#[ignore = "measures; scripts/soak"]
async fn fragments_without_an_end_are_refused_or_take_what_they_are() {
    const CLIENTS: usize = 100;
    const LIMIT: i64 = 128 * KIB;
    let one_byte = [frame(TEXT, b"q"), frame(0, b"q").repeat(131_000)].concat();
    let empty = [frame(TEXT, b""), frame(0, b"").repeat(10_000_000)].concat();
    for max_fragments in [4096, 1 << 24] {
        let setup = Setup::testbed().set("package_max_length", LIMIT);
        let (server, worker) = one_worker(setup.set("max_fragments", max_fragments)).await;
        let mut crowd = crowd(&server, CLIENTS).await;
        let costs = Costs::from_now([worker]);
        all_send(&server, &mut crowd, &one_byte).await;
        let cost = costs.so_far();
        println!("131,000 one-byte fragments of {max_fragments}, {CLIENTS} clients: {cost}");
        assert!(cost.peak <= CLIENTS as i64 * (LIMIT + 64 * KIB));
        let code = if max_fragments > 131_000 { 1009 } else { 1008 };
        for raw in &mut crowd {
            raw.send(frame(0, &[b'q'; 100])).await;
            assert_eq!(raw.close_code().await, Some(code));
        }
        let mut raw = Raw::upgraded(&server.address).await;
        let costs = Costs::from_now([worker]);
        raw.send(&empty).await;
        if max_fragments > 10_000_000 {
            raw.send(frame(FIN, b"")).await;
            assert_eq!(raw.bytes(8).await, b"\x81\x06 what?");
        } else {
            assert_eq!(raw.close_code().await, Some(1008));
        }
        let cost = costs.so_far();
        println!("10,000,000 empty fragments of {max_fragments}: {cost}");
        assert!(cost.peak <= LIMIT + 64 * KIB);
    }
}

#[tokio::test]
#[ignore = "measures; scripts/soak"]
async fn lengths_that_are_only_declared_take_no_memory() {
    const CLIENTS: usize = 1000;
    let (server, worker) = one_worker(Setup::testbed().set("package_max_length", 64 * MIB)).await;
    for (name, first) in [("message", FIN | TEXT), ("first fragment", TEXT)] {
        let mut crowd = crowd(&server, CLIENTS).await;
        let costs = Costs::from_now([worker]);
        let mut begun = vec![first, 0xff];
        begun.extend_from_slice(&(64 * MIB).to_be_bytes());
        begun.extend_from_slice(&[0; 4]);
        begun.extend_from_slice(b"quiet quie");
        all_send(&server, &mut crowd, &begun).await;
        let cost = costs.so_far();
        println!("{CLIENTS} clients send 10 bytes of a {name} of 64 MiB: {cost}");
        assert!(cost.peak <= CLIENTS as i64 * 32 * KIB);
        drop(crowd);
        server.has_connections(0).await;
    }
}

#[tokio::test]
#[ignore = "measures; scripts/soak"]
async fn a_compression_bomb_goes_off_at_the_limit() {
    const LIMIT: i64 = 2 * MIB;
    let mebibyte = vec![0; 1 << 20];
    let gibibyte = packed(std::iter::repeat_n(&mebibyte[..], 1024));
    println!("1 GiB of zeros compressed: {} bytes", gibibyte.len());
    let first = TEXT | COMPRESSED;
    let small = packed(std::iter::repeat_n(&mebibyte[..], 4));
    let greeting = packed([&b"quiet "[..], &[b'z'; 1 << 15]]);
    let greeting = [frame(FIN | first, &greeting), frame(FIN | TEXT, b"echo done")].concat();
    let wires = [
        ("4 MiB in a frame", frame(FIN | first, &small)),
        ("1 GiB in a frame", frame(FIN | first, &gibibyte)),
        ("1 GiB in fragments of 16 KiB", in_parts(first, &gibibyte, 16 << 10)),
        ("1 GiB in fragments of 300 bytes", in_parts(first, &gibibyte, 300)),
    ];
    for takeover in [false, true] {
        for (name, wire) in &wires {
            let setup = Setup::testbed().set("websocket_compression", true);
            let setup = setup.set("compression_context_takeover", takeover);
            let (server, worker) = one_worker(setup.set("package_max_length", LIMIT)).await;
            // The first time a worker needs so much, it also takes code and heap that it keeps.
            for (round, more) in [("cold", MIB / 2), ("warm", 0)] {
                let mut raw = Raw::connect(&server.address).await;
                let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
                raw.upgrade(&server.address, offer).await;
                // Fills the window, if there is one.
                raw.send(&greeting).await;
                assert_eq!(raw.bytes(11).await, b"\x81\x09echo done");
                let costs = Costs::from_now([worker]);
                raw.send(wire).await;
                assert_eq!(raw.close_code().await, Some(1009));
                let cost = costs.so_far();
                println!("{name}, takeover {takeover}, {round}: 1009, {cost}");
                assert!(cost.peak <= LIMIT + MIB + more);
                assert!(cost.processor < Duration::from_millis(50));
            }
        }
    }
}

#[tokio::test]
#[ignore = "measures; scripts/soak"]
async fn a_million_pings_of_a_client_that_never_reads_make_few_pongs() {
    let setup = Setup::testbed().set("ping_interval", 1).set("pong_timeout", 1);
    let (server, worker) = one_worker(setup).await;
    for (name, payload) in [("empty", &[][..]), ("full", &[b'p'; 125])] {
        let mut raw = Raw::narrow(&server.address).await;
        let client = std::slice::from_mut(&mut raw);
        // What a worker needs once, it has after this.
        all_send(&server, client, &frame(PING, payload).repeat(100_000)).await;
        let costs = Costs::from_now([worker]);
        all_send(&server, client, &frame(PING, payload).repeat(1_000_000)).await;
        let cost = costs.so_far();
        println!("1,000,000 {name} pings, no pong read: {cost}");
        // Who sends is not asked whether it lives; now it is.
        let silent = Instant::now();
        server.has_connections(0).await;
        println!("closed {:.1?} after the last of them", silent.elapsed());
        assert!(cost.peak <= 64 * KIB);
    }
}

/// What the readers of a broadcast saw.
struct Seen {
    /// Of an echo each 10 ms.
    p99: Duration,
    /// The same without the first second, in which the queues of those who do not read fill up.
    p99_later: Duration,
    /// Broadcasts that one of them read in a second.
    rate: f64,
}

/// Broadcasts so often a second to readers, who each echo meanwhile, and to whoever else is
/// connected.
async fn broadcast(server: &Server, size: usize, rate: u32, time: Duration) -> Seen {
    const READERS: usize = 4;
    let end = Instant::now() + time;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut client = server.client().await;
        readers.push(tokio::spawn(async move { reads(&mut client, end).await }));
    }
    // It hears its own broadcasts too, and must not be the slow one.
    let (mut hears, mut says) = Raw::upgraded(&server.address).await.stream.into_split();
    let listener = tokio::spawn(async move { copy(&mut hears, &mut sink()).await });
    let text = frame(FIN | TEXT, format!("broadcast {}", "x".repeat(size)).as_bytes());
    let mut pace = interval(Duration::from_secs(1) / rate);
    while Instant::now() < end {
        pace.tick().await;
        says.write_all(&text).await.unwrap();
    }
    drop(says);
    listener.await.unwrap().unwrap();
    let (mut times, mut broadcasts) = (Vec::new(), 0);
    for reader in readers {
        let (its_times, its_broadcasts) = reader.await.unwrap();
        times.extend(its_times);
        broadcasts += its_broadcasts;
    }
    let filled = end - time + Duration::from_secs(1);
    let later = times.iter().filter(|(asked, _)| *asked > filled).copied();
    Seen {
        p99_later: p99(later),
        p99: p99(times.iter().copied()),
        rate: broadcasts as f64 / READERS as f64 / time.as_secs_f64(),
    }
}

fn p99(times: impl Iterator<Item = (Instant, Duration)>) -> Duration {
    let mut times: Vec<Duration> = times.map(|(_, time)| time).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

async fn reads(client: &mut Client, end: Instant) -> (Vec<(Instant, Duration)>, usize) {
    let (mut times, mut broadcasts, mut asked) = (Vec::new(), 0, None);
    let mut pace = interval(Duration::from_millis(10));
    while Instant::now() < end || asked.is_some() {
        tokio::select! {
            _ = pace.tick(), if asked.is_none() => {
                asked = Some(Instant::now());
                client.send("echo here").await;
            }
            text = client.receive() => {
                match asked.filter(|_| text == "echo here") {
                    Some(then) => {
                        times.push((then, then.elapsed()));
                        asked = None;
                    }
                    None => broadcasts += 1,
                }
            }
        }
    }
    (times, broadcasts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; scripts/soak"]
async fn a_thousand_that_do_not_read_a_broadcast_cost_what_may_wait_for_them() {
    const CLIENTS: usize = 1000;
    const TIME: Duration = Duration::from_secs(10);
    for (policy, size, rate) in [
        ("close", 16_000, 625),
        ("drop", 16_000, 625),
        ("close", 4000, 2500),
        ("drop", 4000, 2500),
        // Less than 10 MB/s, but small messages are those that take most to be kept in mind.
        ("drop", 64, 10_000),
    ] {
        let setup = Setup::testbed().set("buffer_policy", format!("{policy:?}"));
        let server = setup.start().await;
        let calm = broadcast(&server, size, rate, TIME).await;
        let mut silent = Vec::new();
        for _ in 0..CLIENTS {
            silent.push(Raw::narrow(&server.address).await);
        }
        let costs = Costs::from_now(server.processes().into_iter().map(|process| process.pid));
        let torn = broadcast(&server, size, rate, TIME).await;
        let (cost, status) = (costs.so_far(), server.status().await);
        println!(
            "{policy}, {size} bytes {rate}/s: p99 {:.2?} without the attack, {:.2?} with it, \
             {:.2?} after its first second; {:.0}/s and {:.0}/s arrive; {} connections stay; \
             {cost}",
            calm.p99, torn.p99, torn.p99_later, calm.rate, torn.rate, status["connections"],
        );
        if size < 4000 {
            // To keep them in mind takes about a third more than they are.
            assert!(cost.peak <= CLIENTS as i64 * (MIB + MIB / 2));
            continue;
        }
        assert!(cost.peak <= CLIENTS as i64 * MIB + 64 * MIB);
        // The load and the server share two cores, where a millisecond comes by itself.
        assert!(torn.p99.max(torn.p99_later) <= 2 * calm.p99 + Duration::from_millis(1));
    }
}
