//! Who ends with whom: children before their master when memory runs out, and what application
//! processes have started with the server.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Result, Subject};

/// How much more willingly than its master the kernel ends a child when memory runs out, in
/// thousandths of the machine's memory (`oom_score_adj`, proc(5)).
const EXPENDABLE: i32 = 100;

/// Has the kernel end this process before its master when memory runs out. Call it before rights
/// are given up, after which the file is root's.
pub fn before_the_master() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let raised = fs::read_to_string(FILE).ok().and_then(|text| {
        let masters: i32 = text.trim().parse().ok()?;
        fs::write(FILE, (masters + EXPENDABLE).min(1000).to_string()).ok()
    });
    // A kernel or a container may not have it; then the fattest goes first, which is no master.
    if raised.is_none() {
        tracing::debug!("{FILE} stays as it was");
    }
}

/// Adopts what processes of ours leave running when they end, so that [`end_strays`] finds it.
/// Outlives an exec.
pub fn adopt_strays() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).subject(|| "PR_SET_CHILD_SUBREAPER".to_owned())
}

/// Kills every child there still is and whatever they leave behind, for at most a second. Only
/// where none of them is anybody's.
pub fn end_strays() {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children: Vec<Pid> =
            children.split(' ').filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
        if children.is_empty() || Instant::now() >= deadline {
            return;
        }
        for child in children {
            // Ours and not reaped, so its pid is its own; it may have died by itself.
            let _ = kill(child, Signal::SIGKILL);
        }
        // Its own children become ours as it dies.
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {}
        std::thread::sleep(Duration::from_millis(1));
    }
}
