//! What an application process prints, as lines of the log.

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::api::ProcessId;

/// A longer line is logged in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Logs what comes from a process until it closes its end.
pub async fn log_lines(mut pipe: Receiver, id: ProcessId, stream: &'static str) {
    let mut input = BytesMut::with_capacity(LINE_BYTES_MAX);
    loop {
        input.reserve(LINE_BYTES_MAX);
        match pipe.read_buf(&mut input).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                while let Some(line) = take_line(&mut input) {
                    log(id, stream, &line);
                }
            }
        }
    }
    if !input.is_empty() {
        log(id, stream, &input);
    }
}

/// The first line without its end; a piece of one that is too long.
fn take_line(input: &mut BytesMut) -> Option<BytesMut> {
    match memchr::memchr(b'\n', input) {
        Some(end) if end <= LINE_BYTES_MAX => {
            let mut line = input.split_to(end);
            input.advance(1);
            if line.ends_with(b"\r") {
                line.truncate(end - 1);
            }
            Some(line)
        }
        _ if input.len() >= LINE_BYTES_MAX => Some(input.split_to(LINE_BYTES_MAX)),
        _ => None,
    }
}

fn log(id: ProcessId, stream: &'static str, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    // What goes to standard error asks for attention, and must pass a log_level of "warn".
    match stream {
        "stderr" => tracing::warn!(app = %id, "{text}"),
        _ => tracing::info!(app = %id, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_long_ones_cut() {
        let mut input = BytesMut::from(&b"one\r\n\ntwo\nrest"[..]);
        let mut lines = Vec::new();
        while let Some(line) = take_line(&mut input) {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"two"]);
        assert_eq!(input, &b"rest"[..]);
        let mut input = BytesMut::from(&vec![b'x'; LINE_BYTES_MAX + 1][..]);
        assert_eq!(take_line(&mut input).unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(take_line(&mut input), None);
    }
}
