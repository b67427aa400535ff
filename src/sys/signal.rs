//! Signal handlers that only count.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts each arrival of `signal`.
pub fn count(signal: i32, count: Arc<AtomicUsize>) -> io::Result<()> {
    let handler = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    // SAFETY: adding to an atomic is async-signal-safe, and the counter lives as long as the
    // handler.
    unsafe { signal_hook::low_level::register(signal, handler) }.map(|_| ())
}

/// Ignores SIGPIPE: a peer that is gone is an error of the write, not the end of the process.
pub fn ignore_pipe() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no code.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
