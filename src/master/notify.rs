//! What systemd is told (sd_notify(3)). Nothing happens where no `NOTIFY_SOCKET` is set.

use sd_notify::NotifyState;

/// Every slot serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload or upgrade began.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The server ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The master and everyone below it is alive.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
