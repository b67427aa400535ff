//! Plain HTTP connections as a Swoole script sees them: numbered, known, closed by their number,
//! and with the same number after an upgrade.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, soon};
use crate::sites::Script;
use crate::support::path;

struct Visitor(TcpStream);

impl Visitor {
    async fn come(address: &str) -> Visitor {
        Visitor(TcpStream::connect(address).await.unwrap())
    }

    async fn say(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// What comes, up to and with `end`.
    async fn hear(&mut self, end: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        while !heard.ends_with(end) {
            heard.push(soon("a byte", self.0.read_u8()).await.unwrap());
        }
        heard
    }

    /// The line that a GET is answered with.
    async fn get(&mut self, target: &str, version: &str) -> Vec<serde_json::Value> {
        self.say(&format!("GET {target} {version}\r\nhost: localhost\r\n\r\n")).await;
        self.hear(b"\r\n\r\n").await;
        serde_json::from_slice(&self.hear(b"\n").await).unwrap()
    }

    /// Everything up to the end of the connection.
    async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        soon("the end", self.0.read_to_end(&mut rest)).await.unwrap();
        rest
    }
}

async fn serve() -> Script {
    Script::start(&[&path("tests/app/fixtures/visits.php")]).await
}

#[tokio::test]
async fn a_plain_connection_has_a_number_and_keeps_it_over_an_upgrade() {
    let script = serve().await;
    let mut visitor = Visitor::come(&script.address).await;
    let first = visitor.get("/", "HTTP/1.1").await;
    let fd = first[0].as_u64().unwrap();
    assert!(fd > 0);
    let known = serde_json::json!([fd, true, true, false, 0, "127.0.0.1", "HTTP/1.1", true]);
    assert_eq!(serde_json::Value::from(first), known);
    assert_eq!(visitor.get("/again", "HTTP/1.1").await[0], fd, "one connection, one number");
    visitor
        .say(
            "GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let head = String::from_utf8(visitor.hear(b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let frame = visitor.hear(b"]").await;
    let opened: serde_json::Value = serde_json::from_slice(&frame[2..]).unwrap();
    assert_eq!(opened, serde_json::json!([fd, true, true, 3, true, "127.0.0.1"]));
    script.stop().await;
}

#[tokio::test]
async fn a_plain_connection_is_closed_by_its_number() {
    let script = serve().await;
    let mut itself = Visitor::come(&script.address).await;
    itself.get("/close", "HTTP/1.1").await;
    assert_eq!(itself.rest().await, b"", "after the answer, which is whole");
    let (mut one, mut other) =
        (Visitor::come(&script.address).await, Visitor::come(&script.address).await);
    let fd = one.get("/", "HTTP/1.1").await[0].clone();
    other.get(&format!("/other?fd={fd}"), "HTTP/1.1").await;
    assert_eq!(one.rest().await, b"");
    other.get("/", "HTTP/1.1").await;
    script.stop().await;
}

#[tokio::test]
async fn a_connection_that_closes_with_its_answer_is_gone_with_it_though_the_visitor_stays() {
    let script = serve().await;
    let mut parting = Visitor::come(&script.address).await;
    parting.say("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    parting.hear(b"\r\n\r\n").await;
    let told: Vec<serde_json::Value> = serde_json::from_slice(&parting.hear(b"\n").await).unwrap();
    assert_eq!(told[2], true, "while it is answered");
    let mut other = Visitor::come(&script.address).await;
    let known = other.get(&format!("/known?fd={}", told[0]), "HTTP/1.1").await;
    assert_eq!(known, [serde_json::json!(false)]);
    assert_eq!(parting.rest().await, b"");
    script.stop().await;
}

#[tokio::test]
async fn a_detached_answer_is_ended_by_the_number_of_its_connection() {
    let script = serve().await;
    let mut visitor = Visitor::come(&script.address).await;
    let told = visitor.get("/detach", "HTTP/1.1").await;
    assert_eq!(serde_json::Value::from(told), serde_json::json!([true, false, false, true]));
    visitor.get("/", "HTTP/1.1").await;
    script.stop().await;
}

#[tokio::test]
async fn the_length_in_an_answer_to_head_is_the_applications() {
    let script = serve().await;
    let mut visitor = Visitor::come(&script.address).await;
    visitor.say("HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let head = String::from_utf8(visitor.hear(b"\r\n\r\n").await).unwrap().to_lowercase();
    assert!(head.contains("\r\ncontent-length: 4711\r\n"), "{head}");
    let mut old = Visitor::come(&script.address).await;
    assert_eq!(old.get("/", "HTTP/1.0").await[6], "HTTP/1.0");
    script.stop().await;
}

#[tokio::test]
async fn every_process_knows_the_pids_of_the_others() {
    let script =
        Script::start_with(&[&path("tests/app/fixtures/visits.php")], &[("WORKERS", "3")]).await;
    let mut client = Client::connect(&script.address, "/").await;
    client.receive().await;
    let pids = client.ask("pids").await;
    assert_eq!(
        pids, "[4,true,[true,true,true,false,true],4]",
        "three processes, and itself again"
    );
    script.stop().await;
}

#[tokio::test]
async fn a_compressed_message_has_the_flag_of_one() {
    let script =
        Script::start_with(&[&path("tests/app/fixtures/visits.php")], &[("DEFLATE", "1")]).await;
    let mut visitor = Visitor::come(&script.address).await;
    visitor
        .say(
            "GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-extensions: permessage-deflate\r\n\r\n",
        )
        .await;
    visitor.hear(b"\r\n\r\n").await;
    visitor.hear(b"]").await;
    // RFC 7692 section 7.2.3.1: "Hello", compressed; the mask is of zeros.
    let mut hello = vec![0xc1, 0x87, 0, 0, 0, 0];
    hello.extend([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    visitor.0.write_all(&hello).await.unwrap();
    let frame = visitor.hear(b"]").await;
    assert_eq!(&frame[2..], b"[3,\"Hello\"]");
    script.stop().await;
}
