//! The last lines of a process that has not said READY, for whoever asks why it never did.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::api::ProcessId;

/// Lines that are kept.
const LINES_MAX: usize = 20;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 160;
/// How long the end of what a dead process printed is waited for: a process of its own may hold
/// the pipe open.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a process printed last.
#[derive(Debug, Default)]
pub struct Tail {
    lines: RefCell<VecDeque<String>>,
    /// Why it was ended.
    blame: RefCell<Option<String>>,
    /// Nobody will ask.
    forgotten: Cell<bool>,
    /// Streams that have not ended.
    open: Cell<usize>,
    changed: Notify,
}

/// The end of a stream that writes to a tail.
#[derive(Debug)]
pub struct Writer(Rc<Tail>);

impl Writer {
    /// Adds what was printed: a line, or the lines of a trace.
    pub fn write(&mut self, text: &[u8]) {
        if self.0.forgotten.get() {
            return;
        }
        let mut lines = self.0.lines.borrow_mut();
        for line in String::from_utf8_lossy(text).lines().filter(|line| !line.trim().is_empty()) {
            let mut line = line.to_owned();
            line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
            lines.push_back(line);
        }
        let over = lines.len().saturating_sub(LINES_MAX);
        lines.drain(..over);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.changed.notify_waiters();
    }
}

impl Tail {
    /// For one more stream.
    pub fn writer(self: &Rc<Self>) -> Writer {
        self.open.set(self.open.get() + 1);
        Writer(self.clone())
    }

    /// The process is ended for this.
    pub fn blame(&self, why: String) {
        self.blame.borrow_mut().get_or_insert(why);
    }

    /// Keeps nothing any more.
    pub fn forget(&self) {
        self.forgotten.set(true);
        *self.lines.borrow_mut() = VecDeque::new();
    }

    /// Says of a process that has ended why it never was ready.
    pub async fn obituary(&self, id: ProcessId, how: &str) -> String {
        let end = async {
            while self.open.get() > 0 {
                self.changed.notified().await;
            }
        };
        // What comes later is in the log alone.
        let _ = tokio::time::timeout(PATIENCE, end).await;
        let mut text = format!(
            "the application does not run: its process {} ended before it was ready",
            id.place
        );
        match &*self.blame.borrow() {
            Some(blame) => text.push_str(&format!(", since {blame}")),
            None => text.push_str(&format!(" ({how})")),
        }
        let lines = self.lines.borrow();
        if lines.is_empty() {
            text.push_str(", and printed nothing");
        } else {
            text.push_str("; its last lines:");
        }
        lines.iter().for_each(|line| text.push_str(&format!("\n  {line}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_of_both_streams_are_told_and_no_more_of_them() {
        let tail = Rc::new(Tail::default());
        let (mut out, mut err) = (tail.writer(), tail.writer());
        for number in 0..30 {
            out.write(format!("line {number}").as_bytes());
        }
        err.write("trace\n#0 {main}\n\n".as_bytes());
        drop((out, err));
        let id = ProcessId { place: 1, epoch: 1 };
        let text = tail.obituary(id, "exit status 255").await;
        assert!(text.starts_with(
            "the application does not run: its process 1 ended before it was ready (exit status \
             255); its last lines:\n  line 12\n"
        ), "{text}");
        assert!(text.ends_with("\n  line 29\n  trace\n  #0 {main}"), "{text}");
    }

    #[tokio::test]
    async fn a_process_that_was_ended_is_told_with_the_reason() {
        let tail = Rc::new(Tail::default());
        drop(tail.writer());
        tail.blame("it speaks version 9".to_owned());
        let text = tail.obituary(ProcessId { place: 0, epoch: 1 }, "signal SIGKILL").await;
        assert!(text.ends_with("ready, since it speaks version 9, and printed nothing"), "{text}");
    }
}
