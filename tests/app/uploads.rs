//! Long bodies of requests: they reach an application in parts, and cost neither memory nor the
//! time of a process that has other things to do.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::daemon::{app, native, peaks};
use crate::harness::*;
use crate::support::path;

const MIB: usize = 1 << 20;

/// A client that sends a request by hand.
struct Upload(TcpStream);

impl Upload {
    async fn begin(server: &Server, head: &str) -> Upload {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let head = format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Upload(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon("the server to read", self.0.write_all(bytes)).await.unwrap();
    }

    /// The answer, without its head.
    async fn answer(mut self) -> (u16, String) {
        let mut answer = Vec::new();
        soon("the answer", self.0.read_to_end(&mut answer)).await.unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }
}

/// A body of so many MiB, in which each has its own letter.
fn mib(number: usize) -> Vec<u8> {
    vec![b'a' + (number % 26) as u8; MIB]
}

async fn put(server: &Server, count: usize) -> (u16, String) {
    let head = format!("PUT /upload HTTP/1.1\r\ncontent-length: {}", count * MIB);
    let mut upload = Upload::begin(server, &head).await;
    for number in 0..count {
        upload.send(&mib(number)).await;
    }
    upload.answer().await
}

/// A form with a title, as far as the bytes of a file.
const FORM_BEGIN: &str = "--x\r\ncontent-disposition: form-data; name=\"title\"\r\n\r\nlong\r\n\
    --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\
    content-type: application/octet-stream\r\n\r\n";
const FORM_END: &str = "\r\n--x--\r\n";

fn post_form(length: usize) -> String {
    format!(
        "POST /form HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=x\r\n\
         content-length: {length}"
    )
}

/// What the fixtures say of a body of so many MiB.
fn sum(count: usize) -> String {
    let sum: u64 = (0..count).map(|number| (b'a' + (number % 26) as u8) as u64 * MIB as u64).sum();
    format!("{} {sum}", count * MIB)
}

#[tokio::test]
async fn an_upload_of_96_mebibytes_arrives_whole_and_takes_little_memory() {
    let server = native().set("package_max_length", "\"128MiB\"").start().await;
    assert_eq!(put(&server, 1).await, (200, sum(1)));
    let before = peaks(&server);
    assert_eq!(put(&server, 96).await, (200, sum(96)));
    for (pid, peak) in peaks(&server) {
        let first = before.iter().find(|(other, _)| *other == pid).map(|(_, peak)| *peak);
        let grown = peak - first.expect("no new process");
        assert!(grown < 16 << 10, "process {pid} took {grown} KiB more");
    }
    let left = std::fs::read_dir("/tmp").unwrap().flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().starts_with("wsd-body"));
    assert_eq!(left.count(), 0, "a body has no name");
}

#[tokio::test]
async fn a_chunked_upload_arrives_in_python_too() {
    let echo = path("tests/app/fixtures/echo.py");
    let server = app(&["python3", &echo]).set("package_max_length", "\"8MiB\"").start().await;
    let head = "PUT /upload HTTP/1.1\r\ntransfer-encoding: chunked";
    let mut upload = Upload::begin(&server, head).await;
    for number in 0..3 {
        upload.send(format!("{MIB:x}\r\n").as_bytes()).await;
        upload.send(&mib(number)).await;
        upload.send(b"\r\n").await;
    }
    upload.send(b"0\r\n\r\n").await;
    assert_eq!(upload.answer().await, (200, sum(3)));
}

#[tokio::test]
async fn a_form_with_a_long_file_is_read_as_php_reads_one() {
    let script = path("tests/app/fixtures/upload_server.php");
    let server = app(&["php", &script]).set("package_max_length", "\"64MiB\"").start().await;
    let length = FORM_BEGIN.len() + 20 * MIB + FORM_END.len();
    let mut upload = Upload::begin(&server, &post_form(length)).await;
    upload.send(FORM_BEGIN.as_bytes()).await;
    for number in 0..20 {
        upload.send(&mib(number)).await;
    }
    upload.send(FORM_END.as_bytes()).await;
    let (status, told) = upload.answer().await;
    assert_eq!((status, told), (200, format!("long a.bin 0 {} {length}", sum(20))));
}

#[tokio::test]
async fn short_lines_before_a_form_cost_no_process_its_time() {
    let script = path("tests/app/fixtures/upload_server.php");
    let server = app(&["php", &script])
        .set("package_max_length", "\"64MiB\"")
        .set("app.event_timeout", "\"5s\"")
        .start()
        .await;
    let lines = "\n".repeat(8 * MIB);
    let body = [lines.as_str(), FORM_BEGIN, "abc", FORM_END].concat();
    let mut upload = Upload::begin(&server, &post_form(body.len())).await;
    upload.send(body.as_bytes()).await;
    let sum: u64 = b"abc".iter().copied().map(u64::from).sum();
    let expected = format!("long a.bin 0 3 {sum} {}", body.len());
    assert_eq!(upload.answer().await, (200, expected));
}

#[tokio::test]
async fn a_client_that_uploads_slowly_keeps_no_process() {
    let server = native().set("package_max_length", "\"8MiB\"").start().await;
    let head = format!("PUT /upload HTTP/1.1\r\ncontent-length: {}", 4 * MIB);
    let mut slow = Upload::begin(&server, &head).await;
    slow.send(&mib(0)).await;
    let mut client = server.client().await;
    client.receive().await;
    assert_eq!(client.ask("echo meanwhile").await, "meanwhile");
    assert_eq!(put(&server, 2).await, (200, sum(2)));
    for number in 1..4 {
        slow.send(&mib(number)).await;
    }
    assert_eq!(slow.answer().await, (200, sum(4)));
}

#[tokio::test]
async fn what_bodies_take_on_the_disk_is_bounded_and_given_back() {
    let server = native()
        .set("package_max_length", "\"8MiB\"")
        .set("upload_tmp_max", "\"3MiB\"")
        .start()
        .await;
    for _ in 0..3 {
        let (status, said) = put(&server, 4).await;
        assert_eq!(status, 503, "{said}");
        // The room of a body is given back within a second of its end.
        until("room again", async || (put(&server, 2).await == (200, sum(2))).then_some(())).await;
    }
    assert!(server.log().contains("upload_tmp_max"), "{}", server.log());
}

#[tokio::test]
async fn a_body_that_breaks_off_never_reaches_the_application() {
    let server = native().set("package_max_length", "\"8MiB\"").start().await;
    let head = "PUT /upload HTTP/1.1\r\ntransfer-encoding: chunked";
    let mut upload = Upload::begin(&server, head).await;
    upload.send(format!("{MIB:x}\r\n").as_bytes()).await;
    upload.send(&mib(0)).await;
    upload.send(b"\r\nnonsense\r\n").await;
    let (status, _) = upload.answer().await;
    assert_eq!(status, 400);
    let head = format!("PUT /upload HTTP/1.1\r\ncontent-length: {}", 16 * MIB);
    let (status, _) = Upload::begin(&server, &head).await.answer().await;
    assert_eq!(status, 413);
    assert_eq!(put(&server, 1).await, (200, sum(1)), "and the process lives");
}

#[tokio::test]
async fn a_message_of_any_size_that_is_allowed_comes_and_goes() {
    let server = native()
        .set("package_max_length", "\"64MiB\"")
        .set("buffer_output_size", "\"64MiB\"")
        .start()
        .await;
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let any = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let url = format!("ws://{}/", server.address);
    let opened = client_async_with_config(url, stream, Some(any)).await;
    let (mut client, _) = opened.unwrap();
    let receive = async |client: &mut WebSocketStream<TcpStream>| {
        let message = soon("a message", client.next()).await.unwrap().unwrap();
        message.into_text().unwrap().to_string()
    };
    assert!(receive(&mut client).await.starts_with("welcome"));
    client.send(Message::text("pid")).await.unwrap();
    let process = receive(&mut client).await;
    for count in [9, 17, 40] {
        let text = "x".repeat(count * MIB);
        client.send(Message::text(format!("echo {text}"))).await.unwrap();
        assert!(receive(&mut client).await == text, "{count} MiB");
    }
    client.send(Message::text("pid")).await.unwrap();
    assert_eq!(receive(&mut client).await, process, "no process was ended for a size");
}
