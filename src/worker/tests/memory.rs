//! `client_memory`, while clients begin much and finish nothing.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;
use super::serving::config;
use crate::api::{
    Body, Context, Flow, Frame, Handler, Handshake, HttpRequest, HttpResponse, Request,
};
use crate::config::Config;
use crate::ipc::scoreboard::Counter;

const LIMIT: u64 = 1 << 20;

/// Says how long each body is.
struct Reads;

impl Handler for Reads {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_request(&self, _: &Context, request: HttpRequest) -> Flow<Option<HttpResponse>> {
        let answer = format!("{} bytes", request.request.body().len());
        Flow::Ready(Some(HttpResponse::new(answer.into())))
    }
}

/// Lets nobody in, keeps nobody out, and answers nothing.
struct Undecided;

impl Handler for Undecided {
    fn on_handshake(&self, _: &Context, _: &Rc<Request>) -> Flow<Handshake> {
        Flow::later(std::future::pending())
    }

    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_request(&self, _: &Context, _: HttpRequest) -> Flow<Option<HttpResponse>> {
        Flow::later(std::future::pending())
    }

    fn body_in_memory_max(&self) -> usize {
        1000
    }
}

/// Answers with a long body, at the pace of whoever reads it.
struct Streams;

impl Handler for Streams {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_request(&self, ctx: &Context, _: HttpRequest) -> Flow<Option<HttpResponse>> {
        let (writer, body) = Body::in_parts(Some(1 << 30));
        ctx.spawn(async move { while writer.send(vec![0_u8; 64 << 10]).await.is_ok() {} });
        Flow::Ready(Some(HttpResponse::new(body)))
    }
}

/// Bytes of a page of [`Pages`], which come in one part.
const PAGE_BYTES: usize = 200_000;

/// Answers with a body that is written at the pace of its reader, as a file is.
struct Pages;

impl Handler for Pages {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_request(&self, ctx: &Context, _: HttpRequest) -> Flow<Option<HttpResponse>> {
        let (writer, body) = Body::in_parts(Some(PAGE_BYTES as u64));
        ctx.spawn(async move {
            if writer.send(vec![b'p'; PAGE_BYTES]).await.is_ok() {
                writer.finish().await;
            }
        });
        Flow::Ready(Some(HttpResponse::new(body)))
    }
}

async fn reads(server: &Server) -> Tested {
    server.start(FIRST, Config { client_memory: LIMIT, ..config() }, || Reads).await
}

/// Waits until so much is held.
async fn holds(server: &Server, bytes: u64) {
    reaches(server, Counter::ClientMemory, bytes).await;
}

/// Waits until a counter is at least so much.
async fn reaches(server: &Server, counter: Counter, least: u64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.count(counter) < least {
        assert!(tokio::time::Instant::now() < deadline, "{}", server.count(counter));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A connection that has sent this, as far as it was read, and goes on no further.
async fn begun(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    // Who is refused is read no further.
    let _ = stream.write_all(bytes).await;
    stream
}

/// The answer to a request that closes its connection.
async fn answer(server: &Server, request: &[u8]) -> String {
    let mut stream = begun(server, request).await;
    let mut answer = Vec::new();
    // What was refused unread may end in a reset, behind the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(length: usize, sent: usize) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ";
    [format!("{head}{length}\r\n\r\n").into_bytes(), vec![b'x'; sent]].concat()
}

#[tokio::test]
async fn who_comes_when_the_memory_is_used_up_takes_the_place_of_the_longest_message() {
    let server = Server::new();
    let _worker = reads(&server).await;
    let (mut longest, mut other) = (server.connect().await, server.connect().await);
    for (client, sent) in [(&mut longest, 500_000), (&mut other, 100_000)] {
        let mut half = vec![0x82, 0xff];
        half.extend_from_slice(&1_000_000_u64.to_be_bytes());
        half.extend_from_slice(&[0; 4]);
        half.resize(half.len() + sent, b'x');
        client.get_mut().write_all(&half).await.unwrap();
    }
    holds(&server, 600_000).await;
    // Heads are let come, also beyond the limit: as many as there may be handshakes.
    let line = format!("X: {}\r\n", "x".repeat(7_000));
    let head = format!("GET /ws HTTP/1.1\r\n{line}{line}");
    let mut heads = Vec::new();
    for _ in 0..40 {
        heads.push(begun(&server, head.as_bytes()).await);
    }
    holds(&server, LIMIT + 1).await;
    let health = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let said = answer(&server, health.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let _newcomer = server.connect().await;
    assert_eq!(closed(&mut longest).await.0, 1013);
    assert_eq!(server.count(Counter::Refused), 0);
    drop((heads, other));
}

#[tokio::test]
async fn half_bodies_keep_nobody_out_and_those_that_are_silent_make_room() {
    let server = Server::new();
    let _worker = reads(&server).await;
    let mut bodies = Vec::new();
    for _ in 0..10 {
        bodies.push(begun(&server, &post(200_000, 150_000)).await);
    }
    holds(&server, LIMIT / 2).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(server.connect().await);
    }
    assert!(server.count(Counter::ClientMemory) <= LIMIT);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let said = answer(&server, &post(100_000, 100_000)).await;
        if said.ends_with("100000 bytes") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{said}");
    }
}

#[tokio::test]
async fn heads_that_the_handler_thinks_about_are_within_the_memory() {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for fields in [upgrade, ""] {
        let server = Server::new();
        let config = Config { client_memory: LIMIT, ..config() };
        let _worker = server.start(FIRST, config, || Undecided).await;
        let line = format!("X: {}\r\n", "x".repeat(7_000));
        let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{line}{line}{fields}\r\n");
        let mut waiting = Vec::new();
        for _ in 0..100 {
            waiting.push(begun(&server, head.as_bytes()).await);
        }
        reaches(&server, Counter::RefusedMemory, 1).await;
        drop(waiting);
    }
}

#[tokio::test]
async fn long_answers_that_nobody_reads_are_within_the_memory() {
    let server = Server::new();
    let config = Config { client_memory: LIMIT, ..config() };
    let _worker = server.start(FIRST, config, || Streams).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        deaf.push(begun(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await);
    }
    reaches(&server, Counter::RefusedMemory, 1).await;
    // Who leaves makes room.
    drop(deaf);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut stream = begun(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        if status == *b"HTTP/1.1 200" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status:?}");
    }
}

#[tokio::test]
async fn who_has_read_a_page_and_rests_takes_no_memory() {
    let server = Server::new();
    let config = Config { client_memory: LIMIT, ..config() };
    let _worker = server.start(FIRST, config, || Pages).await;
    let (page, mut resting) = (vec![b'p'; PAGE_BYTES], Vec::new());
    for _ in 0..20 {
        let mut stream = begun(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut said = Vec::new();
        while !said.ends_with(&page) {
            let count = stream.read_buf(&mut said).await.unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&said));
        }
        resting.push(stream);
    }
    assert_eq!(server.count(Counter::RefusedMemory), 0);
}

#[tokio::test]
async fn the_head_of_a_request_whose_body_is_in_a_file_is_within_the_memory() {
    let server = Server::new();
    let upload_tmp_dir = std::env::temp_dir();
    let config = Config { client_memory: LIMIT, upload_tmp_dir, ..config() };
    let _worker = server.start(FIRST, config, || Undecided).await;
    let line = format!("X: {}\r\n", "x".repeat(7_000));
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}{line}Content-Length: 2000\r\n\r\n");
    let (request, mut thinking) = ([head.into_bytes(), vec![b'b'; 2000]].concat(), Vec::new());
    for count in 1..=10 {
        thinking.push(begun(&server, &request).await);
        reaches(&server, Counter::HttpRunning, count).await;
    }
    holds(&server, 10 * 28_000).await;
}
