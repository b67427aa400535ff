//! Named points at which a test has this process die or stop, in builds with debug assertions
//! alone: a release build has none.

/// This process has come to a point. The file that TEST_POINT names may say `NAME kill` or
/// `NAME stop`; the first process that finds its point there takes the file away and does so.
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use nix::sys::signal::{Signal, raise};
    let Some(path) = std::env::var_os("TEST_POINT") else { return };
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let Some(signal) = text.strip_prefix(name).and_then(|rest| match rest {
        " kill" => Some(Signal::SIGKILL),
        " stop" => Some(Signal::SIGSTOP),
        _ => None,
    }) else {
        return;
    };
    if std::fs::remove_file(path).is_ok() {
        // It cannot fail: the signal is one, and this process its own.
        let _ = raise(signal);
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reached(_: &str) {}
