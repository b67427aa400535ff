//! The loop of one thread: open connections in, messages counted, what is owed written out.
//!
//! One read per readiness into a buffer that all connections share, one write for all that a
//! read has called for, and nothing allocated per message.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::control::{Control, Phase};
use crate::fault::Fault;
use crate::opener::Opened;
use crate::stats::Stats;
use crate::wire::{Expect, Reader, Template, Wrong};

const BUFFER_BYTES: usize = 256 << 10;
const EVENTS: usize = 1024;
/// The epoll token of the timer and of the waker, beside the clients' indices.
const TIMER: u64 = u64::MAX;
/// The longest that a thread looks away from the phase, in milliseconds.
const TURN_MILLIS: u8 = 20;
/// Waits shorter than this are spun through: setting the timer takes as long.
const SPIN_NANOS: u64 = 20_000;

/// What decides when to send. All times are nanoseconds since the run's start.
pub trait Work {
    /// Messages came whole on `client`. Returns how many to send it now.
    fn arrived(&mut self, client: usize, count: u64, now: u64, stats: &mut Stats) -> u64;

    /// Once a turn: pushes (client, messages) to send, returns when it wants the next turn.
    fn tick(&mut self, now: u64, send: &mut Vec<(usize, u64)>) -> Option<u64>;

    /// Nothing is left to do.
    fn is_done(&self) -> bool {
        false
    }

    /// The time is up. True: nothing is awaited any more.
    fn may_stop(&mut self, _now: u64) -> bool {
        true
    }

    /// A kept message (see [`Reader::keep`]) of a client whose words matter.
    fn said(&mut self, _client: usize, _text: &[u8]) {}
}

/// One connection.
pub struct Client {
    pub opened: Opened,
    pub reader: Reader,
    /// Bytes that are still to be written, and how far into a message the next one is.
    owed: usize,
    phase: usize,
    waits_to_write: bool,
    gone: bool,
}

impl Client {
    pub fn new(opened: Opened) -> Client {
        let reader = Reader::default();
        Client { opened, reader, owed: 0, phase: 0, waits_to_write: false, gone: false }
    }
}

/// The connections of one thread.
pub struct Traffic<'a> {
    poll: Epoll,
    timer: TimerFd,
    clients: Vec<Client>,
    template: &'a Template,
    expect: Expect<'a>,
    control: &'a Control,
    thread: usize,
    pub stats: Stats,
}

impl<'a> Traffic<'a> {
    pub fn new(
        clients: Vec<Client>,
        template: &'a Template,
        expect: Expect<'a>,
        control: &'a Control,
        thread: usize,
    ) -> Result<Traffic<'a>, Fault> {
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        poll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        if let Some(waker) = control.waker(thread) {
            poll.add(waker, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER))?;
        }
        for (index, client) in clients.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            poll.add(&client.opened.socket, event)?;
        }
        let stats = Stats::default();
        Ok(Traffic { poll, timer, clients, template, expect, control, thread, stats })
    }

    /// Gives the connections back, for another run.
    pub fn into_clients(self) -> Vec<Client> {
        self.clients
    }

    /// Runs as [`run`](Self::run) does, and gives what was seen.
    pub fn work(mut self, work: &mut impl Work) -> Result<Stats, Fault> {
        self.run(work)?;
        Ok(self.stats)
    }

    /// Runs until the phase says stop, the work is done or nobody is left.
    pub fn run(&mut self, work: &mut impl Work) -> Result<(), Fault> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut send = Vec::new();
        for index in 0..self.clients.len() {
            let rest = std::mem::take(&mut self.clients[index].opened.rest);
            if !rest.is_empty() {
                self.take_in(index, &rest, self.control.now(), work);
            }
        }
        loop {
            match self.control.phase() {
                Phase::Stop if work.may_stop(self.control.now()) => break,
                Phase::Stop => self.stats.recording = false,
                Phase::Measure => self.stats.recording = true,
                Phase::Warm => {}
            }
            let now = self.control.now();
            let next = work.tick(now, &mut send);
            for (index, count) in send.drain(..) {
                self.owe(index, count);
            }
            if work.is_done() || self.stats.lost() == self.clients.len() as u64 {
                break;
            }
            let ready = self.wait(&mut events, now, next)?;
            for event in &events[..ready] {
                match event.data() {
                    TIMER => {}
                    index => self.serve(index as usize, event.events(), &mut buffer, work),
                }
            }
            self.control.report(self.thread, self.stats.messages());
        }
        self.control.finished();
        Ok(())
    }

    fn wait(
        &mut self,
        events: &mut [EpollEvent],
        now: u64,
        next: Option<u64>,
    ) -> Result<usize, Fault> {
        let timeout = match next.map(|next| next.saturating_sub(now)) {
            None => EpollTimeout::from(TURN_MILLIS),
            Some(0..SPIN_NANOS) => EpollTimeout::ZERO,
            Some(nanos) => {
                let after = TimeSpec::from_duration(Duration::from_nanos(nanos));
                self.timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?;
                EpollTimeout::from(TURN_MILLIS)
            }
        };
        match self.poll.wait(events, timeout) {
            Err(nix::errno::Errno::EINTR) => Ok(0),
            other => Ok(other?),
        }
    }

    fn serve(&mut self, index: usize, flags: EpollFlags, buffer: &mut [u8], work: &mut impl Work) {
        let Some(client) = self.clients.get_mut(index).filter(|client| !client.gone) else {
            return;
        };
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(index);
            if flags == EpollFlags::EPOLLOUT {
                return;
            }
            return self.serve(index, flags - EpollFlags::EPOLLOUT, buffer, work);
        }
        match (&client.opened.socket).read(buffer) {
            Ok(0) => self.lose(index, "the server closed without a close frame".to_owned()),
            Ok(read) => {
                let now = self.control.now();
                self.take_in(index, &buffer[..read], now, work);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.lose(index, error.to_string()),
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8], now: u64, work: &mut impl Work) {
        let client = &mut self.clients[index];
        match client.reader.feed(bytes, self.expect) {
            Ok(0) => {}
            Ok(count) => {
                if let Some(text) = &client.reader.keep {
                    work.said(index, text);
                }
                let more = work.arrived(index, count, now, &mut self.stats);
                self.owe(index, more);
            }
            Err(wrong) => return self.lose(index, describe(&wrong)),
        }
        if !self.clients[index].reader.answers.is_empty() {
            self.flush(index);
        }
    }

    fn owe(&mut self, index: usize, count: u64) {
        if count > 0 {
            let bytes = usize::try_from(count).unwrap_or(usize::MAX);
            self.clients[index].owed += bytes.saturating_mul(self.template.period());
            self.flush(index);
        }
    }

    /// Writes what is owed, until it is gone or the socket is full.
    fn flush(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.gone {
            return;
        }
        let outcome = write_owed(client, self.template);
        let wants = matches!(outcome, Ok(false));
        if let Err(error) = outcome {
            return self.lose(index, error.to_string());
        }
        if wants != client.waits_to_write {
            client.waits_to_write = wants;
            let out = if wants { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, index as u64);
            if let Err(errno) = self.poll.modify(&client.opened.socket, &mut event) {
                self.lose(index, errno.to_string());
            }
        }
    }

    fn lose(&mut self, index: usize, why: String) {
        let client = &mut self.clients[index];
        client.gone = true;
        // It may have been refused only because it is closed already.
        let _ = self.poll.delete(&client.opened.socket);
        let _ = client.opened.socket.shutdown(std::net::Shutdown::Both);
        *self.stats.errors.entry(why).or_default() += 1;
    }
}

/// True: all is written.
fn write_owed(client: &mut Client, template: &Template) -> std::io::Result<bool> {
    let mut socket = &client.opened.socket;
    loop {
        // What the server asked for goes between two messages, never into one.
        let answers = &mut client.reader.answers;
        let between = client.phase == 0 && !answers.is_empty();
        let bytes = match between {
            true => &answers[..],
            false => template.slice(client.phase, client.owed),
        };
        if bytes.is_empty() {
            return Ok(true);
        }
        match socket.write(bytes) {
            Ok(written) if between => {
                answers.drain(..written);
            }
            Ok(written) => {
                client.owed -= written;
                client.phase = (client.phase + written) % template.period();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// One line for what went wrong.
pub fn describe(wrong: &Wrong) -> String {
    match wrong {
        Wrong::Closed(code, reason) if reason.is_empty() => format!("the server closed: {code}"),
        Wrong::Closed(code, reason) => format!("the server closed: {code} {reason:?}"),
        Wrong::Protocol(what) => format!("the server broke the protocol: {what}"),
        Wrong::Answer { want, got } if *want as u64 == *got => {
            "the answer is not what was sent, so this is no echo (try --any-reply)".to_owned()
        }
        Wrong::Answer { want, got } => {
            format!("the answer has {got} bytes, not {want}, so this is no echo (try --any-reply)")
        }
    }
}

/// Errors by what they were.
pub type Errors = BTreeMap<String, u64>;
