//! What is said to a shadow: the process that shares a crash-proof worker's table of descriptors,
//! so that they stay open when the worker is killed.
//!
//! It says its pid once, and then gives away what it is asked for, by number. When the other end
//! of its socket is closed it leaves, and with it goes whatever was not given away. Each packet
//! begins with a byte that says what it is; numbers are little-endian words of 32 bits.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result, Subject};
use crate::sys::{packet, process};

const HELLO: u8 = b'S';
const ASK: u8 = b'?';
const ANSWER: u8 = b'!';

/// Descriptors in one question; a packet carries up to 128.
pub const ASKED_MAX: usize = 64;
const PACKET_BYTES_MAX: usize = 1 + 4 * packet::PACKET_FDS_MAX;
/// How long a shadow may take for an answer. It does nothing else.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The whole life of a shadow, until the other end is closed or makes no sense.
pub fn serve(socket: BorrowedFd<'_>) {
    let hello = message(HELLO, &[std::process::id()]);
    if packet::send(socket, &hello, &[]).is_err() {
        return;
    }
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        match packet::receive(socket, &mut buffer) {
            Ok(got) if got.len > 0 && buffer[0] == ASK => {
                let mut asked = numbers(&buffer[1..got.len]);
                asked.retain(|number| process::is_open(*number as RawFd));
                let raw: Vec<RawFd> = asked.iter().map(|number| *number as RawFd).collect();
                // What was not given in time is not waited for.
                if packet::send_numbers(socket, &message(ANSWER, &asked), &raw).is_err() {
                    return;
                }
            }
            Err(Errno::EAGAIN) => {
                let mut polled = [PollFd::new(socket, PollFlags::POLLIN)];
                // EINTR: the next receive tells.
                let _ = poll(&mut polled, PollTimeout::NONE);
            }
            _ => return,
        }
    }
}

/// The pid of a shadow, once it has said it.
pub fn pid(socket: BorrowedFd<'_>) -> Option<i32> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let got = packet::receive(socket, &mut buffer).ok().filter(|got| got.len > 0)?;
    let pid = *numbers(&buffer[1..got.len]).first()?;
    (buffer[0] == HELLO).then_some(pid as i32)
}

/// Asks a shadow for descriptors: those that it had, each with its number there.
///
/// # Errors
/// When it is gone, or does not answer in time.
pub fn ask(socket: BorrowedFd<'_>, wanted: &[RawFd]) -> Result<Vec<(RawFd, OwnedFd)>> {
    let subject = || "ask a shadow".to_owned();
    let wanted: Vec<u32> = wanted.iter().take(ASKED_MAX).map(|raw| *raw as u32).collect();
    packet::send(socket, &message(ASK, &wanted), &[]).subject(subject)?;
    let deadline = Instant::now() + ANSWER_TIME;
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        match packet::receive(socket, &mut buffer) {
            Ok(got) if got.len > 0 && buffer[0] == ANSWER => {
                let given = numbers(&buffer[1..got.len]).into_iter().map(|raw| raw as RawFd);
                return Ok(given.zip(got.fds).collect());
            }
            // Its greeting, which nobody had read.
            Ok(got) if got.len > 0 => {}
            Ok(_) => return Err(Error::new("the shadow is gone")),
            Err(Errno::EAGAIN) => wait(socket, deadline)?,
            Err(error) => return Err(error).subject(subject),
        }
    }
}

fn wait(socket: BorrowedFd<'_>, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    if left == 0 {
        return Err(Error::new(format!("the shadow at {} does not answer", socket.as_raw_fd())));
    }
    let mut polled = [PollFd::new(socket, PollFlags::POLLIN)];
    // EINTR: the next receive tells.
    let _ = poll(&mut polled, PollTimeout::try_from(left as i32).unwrap_or(PollTimeout::ZERO));
    Ok(())
}

fn message(what: u8, numbers: &[u32]) -> Vec<u8> {
    [what].into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words.filter_map(|word| word.try_into().ok().map(u32::from_le_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_says_who_it_is_gives_what_it_has_and_leaves() {
        let (ours, theirs) = packet::pair().unwrap();
        let (one, _other) = packet::pair().unwrap();
        let served = std::thread::spawn(move || serve(theirs.as_fd()));
        let raw = one.as_raw_fd();
        let given = ask(ours.as_fd(), &[i32::MAX, raw]).unwrap();
        assert_eq!(given.iter().map(|(raw, _)| *raw).collect::<Vec<_>>(), [raw]);
        drop(ours);
        served.join().unwrap();
    }

    #[test]
    fn its_pid_is_known_once_it_has_said_it() {
        let (ours, theirs) = packet::pair().unwrap();
        assert_eq!(pid(ours.as_fd()), None);
        let served = std::thread::spawn(move || serve(theirs.as_fd()));
        let mut polled = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE).unwrap();
        assert_eq!(pid(ours.as_fd()), Some(std::process::id() as i32));
        drop(ours);
        served.join().unwrap();
    }

    #[test]
    fn one_that_is_gone_is_an_error() {
        let (ours, theirs) = packet::pair().unwrap();
        drop(theirs);
        assert!(ask(ours.as_fd(), &[3]).is_err());
    }
}
