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

/// Ignores SIGPIPE and SIGXFSZ: a peer that is gone, or a file that may not grow (`ulimit -f`), is
/// an error of the write, not the end of the process.
pub fn ignore_failed_writes() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for ignored in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    Ok(())
}
