//! Opening connections, many at a time.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use crate::fault::Fault;
use crate::target::Target;

/// A head longer than this is no answer to us.
const HEAD_MAX: usize = 16 << 10;

/// A connection that the server has accepted.
pub struct Opened {
    pub socket: Socket,
    /// What came after the head in the same read.
    pub rest: Vec<u8>,
    /// The server agreed to compress.
    pub deflate: bool,
    /// From the first packet to the answer.
    pub took: Duration,
}

/// How many, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Connections to open.
    pub count: usize,
    /// The number of the first of them, over all threads. `None`: they end as they come, so
    /// that ports are never short.
    pub first: Option<usize>,
    /// Handshakes under way at once.
    pub parallel: usize,
    /// The longest a handshake may take.
    pub patience: Duration,
}

struct Pending {
    socket: Socket,
    since: Instant,
    head: Vec<u8>,
    asked: bool,
}

/// Opens `plan.count` connections and gives each to `opened`, which says whether to go on.
pub fn open_all(
    target: &Target,
    plan: Plan,
    mut opened: impl FnMut(Opened) -> bool,
) -> Result<(), Fault> {
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let parallel = plan.parallel.clamp(1, plan.count.max(1));
    let mut places: Vec<Option<Pending>> = (0..parallel).map(|_| None).collect();
    let (mut started, mut done) = (0, 0);
    let mut start_in = |place: usize, places: &mut [Option<Pending>]| -> Result<(), Fault> {
        if started == plan.count {
            return Ok(());
        }
        places[place] =
            Some(start(target, plan.first.map_or(0, |first| first + started), place, &poll)?);
        started += 1;
        Ok(())
    };
    for place in 0..parallel {
        start_in(place, &mut places)?;
    }
    let mut events = vec![EpollEvent::empty(); parallel.min(1024)];
    while done < plan.count {
        let ready = wait(&poll, &mut events, plan.patience)?;
        if ready == 0 {
            return Err(stuck(target, &places, done, plan));
        }
        for event in &events[..ready] {
            let place = event.data() as usize;
            let Some(mut pending) = places[place].take() else { continue };
            match progress(target, &mut pending, place, &poll)? {
                None => places[place] = Some(pending),
                Some(answer) => {
                    // The poll holds the descriptor until it is closed or taken out.
                    poll.delete(&pending.socket)?;
                    done += 1;
                    if !opened(finish(target, pending, &answer)?) {
                        return Ok(());
                    }
                    start_in(place, &mut places)?;
                }
            }
        }
    }
    Ok(())
}

/// Waits, through interruptions.
pub fn wait(poll: &Epoll, events: &mut [EpollEvent], patience: Duration) -> Result<usize, Fault> {
    let millis = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
    loop {
        match poll.wait(events, EpollTimeout::from(millis)) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

fn start(target: &Target, nth: usize, place: usize, poll: &Epoll) -> Result<Pending, Fault> {
    let since = Instant::now();
    let socket = loop {
        match target.connect(nth) {
            Ok(socket) => break socket,
            // A unix socket with a full backlog has no way to wait.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if since.elapsed() > Duration::from_secs(5) {
                    return Err(cannot(target, &error));
                }
                std::thread::yield_now();
            }
            Err(error) => return Err(cannot(target, &error)),
        }
    };
    let mut pending = Pending { socket, since, head: Vec::new(), asked: false };
    // On loopback the connection mostly stands already, which saves a round.
    ask(target, &mut pending)?;
    let flags = if pending.asked { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
    poll.add(&pending.socket, EpollEvent::new(flags, place as u64))?;
    Ok(pending)
}

fn ask(target: &Target, pending: &mut Pending) -> Result<(), Fault> {
    match (&pending.socket).write(&target.request) {
        Ok(written) if written == target.request.len() => pending.asked = true,
        Ok(_) => return Err(Fault::usage("the request does not fit into a socket buffer")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(cannot(target, &error)),
    }
    Ok(())
}

/// One step of a handshake; the head when it is whole.
fn progress(
    target: &Target,
    pending: &mut Pending,
    place: usize,
    poll: &Epoll,
) -> Result<Option<Vec<u8>>, Fault> {
    if !pending.asked {
        if let Some(error) = pending.socket.take_error()? {
            return Err(cannot(target, &error));
        }
        ask(target, pending)?;
        if pending.asked {
            let mut reading = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
            poll.modify(&pending.socket, &mut reading)?;
        }
        return Ok(None);
    }
    let mut buffer = [0; 4096];
    match (&pending.socket).read(&mut buffer) {
        Ok(0) => return Err(refused(target, "closed without an answer")),
        Ok(read) => pending.head.extend_from_slice(&buffer[..read]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(refused(target, &format!("left at the handshake: {error}"))),
    }
    let whole = pending.head.windows(4).any(|end| end == b"\r\n\r\n");
    match whole {
        true => Ok(Some(std::mem::take(&mut pending.head))),
        false if pending.head.len() > HEAD_MAX => Err(refused(target, "sends an endless head")),
        false => Ok(None),
    }
}

fn finish(target: &Target, pending: Pending, answer: &[u8]) -> Result<Opened, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(answer) {
        Ok(httparse::Status::Complete(used)) => used,
        _ => return Err(refused(target, "does not answer in HTTP")),
    };
    let code = response.code.unwrap_or(0);
    if code != 101 {
        let body = String::from_utf8_lossy(&answer[used..]);
        let line = body.lines().next().unwrap_or_default();
        let reason = response.reason.unwrap_or_default();
        return Err(refused(target, format!("answers {code} {reason} {line}").trim_end()));
    }
    let value = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value)
    };
    if value("sec-websocket-accept") != Some(target.accept.as_bytes()) {
        return Err(refused(target, "answers with a wrong Sec-WebSocket-Accept"));
    }
    Ok(Opened {
        deflate: value("sec-websocket-extensions").is_some(),
        rest: answer[used..].to_vec(),
        took: pending.since.elapsed(),
        socket: pending.socket,
    })
}

fn cannot(target: &Target, error: &std::io::Error) -> Fault {
    let hint = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => ": is the server running, and is this its address?",
        Some(libc::EMFILE) => ": raise the limit of open files (ulimit -n)",
        Some(libc::EADDRNOTAVAIL) => ": out of local ports (ip_local_port_range)",
        _ => "",
    };
    Fault::server(format!("cannot connect to {}: {error}{hint}", target.name))
}

fn refused(target: &Target, what: &str) -> Fault {
    Fault::server(format!("{} {what}", target.name))
}

fn stuck(target: &Target, places: &[Option<Pending>], done: usize, plan: Plan) -> Fault {
    let waiting = places.iter().flatten().count();
    let (count, patience) = (plan.count, plan.patience.as_secs_f64());
    Fault::server(format!(
        "{}: no handshake made progress for {patience} s; {done} of {count} are open, \
         {waiting} under way",
        target.name
    ))
}
