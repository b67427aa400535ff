//! Clients of two nodes: what is offered to one and comes from the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;
use crate::engine_client::{EngineClient, command};

/// Bytes of what is published and pushed.
const PAYLOAD_BYTES: usize = 64;
/// How long what is on its way may take once nothing more is offered.
const LATE: Duration = Duration::from_secs(3);

struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> Result<Client, Failure> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        match answer.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(Client(stream)),
            false => Err(String::from_utf8_lossy(&answer).into()),
        }
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.0.write_all(&masked(text))?)
    }

    /// The next message, which is short.
    fn hear(&mut self) -> Result<String, Failure> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        self.0.read_exact(&mut payload)?;
        Ok(String::from_utf8(payload)?)
    }

    fn fd(&mut self) -> Result<String, Failure> {
        self.say("fd")?;
        let said = self.hear()?;
        Ok(said.split(' ').nth(1).ok_or("no fd")?.to_owned())
    }
}

/// A short text of a client; its mask is nothing, which changes nothing for the server.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Publishes so often for so long, by a client of one node to a client of the other.
pub fn offer(from: &str, to: &str, rate: f64, seconds: f64) -> Result<Value, Failure> {
    let (mut sender, mut member) = (Client::connect(from)?, Client::connect(to)?);
    member.say("enter 0")?;
    member.hear()?;
    // Until the node has subscribed.
    loop {
        sender.say("publish 1 ready")?;
        member.0.set_read_timeout(Some(Duration::from_millis(100)))?;
        if member.hear().is_ok() {
            break;
        }
    }
    member.0.set_read_timeout(Some(LATE))?;
    let frame = masked(&format!("publish 1 {}", "x".repeat(PAYLOAD_BYTES)));
    let total = (rate * seconds) as u64;
    let began = Instant::now();
    let sending = std::thread::spawn(move || -> std::io::Result<Duration> {
        let mut sent = 0;
        while sent < total {
            let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(total);
            if due > sent {
                sender.0.write_all(&frame.repeat((due - sent) as usize))?;
                sent = due;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let took = began.elapsed();
        // The connection stays until the server has read all of it.
        std::thread::sleep(LATE);
        Ok(took)
    });
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    let whole = total * (2 + PAYLOAD_BYTES as u64);
    while bytes < whole {
        match member.0.read(&mut buffer) {
            Ok(count @ 1..) => bytes += count as u64,
            _ => break,
        }
    }
    let received = bytes / (2 + PAYLOAD_BYTES as u64);
    let all = began.elapsed().as_secs_f64();
    let took = sending.join().map_err(|_| "the sender panicked")??.as_secs_f64();
    Ok(json!({ "offered": total, "received": received, "lost": total - received,
               "sending_seconds": took, "seconds": all }))
}

fn percentiles(mut micros: Vec<f64>) -> Value {
    micros.sort_by(f64::total_cmp);
    let at = |share: usize| micros.get(micros.len() * share / 100).copied().unwrap_or_default();
    json!({ "p50": at(50), "p90": at(90), "p99": at(99) })
}

/// A push by number to a client of another node, and in turns a bare publish that is received.
pub fn latency(from: &str, to: &str, engine: &str, rounds: usize) -> Result<Value, Failure> {
    let (mut sender, mut target) = (Client::connect(from)?, Client::connect(to)?);
    let payload = "x".repeat(PAYLOAD_BYTES);
    let push = masked(&format!("push {} {payload}", target.fd()?));
    let (mut publisher, mut subscriber) =
        (EngineClient::connect(engine)?, EngineClient::connect(engine)?);
    subscriber.send(&command(&[b"SUBSCRIBE", b"bench"]))?;
    subscriber.skip_list(3)?;
    let publish = command(&[b"PUBLISH", b"bench", payload.as_bytes()]);
    let (mut pushes, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        sender.0.write_all(&push)?;
        target.hear()?;
        pushes.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        publisher.send(&publish)?;
        subscriber.skip_list(3)?;
        bare.push(began.elapsed().as_secs_f64() * 1e6);
        publisher.skip_lines(1)?;
    }
    Ok(json!({ "push_us": percentiles(pushes), "bare_us": percentiles(bare) }))
}
