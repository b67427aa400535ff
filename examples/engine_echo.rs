//! An echo server of nothing but the engine, for conformance runs.
//!
//! `cargo run --release --example engine_echo -- 127.0.0.1:9001`
//!
//! permessage-deflate is on with context takeover both ways and no threshold, so that every path
//! of the codec is walked. It has no timeouts and is no server for the open sea.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wsd::websocket::{Codec, DeflateOptions, Engine, Event, Limits, Params, Role, frame};

/// Autobahn 9.1.6 and 9.2.6 send 16 MiB; 9.3 and 9.4 send 4 MiB in pieces of 64 bytes.
const LIMITS: Limits = Limits { message_bytes: 16 << 20, fragments: 1 << 17 };

type Shared = Rc<RefCell<Codec>>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let codec = Rc::new(RefCell::new(Codec::new(DeflateOptions {
        enabled: true,
        threshold: 0,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        ..DeflateOptions::default()
    })));
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let codec = codec.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = connection(stream, &codec).await {
                    eprintln!("connection: {error}");
                }
            });
        }
    };
    tokio::task::LocalSet::new().run_until(serve).await
}

async fn connection(mut stream: TcpStream, codec: &Shared) -> Result<()> {
    let mut buf = vec![0; 64 << 10];
    let params = upgrade(&mut stream, &mut buf, codec).await?;
    let done = echo(&mut stream, &mut buf, codec, params).await;
    codec.borrow_mut().release(params);
    done
}

/// Reads the request and answers 101. A client waits for that, so nothing follows the head.
async fn upgrade(
    stream: &mut TcpStream,
    buf: &mut [u8],
    codec: &Shared,
) -> Result<Option<Params>> {
    let mut len = 0;
    loop {
        let read = stream.read(&mut buf[len..]).await?;
        if read == 0 {
            return Err("no request".into());
        }
        len += read;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&buf[..len])?.is_partial() {
            continue;
        }
        let value = |name: &str| {
            let mut all = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
            all.next().and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let key = value("sec-websocket-key").ok_or("no key")?;
        let agreed = codec.borrow_mut().negotiate(value("sec-websocket-extensions"));
        let (params, extension) = match agreed {
            Some((params, header)) => {
                (Some(params), format!("Sec-WebSocket-Extensions: {header}\r\n"))
            }
            None => (None, String::new()),
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             {extension}Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        stream.write_all(answer.as_bytes()).await?;
        return Ok(params);
    }
}

async fn echo(
    stream: &mut TcpStream,
    buf: &mut [u8],
    codec: &Shared,
    params: Option<Params>,
) -> Result<()> {
    let mut engine = Engine::new(Role::Server, params);
    let mut out = Vec::new();
    loop {
        let read = stream.read(buf).await?;
        if read == 0 {
            return Ok(());
        }
        let closing = answer(&mut engine, &mut buf[..read], &mut codec.borrow_mut(), &mut out);
        stream.write_all(&out).await?;
        out.clear();
        if closing {
            stream.shutdown().await?;
            return Ok(());
        }
    }
}

/// Answers all that was read. True: the connection ends.
fn answer(engine: &mut Engine, read: &mut [u8], codec: &mut Codec, out: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while at < read.len() {
        let buf = &mut read[at..];
        let step = match engine.next(buf, &LIMITS, codec) {
            Ok(step) => step,
            Err(fault) => {
                frame::put_close(out, Some(fault.cause.code()), fault.text);
                return true;
            }
        };
        at += step.used;
        match step.event {
            Some(Event::Message { opcode, data }) => {
                let data = data.bytes(buf);
                match engine.compress(data, codec) {
                    Some(packed) => frame::put_message(out, opcode, true, &packed),
                    None => frame::put_message(out, opcode, false, data),
                }
            }
            Some(Event::Ping(data)) => frame::put_pong(out, data.bytes(buf)),
            Some(Event::Close { code, .. }) => {
                frame::put_close(out, code, "");
                return true;
            }
            Some(Event::Pong(_)) | None => {}
        }
    }
    false
}
