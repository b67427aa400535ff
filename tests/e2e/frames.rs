//! Frames as no library would send them: each ends its connection with the right code, and
//! nobody else's.

use crate::harness::*;

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], reason].concat())
}

fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let quiet = b"quiet";
    let mut cases = vec![
        ("an unmasked text", b"\x81\x05quiet".to_vec(), 1002),
        ("an unmasked close", b"\x88\x00".to_vec(), 1002),
        ("reserved bit 1", frame(0xc1, quiet), 1002),
        ("reserved bit 2", frame(0xa1, quiet), 1002),
        ("reserved bit 3", frame(0x91, quiet), 1002),
        ("a continuation of nothing", frame(0x80, quiet), 1002),
        ("a text inside a message", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("a ping in parts", frame(0x09, b""), 1002),
        ("a close in parts", frame(0x08, b""), 1002),
        ("a ping too long", frame(0x89, &[0; 126]), 1002),
        ("a close too long", frame(0x88, &[0; 126]), 1002),
        ("a 16-bit length that fits in 7", b"\x81\xfe\0\x05\0\0\0\0quiet".to_vec(), 1002),
        (
            "a 64-bit length that fits in 16",
            b"\x81\xff\0\0\0\0\0\0\0\x05\0\0\0\0quiet".to_vec(),
            1002,
        ),
        ("a 64-bit length with its top bit", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 1002),
        ("a length beyond the limit", b"\x82\xff\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), 1009),
        (
            "parts beyond the limit",
            [frame(0x02, &[0; 1500]), frame(0x80, &[0; 1500])].concat(),
            1009,
        ),
        ("text that is no UTF-8", frame(0x81, b"quiet \xff"), 1007),
        ("text that ends in the middle", frame(0x81, b"quiet \xe2\x82"), 1007),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("an overlong slash", frame(0x81, b"\xc0\xaf"), 1007),
        ("beyond Unicode", frame(0x81, b"\xf4\x90\x80\x80"), 1007),
        ("no UTF-8 over parts", [frame(0x01, b"\xe2"), frame(0x80, b"\x28")].concat(), 1007),
        ("a close of one byte", frame(0x88, b"\x03"), 1002),
        ("a reason that is no UTF-8", close(1000, b"\xff"), 1007),
    ];
    let opcodes: [&str; 10] = ["3", "4", "5", "6", "7", "11", "12", "13", "14", "15"];
    for opcode in opcodes {
        cases.push((opcode, frame(0x80 | opcode.parse::<u8>().unwrap(), b""), 1002));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(("a close code that may not be sent", close(code, b""), 1002));
    }
    cases
}

#[tokio::test]
async fn every_malformed_frame_ends_its_own_connection_with_its_code() {
    let server = Setup::testbed().set("package_max_length", 2000).start().await;
    let mut bystander = server.client().await;
    let who = bystander.who().await;
    let mut faults = Vec::new();
    for (name, bytes, wanted) in malformed() {
        let mut raw = Raw::upgraded(&server.address).await;
        raw.send(&bytes).await;
        let code = raw.close_code().await;
        if code != Some(wanted) {
            let bytes = bytes[..bytes.len().min(20)].escape_ascii();
            faults.push(format!("{name} ({bytes}): {wanted} was to come, not {code:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(bystander.who().await, who);
    server.has_connections(1).await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code() {
    let server = Setup::testbed().start().await;
    for code in [1000, 1001, 1003, 1007, 1008, 1011, 3000, 4999] {
        let client = server.client().await;
        let answer = client.close(code, "so long").await;
        assert!(matches!(answer, Closed::Frame(echoed, _) if echoed == code), "{answer:?}");
    }
    let noted = || {
        let events = server.events();
        events.iter().filter(|line| line.contains("client_closed 4999 Client")).count() == 1
    };
    until("the code", || async { noted().then_some(()) }).await;
}

#[tokio::test]
async fn messages_in_parts_and_pings_between_are_put_together() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::upgraded(&server.address).await;
    let parts = [
        frame(0x01, b"echo \xe2"),
        frame(0x89, b"ping"),
        frame(0x00, b"\x82"),
        frame(0x80, b"\xac"),
    ];
    raw.send(parts.concat()).await;
    assert_eq!(raw.bytes(6).await, b"\x8a\x04ping");
    assert_eq!(raw.bytes(10).await, b"\x81\x08echo \xe2\x82\xac");
}

#[tokio::test]
async fn too_many_parts_and_too_slow_parts_end_the_connection() {
    let server = Setup::testbed()
        .set("max_fragments", 3)
        .set("message_timeout", r#""300ms""#)
        .start()
        .await;
    let mut raw = Raw::upgraded(&server.address).await;
    raw.send([frame(0x01, b"a"), frame(0, b"b"), frame(0, b"c"), frame(0, b"d")].concat()).await;
    assert_eq!(raw.close_code().await, Some(1008));
    let mut raw = Raw::upgraded(&server.address).await;
    raw.send([frame(0x01, b""), frame(0, b"").repeat(3)].concat()).await;
    assert_eq!(raw.close_code().await, Some(1008));
    for unfinished in [frame(0x01, b"a"), b"\x81\x85\0".to_vec()] {
        let mut raw = Raw::upgraded(&server.address).await;
        raw.send(unfinished).await;
        assert_eq!(raw.close_code().await, Some(1008));
    }
}

#[tokio::test]
async fn a_big_message_goes_through_whole() {
    let server = Setup::testbed().set("package_max_length", r#""2MiB""#).start().await;
    let mut client = server.client().await;
    let data: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    let message = tokio_tungstenite::tungstenite::Message::binary(data.clone());
    client.send_message(message).await.unwrap();
    assert_eq!(client.next().await.unwrap().into_data(), data);
}

#[tokio::test]
async fn a_text_in_parts_of_one_byte_comes_whole() {
    let server = Setup::testbed().set("max_fragments", 20_000).start().await;
    let mut raw = Raw::upgraded(&server.address).await;
    let text = format!("echo {}", "é".repeat(5000));
    raw.send(in_parts(TEXT, text.as_bytes(), 1)).await;
    assert_eq!(raw.bytes(4).await, b"\x81\x7e\x27\x15");
    assert_eq!(raw.bytes(text.len()).await, text.as_bytes());
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_up_to_its_newest_and_not_each() {
    let server = Setup::testbed().start().await;
    let mut raw = Raw::upgraded(&server.address).await;
    let flood = (0..50_000_u32).map(|ping| frame(PING, &ping.to_be_bytes()));
    let flood = flood.chain([frame(0x88, b"")]).collect::<Vec<_>>().concat();
    raw.send(flood).await;
    let said = raw.rest().await;
    let pongs = said.strip_suffix(b"\x88\0").expect("an empty close frame at the end");
    let pings: Vec<u32> = pongs
        .chunks(6)
        .map(|pong| {
            assert_eq!(pong[..2], [0x8a, 4]);
            u32::from_be_bytes(pong[2..].try_into().unwrap())
        })
        .collect();
    assert!(pings.is_sorted_by(|a, b| a < b), "a pong came twice or late");
    assert_eq!(pings.last(), Some(&49_999));
    assert!(pings.len() < 50_000);
}

#[tokio::test]
async fn a_compression_bomb_ends_its_own_connection() {
    let bomb = packed(std::iter::repeat_n(&[0; 1 << 16][..], 64));
    for takeover in [false, true] {
        let setup = Setup::testbed().set("websocket_compression", true);
        let server = setup.set("compression_context_takeover", takeover).start().await;
        let mut bystander = server.client().await;
        let who = bystander.who().await;
        let first = TEXT | COMPRESSED;
        for wire in [frame(FIN | first, &bomb), in_parts(first, &bomb, 100)] {
            let mut raw = Raw::connect(&server.address).await;
            let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
            raw.upgrade(&server.address, offer).await;
            // Fills the window, if there is one.
            let greeting = packed([&b"quiet "[..], &[b'z'; 1 << 15]]);
            raw.send([frame(FIN | first, &greeting), wire].concat()).await;
            assert_eq!(raw.close_code().await, Some(1009));
        }
        assert_eq!(bystander.who().await, who);
    }
}

/// Bytes and an end that come while the worker is away are there at once when it looks, and nothing
/// wakes the worker for the end alone.
#[tokio::test]
async fn an_end_that_came_with_the_last_message_is_seen() {
    let server = Setup::testbed().set("worker_num", 1).set("ping_interval", 0).start().await;
    let worker = server.serving(0, None).await.pid;
    for round in 0..3 {
        let mut raw = Raw::upgraded(&server.address).await;
        kill(worker, nix::sys::signal::Signal::SIGSTOP);
        raw.send(frame(0x81, format!("echo {round}").as_bytes())).await;
        raw.finish().await;
        kill(worker, nix::sys::signal::Signal::SIGCONT);
        let said = raw.rest().await;
        assert!(said.ends_with(format!("echo {round}").as_bytes()), "{said:?}");
    }
}
