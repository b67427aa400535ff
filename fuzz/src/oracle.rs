//! tungstenite as the judge: what we accept it must accept, and alike. We may refuse more: it
//! takes lengths that are not minimal, and looks at text only when a frame is complete.

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Role as TheirRole, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use wsd::api::Opcode;
use wsd::websocket::{Limits, Role};

use super::said::{Said, events};

/// The most bytes of a message in these runs.
pub const MESSAGE_BYTES: usize = 1 << 20;

/// Panics if the bytes of a client mean one thing to us and another to tungstenite.
pub fn compare(wire: &[u8]) {
    let limits = Limits { message_bytes: MESSAGE_BYTES, fragments: u32::MAX };
    let mut ours = events(Role::Server, None, &[wire], &limits);
    let (mut theirs, their_error) = verdict(wire);
    if let Some(Said::Close(Some(1014), _)) = ours.last() {
        // A code that was registered after RFC 6455, and that tungstenite does not know.
        assert_eq!(theirs.pop(), Some(Said::Close(Some(1002), "Protocol violation".into())));
        ours.pop();
    }
    if let Some(Said::Fault(_)) = ours.last() {
        ours.pop();
        assert!(theirs.starts_with(&ours), "before the fault: {ours:?} against {theirs:?}");
    } else {
        assert_eq!(ours, theirs, "they ended with {their_error:?}");
        assert!(their_error.is_none(), "we accept what they do not: {their_error:?}");
    }
}

/// What tungstenite says, and its error, if it did not merely run out of bytes.
fn verdict(wire: &[u8]) -> (Vec<Said>, Option<Error>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let mut socket = WebSocket::from_raw_socket(Wire(wire), TheirRole::Server, Some(config));
    let mut out = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                out.push(Said::Message(Opcode::Text, text.as_bytes().to_vec()));
            }
            Ok(Message::Binary(data)) => out.push(Said::Message(Opcode::Binary, data.to_vec())),
            Ok(Message::Ping(data)) => out.push(Said::Ping(data.to_vec())),
            Ok(Message::Pong(data)) => out.push(Said::Pong(data.to_vec())),
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((None, String::new()), |frame| {
                    (Some(frame.code.into()), frame.reason.to_string())
                });
                out.push(Said::Close(code, reason));
                return (out, None);
            }
            Ok(Message::Frame(_)) => unreachable!("read gives no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (out, None);
            }
            Err(error) => return (out, Some(error)),
        }
    }
}

/// Bytes to read, and a hole to write to.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buf) }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
