//! A client that sends any bytes, for what no library would send.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::soon;

/// A bare TCP connection.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn connect(address: &str) -> Raw {
        let stream = soon("a TCP connection", TcpStream::connect(address)).await;
        Raw { stream: stream.expect("connect") }
    }

    /// One from another address of this machine, such as `127.0.0.2`.
    pub async fn from(source: &str, address: &str) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{source}:0").parse().unwrap()).expect("an address of loopback");
        let stream = soon("a TCP connection", socket.connect(address.parse().unwrap())).await;
        Raw { stream: stream.expect("connect") }
    }

    /// One that has finished its handshake, so that frames follow.
    pub async fn upgraded(address: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.upgrade(address, "").await;
        raw
    }

    /// As [`upgraded`](Self::upgraded), with a kernel that keeps little of what it does not read.
    pub async fn narrow(address: &str) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = soon("a TCP connection", socket.connect(address.parse().unwrap())).await;
        let mut raw = Raw { stream: stream.expect("connect") };
        raw.upgrade(address, "").await;
        raw
    }

    /// Does the handshake, with more header lines.
    pub async fn upgrade(&mut self, address: &str, more: &str) {
        self.send(handshake(address, more)).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Sends what the peer may refuse to take, which is no error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("a write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) {
        // The peer may have gone already.
        let _ = self.stream.shutdown().await;
    }

    /// An answer's head, with the blank line.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match soon("an answer", self.stream.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Exactly so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon("bytes", self.stream.read_exact(&mut bytes)).await.expect("bytes");
        bytes
    }

    /// Everything up to the end, which has to come; a reset is an end too.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match soon("the end", self.stream.read(&mut chunk)).await {
                Ok(0) | Err(_) => return bytes,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// The close code that the server sends before it ends the connection; `None` without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        let bytes = self.rest().await;
        let mut rest = bytes.as_slice();
        loop {
            let (opcode, payload, behind) = split(rest)?;
            if opcode == 8 {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                return Some(code.unwrap_or(1005));
            }
            rest = behind;
        }
    }
}

/// Splits one unmasked frame off.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match second {
        126 => rest.split_first_chunk::<2>().map(|(n, r)| (u16::from_be_bytes(*n) as usize, r))?,
        127 => rest.split_first_chunk::<8>().map(|(n, r)| (u64::from_be_bytes(*n) as usize, r))?,
        length => (usize::from(length), rest),
    };
    Some((first & 0x0f, rest.get(..length)?, &rest[length..]))
}

/// First bytes of frames, to be put together by `|`.
pub const FIN: u8 = 0x80;
pub const COMPRESSED: u8 = 0x40;
pub const TEXT: u8 = 0x01;
pub const PING: u8 = 0x89;

/// A frame of a client with a mask of zeros, which leaves the payload as it is.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message in frames of so many bytes.
pub fn in_parts(first: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let last = payload.len().div_ceil(size) - 1;
    let parts = payload.chunks(size).enumerate().map(|(index, part)| {
        let kind = if index == 0 { first } else { 0 };
        frame(kind | if index == last { FIN } else { 0 }, part)
    });
    parts.collect::<Vec<_>>().concat()
}

/// Bytes given out piece by piece, compressed as a message is: without the end that is cut off.
pub fn packed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
    for piece in pieces {
        packer.write_all(piece).unwrap();
    }
    packer.flush().unwrap();
    let mut packed = std::mem::take(packer.get_mut());
    assert!(packed.ends_with(b"\0\0\xff\xff"));
    packed.truncate(packed.len() - 4);
    packed
}

/// A good handshake, with more header lines, each with its CRLF.
pub fn handshake(host: &str, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}
