//! Signals, as events: a handler only notes that one came, and the loop asks.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::error::{Result, Subject};

/// What a signal asks for. `docs/signals.md` is the same table in prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// CHLD: a child changed.
    Reap,
    /// QUIT: end at once.
    Kill,
    /// INT: 1001 to all and end.
    Quick,
    /// TERM: end gracefully.
    Graceful,
    /// HUP, USR1: reload.
    Reload,
    /// USR2: upgrade.
    Upgrade,
    /// RTMIN: reopen the log.
    Reopen,
}

/// In the order in which the master acts on them when several came at once.
const ORDER: [Request; 7] = [
    Request::Reap,
    Request::Kill,
    Request::Quick,
    Request::Graceful,
    Request::Reload,
    Request::Upgrade,
    Request::Reopen,
];

/// The signals of this process.
pub struct Signals {
    counts: Vec<(Request, Arc<AtomicUsize>)>,
    wake: UnixStream,
}

impl Signals {
    /// Takes the signals over from their default actions.
    pub fn install() -> Result<Signals> {
        let (wake, waker) = UnixStream::pair().subject(|| "pair for signals".to_owned())?;
        wake.set_nonblocking(true).subject(|| "pair for signals".to_owned())?;
        let counts: Vec<_> = ORDER.map(|request| (request, Arc::default())).into();
        let rtmin = libc::SIGRTMIN();
        for (signal, request) in [
            (SIGCHLD, Request::Reap),
            (SIGQUIT, Request::Kill),
            (SIGINT, Request::Quick),
            (SIGTERM, Request::Graceful),
            (SIGHUP, Request::Reload),
            (SIGUSR1, Request::Reload),
            (SIGUSR2, Request::Upgrade),
            (rtmin, Request::Reopen),
        ] {
            let subject = || format!("handle signal {signal}");
            let count: &Arc<AtomicUsize> = &counts[request as usize].1;
            crate::sys::signal::count(signal, Arc::clone(count)).subject(subject)?;
            let waker = waker.try_clone().subject(subject)?;
            signal_hook::low_level::pipe::register(signal, waker).subject(subject)?;
        }
        crate::sys::signal::ignore_failed_writes().subject(|| "ignore SIGPIPE".to_owned())?;
        Ok(Signals { counts, wake })
    }

    /// Becomes readable when a signal came.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What came since the last call, in the order in which to act, and how often.
    pub fn take(&mut self) -> Vec<(Request, usize)> {
        let mut sink = [0; 64];
        while matches!(self.wake.read(&mut sink), Ok(read) if read > 0) {}
        let counts = self.counts.iter();
        counts
            .map(|(request, count)| (*request, count.swap(0, Ordering::SeqCst)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
