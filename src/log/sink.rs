//! Where lines go: descriptor 2, directly or through a queue.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::LINE_BYTES_MAX;
use crate::error::{Result, Subject};

/// Lines that may wait for the writer thread: with the longest lines 16 MiB.
const QUEUE_LINES_MAX: usize = 4096;

/// How long the writer thread waits for room on a descriptor that does not block.
const ROOM_WAIT_MS: u16 = 1000;

/// Takes lines. Never blocks on the world and never fails: what cannot be written is counted.
pub trait Sink: Send + Sync {
    /// Takes a line with its LF.
    fn write(&self, line: String);

    /// Waits until what was taken is written; false where `deadline` passed first.
    fn flush(&self, deadline: Duration) -> bool;

    /// Lines lost so far.
    fn dropped(&self) -> u64;
}

/// Makes the line that tells how many lines were dropped.
pub type Notice = Box<dyn Fn(u64) -> String + Send + Sync>;

/// Lines lost, in all and since it was last told.
struct Losses {
    all: AtomicU64,
    untold: AtomicU64,
    notice: Notice,
}

impl Losses {
    fn new(notice: Notice) -> Losses {
        Losses { all: AtomicU64::new(0), untold: AtomicU64::new(0), notice }
    }

    fn add(&self, lines: u64) {
        self.all.fetch_add(lines, Ordering::Relaxed);
        self.untold.fetch_add(lines, Ordering::Relaxed);
    }

    /// Writes a line about what was lost since the last one, where anything was.
    fn tell(&self, write: impl FnOnce(&str) -> io::Result<()>) {
        let lines = self.untold.swap(0, Ordering::Relaxed);
        if lines > 0 && write(&(self.notice)(lines)).is_err() {
            self.untold.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// Writes at once, where there is room at once.
pub struct Direct {
    losses: Losses,
}

impl Direct {
    pub fn new(notice: Notice) -> Direct {
        Direct { losses: Losses::new(notice) }
    }
}

impl Sink for Direct {
    fn write(&self, line: String) {
        self.losses.tell(write_now);
        if write_now(&line).is_err() {
            self.losses.add(1);
        }
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }

    fn dropped(&self) -> u64 {
        self.losses.all.load(Ordering::Relaxed)
    }
}

/// Writes a line to descriptor 2 if that does not block. A pipe that polls writable takes
/// PIPE_BUF bytes whole, and no line is longer.
fn write_now(line: &str) -> io::Result<()> {
    if !poll_stderr(PollTimeout::ZERO)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let stderr = io::stderr();
    let written = nix::unistd::write(stderr.as_fd(), line.as_bytes())?;
    if written < line.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

fn poll_stderr(timeout: PollTimeout) -> io::Result<bool> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, timeout)?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)))
}

/// Writes all of `bytes` to descriptor 2 and waits where it must; for the writer thread alone.
pub fn write_stderr(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(io::stderr().as_fd(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) if poll_stderr(ROOM_WAIT_MS.into())? => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether descriptor 2 is the stream that journald gave us (systemd.exec(5), `JOURNAL_STREAM`).
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Hands lines to a thread that writes them.
pub struct Queued {
    queue: Sender<Job>,
    losses: Arc<Losses>,
}

enum Job {
    Line(String),
    /// Answers once everything before it is written.
    Flush(Sender<()>),
}

impl Queued {
    /// Starts the thread, which gives its bytes to `write` and tells of losses by `notice`.
    pub fn start(
        notice: Notice,
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Queued> {
        let (queue, jobs) = bounded(QUEUE_LINES_MAX);
        let losses = Arc::new(Losses::new(notice));
        let writer = Writer { jobs, losses: Arc::clone(&losses), write };
        thread::Builder::new()
            .name("wsd: log".to_owned())
            .spawn(move || writer.run())
            .subject(|| "start the thread that writes the log".to_owned())?;
        Ok(Queued { queue, losses })
    }
}

impl Sink for Queued {
    fn write(&self, line: String) {
        if self.queue.try_send(Job::Line(line)).is_err() {
            self.losses.add(1);
        }
    }

    fn flush(&self, deadline: Duration) -> bool {
        let (answer, written) = bounded(1);
        let start = std::time::Instant::now();
        self.queue.send_timeout(Job::Flush(answer), deadline).is_ok()
            && written.recv_timeout(deadline.saturating_sub(start.elapsed())).is_ok()
    }

    fn dropped(&self) -> u64 {
        self.losses.all.load(Ordering::Relaxed)
    }
}

/// The thread's side of the queue.
struct Writer<W> {
    jobs: Receiver<Job>,
    losses: Arc<Losses>,
    write: W,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> Writer<W> {
    fn run(mut self) {
        let mut batch = String::new();
        let mut lines = 0;
        while let Ok(job) = self.jobs.recv() {
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Line(line) => {
                        if batch.len() + line.len() > LINE_BYTES_MAX {
                            self.write(&mut batch, &mut lines);
                        }
                        batch.push_str(&line);
                        lines += 1;
                    }
                    Job::Flush(answer) => {
                        self.write(&mut batch, &mut lines);
                        let _ = answer.send(());
                    }
                }
                next = self.jobs.try_recv().ok();
            }
            self.write(&mut batch, &mut lines);
        }
    }

    /// Writes the batch at once, never more than a pipe takes whole: lines of several processes
    /// must not mix in it.
    fn write(&mut self, batch: &mut String, lines: &mut u64) {
        let (text, lines) = (std::mem::take(batch), std::mem::take(lines));
        if (self.write)(text.as_bytes()).is_err() {
            return self.losses.add(lines);
        }
        self.losses.tell(|notice| (self.write)(notice.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn notice() -> Notice {
        Box::new(|lines| format!("dropped {lines}\n"))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_writer_that_hangs_costs_lines_but_never_the_caller() {
        let (entered_tx, entered) = bounded(0);
        let (release, released) = bounded::<()>(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&written);
        let mut first = true;
        let queued = Queued::start(notice(), move |bytes| {
            if std::mem::take(&mut first) {
                entered_tx.send(()).unwrap();
                released.recv().unwrap();
            }
            copy.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        queued.write("first\n".to_owned());
        entered.recv().unwrap();
        for _ in 0..QUEUE_LINES_MAX + 5 {
            queued.write("line\n".to_owned());
        }
        assert_eq!(queued.dropped(), 5);
        assert!(!queued.flush(Duration::from_millis(1)));
        release.send(()).unwrap();
        assert!(queued.flush(LONG));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("line\n").count(), QUEUE_LINES_MAX);
        assert!(text.contains("dropped 5\n"));
    }

    #[test]
    fn a_full_disk_is_counted_and_told_once_there_is_room() {
        let written = Arc::new(Mutex::new((true, String::new())));
        let copy = Arc::clone(&written);
        let queued = Queued::start(notice(), move |bytes| {
            let mut state = copy.lock().unwrap();
            if state.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.1.push_str(std::str::from_utf8(bytes).unwrap());
            Ok(())
        })
        .unwrap();
        queued.write("lost\n".to_owned());
        assert!(queued.flush(LONG));
        written.lock().unwrap().0 = false;
        queued.write("kept\n".to_owned());
        assert!(queued.flush(LONG));
        assert_eq!(written.lock().unwrap().1, "kept\ndropped 1\n");
        assert_eq!(queued.dropped(), 1);
    }
}
