//! What an application process prints, as lines of the log.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::tail::Writer;
use crate::api::ProcessId;

/// What these lines are logged under: not the crate's name, for they have limits of their own.
const APPLICATION: &str = "application";

/// A longer line is logged in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Entries of more bytes are logged in pieces.
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// How long the rest of a trace may take.
const TRACE_TIME: Duration = Duration::from_millis(50);

/// Logs what comes from a process until it closes its end: each line as an entry, and a trace with
/// the message above it as one.
pub async fn log_lines(mut pipe: Receiver, id: ProcessId, stream: &'static str, mut tail: Writer) {
    let mut log = |line: &[u8]| {
        tail.write(line);
        log(id, stream, line);
    };
    let mut input = BytesMut::with_capacity(LINE_BYTES_MAX);
    let mut entry = Entry::default();
    loop {
        input.reserve(LINE_BYTES_MAX);
        let read = pipe.read_buf(&mut input);
        let read = if entry.is_empty() {
            read.await
        } else {
            match tokio::time::timeout(TRACE_TIME, read).await {
                Ok(read) => read,
                Err(_) => {
                    log(&entry.take());
                    continue;
                }
            }
        };
        if matches!(read, Ok(0) | Err(_)) {
            break;
        }
        while let Some(line) = take_line(&mut input) {
            if let Some(before) = entry.add(&line) {
                log(&before);
            }
        }
    }
    if !input.is_empty()
        && let Some(before) = entry.add(&input)
    {
        log(&before);
    }
    if !entry.is_empty() {
        log(&entry.take());
    }
}

/// Lines that belong together.
#[derive(Default)]
struct Entry {
    lines: Vec<u8>,
    /// Within a trace of Python, which ends with the first line that is not indented.
    python: bool,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line, or gives what stood before it where the line begins another entry.
    fn add(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let begins_python = line.starts_with(b"Traceback (most recent call last)");
        let goes_on = !self.lines.is_empty()
            && self.lines.len() + line.len() < ENTRY_BYTES_MAX
            && (self.python || goes_on(line));
        let before = (!goes_on && !self.lines.is_empty()).then(|| self.take());
        if !self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        self.lines.extend_from_slice(line);
        // The line that names the exception is the last one, and not indented.
        self.python =
            begins_python || (self.python && (line.is_empty() || line.starts_with(b" ")));
        before
    }

    fn take(&mut self) -> Vec<u8> {
        self.python = false;
        std::mem::take(&mut self.lines)
    }
}

/// Whether a line belongs to the one before: as the traces of PHP and Python are written.
fn goes_on(line: &[u8]) -> bool {
    let chained: [&[u8]; 4] = [
        b"Stack trace:",
        b"Next ",
        b"During handling of the above exception",
        b"The above exception was the direct cause",
    ];
    let frame =
        line.strip_prefix(b"#").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
    frame
        || line.starts_with(b"  ")
        || line.starts_with(b"\t")
        || chained.iter().any(|begin| line.starts_with(begin))
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
    if text.trim().is_empty() {
        return;
    }
    // What goes to standard error asks for attention, and must pass a log_level of "warn"; why a
    // handler or a process ended passes "error" as well, which Swoole's scripts like to set.
    match stream {
        "stderr" if ends_something(line) => {
            tracing::error!(target: APPLICATION, app = %id, "{text}");
        }
        "stderr" => tracing::warn!(target: APPLICATION, app = %id, "{text}"),
        _ => tracing::info!(target: APPLICATION, app = %id, "{text}"),
    }
}

/// Whether an entry tells of an error after which PHP or Python ran nothing more of what it ran.
fn ends_something(entry: &[u8]) -> bool {
    let begins: [&[u8]; 4] = [
        b"Uncaught ",
        b"PHP Fatal error:",
        b"PHP Parse error:",
        b"Traceback (most recent call last)",
    ];
    begins.iter().any(|begin| entry.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_handler_ended_is_told_from_a_warning() {
        for entry in [
            "Uncaught Exception: no in a.php:1\nStack trace:\n#0 {main}",
            "PHP Fatal error:  Allowed memory size exhausted",
            "PHP Parse error:  syntax error",
            "Traceback (most recent call last):\n  File",
        ] {
            assert!(ends_something(entry.as_bytes()), "{entry}");
        }
        for entry in ["PHP Warning:  Undefined variable $a", "Is an Uncaught one", "retrying", ""]
        {
            assert!(!ends_something(entry.as_bytes()), "{entry}");
        }
    }

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

    #[test]
    fn a_trace_is_one_entry() {
        let text = "first\nPHP Fatal error:  Uncaught Exception: no in a.php:1\nStack trace:\n\
                    #0 {main}\n  thrown in a.php on line 1\nsecond\n\
                    Traceback (most recent call last):\n  File \"a.py\", line 1\n    x()\n\
                    ValueError: no\nthird\nTraceback (most recent call last):\n  File\n\
                    KeyError: 1\n\nDuring handling of the above exception, another\n  File\n";
        let (mut input, mut entry, mut entries) =
            (BytesMut::from(text), Entry::default(), Vec::new());
        while let Some(line) = take_line(&mut input) {
            entries.extend(entry.add(&line));
        }
        entries.push(entry.take());
        let begins: Vec<String> = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .filter(|entry| !entry.is_empty())
            .map(|entry| format!("{} {}", entry.lines().count(), entry.lines().next().unwrap()))
            .collect();
        assert_eq!(
            begins[..6],
            [
                "1 first",
                "4 PHP Fatal error:  Uncaught Exception: no in a.php:1",
                "1 second",
                "4 Traceback (most recent call last):",
                "1 third",
                "3 Traceback (most recent call last):",
            ]
        );
    }
}
