//! Where lines go: descriptor 2, directly or through a queue.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::pread;

use super::line::LINE_BYTES_MAX;

/// Lines that may wait for the writer thread: with the longest lines 16 MiB.
const QUEUE_LINES_MAX: usize = 4096;

/// How long the writer thread stays when there is nothing to write. A second thread makes every
/// system call of the process dearer, by some 5 % of a handshake; to start one takes 50 µs.
const REST_AFTER: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 20 });

/// How long the writer thread gathers lines after a write: to wake the thread for each line costs
/// more than to format the line.
const GATHER: Duration = Duration::from_millis(5);

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
    let line = from_a_line_of_its_own(line.as_bytes());
    let written = nix::unistd::write(io::stderr().as_fd(), &line)?;
    CUT.store(written < line.len(), Ordering::Relaxed);
    if written < line.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// Whether our last line was cut short by a full disk.
static CUT: AtomicBool = AtomicBool::new(false);

/// The bytes with a LF before them where the log ends within a line, which a full disk has cut
/// short: one of ours or of another process. What follows must not be taken for its end.
fn from_a_line_of_its_own(bytes: &[u8]) -> Cow<'_, [u8]> {
    match CUT.load(Ordering::Relaxed) || ends_within_a_line() {
        true => Cow::Owned([b"\n", bytes].concat()),
        false => Cow::Borrowed(bytes),
    }
}

/// False also where descriptor 2 cannot be read, as a shell's `2>file` leaves it.
fn ends_within_a_line() -> bool {
    let stderr = io::stderr();
    let Ok(stat) = fstat(stderr.as_fd()) else { return false };
    let is_file = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    let mut last = [b'\n'];
    is_file
        && stat.st_size > 0
        && pread(stderr.as_fd(), &mut last, stat.st_size - 1) == Ok(1)
        && last != [b'\n']
}

fn poll_stderr(timeout: PollTimeout) -> io::Result<bool> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, timeout)?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)))
}

/// Writes all of `bytes` to descriptor 2 and waits where it must: for the writer thread and `say`,
/// and for no reactor.
pub fn write_stderr(bytes: &[u8]) -> io::Result<()> {
    let bytes = from_a_line_of_its_own(bytes);
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        match nix::unistd::write(io::stderr().as_fd(), bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                CUT.store(!bytes.is_empty(), Ordering::Relaxed);
            }
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

/// Hands lines to a thread that writes them. It is there while there are lines: in a process of
/// one thread a system call need not count who uses its descriptor.
pub struct Queued {
    queue: Sender<Job>,
    writer: Arc<Writer>,
}

enum Job {
    Line(String),
    /// Answers once everything before it is written.
    Flush(Sender<()>),
}

impl Queued {
    /// Gives lines to `write`, in a thread of their own, and tells of losses by `notice`.
    pub fn new(
        notice: Notice,
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Queued {
        let (queue, jobs) = bounded(QUEUE_LINES_MAX);
        let (runs, write) = (Mutex::new(None), Mutex::new(Box::new(write) as Box<_>));
        Queued {
            queue,
            writer: Arc::new(Writer { jobs, losses: Losses::new(notice), write, runs }),
        }
    }

    /// Sees to it that the thread runs, after something was queued. Where none can be started,
    /// what is queued waits for the next line.
    fn wake(&self) {
        let mut runs = lock(&self.writer.runs);
        if runs.is_none() {
            let writer = Arc::clone(&self.writer);
            let thread = thread::Builder::new().name("wsd: log".to_owned());
            *runs = thread.spawn(move || writer.run()).ok().map(|handle| handle.thread().clone());
        }
    }

    /// Ends the time in which the thread gathers.
    fn hurry(&self) {
        if let Some(thread) = &*lock(&self.writer.runs) {
            thread.unpark();
        }
    }
}

impl Sink for Queued {
    fn write(&self, line: String) {
        if self.queue.try_send(Job::Line(line)).is_err() {
            self.writer.losses.add(1);
        }
        self.wake();
    }

    fn flush(&self, deadline: Duration) -> bool {
        let (answer, written) = bounded(1);
        let start = std::time::Instant::now();
        if self.queue.send_timeout(Job::Flush(answer), deadline).is_err() {
            return false;
        }
        self.wake();
        self.hurry();
        written.recv_timeout(deadline.saturating_sub(start.elapsed())).is_ok()
    }

    fn dropped(&self) -> u64 {
        self.writer.losses.all.load(Ordering::Relaxed)
    }
}

/// The thread's side of the queue.
struct Writer {
    jobs: Receiver<Job>,
    losses: Losses,
    write: Mutex<Box<Write>>,
    /// The thread, while it runs.
    runs: Mutex<Option<Thread>>,
}

type Write = dyn FnMut(&[u8]) -> io::Result<()> + Send;

impl Writer {
    /// The thread: it ends once there was nothing to write for a while.
    fn run(&self) {
        let mut write = lock(&self.write);
        loop {
            if let Ok(job) = self.jobs.recv_timeout(REST_AFTER) {
                self.take(job, &mut **write);
                thread::park_timeout(GATHER);
                continue;
            }
            let mut runs = lock(&self.runs);
            // Whoever queues looks at `runs` afterwards, so no line is left behind.
            if self.jobs.is_empty() {
                *runs = None;
                return;
            }
        }
    }

    /// Writes all that waits, beginning with `job`.
    fn take(&self, job: Job, write: &mut Write) {
        let mut batch = String::new();
        let mut lines = 0;
        let mut next = Some(job);
        while let Some(job) = next {
            match job {
                Job::Line(line) => {
                    if batch.len() + line.len() > LINE_BYTES_MAX {
                        self.write(&mut batch, &mut lines, write);
                    }
                    batch.push_str(&line);
                    lines += 1;
                }
                Job::Flush(answer) => {
                    self.write(&mut batch, &mut lines, write);
                    let _ = answer.send(());
                }
            }
            next = self.jobs.try_recv().ok();
        }
        self.write(&mut batch, &mut lines, write);
    }

    /// Writes the batch at once, never more than a pipe takes whole: lines of several processes
    /// must not mix in it.
    fn write(&self, batch: &mut String, lines: &mut u64, write: &mut Write) {
        let (text, lines) = (std::mem::take(batch), std::mem::take(lines));
        if write(text.as_bytes()).is_err() {
            return self.losses.add(lines);
        }
        self.losses.tell(|notice| write(notice.as_bytes()));
    }
}

/// A panic while it was locked leaves nothing half done.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
        let queued = Queued::new(notice(), move |bytes| {
            if std::mem::take(&mut first) {
                entered_tx.send(()).unwrap();
                released.recv().unwrap();
            }
            copy.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        });
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
        let queued = Queued::new(notice(), move |bytes| {
            let mut state = copy.lock().unwrap();
            if state.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.1.push_str(std::str::from_utf8(bytes).unwrap());
            Ok(())
        });
        queued.write("lost\n".to_owned());
        assert!(queued.flush(LONG));
        written.lock().unwrap().0 = false;
        queued.write("kept\n".to_owned());
        assert!(queued.flush(LONG));
        assert_eq!(written.lock().unwrap().1, "kept\ndropped 1\n");
        assert_eq!(queued.dropped(), 1);
    }

    #[test]
    fn a_line_is_written_whether_the_writer_is_there_rests_or_is_about_to() {
        let written = Arc::new(AtomicU64::new(0));
        let copy = Arc::clone(&written);
        let queued = Queued::new(notice(), move |bytes| {
            copy.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(())
        });
        for line in 1..=200 {
            queued.write("line\n".to_owned());
            assert!(queued.flush(LONG));
            assert_eq!(written.load(Ordering::Relaxed), line * 5);
            if line % 4 == 0 {
                while lock(&queued.writer.runs).is_some() {
                    thread::yield_now();
                }
            } else if line % 2 == 0 {
                thread::park_timeout(REST_AFTER);
            }
        }
    }
}
