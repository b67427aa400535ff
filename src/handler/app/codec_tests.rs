use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::handler::app::request_body::RequestBody;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn packet() -> impl Strategy<Value = Packet> {
    let kind = proptest::sample::select(Kind::ALL);
    let numbers = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u64>());
    (kind, numbers, bytes(300)).prop_map(|(kind, (flags, code, id, fd), body)| Packet {
        kind,
        flags,
        code,
        id,
        fd,
        body,
    })
}

fn request() -> impl Strategy<Value = RequestBody> {
    let texts = (bytes(8), bytes(40), bytes(8), bytes(20), bytes(20), bytes(20), bytes(8));
    let fields = vec((bytes(20), bytes(40)), 0..6);
    (texts, fields, bytes(50)).prop_map(
        |((method, target, subprotocol, peer, client, local, version), fields, rest)| {
            RequestBody { method, target, subprotocol, peer, client, local, version, fields, rest }
        },
    )
}

proptest! {
    #[test]
    fn frames_come_back_whatever_the_reads_look_like(
        packets in vec(packet(), 1..6),
        step in 1usize..64,
    ) {
        let mut wire = BytesMut::new();
        packets.iter().for_each(|packet| packet.encode(&mut wire));
        let (mut input, mut seen) = (BytesMut::new(), Vec::new());
        for chunk in wire.chunks(step) {
            input.extend_from_slice(chunk);
            while let Some(packet) = decode(&mut input, 1000).unwrap() {
                seen.push(packet);
            }
        }
        prop_assert_eq!(seen, packets);
        prop_assert!(input.is_empty());
    }

    #[test]
    fn requests_come_back(request in request()) {
        prop_assert_eq!(RequestBody::decode(request.encode(), Kind::Open), Ok(request));
    }

    #[test]
    fn any_bytes_are_an_answer_and_never_a_panic(noise in vec(any::<u8>(), 0..400)) {
        let mut input = BytesMut::from(&noise[..]);
        while let Ok(Some(_)) = decode(&mut input, 200) {}
        let _ = RequestBody::decode(Bytes::from(noise), Kind::Open);
    }
}

#[test]
fn frames_are_what_the_vectors_say() {
    let text = include_str!("../../../tests/app-protocol/frames.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    for vector in vectors["frames"].as_array().unwrap() {
        let number = |name: &str| vector[name].as_u64().unwrap_or_default();
        let packet = Packet {
            kind: Kind::from_number(number("kind") as u8).unwrap(),
            flags: number("flags") as u8,
            code: number("code") as u16,
            id: number("id") as u32,
            fd: number("fd"),
            body: unhex(vector["payload"].as_str().unwrap_or_default()),
        };
        let mut wire = BytesMut::new();
        packet.encode(&mut wire);
        assert_eq!(wire.freeze(), unhex(vector["wire"].as_str().unwrap()), "{}", vector["name"]);
    }
    for vector in vectors["requests"].as_array().unwrap() {
        let text = |name: &str| Bytes::from(vector[name].as_str().unwrap().to_owned());
        let field = |pair: &serde_json::Value| {
            let part = |i: usize| Bytes::from(pair[i].as_str().unwrap().to_owned());
            (part(0), part(1))
        };
        let request = RequestBody {
            method: text("method"),
            target: text("target"),
            subprotocol: text("subprotocol"),
            peer: text("peer"),
            client: text("client"),
            local: text("local"),
            version: text("version"),
            fields: vector["fields"].as_array().unwrap().iter().map(field).collect(),
            rest: text("rest"),
        };
        assert_eq!(request.encode(), unhex(vector["payload"].as_str().unwrap()));
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_it_is_waited_for() {
    let mut wire = BytesMut::new();
    Packet { body: Bytes::from(vec![0; 11]), ..Packet::new(Kind::Push) }.encode(&mut wire);
    wire.truncate(HEADER_BYTES);
    assert_eq!(decode(&mut wire, 10), Err(Broken::Length(11)));
}

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}
